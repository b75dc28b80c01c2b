// Package node is one running peer: it composes the libp2p host, discovery, the topic layer, direct
// streams, the chat service and, for a relay, what a relay adds; and it owns their lifetimes.
//
// It is the only package that knows libp2p. It holds no chat logic: that is package chat, to which
// it gives the interfaces of chat/net.go. A front-end reaches it through node/api.
//
// New makes a node, Run runs it. All other methods may be called from any goroutine between the
// two, and afterwards.
package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/discovery"
	"github.com/starling-chat/starling/node/apiserver"
	"github.com/starling-chat/starling/node/relay"
	"github.com/starling-chat/starling/storage"
)

// stopTimeout bounds a stop, all services together. What has not ended by then is abandoned: the
// process is about to end, and a service manager's patience is limited.
const stopTimeout = 5 * time.Second

// Node is one running peer.
type Node struct {
	plan         *plan
	id           peer.ID
	host         host.Host
	store        *storage.Store
	chat         *chat.Service
	finder       *discovery.Finder
	dht          *discovery.DHT // nil without a DHT
	paths        *paths
	interfaces   *interfaces
	puncher      *puncher
	gossip       *gossip
	direct       *direct
	leases       *leases
	reservations *reservations
	lists        *relay.Lists      // of a relay
	server       *relay.Server     // nil unless a relay
	page         *relay.StatusPage // of a relay, if asked for
	bandwidth    *bandwidth
	api          *apiserver.Server   // nil without a runtime directory
	socket       *apiserver.Listener // the api's
	started      time.Time
	ready        chan struct{} // closed when the node is ready
	stop         chan struct{} // closed by Stop
	stopOnce     sync.Once
	closeOnce    sync.Once
	closeErr     error

	mu       sync.Mutex            // guards all below
	reported map[peer.ID]chat.Path // what chat was told
	relays   map[peer.ID]struct{}  // connected peers that offer relaying
	tcpFirst map[peer.ID]bool      // see preferTCP
	guarded  map[peer.ID]struct{}  // protected from the connection manager for chat
	run      bool
}

// New makes a node: it opens the store and the host at the same time, and reads what is persisted.
// Nothing listens before Run. A node that is never run must be closed.
func New(ctx context.Context, cfg Config) (*Node, error) {
	p, err := cfg.check()
	if err != nil {
		return nil, fmt.Errorf("configuring the node: %w", err)
	}
	n := &Node{
		plan:      p,
		bandwidth: &bandwidth{},
		started:   time.Now(),
		ready:     make(chan struct{}),
		stop:      make(chan struct{}),
		reported:  make(map[peer.ID]chat.Path),
		relays:    make(map[peer.ID]struct{}),
		tcpFirst:  make(map[peer.ID]bool),
		guarded:   make(map[peer.ID]struct{}),
	}
	n.interfaces = newInterfaces(net.InterfaceAddrs)
	if p.Simulation != nil {
		n.interfaces = newInterfaces(func() ([]net.Addr, error) { return nil, nil })
	}
	n.paths = newPaths(p.Logger)
	n.paths.changed = n.pathChanged
	var observed basichost.ObservedAddrsManager
	parts := hostParts{bandwidth: n.bandwidth, observed: &observed, gater: cfg.gater, own: n.interfaces}
	if p.Relay != nil {
		if n.lists, err = relay.OpenLists(p.Relay.Lists, p.Logger); err != nil {
			return nil, err
		}
		parts.gater = n.lists
	}
	var g errgroup.Group
	g.Go(func() (err error) {
		n.store, err = openStore(ctx, p)
		return err
	})
	g.Go(func() (err error) {
		if n.host, err = newHost(p, parts); err == nil {
			n.puncher = newPuncher(n.host, observed, n.paths, p.Logger)
		}
		return err
	})
	if err = g.Wait(); err == nil {
		err = n.compose()
	}
	if err != nil {
		return nil, errors.Join(err, n.Close(context.WithoutCancel(ctx)))
	}
	return n, nil
}

// compose makes the services around host and store.
func (n *Node) compose() error {
	p := n.plan
	n.id = n.host.ID()
	n.paths.host = n.host
	n.gossip = newGossip(p, n.id)
	n.gossip.isRelay = n.isRelay
	n.gossip.hooks = roomHooks{joined: n.roomJoined, left: n.roomLeft, member: n.roomMember}
	n.direct = newDirect(p, n.paths)
	n.direct.host, n.direct.reach, n.direct.hint = n.host, n.reach, n.hint
	n.leases, n.reservations = newLeases(n), newReservations(n)

	var roomSecret func(network, name, password string) (wire.RoomSecret, error)
	if p.Simulation != nil {
		roomSecret, n.gossip.counters.heard = p.Simulation.RoomSecret, p.Simulation.Heard
	}
	var err error
	if p.Relay == nil {
		n.chat, err = chat.New(chat.Config{
			RoomSecret:     roomSecret,
			Network:        p.Network,
			Device:         p.Keys.Device(),
			Certificate:    p.Keys.Certificate,
			SignDeviceList: listSigner(p.Keys),
			Store:          n.store,
			Gossip:         n.gossip,
			Direct:         n.direct,
			Directory:      directory{n},
			Relays:         n.leases,
			Clock:          p.Clock,
			Logger:         p.Logger,
			Limits:         p.Chat,
			Addrs:          n.linkAddrs,
		})
		if err != nil {
			return fmt.Errorf("making the chat service: %w", err)
		}
		n.direct.greet, n.direct.handle = n.chat.Greeting, n.chat.HandleFrame
	}

	if p.Relay != nil {
		if err := n.composeRelay(); err != nil {
			return err
		}
	}
	cfg := discovery.Config{
		Self:       n.id,
		Network:    dialer{n},
		Bootstraps: p.bootstraps,
		Store:      addressStore{n.store},
		Limits:     p.Limits.Discovery,
		Now:        p.Clock.Now,
		Logger:     p.Logger,
	}
	if p.DHT {
		table := discovery.DHTConfig{
			Network:    p.Network,
			Server:     p.Reachability == ReachabilityPublic,
			Records:    lookupRules{p.Clock.Now},
			Bootstraps: p.bootstraps,
		}
		if table.Server {
			table.Store = addressStore{n.store}
		}
		n.dht = discovery.NewDHT(n.host, table)
		cfg.Rendezvous = n.dht
	}
	switch {
	case p.Simulation != nil && p.Simulation.LAN != nil:
		cfg.LAN = p.Simulation.LAN(n.host)
	case p.Simulation == nil && p.MDNS:
		cfg.LAN = discovery.NewMDNS(n.host, p.Network, p.Logger)
	}
	if n.finder, err = discovery.New(cfg); err != nil {
		return err
	}
	return n.openAPI()
}

// composeRelay makes what a public relay adds.
func (n *Node) composeRelay() error {
	p := n.plan
	archive := relay.NewArchive(p.Relay.Archive, n.store, p.Keys.Device().PrivateKey(), p.Clock.Now, p.Logger)
	var err error
	n.server, err = relay.New(*p.Relay, relay.Parts{
		Host:    n.host,
		Archive: archive,
		Forward: n.gossip,
		Lists:   n.lists,
		Sent:    n.bandwidth.out.Load,
		Store:   usageStore{n.store},
		Now:     p.Clock.Now,
		Logger:  p.Logger,
	})
	if err != nil {
		return err
	}
	n.gossip.admit, n.gossip.keep = n.server.Admit, archive.Keep
	if p.Relay.Status == "" {
		return nil
	}
	registry := prometheus.NewRegistry()
	if err := errors.Join(n.server.Register(registry), n.registerMetrics(registry)); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	n.page = &relay.StatusPage{
		Server:  n.server,
		Metrics: registry,
		Peers:   func() int { return len(n.host.Network().Peers()) },
		ID:      n.id.String(),
		Version: p.Version,
	}
	return n.page.Listen(p.Relay.Status)
}

// openAPI opens the socket of the local API, so that a second node on the same files is noticed now.
func (n *Node) openAPI() error {
	if n.plan.RuntimeDir == "" {
		return nil
	}
	var err error
	if n.socket, err = apiserver.Listen(n.plan.RuntimeDir); err != nil {
		return err
	}
	n.api, err = apiserver.New(apiserver.Config{
		Chat:        n.chat,
		Node:        n,
		Maintenance: n,
		Version:     n.plan.Version,
		Logger:      n.plan.Logger,
	})
	return err
}

func openStore(ctx context.Context, p *plan) (*storage.Store, error) {
	if p.Simulation != nil && p.Simulation.Store != nil {
		return p.Simulation.Store, nil
	}
	if p.StoreDir == "" {
		return storage.OpenMemory(storeOptions(p))
	}
	return storage.Open(ctx, storeOptions(p))
}

func storeOptions(p *plan) storage.Options {
	key := p.Keys.SubKey("store")
	opts := storage.DefaultOptions(p.StoreDir, key[:])
	if p.Relay != nil {
		opts = storage.RelayOptions(p.StoreDir, key[:])
	}
	opts.Logger, opts.Now = p.Logger, p.Clock.Now
	return opts
}

// stage is one service with the order in which it starts; stages stop in reverse.
type stage struct {
	name string
	run  func(ctx context.Context, ready func()) error
}

// Run runs the node until ctx ends or Stop is called, and returns nil then. It closes the node. A
// service that fails stops everything; its error is returned.
func (n *Node) Run(ctx context.Context) error {
	n.mu.Lock()
	again := n.run
	n.run = true
	n.mu.Unlock()
	if again {
		return errors.New("node ran already")
	}
	stages := n.stages()
	failed := make(chan error, len(stages))
	var running []func(context.Context) error // in order of start; each stops one stage
	var err error
	for _, s := range stages {
		var stop func(context.Context) error
		if stop, err = begin(ctx, s, failed); err != nil {
			break
		}
		running = append(running, stop)
	}
	if err == nil {
		close(n.ready)
		select {
		case <-ctx.Done():
		case <-n.stop:
		case err = <-failed:
		}
	}
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	for i := len(running) - 1; i >= 0; i-- {
		if serr := running[i](stopCtx); serr != nil {
			n.plan.Logger.Warn("service did not stop", "err", serr)
		}
	}
	return errors.Join(err, n.close(stopCtx))
}

// begin starts a stage and waits until it is ready. The returned function stops it.
func begin(ctx context.Context, s stage, failed chan<- error) (func(context.Context) error, error) {
	// Its context ends when its turn to stop comes, not when the node's does.
	stageCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ready, done := make(chan struct{}), make(chan struct{})
	var result error
	go func() { // ends with s.run; the stop function waits for it
		defer close(done)
		if result = s.run(stageCtx, sync.OnceFunc(func() { close(ready) })); result != nil {
			result = fmt.Errorf("running %s: %w", s.name, result)
			failed <- result
		}
	}()
	stop := func(ctx context.Context) error {
		cancel()
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("stopping %s: %w", s.name, ctx.Err())
		}
	}
	select {
	case <-ready:
		return stop, nil
	case <-done:
		cancel()
		return nil, result
	}
}

// stages lists what runs, in the order in which it starts.
func (n *Node) stages() []stage {
	plain := func(f func(context.Context) error) func(context.Context, func()) error {
		return func(ctx context.Context, ready func()) error {
			ready()
			return f(ctx)
		}
	}
	out := []stage{
		{"store", plain(n.store.Run)},
		{"gossip", func(ctx context.Context, ready func()) error { return n.gossip.run(ctx, n.host, ready) }},
	}
	if n.chat != nil {
		out = append(out, stage{"direct streams", n.runDirect})
	}
	out = append(
		out,
		stage{"paths", plain(n.paths.run)},
		stage{"hole punching", plain(n.puncher.run)},
		stage{"listeners", n.runListeners},
	)
	if n.dht != nil {
		out = append(out, stage{"dht", n.dht.Run})
	}
	out = append(
		out,
		stage{"leases", plain(n.leases.run)},
		stage{"reservations", plain(n.reservations.run)},
		stage{"discovery", plain(n.finder.Run)},
	)
	if n.chat != nil {
		out = append(out, stage{"chat", plain(n.chat.Run)})
	}
	if n.server != nil {
		out = append(out, stage{"relay", plain(n.server.Run)})
	}
	if n.page != nil {
		out = append(out, stage{"status page", plain(n.page.Run)})
	}
	out = append(out, stage{"housekeeping", plain(n.keep)}, stage{"network watch", plain(n.watchNetwork)})
	if n.api != nil {
		out = append(out, stage{"api", plain(func(ctx context.Context) error { return n.api.Run(ctx, n.socket) })})
	}
	return out
}

// runDirect serves direct streams and chat's bulk protocols.
func (n *Node) runDirect(ctx context.Context, ready func()) error {
	var wg sync.WaitGroup
	for _, proto := range bulkProtocols {
		n.host.SetStreamHandler(proto, func(s network.Stream) {
			from, err := wire.DeviceFromPeerID([]byte(s.Conn().RemotePeer()))
			if err != nil || ctx.Err() != nil {
				_ = s.Reset()
				return
			}
			if err := s.SetDeadline(time.Now().Add(firstByteTimeout)); err != nil {
				_ = s.Reset()
				return
			}
			wg.Add(1)
			defer wg.Done()
			n.chat.ServeStream(ctx, from, string(proto), s)
		})
	}
	err := n.direct.run(ctx, ready)
	for _, proto := range bulkProtocols {
		n.host.RemoveStreamHandler(proto)
	}
	wg.Wait()
	return err
}

// runListeners listens until ctx ends.
func (n *Node) runListeners(ctx context.Context, ready func()) error {
	port := n.lastPort(ctx)
	chosen, err := listen(n.host, n.plan.listen, port)
	if err != nil {
		return err
	}
	if chosen != 0 && chosen != port {
		n.savePort(ctx, chosen)
	}
	ready()
	<-ctx.Done()
	return nil
}

// Ready is closed once the node listens and its services run.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Stop makes Run end. It is idempotent and does not wait.
func (n *Node) Stop() { n.stopOnce.Do(func() { close(n.stop) }) }

// Chat returns the chat service; nil on a relay.
func (n *Node) Chat() *chat.Service { return n.chat }

// PeerID returns the node's peer id.
func (n *Node) PeerID() string { return n.id.String() }

// Addrs returns the addresses at which others may reach this node, with its peer id.
func (n *Node) Addrs() []string { return fullAddrs(n.id, n.host.Addrs()) }

// linkAddrs are the addresses worth putting into a link, the farthest reaching first. Loopback ones
// are of use on this machine only, and are left out when there are others.
func (n *Node) linkAddrs() []string {
	reach := func(a ma.Multiaddr) int {
		_, err := a.ValueForProtocol(ma.P_CIRCUIT)
		circuit := err == nil
		switch {
		case circuit:
			return 1
		case manet.IsIPLoopback(a):
			return 3
		case manet.IsPublicAddr(a):
			return 0
		}
		return 2
	}
	addrs := slices.Clone(n.host.Addrs())
	slices.SortStableFunc(addrs, func(a, b ma.Multiaddr) int { return cmp.Compare(reach(a), reach(b)) })
	if i := slices.IndexFunc(addrs, manet.IsIPLoopback); i > 0 {
		addrs = addrs[:i]
	}
	return fullAddrs(n.id, addrs)
}

// FreeMemory gives back memory that the node only keeps because it once needed it, see [storage.Store.FreeMemory].
func (n *Node) FreeMemory() error { return n.store.FreeMemory() }

// Close releases what New opened, for a node that is never run. It is idempotent; Run calls it.
func (n *Node) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	return n.close(ctx)
}

func (n *Node) close(ctx context.Context) error {
	n.closeOnce.Do(func() {
		var errs []error
		if n.page != nil {
			errs = append(errs, n.page.Close())
		}
		if n.socket != nil {
			errs = append(errs, n.socket.Close())
		}
		if n.host != nil {
			errs = append(errs, closeHost(ctx, n.host))
		}
		if n.store != nil && (n.plan.Simulation == nil || n.plan.Simulation.Store == nil) {
			errs = append(errs, n.store.Close())
		}
		n.closeErr = errors.Join(errs...)
	})
	return n.closeErr
}
