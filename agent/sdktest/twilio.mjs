// An agent that was written for Twilio and asks for things with Twilio's own library, at the URL on standard input;
// the arguments are its account and token. What it is answered is printed, a JSON object a line.
import { createInterface } from 'node:readline';
import twilio from 'twilio';
import { WebSocketServer } from 'ws';

const say = (o) => process.stdout.write(JSON.stringify(o) + '\n');
const [account, token] = process.argv.slice(2);
let base;
createInterface({ input: process.stdin }).once('line', (line) => { base = line; });
const library = (password) => {
  const client = twilio(account, password);
  client.api.baseUrl = base;
  return client;
};
const ask = async (what, does) => {
  try {
    const call = await does();
    say({ what, status: call.status, sid: call.sid, to: call.to });
  } catch (e) {
    say({ what, http: e.status, code: e.code });
  }
};
const server = new WebSocketServer({ port: 0, host: '127.0.0.1' });
server.on('listening', () => say({ port: server.address().port }));
server.on('connection', (ws) => {
  let id;
  ws.on('message', async (data) => {
    const m = JSON.parse(data);
    if (m.event !== 'start') return;
    id = m.start.callSid;
    say({ what: 'start', sid: id });
    await ask('fetch', () => library(token).calls(id).fetch());
    await ask('wrong token', () => library('wrong').calls(id).fetch());
    await ask('no such call', () => library(token).calls('CA' + '0'.repeat(32)).fetch());
    await ask('bad TwiML', () => library(token).calls(id).update({ twiml: '<Response><Nonsense/></Response>' }));
    await ask('completed', () => library(token).calls(id).update({ status: 'completed' }));
  });
});
