package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-chat/starling/node/api"
)

// pollPeriod is how often `wait` and `stop` look: soon enough for a script, and a status costs little.
const pollPeriod = 50 * time.Millisecond

func (a *app) waitCommand() *cobra.Command {
	return &cobra.Command{
		Use: "wait ready|peers=N", Short: "Wait until the node is ready, or has N peers",
		Long: "Wait until the node is ready, or has at least N connected peers, for at most --timeout (30s).\n" +
			"It also waits for a node that is only being started.",
		Args: takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			reached, err := parseCondition(args[0])
			if err != nil {
				return err
			}
			timeout := a.global.timeout
			if timeout == 0 {
				timeout = api.DefaultTimeout
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			c := a.client()
			defer c.Close()
			return a.waitFor(ctx, c, args[0], reached)
		},
	}
}

func parseCondition(text string) (func(api.Status) bool, error) {
	if text == "ready" {
		return func(st api.Status) bool { return st.Ready }, nil
	}
	if number, ok := strings.CutPrefix(text, "peers="); ok {
		n, err := strconv.Atoi(number)
		if err != nil || n < 0 {
			return nil, usagef("peers=%s: give a number, such as peers=1", number)
		}
		return func(st api.Status) bool { return st.Ready && st.Peers.Total >= n }, nil
	}
	return nil, usagef("%q is nothing to wait for: use ready, or peers=N", text)
}

func (a *app) waitFor(ctx context.Context, c *api.Client, what string, reached func(api.Status) bool) error {
	tick := time.NewTicker(pollPeriod)
	defer tick.Stop()
	last := "no node is running"
	for {
		st, err := c.Status(ctx)
		var e *api.Error
		switch {
		case err == nil && reached(st):
			return nil
		case err == nil:
			last = fmt.Sprintf("ready is %v, and there are %s", st.Ready, plural(st.Peers.Total, "peer"))
		case errors.As(err, &e) && (e.Code == api.CodeNotRunning || e.Code == api.CodeTimeout):
		default:
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return &api.Error{Code: api.CodeTimeout, Message: fmt.Sprintf("%s was not reached: %s", what, last), Hint: "give more --timeout, or see `starling doctor`"}
		}
	}
}
