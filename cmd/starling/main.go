// Command starling is peer-to-peer chat from one binary: the node, the front-ends to it, and a
// public relay. main.go starts it, each command has a file of its own, exit.go is the one place
// that turns an error into words and an exit code.
//
// Front-end commands speak to a running node over its unix socket and know nothing but node/api;
// start.go composes a node for `run`, `relay` and, when none answers, `chat`.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(realMain()) }

// realMain is main for tests, which cannot let it exit.
func realMain() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	a := newApp(os.Stdin, os.Stdout, os.Stderr, os.Getenv)
	return a.execute(ctx, os.Args[1:])
}

// app is one invocation: its streams, its environment and what the global flags said.
type app struct {
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	logTo  io.Writer // of a node in this process; standard error, but not while a full screen is shown
	getenv func(string) string
	global globalFlags
	conf   *config // set before any command's own work
	place  places  // set with conf
}

func newApp(stdin io.Reader, stdout, stderr io.Writer, getenv func(string) string) *app {
	return &app{stdin: stdin, stdout: stdout, stderr: stderr, logTo: stderr, getenv: getenv}
}
