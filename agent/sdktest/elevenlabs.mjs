// "elevenlabs.mjs URL" has a call with an agent by ElevenLabs' own SDK, and tells what happens, a line of JSON each.
// The other arguments are milliseconds of quiet and loud, in turn.
import { createConnection } from "@elevenlabs/client";

const say = (o) => console.log(JSON.stringify(o));
const connection = await createConnection({ signedUrl: process.argv[2], connectionType: "websocket" });
let bytes = 0;
connection.onMessage((m) => {
  switch (m.type) {
    case "audio": bytes += m.audio_event.audio_base_64.length; break;
    case "ping": connection.sendMessage({ type: "pong", event_id: m.ping_event.event_id }); break;
    case "interruption": say({ event: "interrupted", bytes }); break;
    case "client_tool_call":
      say({ event: "tool", name: m.client_tool_call.tool_name, result: m.client_tool_call.parameters.what });
      connection.sendMessage({ type: "client_tool_result", tool_call_id: m.client_tool_call.tool_call_id, result: "ok", is_error: false });
      break;
    case "error": say({ event: "error", error: m.error_event.message }); break;
  }
});
connection.onDisconnect((d) => say({ event: "closed", reason: d.reason }));
const parts = process.argv.slice(3).map(Number);
for (let p = 0; p < parts.length; p++) {
  for (let ms = 0; ms < parts[p]; ms += 20) {
    const b = new Uint8Array(160).fill(0xff);
    if (p % 2 === 1) for (let i = 0; i < b.length; i++) b[i] = i & 4 ? 0x90 : 0x10;
    connection.sendMessage({ user_audio_chunk: Buffer.from(b).toString("base64") });
    await new Promise((r) => setTimeout(r, 2));
  }
}
await new Promise((r) => setTimeout(r, 300));
say({ event: "end", bytes });
process.exit(0);
