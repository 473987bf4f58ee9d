// An agent whose frames are written and read by pipecat's own client: it echoes a second of audio, and hangs up
// then. What it is told by RTVI is printed, a JSON object a line.
import { ProtobufFrameSerializer } from '@pipecat-ai/websocket-transport';
import { WebSocketServer } from 'ws';

const say = (o) => process.stdout.write(JSON.stringify(o) + '\n');
const frames = new ProtobufFrameSerializer();
const server = new WebSocketServer({ port: 0, host: '127.0.0.1' });
server.on('listening', () => say({ type: 'listening', port: server.address().port }));
server.on('connection', (ws) => {
  const rtvi = (type, data) => ws.send(frames.serializeMessage({ id: type, label: 'rtvi-ai', type, data }));
  let samples = 0;
  ws.on('message', async (data) => {
    try {
      const frame = await frames.deserialize(new Blob([data]));
      if (frame.type === 'message') {
        say({ type: frame.message.type, label: frame.message.label, data: frame.message.data });
        if (frame.message.type === 'client-ready') rtvi('bot-ready', { version: '2.1.0' });
        return;
      }
      ws.send(frames.serializeAudio(frame.audio.buffer, 16000, 1));
      samples += frame.audio.length;
      if (samples === 16000) rtvi('server-message', { voicebridge: { type: 'hangup' } });
    } catch (e) {
      say({ type: 'error', data: String(e) });
    }
  });
  ws.on('close', () => say({ type: 'closed' }));
});
