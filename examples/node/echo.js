// An agent in Node that says what it hears. Run: npm install && node echo.js [PORT]
const { WebSocketServer } = require('ws');

const port = Number(process.argv[2] || 9100);
const server = new WebSocketServer({
  host: '127.0.0.1',
  port,
  handleProtocols: (offered) => offered.has('voicebridge.v1') && 'voicebridge.v1',
});

server.on('connection', (ws) => {
  ws.on('message', (data, isBinary) => {
    if (isBinary) ws.send(data); // 20 ms of 16-bit PCM; any length may go back
    else console.log(data.toString()); // start, dtmf, mark, cleared, playback, stop, ...
  });
  ws.on('error', (err) => console.error('call:', err.message));
});
server.on('listening', () => console.log(`waiting for the bridge on ws://127.0.0.1:${port}/`));
