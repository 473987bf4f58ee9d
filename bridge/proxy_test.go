package bridge_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"encoding/xml"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"voicebridge/calls"
	"voicebridge/sim"
)

// certificate writes one for 127.0.0.1 and gives the pool that trusts it.
func certificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bridge"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"bridge.pem": {Type: "CERTIFICATE", Bytes: der},
		"bridge.key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool
}

// nginx runs examples/nginx.conf in front of a bridge until the end of the test,
// and gives its address.
func nginx(t *testing.T, program, backend string) (address string, pool *x509.CertPool) {
	t.Helper()
	dir := t.TempDir()
	pool = certificate(t, dir)
	l := listenTCP(t)
	address = l.Addr().String()
	l.Close()
	conf, err := os.ReadFile("../examples/nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("listen 443 ssl", "listen "+address+" ssl", "/etc/ssl/", dir+"/", "127.0.0.1:9001",
		backend,
		"http {", "http {\n client_body_temp_path "+dir+"/a; proxy_temp_path "+dir+"/b; fastcgi_temp_path "+dir+
			"/c; uwsgi_temp_path "+dir+"/d; scgi_temp_path "+dir+"/e;").Replace(string(conf))
	path := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-c", path, "-e", "stderr", "-g", "daemon off; master_process off; pid "+dir+"/pid;")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	waitFor(t, func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return address, pool
}

// TestBehindProxy: behind a proxy that terminates TLS, webhooks and calls work
// with nothing set but public_url.
func TestBehindProxy(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("nginx")
	if err != nil {
		if os.Getenv("VOICEBRIDGE_E2E") != "" {
			t.Fatal(err)
		}
		t.Skipf("%v ('make test' installs it)", err)
	}
	b := startHooked(t, startAgent(t, sim.Echo), func(o *options) { o.sockets = true })
	address, pool := nginx(t, program, strings.TrimPrefix(b.url, "ws://"))
	config := &tls.Config{RootCAs: pool}

	form := inboundForm("CA1")
	req, err := http.NewRequest("POST", "https://"+address+"/hooks/twilio/main/inbound",
		strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	// the URL that it was given
	req.Header.Set("X-Twilio-Signature", sign(publicURL+"/hooks/twilio/main/inbound", form))
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	var doc struct {
		Stream struct {
			URL string `xml:"url,attr"`
		} `xml:"Connect>Stream"`
	}
	if err == nil {
		err = xml.Unmarshal(body, &doc)
	}
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%d, %v: %s", resp.StatusCode, err, body)
	}
	path, ok := strings.CutPrefix(doc.Stream.URL, "wss"+strings.TrimPrefix(publicURL, "https"))
	if !ok {
		t.Fatalf("the media URL is %s", doc.Stream.URL)
	}
	conn, _, err := (&websocket.Dialer{TLSClientConfig: config}).Dial("wss://"+address+path, handshake(path))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, m := range []string{connected, strings.Replace(startText, `"AC1"`, `"`+accountSID+`"`, 1), mediaText,
		mediaText} {
		if err := conn.WriteMessage(websocket.TextMessage, []byte(m)); err != nil {
			t.Fatal(err)
		}
	}
	if _, data, err := conn.ReadMessage(); err != nil || !strings.Contains(string(data), `"event":"media"`) {
		t.Errorf("%s, %v", data, err)
	}
	if err := conn.WriteMessage(websocket.TextMessage, []byte(`{"event":"stop","streamSid":"MZ1"}`)); err != nil {
		t.Fatal(err)
	}
	if code := closed(t, conn); code != 1000 {
		t.Errorf("closed with %d", code)
	}
	b.ended(t, calls.CallerHangup)

	// Whatever a carrier may be told to ask for gets through.
	fill := strings.NewReplacer("{provider}", "twilio", "{account}", "main", "{token...}", "AAAA", "{call}", "A",
		"{token}", "AAAA", "{transfer}", "A", "{nonce}", "A", "{what}", "A")
	for _, pattern := range b.Doors() {
		method, path, some := strings.Cut(fill.Replace(pattern), " ")
		if !some {
			method, path = "POST", method
		}
		if strings.HasPrefix(path, "/v1/") || strings.HasSuffix(path, "z") { // the API, and health
			continue
		}
		req, err := http.NewRequest(method, "https://"+address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Client{Transport: transport}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || strings.Contains(string(body), "<center>nginx") {
			t.Errorf("%s does not get through: %d, %v", pattern, resp.StatusCode, err)
		}
	}
}
