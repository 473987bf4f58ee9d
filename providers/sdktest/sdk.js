// Signs as Twilio does, and checks as Vonage says one should, with the carriers'
// own SDKs. Reads one JSON request a line, answers one JSON value a line.
const twilio = require('twilio');
const { verifySignature } = require('@vonage/jwt');

const does = {
  sign: ({ token, url, params }) => twilio.getExpectedTwilioSignature(token, url, params || {}),
  bodyHash: ({ body }) => twilio.getExpectedBodyHash(body),
  verify: ({ token, secret }) => verifySignature(token, secret),
};

require('readline').createInterface({ input: process.stdin }).on('line', (line) => {
  const request = JSON.parse(line);
  console.log(JSON.stringify(does[request.do](request)));
});
