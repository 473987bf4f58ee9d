// Signs as Twilio does, checks as Vonage says one should, and makes REST requests,
// with the carriers' own SDKs. Reads one JSON request a line, answers one JSON
// value a line.
const twilio = require('twilio');
const { verifySignature, tokenGenerate } = require('@vonage/jwt');

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
