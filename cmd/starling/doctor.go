package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/starling-chat/starling/node/api"
)

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Say what works, what does not, and what to do", Args: noArgs,
		RunE: a.frontend(func(ctx context.Context, c *api.Client, _ []string) error {
			report, err := c.Doctor(ctx)
			if err != nil {
				return err
			}
			if a.global.json {
				err = a.printJSON(report)
			} else {
				err = a.printTable(nil, doctorRows(report))
			}
			if err == nil && !report.OK {
				err = &silentError{code: exitFailure}
			}
			return err
		}),
	}
}

func doctorRows(report api.Doctor) [][]string {
	var rows [][]string
	for _, c := range report.Checks {
		rows = append(rows, []string{c.Status, c.Name, c.Detail})
		if c.Hint != "" {
			rows = append(rows, []string{"", "", "-> " + c.Hint})
		}
	}
	return rows
}
