package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-chat/starling/cmd/starling/internal/tui"
	"github.com/starling-chat/starling/node"
	"github.com/starling-chat/starling/node/api"
)

// attachPatience is how long `chat` waits for a node that holds the home but does not answer yet:
// another terminal is just starting it.
const attachPatience = 15 * time.Second

type chatOptions struct {
	start  startFlags
	target string
	plain  bool
	screen bool // the full screen is shown, not lines
}

func (a *app) chatCommand() *cobra.Command {
	var o chatOptions
	cmd := &cobra.Command{
		Use: "chat [ROOM|@CONTACT]", Short: "Talk, starting a node when none is running", Args: takes(0, 1),
		Long: "Open a conversation. Lines that are typed or piped in are sent, what others say is printed, one\n" +
			"message a line; /help lists the commands. Piped, it ends at the end of its input, once every\n" +
			"message is accepted. Without a running node it starts one, which other terminals can use too.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				o.target = args[0]
			}
			return a.chat(cmd.Context(), o)
		},
	}
	a.startFlags(cmd.Flags(), &o.start)
	cmd.Flags().BoolVar(&o.plain, "plain", false, "line by line, also on a terminal")
	return cmd
}

// chat attaches to the running node, or starts one in this process that serves the same socket.
func (a *app) chat(ctx context.Context, o chatOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, own, err := a.attachOrStart(ctx, o.start)
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	}
	defer c.Close()
	ui := a.frontEnd(c, &o, own != nil)
	if own == nil {
		err := ui(ctx)
		if errors.Is(err, context.Canceled) {
			return nil // interrupted by a person who is done
		}
		return err
	}
	a.introduce(ctx, own)
	uiCtx, stopUI := context.WithCancel(ctx)
	defer stopUI()
	uiDone := make(chan error, 1)
	go func() { uiDone <- ui(uiCtx) }() // waited for below, except when it reads a terminal
	select {
	case err = <-uiDone:
		cancel()
		if nodeErr := <-own.done; err == nil {
			err = nodeErr
		}
	case err = <-own.done: // stopped from elsewhere, or failed
		stopUI()
		if o.screen {
			<-uiDone // it restores the terminal
		}
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// frontEnd is the terminal UI on a terminal that can show it, and otherwise line mode.
func (a *app) frontEnd(c *api.Client, o *chatOptions, own bool) func(context.Context) error {
	if !o.plain && isTerminal(a.stdin) && isTerminal(a.stdout) {
		ok, reason := tui.Usable(os.Environ())
		if ok {
			o.screen = true
			return func(ctx context.Context) error { return tui.Run(ctx, tui.Config{Client: c, Open: o.target}) }
		}
		a.note("starling: " + reason)
	}
	return newLineChat(a, c, o.target, own).run
}

// attachOrStart gives a client of a node that answers; own is set when it runs in this process.
func (a *app) attachOrStart(ctx context.Context, f startFlags) (*api.Client, *running, error) {
	if c, err := a.attach(ctx); c != nil || err != nil {
		return c, nil, err
	}
	own, err := a.start(ctx, f, false, slog.LevelError)
	if errors.Is(err, node.ErrLocked) || errors.Is(err, node.ErrInUse) {
		c, waitErr := a.attachPatiently(ctx)
		if waitErr != nil {
			return nil, nil, waitErr
		}
		return c, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	return a.client(), own, nil
}

// attach gives a client when a node answers, nothing when none runs.
func (a *app) attach(ctx context.Context) (*api.Client, error) {
	c := a.client()
	_, err := c.Status(ctx)
	var e *api.Error
	switch {
	case err == nil:
		return c, nil
	case errors.As(err, &e) && e.Code == api.CodeNotRunning:
		c.Close()
		return nil, nil
	}
	c.Close()
	return nil, err
}

func (a *app) attachPatiently(ctx context.Context) (*api.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, attachPatience)
	defer cancel()
	tick := time.NewTicker(pollPeriod)
	defer tick.Stop()
	for {
		c, err := a.attach(ctx)
		if c != nil {
			return c, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if err == nil {
				err = node.ErrLocked
			}
			return nil, err
		}
	}
}
