// Command voicebridge streams phone calls to AI agents as PCM over WebSockets.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	kongcompletion "github.com/jotaen/kong-completion"

	"voicebridge/bench/runner"
	"voicebridge/providers/all"
	"voicebridge/sim/models"
)

type cli struct {
	Serve     serveCmd     `cmd:"" help:"Run the bridge: take carriers' media connections and dial the agent for each call."`
	Demo      demoCmd      `cmd:"" help:"Put one simulated call through a bridge and show what the caller heard. Needs no account, key or server."`
	Bench     benchCmd     `cmd:"" help:"Put a bridge under load, and report what it costs and what callers hear."`
	Agent     agentCmd     `cmd:"" help:"Run a reference agent to point a bridge at."`
	Call      callCmd      `cmd:"" help:"Place a call through a running bridge."`
	Calls     callsCmd     `cmd:"" help:"List the calls of a running bridge."`
	Hangup    hangupCmd    `cmd:"" help:"End a call."`
	Digits    digitsCmd    `cmd:"" help:"Send digits to the other party of a call."`
	Transfer  transferCmd  `cmd:"" help:"Move a call to somebody else, and show what becomes of that."`
	Events    eventsCmd    `cmd:"" help:"Show what becomes of calls."`
	Check     checkCmd     `cmd:"" help:"Check a configuration, or explain why a carrier's webhooks are refused."`
	Token     tokenCmd     `cmd:"" help:"Make a token for the API."`
	Providers providersCmd `cmd:"" help:"List the carriers and what they can do."`
	Dialects  dialectsCmd  `cmd:"" help:"List the protocols that agents may speak, and what they can do."`
	Numbers   numbersCmd   `cmd:"" help:"List the numbers of an account, with what they can do and where their webhooks point."`
	Version   versionCmd   `cmd:"" help:"Print the version."`

	Completion kongcompletion.Completion `cmd:"" help:"Print how a shell completes commands and flags."`
	Yardstick  yardstickCmd              `cmd:"" hidden:"" help:"Pass messages on between a carrier and an agent, for bench to compare with."`
}

// output is where commands print for people; logs go to stderr.
type output struct{ io.Writer }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		var code exitCode
		if errors.As(err, &code) {
			os.Exit(int(code))
		}
		if errors.Is(err, context.Canceled) {
			err = errors.New("interrupted")
		}
		fmt.Fprintln(os.Stderr, "voicebridge:", err)
		if errors.As(err, new(usageError)) {
			os.Exit(exitUsage)
		}
		os.Exit(exitFailed)
	}
}

// The exit statuses, beside 0.
const (
	exitFailed = 1 // what was asked for was not done, or did not go well
	exitUsage  = 2 // it was not asked for as it must be
)

// usageError is about the command line.
type usageError struct{ error }

// exitCode ends the program with that status and no more words.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit status %d", int(c)) }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var c cli
	switch {
	case len(args) == 0:
		args = []string{"--help"}
	case args[0] == "help":
		args = append(args[1:], "--help")
	case args[0] == "--version":
		args = []string{"version"}
	}
	exited := -1
	k, err := kong.New(&c,
		kong.Name("voicebridge"),
		kong.Description("Streams phone calls between carriers and AI agents: carrier WebSocket on one side, raw PCM "+
			"on the other."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exited = code }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(output{stdout}),
		kong.Vars{"behaviours": runner.Behaviours(), "carriers": carriers(), "carrier": all.Specs[0].Name,
			"models": strings.Join(models.Names(), ",")},
		kong.UsageOnError(),
	)
	if err != nil {
		return err
	}
	kongcompletion.Register(k)
	parsed, err := k.Parse(args)
	if exited >= 0 { // --help has been printed
		return nilOr(exited)
	}
	if err != nil {
		return usageError{fmt.Errorf("%w (see voicebridge --help)", err)}
	}
	return parsed.Run()
}

func nilOr(code int) error {
	if code == 0 {
		return nil
	}
	return exitCode(code)
}

type versionCmd struct{}

// Run prints what the binary was built from.
func (versionCmd) Run(out output) error {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return errors.New("this binary carries no build information")
	}
	version, revision := info.Main.Version, "unknown revision"
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			revision = s.Value
		}
	}
	_, err := fmt.Fprintf(out, "voicebridge %s, %s, %s\n", version, revision, info.GoVersion)
	return err
}
