package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-chat/starling/node/api"
)

func (a *app) inviteCommand() *cobra.Command {
	return group("invite", "Links that let others in",
		a.inviteCreateCommand(),
		&cobra.Command{
			Use: "show", Short: "List the links made here", Aliases: []string{"list"}, Args: noArgs,
			RunE: a.frontend(func(ctx context.Context, c *api.Client, _ []string) error {
				invites, err := c.Invites(ctx)
				if err != nil {
					return err
				}
				if a.global.json {
					return printObjects(a, invites)
				}
				rows := make([][]string, len(invites))
				for i, v := range invites {
					used := "no"
					if v.Used {
						used = "yes"
					}
					rows[i] = []string{v.ID, orDash(v.Target), clock(v.ExpiresAt), used, v.Link}
				}
				return a.printTable([]string{"ID", "TARGET", "EXPIRES", "USED", "LINK"}, rows)
			}),
		},
		&cobra.Command{
			Use: "revoke ID", Short: "Make a link worthless", Args: takes(1, 1),
			RunE: a.frontend(func(ctx context.Context, c *api.Client, args []string) error {
				return c.RevokeInvite(ctx, args[0])
			}),
		},
		&cobra.Command{
			Use: "accept LINK", Short: "Join the room, or add the person, that a link leads to", Args: takes(1, 1),
			RunE: a.frontend(a.acceptInvite),
		},
	)
}

func (a *app) inviteCreateCommand() *cobra.Command {
	var expiry time.Duration
	var oneTime, asQR bool
	cmd := &cobra.Command{
		Use: "create [ROOM]", Short: "Make a link into a room, or without one to yourself", Args: takes(0, 1),
		RunE: a.frontend(func(ctx context.Context, c *api.Client, args []string) error {
			req := api.InviteRequest{OneTime: oneTime, ExpiryMS: expiry.Milliseconds()}
			if len(args) == 1 {
				req.Target = args[0]
			}
			made, err := c.CreateInvite(ctx, req)
			switch {
			case err != nil:
				return err
			case a.global.json:
				return a.printJSON(made)
			case asQR:
				return a.printQR(made.Link)
			}
			return a.say("%s", made.Link)
		}),
	}
	cmd.Flags().DurationVar(&expiry, "expiry", 7*24*time.Hour, "how long it is good for")
	cmd.Flags().BoolVar(&oneTime, "one-time", false, "good for one person only")
	cmd.Flags().BoolVar(&asQR, "qr", false, "show it as a QR code")
	return cmd
}

// acceptInvite lets the node read the link: a room's is joined, a person's is added.
func (a *app) acceptInvite(ctx context.Context, c *api.Client, args []string) error {
	contact, err := c.AddContact(ctx, api.ContactRequest{Who: args[0]})
	if err == nil {
		if a.global.json {
			return a.printJSON(contact)
		}
		a.note("added %s (%s)", contactName(contact), api.Escape(contact.Fingerprint))
		return nil
	}
	room, joinErr := c.Join(ctx, api.JoinRequest{Room: args[0]})
	if joinErr != nil {
		return joinErr
	}
	if a.global.json {
		return a.printJSON(room)
	}
	if room.Membership == api.MembershipPending {
		a.note("%s: %s", api.Escape(room.Target), api.Escape(room.Note))
		return nil
	}
	a.note("joined %s", api.Escape(room.Target))
	return nil
}
