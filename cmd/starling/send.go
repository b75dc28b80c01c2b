package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/starling-chat/starling/node/api"
)

// maxStdinText bounds what is read of a message from standard input: far over what a node takes, so
// that the node's own error about the limit is what is seen.
const maxStdinText = 512 << 10 // bytes

type sendFlags struct {
	clientID, wait, replyTo, style string
	batch                          bool
}

func (a *app) sendCommand() *cobra.Command {
	var f sendFlags
	cmd := &cobra.Command{
		Use: "send TARGET [TEXT|-]", Short: "Send a message to a room or a person",
		Long: "Send a message, from the command line or (with - or without TEXT) from standard input.\n" +
			"It returns once the message is durable, or once it reached the state given with --wait.\n\n" +
			"With --batch standard input has one JSON object {\"client_id\",\"text\"} a line, and standard\n" +
			"output one answer {\"client_id\",\"id\",\"state\"} for each, in order.",
		Args: takes(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			defer c.Close()
			if f.batch {
				return a.sendBatch(cmd.Context(), c, args, f)
			}
			return a.sendOne(cmd.Context(), c, args, f)
		},
	}
	cmd.Flags().StringVar(&f.clientID, "client-id", "", "an `ID` of your own: the same one never makes a second message")
	cmd.Flags().StringVar(&f.wait, "wait", api.StateAccepted, "wait for this `STATE`: accepted, sent, stored, delivered or read")
	cmd.Flags().StringVar(&f.replyTo, "reply-to", "", "the `ID` of the message this one answers")
	cmd.Flags().StringVar(&f.style, "style", "", "how it is to be read: `STYLE` action (\"* ada waves\") or notice (by a program)")
	cmd.Flags().BoolVar(&f.batch, "batch", false, "send many messages from standard input")
	return cmd
}

func (a *app) sendOne(ctx context.Context, c *api.Client, args []string, f sendFlags) error {
	text, err := a.messageText(args[1:])
	if err != nil {
		return err
	}
	req := api.SendRequest{Target: args[0], Text: text, ClientID: f.clientID, ReplyTo: f.replyTo, Style: f.style, Wait: f.wait}
	if a.global.timeout > 0 {
		// The node keeps the time, so that its answer still says what became of the message.
		req.TimeoutMS = a.global.timeout.Milliseconds()
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, a.global.timeout+5*time.Second)
		defer cancel()
	}
	result, err := c.Send(ctx, req)
	if err != nil {
		return err
	}
	if a.global.json {
		if err := a.printJSON(result); err != nil {
			return err
		}
	} else if !a.global.quiet {
		if err := a.say("%s %s", result.State, result.ID); err != nil {
			return err
		}
	}
	if result.Error != nil {
		return result.Error
	}
	return nil
}

// messageText takes the text from the arguments, or from standard input; then one newline at the
// end belongs to the pipe and not to the message.
func (a *app) messageText(words []string) (string, error) {
	if len(words) > 1 || len(words) == 1 && words[0] != "-" {
		text := strings.Join(words, " ")
		if !utf8.ValidString(text) {
			return "", usagef("the text is not valid UTF-8; convert it first, for example with `iconv -t UTF-8`")
		}
		return text, nil
	}
	if len(words) == 0 && isTerminal(a.stdin) {
		return "", usagef("there is no text; usage: starling send TARGET TEXT, or pipe the text in")
	}
	b, err := io.ReadAll(io.LimitReader(a.stdin, maxStdinText))
	if err != nil {
		return "", fmt.Errorf("reading standard input: %w", err)
	}
	b = bytes.TrimSuffix(b, []byte("\n"))
	b = bytes.TrimSuffix(b, []byte("\r"))
	if !utf8.Valid(b) {
		return "", usagef("the text is not valid UTF-8; convert it first, for example with `iconv -t UTF-8`")
	}
	return string(b), nil
}

// errRefused ends a batch in which some lines were refused; the answers said why.
var errRefused = errors.New("some messages were refused")

func (a *app) sendBatch(ctx context.Context, c *api.Client, args []string, f sendFlags) error {
	if len(args) > 1 || f.clientID != "" || f.replyTo != "" || f.style != "" || f.wait != api.StateAccepted {
		return usagef("--batch takes its texts and ids from standard input; usage: starling send TARGET --batch <items.ndjson")
	}
	ctx, cancel := a.limited(ctx)
	defer cancel()
	sent, refused := 0, 0
	out := newLineWriter(a.stdout)
	err := c.Batch(ctx, args[0], a.stdin, func(r api.SendResult) error {
		sent++
		if r.Error != nil {
			refused++
		}
		return out.write(r)
	})
	if flushErr := out.close(); err == nil {
		err = flushErr
	}
	if err != nil {
		return err
	}
	if refused > 0 {
		return fmt.Errorf("%w: %d of %d; the answers say why", errRefused, refused, sent)
	}
	return nil
}
