package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/starling-chat/starling/node/api"
)

// maxSecret bounds a file that holds a password or a passphrase.
const maxSecret = 4 << 10 // bytes

func (a *app) joinCommand() *cobra.Command {
	var passwordFile string
	cmd := &cobra.Command{
		Use: "join ROOM", Short: "Join a room by name or link", Args: takes(1, 1),
		RunE: a.frontend(func(ctx context.Context, c *api.Client, args []string) error {
			req := api.JoinRequest{Room: args[0]}
			if passwordFile != "" {
				var err error
				if req.Password, err = a.readSecret(passwordFile); err != nil {
					return err
				}
			}
			room, err := c.Join(ctx, req)
			if err != nil {
				return err
			}
			if a.global.json {
				return a.printJSON(room)
			}
			if a.global.quiet {
				return nil
			}
			if room.Membership == api.MembershipPending {
				return a.say("%s: %s", room.Target, room.Note)
			}
			if room.Membership == api.MembershipMember {
				return a.say("joined %s: %s; %s", room.Target, membersAndPeers(room), room.Policy)
			}
			return a.say("joined %s: %s", room.Target, membersAndPeers(room))
		}),
	}
	cmd.Flags().StringVar(&passwordFile, "password-file", "", "read the room's password from `FILE`, or from standard input with -")
	return cmd
}

func membersAndPeers(c api.Conversation) string {
	if c.Access == "private" { // all of them are known
		return fmt.Sprintf("%s, %d connected", plural(c.Members, "member"), c.Peers)
	}
	return fmt.Sprintf("%s seen, %d connected", plural(c.Members, "member"), c.Peers)
}

// readSecret reads the first line of a file, or of standard input for "-". Secrets are never taken
// from the command line, which every user of the machine can read.
func (a *app) readSecret(path string) (string, error) {
	var in io.Reader = a.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", fmt.Errorf("reading the secret: %w", err)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("reading the secret: %w", err)
	}
	if len(b) > maxSecret {
		return "", usagef("the secret in %s is longer than %d bytes: is it the right file?", path, maxSecret)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	line = strings.TrimSuffix(line, "\r")
	if line == "" {
		return "", usagef("the secret in %s is empty: its first line is taken", path)
	}
	return line, nil
}

func (a *app) leaveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "leave ROOM", Short: "Leave a room", Args: takes(1, 1),
		RunE: a.frontend(func(ctx context.Context, c *api.Client, args []string) error {
			return c.Leave(ctx, args[0])
		}),
	}
}
