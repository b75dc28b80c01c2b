package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-chat/starling/cmd/starling/internal/bench"
)

// maxSimNodes bounds a simulation: each node takes a few megabytes.
const maxSimNodes = 5000

func (a *app) simCommand() *cobra.Command {
	var s bench.Scenario
	cmd := &cobra.Command{
		Use: "sim", Short: "Simulate a network of many nodes in one room", Args: noArgs,
		Annotations: map[string]string{withoutConfig: "yes"},
		Long: "Run whole nodes (real hosts, gossip, encryption and sync) in this process, on a simulated network\n" +
			"in virtual time, with stores in memory. Nothing leaves the process. One room; random nodes speak.\n" +
			"The same seed gives the same keys, neighbours, speakers and losses. It fails when anything is lost.\n\n" +
			"  starling sim --nodes 100 --loss 0.01\n" +
			"  starling sim --nodes 200 --die 0.25 --seed 7\n" +
			"  starling sim --nodes 50 --partition 1m --churn 0.2 --json",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.sim(cmd.Context(), s) },
	}
	f := cmd.Flags()
	f.IntVar(&s.Nodes, "nodes", 100, "`N` nodes; a hundred take about half a minute on two cores")
	f.IntVar(&s.Neighbours, "neighbours", 6, "each node knows `N` of those started before it")
	f.IntVar(&s.Messages, "messages", 20, "say `N` messages")
	f.DurationVar(&s.Pause, "pause", 200*time.Millisecond, "`TIME` between two messages")
	f.DurationVar(&s.Latency, "latency", 20*time.Millisecond, "one-way `TIME` between any two")
	f.DurationVar(&s.Jitter, "jitter", 5*time.Millisecond, "up to so much `TIME` more, at random")
	f.Float64Var(&s.Loss, "loss", 0, "`SHARE` of packets lost, such as 0.01")
	f.Float64Var(&s.Churn, "churn", 0, "`SHARE` of the nodes that leave and come back half a minute later")
	f.Float64Var(&s.Die, "die", 0, "`SHARE` of the nodes that die at the middle message")
	f.DurationVar(&s.Partition, "partition", 0, "cut the network into halves for so much `TIME`")
	f.Uint64Var(&s.Seed, "seed", 1, "`NUMBER` that everything random comes from")
	f.DurationVar(&s.Patience, "patience", 10*time.Minute, "virtual `TIME` until what has not come is lost")
	cmd.AddCommand(&cobra.Command{
		Use: "worker", Short: "Play the scenario on standard input", Args: noArgs, Hidden: true,
		Annotations: map[string]string{withoutConfig: "yes"},
		RunE:        func(*cobra.Command, []string) error { return bench.SimulateHere(a.stdin, a.stderr) },
	})
	return cmd
}

func (a *app) sim(ctx context.Context, s bench.Scenario) error {
	switch {
	case s.Nodes < 2 || s.Nodes > maxSimNodes:
		return usagef("--nodes %d: from 2 to %d", s.Nodes, maxSimNodes)
	case s.Messages < 1 || s.Neighbours < 1 || s.Pause <= 0 || s.Latency <= 0 || s.Jitter < 0 || s.Patience <= 0 || s.Partition < 0:
		return usagef("--messages, --neighbours, --pause, --latency and --patience must be above zero, and no time negative")
	case s.Seed == 0:
		return usagef("--seed 0: any other number")
	}
	for _, share := range []struct {
		flag  string
		value float64
		below float64
	}{{"--loss", s.Loss, 0.5}, {"--churn", s.Churn, 1}, {"--die", s.Die, 0.9}, {"--churn and --die together", s.Churn + s.Die, 1}} {
		if share.value < 0 || share.value >= share.below {
			return usagef("%s %g: a share from 0 to below %g, such as 0.01", share.flag, share.value, share.below)
		}
	}
	progress := a.stderr
	if a.global.quiet {
		progress = nil
	}
	result, err := bench.Simulate(ctx, []string{os.Args[0], "sim", "worker"}, s, progress)
	if err != nil {
		return err
	}
	if a.global.json {
		err = a.printJSON(result)
	} else {
		err = a.printTable(nil, result.Cells())
	}
	if err == nil && result.Lost > 0 {
		err = fmt.Errorf("%d of %d deliveries were lost; the same seed shows it again", result.Lost, result.Deliveries)
	}
	return err
}
