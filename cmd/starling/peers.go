package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/starling-chat/starling/node/api"
)

func (a *app) peersCommand() *cobra.Command {
	return &cobra.Command{
		Use: "peers", Short: "List the connected peers and how they are reached", Args: noArgs,
		RunE: a.frontend(func(ctx context.Context, c *api.Client, _ []string) error {
			peers, err := c.Peers(ctx)
			if err != nil {
				return err
			}
			if a.global.json {
				return printObjects(a, peers)
			}
			if len(peers) == 0 {
				a.note("no peers; see `starling doctor`")
				return nil
			}
			rows := make([][]string, len(peers))
			for i, p := range peers {
				name := "-"
				switch {
				case p.Relay:
					name = "(relay)"
				case p.Nick != "":
					name = api.EscapeNick(p.Nick)
				}
				rows[i] = []string{name, p.Path, fmt.Sprintf("%.1f ms", p.RTTMS), strconv.Itoa(p.Rooms), p.Addr, p.PeerID}
			}
			return a.printTable([]string{"NICK", "PATH", "RTT", "ROOMS", "ADDRESS", "PEER"}, rows)
		}),
	}
}

func (a *app) pingCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ping PEER", Short: "Measure a round trip to a peer id, an address or @NAME", Args: takes(1, 1),
		RunE: a.frontend(func(ctx context.Context, c *api.Client, args []string) error {
			res, err := c.Ping(ctx, args[0])
			if err != nil {
				return err
			}
			if a.global.json {
				return a.printJSON(res)
			}
			return a.say("%s %s %.1f ms %s", res.PeerID, res.Path, res.RTTMS, res.Addr)
		}),
	}
}
