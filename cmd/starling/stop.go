package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-chat/starling/node/api"
)

func (a *app) stopCommand() *cobra.Command {
	return &cobra.Command{
		Use: "stop", Short: "Stop the running node", Args: noArgs,
		RunE: a.frontend(func(ctx context.Context, c *api.Client, _ []string) error {
			if err := c.Stop(ctx); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(ctx, 15*time.Second) // a clean stop takes at most 5 s
			defer cancel()
			return waitGone(ctx, c)
		}),
	}
}

// waitGone returns when the node no longer answers.
func waitGone(ctx context.Context, c *api.Client) error {
	tick := time.NewTicker(pollPeriod)
	defer tick.Stop()
	for {
		_, err := c.Status(ctx)
		var e *api.Error
		if errors.As(err, &e) && e.Code == api.CodeNotRunning {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return &api.Error{Code: api.CodeTimeout, Message: "the node was told to stop and still answers", Hint: "look at its log"}
		}
	}
}
