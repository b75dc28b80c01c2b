package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"rsc.io/qr"

	"github.com/starling-chat/starling/node/api"
)

func (a *app) meCommand() *cobra.Command {
	var asQR bool
	cmd := &cobra.Command{
		Use: "me", Short: "Say who you are, with a link that others can add", Args: noArgs,
		RunE: a.frontend(func(ctx context.Context, c *api.Client, _ []string) error {
			me, err := c.Me(ctx)
			if err != nil {
				return err
			}
			switch {
			case a.global.json:
				return a.printJSON(me)
			case asQR:
				return a.printQR(me.Link)
			}
			return a.printTable(nil, [][]string{
				{"nick", nickOrNone(me.Nick)},
				{"fingerprint", me.Fingerprint},
				{"account", me.Account},
				{"device", me.Device},
				{"link", me.Link},
			})
		}),
	}
	cmd.Flags().BoolVar(&asQR, "qr", false, "show the link as a QR code")
	return cmd
}

// printQR draws a QR code with half blocks: each character is two modules high, dark on the
// terminal's light or the other way round, with the quiet zone of four that readers need.
func (a *app) printQR(text string) error {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return fmt.Errorf("drawing the QR code: %w", err)
	}
	const quiet = 4
	var b strings.Builder
	for y := -quiet; y < code.Size+quiet; y += 2 {
		for x := -quiet; x < code.Size+quiet; x++ {
			// Blocks are drawn for light modules, since most terminals are dark.
			switch up, down := !code.Black(x, y), !code.Black(x, y+1); {
			case up && down:
				b.WriteString("█")
			case up:
				b.WriteString("▀")
			case down:
				b.WriteString("▄")
			default:
				b.WriteString(" ")
			}
		}
		b.WriteString("\n")
	}
	_, err = fmt.Fprint(a.stdout, b.String())
	return err
}

func (a *app) nickCommand() *cobra.Command {
	return &cobra.Command{
		Use: "nick NAME", Short: "Change your nick everywhere", Args: takes(1, 1),
		RunE: a.frontend(func(ctx context.Context, c *api.Client, args []string) error {
			me, err := c.SetNick(ctx, args[0])
			if err != nil {
				return err
			}
			if a.global.json {
				return a.printJSON(me)
			}
			a.note("you are now known as %s", api.EscapeNick(me.Nick))
			return nil
		}),
	}
}
