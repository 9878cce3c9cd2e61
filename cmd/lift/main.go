// Command lift fine-tunes a frozen Vision Transformer with small adapters on long-tailed image sets, on any number of
// devices and nodes. `lift help` lists its verbs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// version is set by the linker: -X main.version=…
var version = "unknown"

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // the run failed, or was stopped before its end
	exitUsage  = 2 // the command line or the config is wrong; nothing was started
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run executes one command line and returns the exit code. An error is the last thing on stderr.
func run(args []string, stdout, stderr io.Writer) int {
	err := dispatch(args, stdout, stderr)
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "lift: %s\n", oneBlock(err))
		return exitUsage
	default:
		fmt.Fprintf(stderr, "lift: %s\n", oneBlock(err))
		return exitFailed
	}
}

// oneBlock keeps an error of several lines together, so that the last line still belongs to it.
func oneBlock(err error) string {
	return strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "\n      ")
}

// usageError is an error in what was asked, found before anything was started.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// signalContext ends with the first SIGINT or SIGTERM; a second one then has its ordinary effect.
func signalContext() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
