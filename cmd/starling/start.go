package main

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/starling-chat/starling/node"
)

// memoryLimit is when the garbage collector begins to work harder; GOMEMLIMIT in the environment
// wins. A relay gets twice as much.
const memoryLimit = 256 << 20 // bytes

// startFlags belong to every command that may start a node. They are laid over the configuration.
type startFlags struct {
	listen, bootstraps, relays []string
	operator                   operatorFlags
	network, api, reachability string
	noMDNS, noDHT              bool
	noPassphrase               bool
	passphraseFile             string
}

func (a *app) startFlags(flags *pflag.FlagSet, f *startFlags) {
	flags.StringArrayVar(&f.listen, "listen", nil, "listen on this `MULTIADDR` in place of the defaults (repeat)")
	flags.StringArrayVar(&f.bootstraps, "bootstrap", nil, "meet others through the node at this full `MULTIADDR` (repeat)")
	flags.StringArrayVar(&f.relays, "relay", nil, "use the relay at this full `MULTIADDR` (repeat)")
	flags.StringVar(&f.network, "network", "", "`NAME` of the network")
	flags.BoolVar(&f.noMDNS, "no-mdns", false, "do not look for others on the local network")
	flags.BoolVar(&f.noDHT, "no-dht", false, "do not use the network's lookup table")
	flags.StringVar(&f.api, "api", "", "`off`: no HTTP on loopback; the unix socket is always served")
	flags.StringVar(&f.reachability, "reachability", "", "`WORD`: auto, public or private")
	keyFlags(flags, f)
}

func keyFlags(flags *pflag.FlagSet, f *startFlags) {
	flags.BoolVar(&f.noPassphrase, "no-passphrase", false, "the keys have no passphrase; do not ask")
	flags.StringVar(&f.passphraseFile, "passphrase-file", "", "read the passphrase of the keys from the first line of `FILE`, or of standard input with -")
}

// merged lays the flags over the configuration.
func (a *app) merged(f startFlags) (config, error) {
	c := *a.conf
	if len(f.listen) > 0 {
		c.Listen = f.listen
	}
	if len(f.bootstraps) > 0 {
		c.Bootstraps = f.bootstraps
	}
	if len(f.relays) > 0 {
		c.Relays = f.relays
	}
	for _, s := range []struct {
		to   *string
		from string
	}{
		{&c.Network, f.network},
		{&c.API, f.api},
		{&c.Reachability, f.reachability},
		{&c.LogLevel, a.global.logLevel},
		{&c.LogFormat, a.global.logFormat},
	} {
		if s.from != "" {
			*s.to = s.from
		}
	}
	c.MDNS = c.MDNS && !f.noMDNS
	c.DHT = c.DHT && !f.noDHT
	if err := c.check(); err != nil {
		return c, err
	}
	return c, c.checkAddresses()
}

// checkAddresses names the first address that cannot work, before anything is started.
func (c *config) checkAddresses() error {
	for _, text := range c.Listen {
		if _, err := ma.NewMultiaddr(text); err != nil {
			return usagef("listen address %q is not a multiaddr: write it like /ip4/0.0.0.0/tcp/4001 or /ip4/0.0.0.0/udp/4001/quic-v1", text)
		}
	}
	for what, list := range map[string][]string{"bootstrap": c.Bootstraps, "relay": c.Relays} {
		for _, text := range list {
			if _, err := peer.AddrInfoFromString(text); err != nil {
				return usagef("%s address %q is not a full multiaddr: it looks like /ip4/203.0.113.7/tcp/4001/p2p/12D3KooW... and the node's ready line prints it", what, text)
			}
		}
	}
	return nil
}

// logger writes to standard error or what stands for it, at a level that depends on whether the node is alone there.
func (a *app) logger(c config, usual slog.Level) *slog.Logger {
	level := usual
	if c.LogLevel != "" {
		_ = level.UnmarshalText([]byte(c.LogLevel)) // checked: one of slog's names
	}
	opts := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(a.logTo, opts))
	}
	return slog.New(slog.NewTextHandler(a.logTo, opts))
}

// running is a node in this process.
type running struct {
	node *node.Node
	keys opened
	done chan error // gets Run's result
}

// nodeConfig makes the configuration of a node from flags, configuration and keys.
func (a *app) nodeConfig(f startFlags, relay bool, usual slog.Level) (node.Config, opened, error) {
	c, err := a.merged(f)
	if err != nil {
		return node.Config{}, opened{}, err
	}
	keys, err := a.openKeys(f)
	if err != nil {
		return node.Config{}, opened{}, err
	}
	cfg := node.DefaultLaptop()
	if relay {
		cfg = node.DefaultRelay()
	}
	if relay {
		f.operator.apply(&cfg)
	}
	cfg.Keys = keys
	cfg.Home, cfg.StoreDir, cfg.RuntimeDir = a.place.Home, a.place.Store, a.place.Runtime
	cfg.Version, cfg.Logger = version, a.logger(c, usual)
	cfg.Network = c.Network
	cfg.MDNS = cfg.MDNS && c.MDNS
	cfg.DHT = cfg.DHT && c.DHT
	cfg.Bootstraps, cfg.Relays = c.Bootstraps, c.Relays
	if len(c.Listen) > 0 {
		cfg.Listen = c.Listen
	}
	if c.Reachability != "" {
		cfg.Reachability = node.Reachability(c.Reachability)
	}
	return cfg, keys, nil
}

// start makes a node that serves its API and runs it until ctx ends. It returns when the node is
// ready; wait for done after cancelling ctx.
func (a *app) start(ctx context.Context, f startFlags, relay bool, usual slog.Level) (*running, error) {
	cfg, keys, err := a.nodeConfig(f, relay, usual)
	if err != nil {
		return nil, err
	}
	if a.getenv("GOMEMLIMIT") == "" {
		limit := int64(memoryLimit)
		if relay {
			limit *= 2
		}
		debug.SetMemoryLimit(limit)
	}
	collect := a.deferCollections()
	r := &running{keys: keys, done: make(chan error, 1)}
	if r.node, err = node.New(ctx, cfg); err != nil {
		collect()
		return nil, err
	}
	go func() { r.done <- r.node.Run(ctx) }() // ends with ctx, or with the node; the caller waits on done
	go trimMemory(ctx, r.node, cfg.Logger)    // ends with ctx; holds nothing
	select {
	case <-r.node.Ready():
		time.AfterFunc(collectAfter, collect)
		return r, nil
	case err := <-r.done:
		collect()
		if err == nil {
			err = context.Canceled // told to stop while it started
		}
		return nil, err
	}
}

// ready is the line that `run` and `relay` print once they answer.
type readyLine struct {
	Event   string   `json:"event"` // "ready"
	PeerID  string   `json:"peer_id"`
	Account string   `json:"account"`
	Addrs   []string `json:"addrs"` // full multiaddrs
	API     struct {
		Socket string  `json:"socket"`
		HTTP   *string `json:"http"` // null: HTTP on loopback is not served
	} `json:"api"`
}

// runNode is `run` and `relay`: a node in the foreground until a signal or `stop`.
func (a *app) runNode(ctx context.Context, f startFlags, relay bool) error {
	r, err := a.start(ctx, f, relay, slog.LevelInfo)
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return nil // told to stop while it started
		}
		return err
	}
	a.introduce(ctx, r)
	line := readyLine{Event: "ready", PeerID: r.node.PeerID(), Account: r.keys.Account().ID().String(), Addrs: r.node.Addrs()}
	line.API.Socket = a.client().Socket()
	if err := a.printJSON(line); err != nil {
		return err
	}
	return <-r.done
}

// introduce sets the nick that was asked for on the first run.
func (a *app) introduce(ctx context.Context, r *running) {
	if r.keys.nick == "" {
		return
	}
	c := a.client()
	defer c.Close()
	if _, err := c.SetNick(ctx, r.keys.nick); err != nil {
		a.warn(err)
		a.note("starling: choose another nick with `starling nick NAME`")
	}
}

func (a *app) runCommand() *cobra.Command {
	var f startFlags
	cmd := &cobra.Command{
		Use: "run", Short: "Run the node in the foreground", Args: noArgs,
		Long: "Run the node in the foreground until a signal or `starling stop`. When it is ready it prints one\n" +
			"JSON line with its addresses and the socket of its API; its log goes to standard error.",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runNode(cmd.Context(), f, false) },
	}
	a.startFlags(cmd.Flags(), &f)
	return cmd
}

// operatorFlags are what the operator of a relay can set besides what every node takes.
type operatorFlags struct {
	lists, status  string
	daily, monthly int64 // GiB
	keep           int64 // GiB
}

func (o *operatorFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&o.lists, "lists", "", "admit and refuse by the rules in `FILE`, one a line: allow|deny PEERID|NETWORK")
	flags.StringVar(&o.status, "status", "", "serve a status page, /healthz and /metrics at `HOST:PORT`")
	flags.Int64Var(&o.daily, "daily", 0, "carry at most this many `GIB` a day (default 50)")
	flags.Int64Var(&o.monthly, "monthly", 0, "carry at most this many `GIB` a month (default: no cap of its own)")
	flags.Int64Var(&o.keep, "keep", 0, "use at most this many `GIB` of disk for what is kept for the absent (default 5)")
}

func (o *operatorFlags) apply(cfg *node.Config) {
	cfg.Relay.Lists, cfg.Relay.Status = o.lists, o.status
	cfg.Relay.Circuits.Daily, cfg.Relay.Circuits.Monthly = o.daily<<30, o.monthly<<30
	cfg.Relay.Archive.Total = o.keep << 30
}

func (a *app) relayCommand() *cobra.Command {
	var f startFlags
	cmd := &cobra.Command{
		Use: "relay", Short: "Run a public relay for others", Args: noArgs,
		Long: "Run a node that gives others a meeting point, a way through NAT and a forwarder for their rooms.\n" +
			"It sees addresses and random-looking topics, never a room's name or a text. It listens on port\n" +
			"4001 unless --listen says otherwise, and prints one JSON line when it is ready.",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runNode(cmd.Context(), f, true) },
	}
	a.startFlags(cmd.Flags(), &f)
	f.operator.add(cmd.Flags())
	return cmd
}
