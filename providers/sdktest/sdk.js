// Signs as Twilio does, checks as Vonage says one should, and makes REST requests,
// with the carriers' own SDKs. Reads one JSON request a line, answers one JSON
// value a line.
const twilio = require('twilio');
const { verifySignature, tokenGenerate } = require('@vonage/jwt');

// Plivo's SDK knows no other base URL, and makes an HTTP client for each request.
const axios = require('axios');
let plivoBase = '';
const create = axios.create.bind(axios);
axios.create = (options) => {
  const client = create(options);
  client.interceptors.request.use((r) => {
    // It leaves out the last slash when it reads, and has itself redirected.
    r.url = r.url.replace('https://api.plivo.com/v1', plivoBase).replace(/([^/])\?/, '$1/?');
    return r;
  });
  return client;
};
const plivo = require('plivo');
const Telnyx = require('telnyx');
const { TelnyxWebhook } = require('telnyx/lib/webhooks');

// telnyx is Telnyx' client, for a REST API at another URL.
const telnyx = (base, key) => new Telnyx.default({ apiKey: key, baseURL: base, maxRetries: 0 });
const telnyxSays = (e) => ({ status: e.status, code: e.error && e.error.errors && e.error.errors[0].code });

// xml are documents as Plivo's builder writes them.
const xml = {
  stream: () => {
    const r = plivo.Response();
    r.addStream('wss://b.example/m', { bidirectional: true, keepCallAlive: true, contentType: 'audio/x-mulaw;rate=8000' });
    r.addRedirect('https://b.example/n', { method: 'POST' });
    return r.toXML();
  },
  question: () => {
    const r = plivo.Response();
    r.addGetInput({ action: 'https://b.example/k', method: 'POST', inputType: 'dtmf', numDigits: 1, executionTimeout: 10 })
      .addSpeak('Press 1.', {});
    r.addRedirect('https://b.example/k', { method: 'POST' });
    return r.toXML();
  },
  room: () => {
    const r = plivo.Response();
    r.addConference('xfer', { startConferenceOnEnter: true, endConferenceOnExit: true, stayAlone: true, enterSound: '',
      exitSound: '', waitSound: 'https://b.example/h', callbackUrl: 'https://b.example/e', callbackMethod: 'POST' });
    return r.toXML();
  },
  number: () => {
    const r = plivo.Response();
    r.addDial({ callerId: '15550100999', timeout: 30, action: 'https://b.example/n', method: 'POST' })
      .addNumber('15550100123', {});
    return r.toXML();
  },
  hold: () => {
    const r = plivo.Response();
    r.addPlay('https://b.example/hold.wav', { loop: 0 });
    return r.toXML();
  },
};

// at is Twilio's client, for a REST API at another URL.
function at(base, account, token) {
  const usual = new twilio.RequestClient();
  const request = (o) => usual.request({ ...o, uri: o.uri.replace('https://api.twilio.com', base) });
  return twilio(account, token, { httpClient: { request } });
}

const does = {
  sign: ({ token, url, params }) => twilio.getExpectedTwilioSignature(token, url, params || {}),
  bodyHash: ({ body }) => twilio.getExpectedBodyHash(body),
  verify: ({ token, secret }) => verifySignature(token, secret),
  telnyxVerify: ({ key, body, headers }) => new TelnyxWebhook(key).verify(body, headers).then(() => true, () => false),
  telnyxDial: ({ base, key, params }) => telnyx(base, key).calls.dial(params).then((r) => r.data, telnyxSays),
  telnyxGet: ({ base, key, id }) => telnyx(base, key).calls.retrieveStatus(id).then((r) => r.data, telnyxSays),
  telnyxHangup: ({ base, key, id, command }) => telnyx(base, key).calls.actions.hangup(id, { command_id: command })
    .then((r) => r.data, telnyxSays),
  plivoVerify: ({ method, url, nonce, token, signature, params }) =>
    plivo.validateV3Signature(method, url, nonce, token, signature, params || {}),
  plivoXML: ({ what }) => xml[what](),
  plivo: async ({ base, id, token, op, args }) => {
    plivoBase = base;
    const calls = new plivo.Client(id, token).calls;
    try {
      const r = await calls[op](...args);
      return { id: String(r.callUuid || r.requestUuid || ''), status: r.callStatus || '', message: String(r.message || '') };
    } catch (e) {
      return { error: String(e.status || e.message) };
    }
  },
  application: ({ id, key }) => tokenGenerate(id, key),
  call: ({ base, account, token, params }) => at(base, account, token).calls.create(params)
    .then((c) => ({ sid: c.sid, status: c.status }), (e) => ({ status: e.status, code: e.code })),
  hangup: ({ base, account, token, sid }) => at(base, account, token).calls(sid).update({ status: 'completed' })
    .then((c) => ({ sid: c.sid }), (e) => ({ status: e.status, code: e.code })),
};

(async () => {
  for await (const line of require('readline').createInterface({ input: process.stdin })) {
    const request = JSON.parse(line);
    console.log(JSON.stringify(await does[request.do](request)));
  }
})();
