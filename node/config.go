package node

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/identity"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/discovery"
	"github.com/starling-chat/starling/node/relay"
	"github.com/starling-chat/starling/storage"
)

// Reachability says how a node takes its own position in the network.
type Reachability string

// The values of [Config.Reachability].
const (
	// ReachabilityAuto finds out by asking other nodes; it takes up to half a minute.
	ReachabilityAuto Reachability = "auto"
	// ReachabilityPublic takes the node to be reachable by everybody: no relay is used.
	ReachabilityPublic Reachability = "public"
	// ReachabilityPrivate takes the node to be behind a NAT: it reserves a place at a relay at once.
	ReachabilityPrivate Reachability = "private"
)

// DefaultNetwork is the network that nodes join unless told otherwise.
const DefaultNetwork = "main"

// Keys are what makes a node somebody: see identity.Keys, which implements it.
type Keys interface {
	Device() *identity.Device
	Certificate(now time.Time) (wire.Certificate, error)
	SubKey(label string) [32]byte // seals what lies on disk
	Protected() bool              // by a passphrase; only shown
}

// ListSigner is what Keys may be besides: identity.Keys is. Without it no device list is published.
type ListSigner interface {
	SignDeviceList(l *wire.DeviceList) ([]byte, error)
}

// listSigner returns how device lists are signed, or nil.
func listSigner(k Keys) func(*wire.DeviceList) ([]byte, error) {
	if s, ok := k.(ListSigner); ok {
		return s.SignDeviceList
	}
	return nil
}

// Config is what a [Node] is made of. Keys is required; start from DefaultLaptop or DefaultRelay for
// the rest.
type Config struct {
	Keys Keys
	// StoreDir is the directory of the store; empty keeps everything in memory, for simulations.
	StoreDir string
	// RuntimeDir is the directory of the local API's socket; empty serves no API.
	RuntimeDir string
	// Home and Version are shown in the status: the directory of the user's files and the program.
	Home    string
	Version string

	// Network separates networks: nodes of different names never find each other.
	Network string
	// Listen are the multiaddrs to listen on. Empty: TCP and QUIC on all interfaces, IPv4 and IPv6,
	// on the port of the last start, or a random one. Given ones must all work.
	Listen []string
	// Bootstraps and Relays are full multiaddrs (with /p2p/) of public nodes, kept connected. A
	// relay is a bootstrap too, and a bootstrap that offers relaying is used as a relay.
	Bootstraps []string
	Relays     []string
	// MDNS and DHT switch on discovery on the local link and in the network's DHT.
	MDNS bool
	DHT  bool
	// PortMap asks the router to open a port (UPnP, NAT-PMP). It is left out where it makes no sense:
	// on a public node, and when only loopback addresses are listened on.
	PortMap bool
	// Reachability: see its values.
	Reachability Reachability
	// Relay, if set, makes this node a public relay.
	Relay *relay.Config

	// Limits bound what others can make this node do.
	Limits Limits
	// Chat bounds the chat service; zero fields are its defaults.
	Chat chat.Limits
	// Clock is the wall clock; nil is the system's.
	Clock chat.Clock
	// Logger gets what an operator may want to know; nil discards it.
	Logger *slog.Logger
	// Simulation replaces the real network; for tests. Nil is the real one.
	Simulation *Simulation

	gater connmgr.ConnectionGater // refuses connections; for tests
}

// Simulation makes a node run inside a simulated network: no TCP, no port mapping, no reachability
// probes (all of them need real sockets), and discovery on the local link by LAN.
type Simulation struct {
	// Options are given to the host and must bring its transport.
	Options []libp2p.Option
	// LAN, if set, takes the place of mDNS; a host's constructor so that it can announce itself.
	LAN func(h host.Host) discovery.LAN
	// Store, if set, is what the node stores in; it is not closed with the node, so that it outlives a
	// restart.
	Store *storage.Store
	// RoomSecret derives the secrets of public rooms; nil is the real way, which is slow on purpose.
	RoomSecret func(network, name, password string) (wire.RoomSecret, error)
	// Heard is told of each room message that arrives for the first time, own ones included: the
	// topic layer's id of it, and the neighbour it came from. It must not block.
	Heard func(id string, from peer.ID)
}

// Limits bound a node. Every number can be set; 0 takes the default, and there is no unlimited.
type Limits struct {
	Connections Connections
	// Protected bounds the peers that the connection manager may not close: room members,
	// contacts, relays.
	Protected int
	// Discovery bounds what looking for peers costs the network.
	Discovery discovery.Limits
	// DirectQueue bounds the bytes that wait for one peer's stream; Send waits when it is full.
	// Raising it costs that much memory for each slow peer.
	DirectQueue int
	// Gossip bounds the topic layer.
	Gossip GossipLimits
}

// Connections are the limits of the resource and connection managers.
type Connections struct {
	TransientInbound int   // connections that are still being set up
	TransientMemory  int64 // bytes they may hold
	SystemInbound    int
	SystemTotal      int
	FileDescriptors  int // of connections; never more than three quarters of the process limit
	Low, High        int // the connection manager trims to Low when there are more than High
	PerIPv4          int // at once from one address; private ranges are exempt from these five
	PerIPv4Net       int // at once from one /24
	PerIPv6Site      int // at once from one /56
	PerIPv6Net       int // at once from one /48
	NewPerSecond     float64
	NewBurst         int
	Memory           int64 // bytes for all connections and streams together
}

// GossipLimits bound the topic layer.
type GossipLimits struct {
	Queue         int // frames that wait for one neighbour; beyond it they are dropped, and counted
	TopicsPerPeer int // subscriptions remembered for one peer
	// Fanout is how many neighbours of a topic are pushed to before others are only told what there is; a
	// laptop gives an eager link to twice as many when it is asked for one. A relay needs as many as it has
	// leases.
	Fanout int
}

// DefaultLaptop returns the configuration of a node on a laptop.
func DefaultLaptop() Config {
	return Config{
		Network:      DefaultNetwork,
		MDNS:         true,
		DHT:          true,
		PortMap:      true,
		Reachability: ReachabilityPrivate,
		Limits:       LaptopLimits(),
	}
}

// DefaultRelay returns the configuration of a public relay on port 4001.
func DefaultRelay() Config {
	return Config{
		Network: DefaultNetwork,
		Listen: []string{
			"/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1",
			"/ip6/::/tcp/4001", "/ip6/::/udp/4001/quic-v1",
		},
		DHT:          true,
		Reachability: ReachabilityPublic,
		Limits:       RelayLimits(),
		Relay:        &relay.Config{},
	}
}

// LaptopLimits are the defaults of a laptop.
func LaptopLimits() Limits {
	return Limits{
		Connections: Connections{
			TransientInbound: 1024, TransientMemory: 128 << 20,
			SystemInbound: 512, SystemTotal: 768, FileDescriptors: 1024,
			Low: 96, High: 192,
			PerIPv4: 16, PerIPv4Net: 64, PerIPv6Site: 16, PerIPv6Net: 64,
			NewPerSecond: 0.5, NewBurst: 32,
			Memory: 512 << 20,
		},
		Protected:   64,
		Discovery:   discovery.DefaultLimits(),
		DirectQueue: 4 << 20,
		Gossip:      GossipLimits{Queue: 4096, TopicsPerPeer: 512, Fanout: 8},
	}
}

// RelayLimits are the defaults of a public relay.
func RelayLimits() Limits {
	l := LaptopLimits()
	l.Connections = Connections{
		TransientInbound: 4096, TransientMemory: 512 << 20,
		SystemInbound: 4096, SystemTotal: 6144, FileDescriptors: 8192,
		Low: 512, High: 768,
		PerIPv4: 64, PerIPv4Net: 512, PerIPv6Site: 128, PerIPv6Net: 1024,
		NewPerSecond: 2, NewBurst: 128,
		Memory: 2 << 30,
	}
	l.Gossip = GossipLimits{Queue: 4096, TopicsPerPeer: 4096, Fanout: 1024}
	return l
}

// plan is a checked Config.
type plan struct {
	Config
	listen     []ma.Multiaddr
	bootstraps []peer.AddrInfo // relays included
	relays     []peer.AddrInfo
}

type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

// check fills in defaults and refuses what cannot work, naming the option.
func (c Config) check() (*plan, error) {
	p := &plan{Config: c}
	if c.Keys == nil {
		return nil, errors.New("keys are required")
	}
	if c.Network == "" {
		p.Network = DefaultNetwork
	}
	if err := wire.CheckNetworkName(p.Network); err != nil {
		return nil, err
	}
	switch c.Reachability {
	case "":
		p.Reachability = ReachabilityAuto
	case ReachabilityAuto, ReachabilityPublic, ReachabilityPrivate:
	default:
		return nil, fmt.Errorf("reachability %q: use auto, public or private", c.Reachability)
	}
	if c.Relay != nil && p.Reachability != ReachabilityPublic {
		return nil, errors.New("a relay must be reachable by others: set reachability to public")
	}
	for _, text := range c.Listen {
		a, err := ma.NewMultiaddr(text)
		if err != nil {
			return nil, fmt.Errorf("listen address %q is not a multiaddr, such as /ip4/0.0.0.0/tcp/4001: %w", text, err)
		}
		p.listen = append(p.listen, a)
	}
	var err error
	if p.relays, err = discovery.ParsePeerAddrs(c.Relays); err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	if p.bootstraps, err = discovery.ParsePeerAddrs(slices.Concat(c.Relays, c.Bootstraps)); err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	p.fillLimits()
	if p.Clock == nil {
		p.Clock = systemClock{}
	}
	if p.Logger == nil {
		p.Logger = slog.New(slog.DiscardHandler)
	}
	return p, nil
}

func (p *plan) fillLimits() {
	def := LaptopLimits()
	if p.Relay != nil {
		def = RelayLimits()
	}
	l := &p.Limits
	if l.Discovery == (discovery.Limits{}) {
		l.Discovery = def.Discovery
	}
	setDefault(&l.Protected, def.Protected)
	setDefault(&l.DirectQueue, def.DirectQueue)
	setDefault(&l.Gossip.Queue, def.Gossip.Queue)
	setDefault(&l.Gossip.TopicsPerPeer, def.Gossip.TopicsPerPeer)
	setDefault(&l.Gossip.Fanout, def.Gossip.Fanout)
	c, d := &l.Connections, def.Connections
	for _, f := range []struct {
		v   *int
		def int
	}{
		{&c.TransientInbound, d.TransientInbound},
		{&c.SystemInbound, d.SystemInbound},
		{&c.SystemTotal, d.SystemTotal},
		{&c.FileDescriptors, d.FileDescriptors},
		{&c.Low, d.Low},
		{&c.High, d.High},
		{&c.PerIPv4, d.PerIPv4},
		{&c.PerIPv4Net, d.PerIPv4Net},
		{&c.PerIPv6Site, d.PerIPv6Site},
		{&c.PerIPv6Net, d.PerIPv6Net},
		{&c.NewBurst, d.NewBurst},
	} {
		setDefault(f.v, f.def)
	}
	setDefault(&c.TransientMemory, d.TransientMemory)
	setDefault(&c.Memory, d.Memory)
	setDefault(&c.NewPerSecond, d.NewPerSecond)
}

func setDefault[T int | int64 | float64](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}
