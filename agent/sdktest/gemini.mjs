// "gemini.mjs URL" has a call with a model of the Live API by Google's own SDK, and tells what happens, a line of
// JSON each. The other arguments are milliseconds of quiet and loud, in turn.
import { GoogleGenAI, Modality } from "@google/genai";

const say = (o) => console.log(JSON.stringify(o));
const ai = new GoogleGenAI({ apiKey: "sk-1", httpOptions: { baseUrl: process.argv[2] } });
let bytes = 0, ready;
const setUp = new Promise((r) => { ready = r; });
const session = await ai.live.connect({
  model: "gemini-3.8-live",
  config: {
    responseModalities: [Modality.AUDIO], inputAudioTranscription: {}, outputAudioTranscription: {},
    tools: [{ functionDeclarations: [{ name: "lookup", description: "x", parameters: { type: "OBJECT", properties: { what: { type: "STRING" } } } }] }],
  },
  callbacks: {
    onmessage: (m) => {
      if (m.setupComplete) ready();
      bytes += (m.data ?? "").length;
      if (m.serverContent?.interrupted) say({ event: "interrupted", bytes });
      if (m.serverContent?.inputTranscription) say({ event: "caller", text: m.serverContent.inputTranscription.text });
      for (const f of m.toolCall?.functionCalls ?? []) {
        say({ event: "tool", name: f.name, result: f.args.what });
        session.sendToolResponse({ functionResponses: [{ id: f.id, name: f.name, response: { output: "ok" } }] });
      }
    },
    onerror: (e) => say({ event: "error", error: String(e.message) }),
    onclose: (e) => say({ event: "closed", code: e.code, reason: e.reason }),
  },
});
await setUp;
session.sendClientContent({ turns: [{ role: "user", parts: [{ text: "Greet the caller." }] }], turnComplete: true });
const frame = (loud) => {
  const pcm = new Int16Array(320);
  if (loud) for (let i = 0; i < pcm.length; i++) pcm[i] = 8000 * Math.sin(i / 8);
  return Buffer.from(pcm.buffer).toString("base64");
};
const parts = process.argv.slice(3).map(Number);
for (let p = 0; p < parts.length; p++) {
  for (let ms = 0; ms < parts[p]; ms += 20) {
    session.sendRealtimeInput({ audio: { mimeType: "audio/pcm;rate=16000", data: frame(p % 2 === 1) } });
    await new Promise((r) => setTimeout(r, 2));
  }
}
await new Promise((r) => setTimeout(r, 300));
say({ event: "end", bytes });
process.exit(0);
