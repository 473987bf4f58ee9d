// Package certificate keeps the certificate of a listener as its files have it.
package certificate

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Files are a certificate and its key.
type Files struct {
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
}

// Set reports whether any is named.
func (f *Files) Set() bool { return f.Certificate+f.Key != "" }

// lookEvery is how often the files are looked at, at most.
const lookEvery = 10 * time.Second

// Certificate is one that is read again when its files change. Its methods may be called at the
// same time.
type Certificate struct {
	files Files
	log   *slog.Logger

	mu     sync.Mutex
	now    *tls.Certificate
	of     [2]time.Time // when the files were written
	looked time.Time
}

// New reads one; nil: there are no files.
func New(files Files, log *slog.Logger) (*Certificate, error) {
	if !files.Set() {
		return nil, nil
	}
	c := &Certificate{files: files, log: log}
	return c, c.Read(files)
}

// Read reads the files, which may be others than before. After an error those are kept that
// were there.
func (c *Certificate) Read(files Files) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.read(files)
}

func (c *Certificate) read(files Files) error {
	of, err := written(files)
	var pair tls.Certificate
	if err == nil {
		pair, err = tls.LoadX509KeyPair(files.Certificate, files.Key)
	}
	if err == nil && time.Now().After(pair.Leaf.NotAfter) {
		err = fmt.Errorf("the certificate is good until %s only", pair.Leaf.NotAfter.Format(time.DateOnly))
	}
	if err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	c.files, c.now, c.of, c.looked = files, &pair, of, time.Now()
	return nil
}

// written is when the files were written last.
func written(files Files) (of [2]time.Time, err error) {
	for i, path := range []string{files.Certificate, files.Key} {
		info, statErr := os.Stat(path)
		if statErr != nil {
			err = errors.Join(err, statErr)
			continue
		}
		of[i] = info.ModTime()
	}
	return of, err
}

// Get implements tls.Config.GetCertificate.
func (c *Certificate) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) < lookEvery {
		return c.now, nil
	}
	c.looked = time.Now()
	of, err := written(c.files)
	if err == nil && of == c.of {
		return c.now, nil
	}
	if err == nil {
		err = c.read(c.files)
	}
	if err != nil { // one of the files may be there before the other
		c.log.Warn("the certificate has changed, and cannot be read: the old one stays", "err", err)
	} else {
		c.log.Info("the certificate has changed", "until", c.now.Leaf.NotAfter)
	}
	return c.now, nil
}
