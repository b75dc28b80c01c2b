package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/starling-chat/starling/node/api"
)

func (a *app) outboxCommand() *cobra.Command {
	list := a.frontend(func(ctx context.Context, c *api.Client, _ []string) error { return a.listOutbox(ctx, c) })
	change := func(action, short string) *cobra.Command {
		return &cobra.Command{
			Use: action + " ID", Short: short, Args: takes(1, 1),
			RunE: a.frontend(func(ctx context.Context, c *api.Client, args []string) error {
				id, err := findOutbox(ctx, c, args[0])
				if err != nil {
					return err
				}
				return c.ChangeOutbox(ctx, id, action)
			}),
		}
	}
	cmd := group("outbox", "Messages that their recipients have not acknowledged",
		&cobra.Command{Use: "list", Short: "List them (the default)", Args: noArgs, RunE: list},
		change(api.OutboxCancel, "Give a message up"),
		change(api.OutboxRetry, "Try a message again now"),
	)
	cmd.RunE = list
	return cmd
}

func (a *app) listOutbox(ctx context.Context, c *api.Client) error {
	entries, err := c.Outbox(ctx)
	if err != nil {
		return err
	}
	if a.global.json {
		return printObjects(a, entries)
	}
	if len(entries) == 0 {
		a.note("nothing waits")
		return nil
	}
	rows := make([][]string, len(entries))
	for i, e := range entries {
		rows[i] = []string{shortID(e.ID), e.Target, e.State, strconv.Itoa(e.Attempts), clock(e.NextAttempt), clock(e.CreatedAt), orDash(e.Reason)}
	}
	return a.printTable([]string{"ID", "TARGET", "STATE", "ATTEMPTS", "NEXT", "WRITTEN", "REASON"}, rows)
}

// shortID is enough of an id for a person to tell messages apart and to type.
func shortID(id string) string { return id[:min(len(id), 12)] }

// minPrefix is the shortest beginning of an id that is looked up.
const minPrefix = 4

// findOutbox completes the beginning of an id.
func findOutbox(ctx context.Context, c *api.Client, prefix string) (string, error) {
	entries, err := c.Outbox(ctx)
	if err != nil {
		return "", err
	}
	found := ""
	for _, e := range entries {
		switch {
		case e.ID == prefix:
			return e.ID, nil
		case len(prefix) < minPrefix || !strings.HasPrefix(e.ID, prefix):
		case found != "":
			return "", usagef("several messages begin with %s: give more of the id", prefix)
		default:
			found = e.ID
		}
	}
	if found == "" {
		return "", &api.Error{Code: api.CodeNotFound, Message: "no message " + prefix + " waits", Hint: "see `starling outbox`"}
	}
	return found, nil
}
