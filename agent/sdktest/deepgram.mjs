// "deepgram.mjs URL" has a call with a voice agent by Deepgram's own SDK, and tells what happens, a line of JSON
// each. The other arguments are milliseconds of quiet and loud, in turn.
import { DeepgramClient } from "@deepgram/sdk";

const say = (o) => console.log(JSON.stringify(o));
const url = process.argv[2];
const client = new DeepgramClient({ apiKey: "sk-1", environment: { base: url, production: url, agent: url } });
const socket = await client.agent.v1.connect();
let bytes = 0, applied;
const ready = new Promise((r) => { applied = r; });
socket.on("message", (m) => {
  if (m instanceof Blob || m.size) { bytes += m.size; return; }
  switch (m.type) {
    case "Welcome":
      socket.sendSettings({
        type: "Settings",
        audio: { input: { encoding: "mulaw", sample_rate: 8000 }, output: { encoding: "mulaw", sample_rate: 8000, container: "none" } },
        agent: { think: { provider: { type: "open_ai", model: "m" }, functions: [{ name: "lookup", description: "x", parameters: { type: "object", properties: {} } }] }, greeting: "Hi." },
      });
      break;
    case "SettingsApplied": applied(); break;
    case "UserStartedSpeaking": say({ event: "interrupted", bytes }); break;
    case "FunctionCallRequest":
      for (const f of m.functions) {
        say({ event: "tool", name: f.name, result: JSON.parse(f.arguments).what });
        socket.sendFunctionCallResponse({ type: "FunctionCallResponse", id: f.id, name: f.name, content: "ok" });
      }
      break;
    case "Error": say({ event: "error", error: m.description }); break;
  }
});
socket.on("error", (e) => say({ event: "error", error: String(e.message) }));
socket.connect();
await socket.waitForOpen();
await ready;
const parts = process.argv.slice(3).map(Number);
for (let p = 0; p < parts.length; p++) {
  for (let ms = 0; ms < parts[p]; ms += 20) {
    const b = new Uint8Array(160).fill(0xff);
    if (p % 2 === 1) for (let i = 0; i < b.length; i++) b[i] = i & 4 ? 0x90 : 0x10;
    socket.sendMedia(b);
    await new Promise((r) => setTimeout(r, 2));
  }
}
await new Promise((r) => setTimeout(r, 300));
say({ event: "end", bytes });
process.exit(0);
