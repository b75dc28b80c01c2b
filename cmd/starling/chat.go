package main

import (
	"context"
	"errors"
	"io"
	stdlog "log"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
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

// chat attaches to the running node, or starts one in this process that serves the same socket. A
// node of our own outlives the front-end for a moment, so that what was typed last is still taken.
func (a *app) chat(ctx context.Context, o chatOptions) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP) // the terminal was closed
	defer stop()
	a.chooseFrontEnd(&o)
	log := &heldLog{to: a.stderr}
	if o.screen {
		// What is logged must not be written over the screen.
		a.logTo = log
		stdlog.SetOutput(log)
	}
	nodeCtx, stopNode := context.WithCancel(context.WithoutCancel(ctx))
	defer stopNode()
	starting := context.AfterFunc(ctx, stopNode)
	c, own, err := a.attachOrStart(nodeCtx, o.start)
	if !starting() && err == nil && own != nil {
		err = errors.Join(context.Canceled, <-own.done)
	}
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	}
	defer c.Close()
	ui := a.frontEnd(c, o, own != nil, log)
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
		stopNode()
		if nodeErr := <-own.done; err == nil {
			err = nodeErr
		}
	case err = <-own.done: // stopped from elsewhere, or failed
		stopUI()
		if o.screen {
			<-uiDone // it restores the terminal
			if err == nil {
				a.note("starling: the node was stopped from elsewhere")
			}
		}
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// chooseFrontEnd takes the terminal UI on a terminal that can show it, and otherwise line mode.
func (a *app) chooseFrontEnd(o *chatOptions) {
	if o.plain || a.global.json || !isTerminal(a.stdin) || !isTerminal(a.stdout) {
		return
	}
	var reason string
	if o.screen, reason = tui.Usable(os.Environ()); !o.screen {
		a.note("starling: %s", reason)
	}
}

// frontEnd is the chosen front-end to a node, which may be one of our own.
func (a *app) frontEnd(c *api.Client, o chatOptions, own bool, log *heldLog) func(context.Context) error {
	if !o.screen {
		return newLineChat(a, c, o.target, own).run
	}
	return func(ctx context.Context) error {
		log.hold()
		unaccepted, err := tui.Run(ctx, tui.Config{Client: c, Open: o.target})
		log.release()
		switch {
		case unaccepted > 0:
			a.note("starling: %s not accepted by the node; what was written is kept as a draft", plural(unaccepted, "message"))
		case own:
			a.note("starling: left, and the node with it; `starling run` keeps one running")
		default:
			a.note("starling: left; the node goes on running, `starling stop` ends it")
		}
		return err
	}
}

// maxHeldLog bounds what is logged while the screen is shown; what is older goes first.
const maxHeldLog = 64 << 10 // bytes

// heldLog keeps what is logged while a full screen is shown, and writes it afterwards.
type heldLog struct {
	to io.Writer

	mu   sync.Mutex // guards held, kept
	held bool
	kept []byte
}

// Write implements io.Writer.
func (h *heldLog) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.held {
		return h.to.Write(b)
	}
	h.kept = append(h.kept, b...)
	h.kept = h.kept[max(0, len(h.kept)-maxHeldLog):]
	return len(b), nil
}

func (h *heldLog) hold() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held = true
}

func (h *heldLog) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held = false
	_, _ = h.to.Write(h.kept) // standard error: there is nowhere else to say it
	h.kept = nil
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
