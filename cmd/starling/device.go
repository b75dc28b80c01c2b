package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/starling-chat/starling/node/api"
)

func (a *app) deviceCommand() *cobra.Command {
	return group("device", "The devices of your account", a.deviceListCommand(), a.deviceRevokeCommand())
}

func (a *app) deviceListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the devices of your account that are known here", Args: noArgs,
		RunE: a.frontend(func(ctx context.Context, c *api.Client, _ []string) error {
			devices, err := c.Devices(ctx)
			if err != nil {
				return err
			}
			if a.global.json {
				return printObjects(a, devices)
			}
			rows := make([][]string, len(devices))
			for i, d := range devices {
				state := orDash(d.Path)
				switch {
				case d.Here:
					state = "this one"
				case d.Revoked:
					state = "revoked"
				}
				rows[i] = []string{shortPeer(d.ID), state, d.ID}
			}
			return a.printTable([]string{"NAME", "STATE", "ID"}, rows)
		}),
	}
}

func (a *app) deviceRevokeCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "revoke DEVICE", Short: "Take a lost device out of your account, for good", Args: takes(1, 1),
		Long: "Say to everybody that a device speaks for you no more. Contacts send it nothing and take nothing from it,\n" +
			"and private rooms change their key. DEVICE is a name of `starling device list`, or an id in full. It does not\n" +
			"come back: a device that is found again is restored from a backup, as a new one.\n\n" +
			"Whoever can open the device's keys has your account's key too, and can make devices of their own: then\n" +
			"only a new account helps.",
		RunE: a.frontend(func(ctx context.Context, c *api.Client, args []string) error {
			if !yes {
				if err := a.confirm("revoke the device " + api.Escape(args[0]) + " for good"); err != nil {
					return err
				}
			}
			if err := c.RevokeDevice(ctx, args[0]); err != nil {
				return err
			}
			a.note("revoked %s; contacts and rooms are told", api.Escape(args[0]))
			return nil
		}),
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}
