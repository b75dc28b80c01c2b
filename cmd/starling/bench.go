package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"

	"github.com/spf13/cobra"

	"github.com/starling-chat/starling/cmd/starling/internal/bench"
)

// benchListen is where the nodes of a measurement listen: nothing leaves the machine.
const benchListen = "/ip4/127.0.0.1/tcp/0"

type benchFlags struct {
	rounds  int
	only    []string
	profile string
}

func (a *app) benchCommand() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use: "bench", Short: "Measure this machine's nodes beside a bare anchor", Args: noArgs,
		Annotations: map[string]string{withoutConfig: "yes"},
		Long: "Measure nodes (encryption, storage and receipts on) beside bare libp2p, raw Badger and raw files\n" +
			"in the same run, in processes of their own on loopback, and print the ratios with their targets.\n" +
			"Fewer than five rounds give figures and no verdict. Names for --only:\n  " +
			strings.Join(bench.Names(), " "),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.bench(cmd.Context(), f) },
	}
	cmd.Flags().IntVar(&f.rounds, "rounds", bench.MinRounds, "measure each row `N` times")
	cmd.Flags().StringSliceVar(&f.only, "only", nil, "measure these `NAMES` alone")
	cmd.Flags().StringVar(&f.profile, "cpuprofile", "", "leave a processor profile of each process in `DIR`")
	cmd.AddCommand(a.benchNodeCommand())
	return cmd
}

func (a *app) bench(ctx context.Context, f benchFlags) error {
	if f.rounds < 1 {
		return usagef("--rounds %d: at least 1, and %d for a verdict", f.rounds, bench.MinRounds)
	}
	for _, name := range f.only {
		if err := oneOf("--only", name, bench.Names()...); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	dir, err := os.MkdirTemp(a.global.home, "starling-bench-")
	if err != nil {
		return fmt.Errorf("making a directory for the measurement: %w", err)
	}
	defer os.RemoveAll(dir)
	s := bench.Suite{Command: []string{self}, Rounds: f.rounds, Only: f.only, Dir: dir, Profiles: f.profile}
	if !a.global.quiet {
		s.Progress = a.stderr
	}
	machine := bench.Machine()
	rows, err := s.Run(ctx)
	if len(rows) == 0 && err != nil {
		return err
	}
	report := bench.Report{Version: version, Go: runtime.Version(), Machine: machine, Rounds: f.rounds, Rows: rows}
	if a.global.json {
		if perr := a.printJSON(report); perr != nil {
			return perr
		}
		return err
	}
	if perr := a.printTable(bench.Header(), report.Cells()); perr != nil {
		return perr
	}
	for _, line := range report.Notes() {
		if perr := a.say("%s", line); perr != nil {
			return perr
		}
	}
	return err
}

// benchNodeFlags say what kind of peer an adapter drives.
type benchNodeFlags struct {
	bare, hub bool
	relays    []string
	dir       string
	profile   string
}

func (a *app) benchNodeCommand() *cobra.Command {
	var f benchNodeFlags
	cmd := &cobra.Command{
		Use: "node", Short: "Drive one node by lines on standard input, for a harness", Args: noArgs,
		Annotations: map[string]string{withoutConfig: "yes"},
		Long: "Run a real node (encryption and storage on, loopback, no discovery) in a temporary home and obey\n" +
			"lines on standard input:\n\n" +
			"  CONNECT ADDR   JOIN ROOM   PUB ROOM PAYLOAD   DM ADDR PAYLOAD   STAT   QUIT\n\n" +
			"Standard output has READY ADDR, CONNECTED, JOINED ROOM, R PAYLOAD for what arrives in a room,\n" +
			"D PAYLOAD for what arrives for this node alone, STAT with its figures, and ERR with a reason.\n" +
			"ADDR is one word: what another one's READY line says.",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.benchNode(cmd.Context(), f) },
	}
	cmd.Flags().BoolVar(&f.bare, "bare", false, "drive the anchor instead: libp2p and gossipsub, nothing else")
	cmd.Flags().BoolVar(&f.hub, "hub", false, "be a public relay that takes part in no chat")
	cmd.Flags().StringArrayVar(&f.relays, "relay", nil, "use the relay at this full `MULTIADDR` (repeat)")
	cmd.Flags().StringVar(&f.profile, "cpuprofile", "", "write a processor profile to `FILE`")
	cmd.Flags().StringVar(&f.dir, "keep", "", "use this `DIR` as home and leave it, instead of a temporary one")
	return cmd
}

func (a *app) benchNode(ctx context.Context, f benchNodeFlags) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if f.profile != "" {
		stop, err := profile(f.profile)
		if err != nil {
			return err
		}
		defer stop()
	}
	out := bench.NewAdapter(a.stdout)
	defer out.Close()
	serve := func(ctx context.Context, addr string, p bench.Peer, usage func() bench.Usage) error {
		return out.Serve(ctx, a.stdin, addr, p, usage)
	}
	if f.bare {
		return bench.ServeBare(ctx, out, serve)
	}
	dir := f.dir
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "starling-bench-node-"); err != nil {
			return fmt.Errorf("making a home: %w", err)
		}
		defer os.RemoveAll(dir)
	}
	// The user's own configuration and environment have no say in a measurement.
	var err error
	if a.place, err = findPlaces(filepath.Clean(dir), a.getenv); err != nil {
		return err
	}
	if a.conf, err = loadConfig(a.place.Config, func(string) string { return "" }); err != nil {
		return err
	}
	r, err := a.start(ctx, startFlags{
		listen: []string{benchListen}, relays: f.relays, network: "bench", noMDNS: true, noDHT: true, noPassphrase: true,
	}, f.hub, slog.LevelWarn)
	if err != nil {
		return err
	}
	err = bench.ServeNode(ctx, r.node, out, serve)
	cancel()
	if rerr := <-r.done; err == nil {
		err = rerr
	}
	return err
}

// profile writes what the processor does from now on to a file, until stop.
func profile(file string) (stop func(), err error) {
	f, err := os.Create(file)
	if err != nil {
		return nil, fmt.Errorf("making a profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("making a profile: %w", err)
	}
	return func() {
		pprof.StopCPUProfile()
		f.Close()
	}, nil
}
