// An agent server as the documents of OpenAI's Agents SDK show one for Twilio, and a stand-in for the
// model's own socket, which answers 6 s at once and is interrupted so many milliseconds later. What
// happens is printed, a JSON object a line: how much the SDK takes for heard is in "truncate".
import { WebSocketServer } from 'ws';
import { RealtimeAgent, RealtimeSession } from '@openai/agents/realtime';
import { TwilioRealtimeTransportLayer } from '@openai/agents-extensions';

const at = Number(process.argv[2] ?? 2000);
const say = (o) => process.stdout.write(JSON.stringify(o) + '\n');
const response = { id: 'r1', object: 'realtime.response', output: [] };
const part = { response_id: 'r1', item_id: 'item_1', output_index: 0, content_index: 0 };
const model = new WebSocketServer({ port: 0, host: '127.0.0.1' });
model.on('connection', (ws) => {
  const send = (o) => ws.send(JSON.stringify({ event_id: 'e' + Math.random(), ...o }));
  send({ type: 'session.created', session: { type: 'realtime', id: 's1', object: 'realtime.session' } });
  ws.on('message', (data) => {
    const m = JSON.parse(data);
    if (m.type === 'session.update') {
      send({ type: 'session.updated', session: { ...m.session, id: 's1', object: 'realtime.session' } });
      if (ws.began) return;
      ws.began = true;
      setTimeout(() => {
        say({ event: 'answer' });
        send({ type: 'response.created', response: { ...response, status: 'in_progress' } });
        send({
          type: 'response.output_item.added', response_id: 'r1', output_index: 0,
          item: { id: 'item_1', type: 'message', role: 'assistant', status: 'in_progress', content: [] },
        });
        const tone = Buffer.alloc(800);
        for (let i = 0; i < 800; i++) tone[i] = i % 8 < 4 ? 0x20 : 0xa0;
        for (let i = 0; i < 60; i++) send({ type: 'response.output_audio.delta', ...part, delta: tone.toString('base64') });
        send({ type: 'response.output_audio.done', ...part });
        send({ type: 'response.done', response: { ...response, status: 'completed' } });
        setTimeout(() => {
          say({ event: 'interrupt' });
          send({ type: 'input_audio_buffer.speech_started', item_id: 'item_2', audio_start_ms: 0 });
        }, at);
      }, 700);
    }
    if (m.type === 'conversation.item.truncate') {
      say({ event: 'truncate', item: m.item_id, audio_end_ms: m.audio_end_ms });
    }
  });
});
const phone = new WebSocketServer({ port: 0, host: '127.0.0.1' });
phone.on('connection', async (twilioWebSocket) => {
  const transport = new TwilioRealtimeTransportLayer({ twilioWebSocket });
  const format = { type: 'audio/pcmu' };
  const session = new RealtimeSession(new RealtimeAgent({ name: 'a', instructions: 'x' }), {
    transport, model: 'gpt-realtime', config: { audio: { input: { format }, output: { format } } },
  });
  session.on('error', (e) => say({ event: 'error', error: String(e?.error?.message ?? e?.error ?? e) }));
  transport.on('error', (e) => say({ event: 'transport error', error: JSON.stringify(e).slice(0, 200) }));
  twilioWebSocket.on('close', () => { say({ event: 'closed' }); process.exit(0); });
  await session.connect({ apiKey: 'k', url: `ws://127.0.0.1:${model.address().port}/` });
  say({ event: 'connected' });
});
phone.on('listening', () => say({ event: 'listening', port: phone.address().port }));
