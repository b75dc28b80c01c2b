package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/starling-chat/starling/node/api"
)

func (a *app) exportCommand() *cobra.Command {
	return &cobra.Command{
		Use: "export ROOM", Short: "Write a room to standard output as a bundle", Args: takes(1, 1),
		Long: "Write everything that is kept of a room to standard output, sealed: only members of the room can\n" +
			"read it, with `starling import`. It carries a room to a machine that never meets the others.",
		Example: "  starling export '#garden' > garden.bundle",
		RunE: a.frontend(func(ctx context.Context, c *api.Client, args []string) error {
			if f, ok := a.stdout.(*os.File); ok && isTerminal(f) {
				return usagef("a bundle is no text for a terminal; write it to a file: starling export %s > room.bundle", args[0])
			}
			return c.Export(ctx, args[0], a.stdout)
		}),
	}
}

func (a *app) importCommand() *cobra.Command {
	return &cobra.Command{
		Use: "import FILE|-", Short: "Take in a bundle that `export` wrote", Args: takes(1, 1),
		Long: "Take in a bundle, from a file or (-) from standard input. Every message in it proves itself, and a\n" +
			"second time changes nothing. The room must be joined, since the bundle can be read by members only.",
		Example: "  starling join '#garden' && starling import garden.bundle",
		RunE: a.frontend(func(ctx context.Context, c *api.Client, args []string) error {
			var in io.Reader = a.stdin
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return fmt.Errorf("opening the bundle: %w", err)
				}
				defer f.Close()
				in = f
			}
			got, err := c.Import(ctx, in)
			if err != nil {
				return err
			}
			return a.printImported(got)
		}),
	}
}

var errNothingImported = errors.New("nothing was taken in: the bundle is of a room that is not joined here; join it first with `starling join ROOM`")

func (a *app) printImported(got api.Imported) error {
	if a.global.json {
		if err := a.printJSON(got); err != nil {
			return err
		}
	} else if !a.global.quiet {
		line := fmt.Sprintf("%s: %d new, %d here already", plural(got.Records, "event"), got.New, got.Known)
		for _, part := range []struct {
			n    int
			what string
		}{{got.Refused, "not kept here"}, {got.Foreign, "of rooms that are not joined"}, {got.Invalid, "that prove nothing"}} {
			if part.n > 0 {
				line += fmt.Sprintf(", %d %s", part.n, part.what)
			}
		}
		if len(got.Rooms) > 0 {
			line += " (" + api.Escape(strings.Join(got.Rooms, " ")) + ")"
		}
		if err := a.say("%s", line); err != nil {
			return err
		}
	}
	switch {
	case got.Error != nil:
		return got.Error
	case got.Records > 0 && got.Foreign == got.Records:
		return errNothingImported
	}
	return nil
}
