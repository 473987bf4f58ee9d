package vonage

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"voicebridge/providers"
)

// Explain implements providers.Webhooks.
func (w *webhooks) Explain(h *providers.Hook, now time.Time) []string {
	var lines []string
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if _, err := w.verify(h, now); err == nil {
		say("The signature is good.")
		return lines
	} else {
		say("Refused: %v", err)
	}
	raw, ok := strings.CutPrefix(h.Header.Get("Authorization"), "Bearer ")
	if !ok {
		say("Vonage signs only where signed webhooks are on: dashboard, Applications, your application, Voice, 'Use " +
			"signed webhooks'. A proxy may also have removed the Authorization header.")
		return lines
	}
	var said claims
	token, _, err := jwt.NewParser().ParseUnverified(raw, &said)
	if err != nil {
		say("The bearer token is no JWT: %v", err)
		return lines
	}
	say("Expected: a JWT with HS256, signed with signature_secret; the token says %v.", token.Header["alg"])
	if said.APIKey != w.cfg.APIKey {
		say("It is of API key %.20q, but api_key is %q: the secret of that account signs it.", said.APIKey,
			w.cfg.APIKey)
	}
	if said.ApplicationID != w.cfg.ApplicationID {
		say("It is of application %.40q, but application_id is %q.", said.ApplicationID, w.cfg.ApplicationID)
	}
	if said.IssuedAt == nil {
		say("It has no time (iat).")
	} else if age := now.Sub(said.IssuedAt.Time); age.Abs() > maxAge {
		say("It was made %v ago, more than %v: the clock of this machine is wrong (it says %s), or it is a replay.",
			age.Round(time.Second), maxAge, now.UTC().Format(time.RFC3339))
	}
	sum := sha256.Sum256(h.Body)
	if h.Method == "POST" && !strings.EqualFold(said.PayloadHash, hex.EncodeToString(sum[:])) {
		say("payload_hash is not the SHA-256 of the %d bytes that came: a proxy has changed the body.", len(h.Body))
	}
	if len(lines) == 2 {
		say("All that it says fits, so signature_secret is wrong: take it from the dashboard, Settings, 'Signature "+
			"secret', of account %s; the signature method there must be SHA-256.", w.cfg.APIKey)
	}
	return lines
}
