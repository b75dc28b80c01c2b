package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/starling-chat/starling/node"
	"github.com/starling-chat/starling/node/api"
)

func (a *app) checkCommand() *cobra.Command {
	var f startFlags
	cmd := &cobra.Command{
		Use: "check", Short: "Verify the store and repair what can be derived", Args: noArgs,
		Long: "Read everything in the store and verify it. A running node does it itself; without one the store\n" +
			"is opened here. What is damaged is removed, so that others can send it again.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var report api.CheckReport
			err := a.onStore(cmd.Context(), f, func(ctx context.Context, c *api.Client) (err error) {
				report, err = c.Check(ctx)
				return err
			}, func(ctx context.Context, cfg node.Config) (err error) {
				report, err = node.CheckStore(ctx, cfg)
				return err
			})
			if err != nil {
				return err
			}
			return a.printCheck(report)
		},
	}
	keyFlags(cmd.Flags(), &f)
	return cmd
}

func (a *app) purgeCommand() *cobra.Command {
	var f startFlags
	cmd := &cobra.Command{
		Use: "purge", Short: "Take what was deleted off the disk now", Args: noArgs,
		Long: "Rewrite the store, so that the texts of deleted messages and whatever else was replaced leave its\n" +
			"files, and erase the keys of what cannot be rewritten. It takes as long as copying the store.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := a.onStore(cmd.Context(), f, func(ctx context.Context, c *api.Client) error {
				return c.Purge(ctx)
			}, node.PurgeStore)
			if err == nil {
				a.note("what was deleted is off the disk; copies elsewhere and flash storage may still have it")
			}
			return err
		},
	}
	keyFlags(cmd.Flags(), &f)
	return cmd
}

// onStore does something with the store: asks the node that runs, or opens it here when none does.
func (a *app) onStore(ctx context.Context, f startFlags, ask func(context.Context, *api.Client) error, open func(context.Context, node.Config) error) error {
	if a.global.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, a.global.timeout)
		defer cancel()
	}
	c := a.client()
	defer c.Close()
	err := ask(ctx, c)
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.CodeNotRunning {
		return err
	}
	cfg, _, err := a.nodeConfig(f, false, slog.LevelWarn)
	if err != nil {
		return err
	}
	return open(ctx, cfg)
}

func (a *app) printCheck(report api.CheckReport) error {
	if a.global.json {
		if err := a.printJSON(report); err != nil {
			return err
		}
	} else {
		rows := [][]string{
			{fmt.Sprintf("%s opened: every seal holds but for what is said below", plural(report.Checked, "value"))},
			{fmt.Sprintf("%s in %s: counts, indexes and digests compared", plural(report.Records, "record"), plural(report.Streams, "stream"))},
		}
		if len(report.Problems) == 0 {
			rows[0][0] = fmt.Sprintf("%s opened: every seal holds", plural(report.Checked, "value"))
		}
		for _, p := range report.Repaired {
			rows = append(rows, []string{"repaired: " + api.Escape(p)})
		}
		for _, p := range report.Problems {
			rows = append(rows, []string{"damaged: " + api.Escape(p)})
		}
		switch {
		case report.OK:
			rows = append(rows, []string{"the store is whole"})
		case len(report.Problems) == 0:
			rows = append(rows, []string{"the store is whole again"})
		default:
			rows = append(rows, []string{"what was damaged is gone here; rooms get back what others have, once a node runs"})
		}
		if err := a.printTable(nil, rows); err != nil {
			return err
		}
	}
	if !report.OK {
		return &silentError{code: exitFailure}
	}
	return nil
}
