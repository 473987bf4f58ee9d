// A Twilio Media Streams client written from Twilio's documentation alone: it
// knows nothing of the bridge but a URL. Usage: node twilio-client.js URL
// It streams a second of a tone, hangs up, and prints what came back.
const path = require('path');
const WebSocket = require(path.join(__dirname, '../node/node_modules/ws'));

const streamSid = 'MZ18ad3ab5a668481ce02b83e7395059f0';
const accountSid = 'AC123456789012345678901234567890ab';
const callSid = 'CA123456789012345678901234567890ab';

function mulaw(sample) {
  const bias = 132;
  const sign = sample < 0 ? 0x80 : 0;
  const magnitude = Math.min(32635, Math.abs(sample)) + bias;
  let exponent = 7;
  for (let mask = 0x4000; exponent > 0 && !(magnitude & mask); mask >>= 1) exponent--;
  return ~(sign | (exponent << 4) | ((magnitude >> (exponent + 3)) & 0x0f)) & 0xff;
}

const result = { media: 0, bytes: 0, wrong: [], close: null };
const ws = new WebSocket(process.argv[2], { headers: { 'x-twilio-signature': 'AAAA' } });
let sequence = 0;
const send = (message) => ws.send(JSON.stringify(message));

ws.on('open', () => {
  send({ event: 'connected', protocol: 'Call', version: '1.0.0' });
  send({
    event: 'start',
    sequenceNumber: String(++sequence),
    start: {
      accountSid, streamSid, callSid, tracks: ['inbound'],
      mediaFormat: { encoding: 'audio/x-mulaw', sampleRate: 8000, channels: 1 },
      customParameters: { FirstName: 'Jane' },
    },
    streamSid,
  });
  const began = Date.now();
  let chunk = 0;
  let pressed = false;
  const timer = setInterval(() => {
    while (chunk < 50 && Date.now() - began >= chunk * 20) {
      const frame = Buffer.alloc(160);
      for (let i = 0; i < 160; i++) frame[i] = mulaw(Math.round(8000 * Math.sin((2 * Math.PI * 440 * (chunk * 160 + i)) / 8000)));
      send({
        event: 'media',
        sequenceNumber: String(++sequence),
        media: { track: 'inbound', chunk: String(++chunk), timestamp: String((chunk - 1) * 20), payload: frame.toString('base64') },
        streamSid,
      });
    }
    if (chunk >= 10 && !pressed) {
      pressed = true;
      send({ event: 'dtmf', streamSid, sequenceNumber: String(++sequence), dtmf: { track: 'inbound_track', digit: '1' } });
    }
    if (Date.now() - began > 1120) {
      clearInterval(timer);
      send({ event: 'stop', sequenceNumber: String(++sequence), stop: { accountSid, callSid }, streamSid });
    }
  }, 5);
});

ws.on('message', (data, isBinary) => {
  if (isBinary) return result.wrong.push('binary message');
  const message = JSON.parse(data.toString());
  if (message.streamSid !== streamSid) result.wrong.push(`streamSid ${message.streamSid}`);
  if (message.event === 'media') {
    result.media++;
    result.bytes += Buffer.from(message.media.payload, 'base64').length;
    if (Object.keys(message.media).join() !== 'payload') result.wrong.push('fields of media');
  }
});
ws.on('close', (code) => {
  result.close = code;
  console.log(JSON.stringify(result));
});
ws.on('error', (err) => result.wrong.push(err.message));
