package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"voicebridge/api/client"
	"voicebridge/config"
	"voicebridge/providers"
)

type checkCmd struct {
	Config  checkConfigCmd  `cmd:"" help:"Check a configuration file."`
	Schema  schemaCmd       `cmd:"" help:"Print the JSON Schema of the configuration, for editors."`
	Health  healthCmd       `cmd:"" help:"Ask a running bridge whether it is well, for container health checks."`
	Webhook checkWebhookCmd `cmd:"" help:"Explain why webhooks and handshakes of an account are refused: those that a running bridge has refused, or one in a file."`
}

type healthCmd struct {
	URL string `help:"What to ask (default ${default})." default:"http://127.0.0.1:9002/healthz" placeholder:"URL"`
}

// Run asks a bridge for its health.
func (c *healthCmd) Run(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, 3*time.Second)
	defer stop()
	req, err := http.NewRequestWithContext(ctx, "GET", c.URL, nil)
	if err != nil {
		return usageError{err}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s says %s", c.URL, resp.Status)
	}
	return nil
}

type schemaCmd struct{}

// Run prints the JSON Schema.
func (schemaCmd) Run(out output) error {
	_, err := out.Write(config.Schema)
	return err
}

type checkConfigCmd struct {
	File string `arg:"" help:"Configuration file." type:"existingfile"`
}

// Run checks a configuration.
func (c *checkConfigCmd) Run(out output) error {
	cfg, err := config.Load(c.File, os.Getenv)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "the configuration is good: %d accounts, %d agents, %d routes\n", len(cfg.Accounts),
		len(cfg.EveryAgent()), len(cfg.Routes))
	return err
}

type checkWebhookCmd struct {
	client.Client
	Account string `help:"Account whose webhooks are refused." required:"" placeholder:"NAME"`
	Config  string `help:"With --request: the bridge's configuration." type:"existingfile" placeholder:"FILE"`
	Request string `help:"A request as it came to the bridge, in a file: request line, headers, an empty line, body." type:"existingfile" placeholder:"FILE"`
}

// Run explains refused webhooks.
func (c *checkWebhookCmd) Run(ctx context.Context, out output) error {
	if (c.Request == "") != (c.Config == "") {
		return errors.New("--request and --config belong together")
	}
	if c.Request != "" {
		return c.file(out)
	}
	var list struct {
		Refused []struct {
			Time        time.Time
			Method      string
			Path        string
			Explanation []string
		}
	}
	if err := c.Do(ctx, "GET", "/v1/accounts/"+url.PathEscape(c.Account)+"/refused-webhooks", nil, &list); err != nil {
		return err
	}
	if len(list.Refused) == 0 {
		_, err := fmt.Fprintf(out, "No webhook of %s has been refused. If none comes at all, the URL at the carrier "+
			"is wrong, or the tunnel or proxy does not pass it on.\n", c.Account)
		return err
	}
	for _, r := range list.Refused {
		fmt.Fprintf(out, "%s  %s %s\n", r.Time.Local().Format("2006-01-02 15:04:05"), r.Method, r.Path)
		explain(out, r.Explanation)
	}
	return nil
}

func explain(out io.Writer, lines []string) {
	for _, l := range lines {
		fmt.Fprintln(out, "  "+l)
	}
}

// file explains a request that was saved.
func (c *checkWebhookCmd) file(out output) error {
	cfg, err := config.Load(c.Config, os.Getenv)
	if err != nil {
		return err
	}
	accounts, err := cfg.MakeAccounts()
	if err != nil {
		return err
	}
	account, known := accounts[c.Account]
	if !known {
		return fmt.Errorf("--account: %q is not one of accounts", c.Account)
	}
	b, err := os.ReadFile(c.Request)
	if err != nil {
		return fmt.Errorf("--request: %w", err)
	}
	h, err := readHook(b, cfg.PublicURL)
	if err != nil {
		return fmt.Errorf("--request: %w", err)
	}
	now := time.Now()
	explain(out, account.Webhooks.Explain(h, now))
	if _, err := account.Webhooks.Authenticate(h, now); err != nil { // explained
		return exitCode(1)
	}
	return nil
}

// readHook reads a request as text. Lines may end with or without a carriage
// return, and the body is what is left, whatever Content-Length says.
func readHook(b []byte, publicURL string) (*providers.Hook, error) {
	head, body, _ := bytes.Cut(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")), []byte("\n\n"))
	r, err := http.ReadRequest(bufio.NewReader(io.MultiReader(bytes.NewReader(head), strings.NewReader("\n\n"))))
	if err != nil {
		return nil, err
	}
	if r.Method != "GET" { // editors end files with a line break
		body = bytes.TrimSuffix(body, []byte("\n"))
	}
	return &providers.Hook{Method: r.Method, Host: r.Host, Header: r.Header, Body: body,
		URL: strings.TrimSuffix(publicURL, "/") + r.RequestURI}, nil
}

type tokenCmd struct{}

// Run makes a token of the API.
func (tokenCmd) Run(out output) error {
	token := rand.Text()
	sum := sha256.Sum256([]byte(token))
	_, err := fmt.Fprintf(out, "token, for whoever uses the API:  %s\nsha256, for the configuration:    %s\n", token,
		hex.EncodeToString(sum[:]))
	return err
}
