// Checks what is said to and by a model of OpenAI's Realtime API: "realtime.mjs check" reads lines of
// {side, message} and answers each that OpenAI's own SDK does not take; "realtime.mjs talk URL" has a call
// with the SDK's RealtimeSession, and tells what happens, a line of JSON each.
import readline from "node:readline";
import { realtimeClientEventSchema, realtimeServerEventSchema } from "./node_modules/@openai/agents-realtime/dist/openaiRealtimeEvents.mjs";

const say = (o) => console.log(JSON.stringify(o));

async function check() {
  let n = 0;
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { side, message } = JSON.parse(line);
    const schema = side === "client" ? realtimeClientEventSchema : realtimeServerEventSchema;
    const r = schema.safeParse(message);
    n++;
    if (!r.success) say({ event: "refused", side, message, why: r.error.issues });
  }
  say({ event: "checked", n });
}

async function talk(url) {
  const { RealtimeAgent, RealtimeSession, tool } = await import("@openai/agents/realtime");
  const { z } = await import("zod");
  const agent = new RealtimeAgent({
    name: "test", instructions: "Be brief.",
    tools: [tool({ name: "lookup", description: "Looks up.", parameters: z.object({ what: z.string() }), execute: async ({ what }) => "found " + what })],
  });
  const session = new RealtimeSession(agent, {
    transport: "websocket", model: "gpt-realtime-2.1",
    config: { audio: { input: { format: { type: "audio/pcm", rate: 24000 } }, output: { format: { type: "audio/pcm", rate: 24000 } } } },
  });
  let bytes = 0;
  session.on("audio", (e) => { bytes += e.data.byteLength; });
  session.on("audio_interrupted", () => say({ event: "interrupted", bytes }));
  session.on("agent_tool_end", (_c, _a, t, result) => say({ event: "tool", name: t.name, result: String(result) }));
  session.on("error", (e) => say({ event: "error", error: JSON.stringify(e, Object.getOwnPropertyNames(e.error ?? e)) }));
  await session.connect({ apiKey: "sk-1", url });
  say({ event: "connected" });
  const frame = (loud) => {
    const pcm = new Int16Array(480);
    if (loud) for (let i = 0; i < pcm.length; i++) pcm[i] = 8000 * Math.sin(i / 8);
    return pcm.buffer;
  };
  const parts = process.argv.slice(4).map(Number); // milliseconds of quiet and loud, in turn
  for (let p = 0; p < parts.length; p++) {
    for (let ms = 0; ms < parts[p]; ms += 20) {
      session.sendAudio(frame(p % 2 === 1));
      await new Promise((r) => setTimeout(r, 2));
    }
  }
  await new Promise((r) => setTimeout(r, 300));
  say({ event: "end", bytes });
  session.close();
  process.exit(0);
}

if (process.argv[2] === "check") await check();
else await talk(process.argv[3]);
