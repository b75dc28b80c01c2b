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
			ctx := cmd.Context()
			if a.global.timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, a.global.timeout)
				defer cancel()
			}
			c := a.client()
			defer c.Close()
			report, err := c.Check(ctx)
			var e *api.Error
			if errors.As(err, &e) && e.Code == api.CodeNotRunning {
				report, err = a.checkOffline(ctx, f)
			}
			if err != nil {
				return err
			}
			return a.printCheck(report)
		},
	}
	keyFlags(cmd.Flags(), &f)
	return cmd
}

func (a *app) checkOffline(ctx context.Context, f startFlags) (api.CheckReport, error) {
	cfg, _, err := a.nodeConfig(f, false, slog.LevelWarn)
	if err != nil {
		return api.CheckReport{}, err
	}
	return node.CheckStore(ctx, cfg)
}

func (a *app) printCheck(report api.CheckReport) error {
	if a.global.json {
		if err := a.printJSON(report); err != nil {
			return err
		}
	} else {
		rows := [][]string{{fmt.Sprintf("%s read", plural(report.Checked, "value"))}}
		for _, p := range report.Problems {
			rows = append(rows, []string{p})
		}
		if report.OK {
			rows = append(rows, []string{"the store is whole"})
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
