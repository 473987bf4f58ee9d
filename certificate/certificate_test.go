package certificate

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// writeCertificate writes a pair of files, as they were at a time.
func writeCertificate(t *testing.T, files Files, name string, until, at time.Time) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{files.Certificate: {Type: "CERTIFICATE", Bytes: der},
		files.Key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCertificate: the certificate follows its files, and stays while they are wrong.
func TestCertificate(t *testing.T) {
	dir := t.TempDir()
	files := Files{filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")}
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		logger := slog.New(slog.NewTextHandler(&log, nil))
		if _, err := New(files, logger); err == nil || !strings.Contains(err.Error(), "c.pem") {
			t.Errorf("without files: %v", err)
		}
		now := time.Now()
		writeCertificate(t, files, "old", now.Add(-time.Hour), now)
		if _, err := New(files, logger); err == nil || !strings.Contains(err.Error(), "good until") {
			t.Errorf("out of date: %v", err)
		}
		writeCertificate(t, files, "one", now.Add(time.Hour), now)
		c, err := New(files, logger)
		if err != nil {
			t.Fatal(err)
		}
		name := func() string {
			cert, err := c.Get(nil)
			if err != nil {
				t.Fatal(err)
			}
			return cert.Leaf.Subject.CommonName
		}
		if got := name(); got != "one" {
			t.Errorf("%s", got)
		}
		writeCertificate(t, files, "two", now.Add(time.Hour), now.Add(time.Second))
		if got := name(); got != "one" {
			t.Errorf("%s: looked at too often", got)
		}
		time.Sleep(2 * lookEvery)
		if got := name(); got != "two" {
			t.Errorf("%s, want the new one", got)
		}
		if err := os.WriteFile(files.Key, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * lookEvery)
		if got := name(); got != "two" || !strings.Contains(log.String(), "the old one stays") {
			t.Errorf("%s: %s", got, log.String())
		}
	})
}
