package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/starling-chat/starling/node/api"
)

// roomCommand holds what only private rooms have.
func (a *app) roomCommand() *cobra.Command {
	return group("room", "Private rooms: only who is invited gets in",
		a.roomCreateCommand(), a.roomRoleCommand(),
		a.roomMemberCommand("remove", "Take somebody out, and change the room's key"),
		a.roomMemberCommand("ban", "Remove somebody, and let nobody admit them again"),
		a.roomMemberCommand("unban", "Take a ban back"),
		a.roomPolicyCommand(),
	)
}

func (a *app) roomCreateCommand() *cobra.Command {
	var history string
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make a private room", Args: takes(1, 1),
		RunE: a.frontend(func(ctx context.Context, c *api.Client, args []string) error {
			room, err := c.CreateRoom(ctx, api.CreateRoomRequest{Name: args[0], History: history})
			if err != nil {
				return err
			}
			if a.global.json {
				return a.printJSON(room)
			}
			a.note("made %s: %s; invite with `starling invite create '%s'`", api.Escape(room.Target), api.Escape(room.Policy), api.Escape(room.Target))
			return nil
		}),
	}
	cmd.Flags().StringVar(&history, "history", api.HistoryNone, "what newcomers get of what was said before: none or all")
	return cmd
}

func (a *app) roomRoleCommand() *cobra.Command {
	return &cobra.Command{
		Use: "role ROOM @NAME ROLE", Short: "Make somebody member, moderator, admin or owner", Args: takes(3, 3),
		RunE: a.frontend(func(ctx context.Context, c *api.Client, args []string) error {
			return c.ChangeMember(ctx, api.MemberChange{Target: args[0], Who: args[1], Action: api.MemberRole, Role: args[2]})
		}),
	}
}

func (a *app) roomMemberCommand(action, short string) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: action + " ROOM @NAME", Short: short, Args: takes(2, 2),
		RunE: a.frontend(func(ctx context.Context, c *api.Client, args []string) error {
			return c.ChangeMember(ctx, api.MemberChange{Target: args[0], Who: args[1], Action: action, Reason: reason})
		}),
	}
	if action != api.MemberUnban {
		cmd.Flags().StringVar(&reason, "reason", "", "why, for all to read")
	}
	return cmd
}

func (a *app) roomPolicyCommand() *cobra.Command {
	var history, invite, post string
	var rate, burst uint32
	cmd := &cobra.Command{
		Use: "policy ROOM", Short: "Change what a private room allows", Args: takes(1, 1),
		Long: "Change what a private room allows, for everybody. How long messages are kept is not for a room to say: each\n" +
			"node keeps what its own `starling retention` says.",
	}
	cmd.RunE = a.frontend(func(ctx context.Context, c *api.Client, args []string) error {
		req := api.PolicyRequest{Target: args[0], History: history, Invite: invite, Post: post}
		if cmd.Flags().Changed("rate") {
			req.Rate = &rate
		}
		if cmd.Flags().Changed("burst") {
			req.Burst = &burst
		}
		if req == (api.PolicyRequest{Target: args[0]}) {
			return usagef("say what to change: --history none|all, --invite ROLE, --post ROLE, --rate N or --burst N")
		}
		return c.SetPolicy(ctx, req)
	})
	cmd.Flags().StringVar(&history, "history", "", "what newcomers get of what was said before: none or all")
	cmd.Flags().StringVar(&invite, "invite", "", "the lowest `ROLE` that may invite and admit")
	cmd.Flags().StringVar(&post, "post", "", "the lowest `ROLE` that may post, edit and set the topic")
	cmd.Flags().Uint32Var(&rate, "rate", 0, "how many things `N` each may say in a minute; 0 is the default")
	cmd.Flags().Uint32Var(&burst, "burst", 0, "how many things `N` each may say at once; 0 is the default")
	return cmd
}
