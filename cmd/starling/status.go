package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-chat/starling/node/api"
)

// watchPeriod is how often `status --watch` looks.
const watchPeriod = time.Second

func (a *app) statusCommand() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use: "status", Short: "Show the state of the node", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := a.client()
			defer c.Close()
			if watch {
				return a.watchStatus(cmd.Context(), c)
			}
			ctx, cancel := a.limited(cmd.Context())
			defer cancel()
			st, err := c.Status(ctx)
			if err != nil {
				return err
			}
			return a.printStatus(st)
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it again whenever it changes")
	return cmd
}

func (a *app) printStatus(st api.Status) error {
	if a.global.json {
		return a.printJSON(st)
	}
	rows := [][]string{
		{"node", fmt.Sprintf("%s, up %s, network %s", st.Version, time.Since(st.StartedAt.Time).Round(time.Second), st.Network)},
		{"you", fmt.Sprintf("%s (%s)", nickOrNone(st.Nick), st.Account)},
		{"keys", keysInWords(st)},
		{"home", st.Home},
		{"peers", peersInWords(st.Peers)},
		{"reachable", st.Reachability},
		{"relays", relaysInWords(st.Relays)},
		{"when away", awayInWords(st.Away)},
		{"rooms", fmt.Sprintf("%d, %d unread, %d missing", st.Rooms, st.Unread, st.Gaps)},
		{"outbox", strconv.Itoa(st.Outbox)},
		{"storage", fmt.Sprintf("%s: %s in %s, %s free", st.Storage.State, plural(st.Storage.Messages, "message"), size(st.Storage.Bytes), size(st.Storage.FreeBytes))},
		{"memory", size(st.MemoryBytes)},
		{"traffic", fmt.Sprintf("%s in, %s out", size(st.BytesIn), size(st.BytesOut))},
	}
	for _, p := range st.Problems {
		rows = append(rows, []string{"problem", p})
	}
	return a.printTable(nil, rows)
}

func nickOrNone(nick string) string {
	if nick == "" {
		return "without a nick"
	}
	return api.EscapeNick(nick)
}

func keysInWords(st api.Status) string {
	if st.Encrypted {
		return "protected by a passphrase"
	}
	return "without a passphrase"
}

func peersInWords(n api.PathCount) string {
	return fmt.Sprintf("%d (%d lan, %d direct, %d punched, %d relayed)", n.Total, n.LAN, n.Direct, n.Punched, n.Relayed)
}

func awayInWords(a api.Away) string {
	words := "nobody keeps mail for you"
	if a.Mailboxes > 0 {
		words = plural(a.Mailboxes, "relay") + " keep mail for you"
		if a.Mailboxes == 1 {
			words = "1 relay keeps mail for you"
		}
	}
	if a.Findable {
		return words + ", your keys are left with the network"
	}
	return words + ", only who met you has your keys"
}

func relaysInWords(relays []api.Relay) string {
	if len(relays) == 0 {
		return "none"
	}
	var words []string
	for _, r := range relays {
		state := "not connected"
		switch {
		case r.Reserved:
			state = "reserved, forwards " + plural(r.Topics, "room")
		case r.Connected:
			state = "connected, forwards " + plural(r.Topics, "room")
		case r.Error != "":
			state = r.Error
		}
		words = append(words, shortPeer(r.PeerID)+" "+state)
	}
	return strings.Join(words, "; ")
}

// shortPeer is the end of a peer id: the beginning is the same for all.
func shortPeer(id string) string { return id[max(0, len(id)-8):] }

// size writes a number of bytes in the largest unit that leaves a whole part.
func size[T int64 | uint64](n T) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v /= 1024
		i++
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}

// watchStatus prints the status whenever something in it changed but counters. On a terminal it
// stays in place.
func (a *app) watchStatus(ctx context.Context, c *api.Client) error {
	var last []byte
	tick := time.NewTicker(watchPeriod)
	defer tick.Stop()
	for {
		st, err := c.Status(ctx)
		if err != nil {
			return err
		}
		stable := st
		stable.MemoryBytes, stable.BytesIn, stable.BytesOut = 0, 0, 0
		stable.Gossip, stable.Storage.FreeBytes = api.Gossip{}, 0
		now, err := json.Marshal(stable)
		if err != nil {
			return fmt.Errorf("comparing the status: %w", err)
		}
		if !bytes.Equal(now, last) {
			last = now
			if isTerminal(a.stdout) && !a.global.json {
				fmt.Fprint(a.stdout, "\x1b[H\x1b[J")
			}
			if err := a.printStatus(st); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
