// Package nodetest runs whole nodes, real hosts and real gossip included, on a simulated network in
// virtual time: a test kit, like net/http/httptest. Twenty nodes that talk for a minute take a few
// seconds.
//
// Everything has to happen inside a bubble of testing/synctest; [Start] and [Network.Stop] belong to
// the bubble's first goroutine. The network carries QUIC only, every node has a public address of
// its own, and there is no NAT: real ones are in node/natlab. Stores lie in memory and do not
// survive a restart, unless [Options].Durable says so.
//
// From a seed come the keys of all nodes, who knows whom, latencies and losses. The scheduling of
// goroutines does not, so two runs agree in what is delivered and, to a few milliseconds, in when.
//
// [Simulate] plays a whole [Scenario] and measures it: `starling sim` is that.
package nodetest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/marcopolo/simnet"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/identity"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/discovery"
	"github.com/starling-chat/starling/node"
	"github.com/starling-chat/starling/node/relay"
	"github.com/starling-chat/starling/storage"
)

// Options describe a network. The zero value of a field is its default.
type Options struct {
	Nodes  int // laptops
	Relays int // public relays, which all laptops know
	// Latency is the one-way delay between any two (20 ms); Jitter is added to it at random (a
	// quarter of it).
	Latency, Jitter time.Duration
	// Loss is the share of packets that are lost, 0 to 1.
	Loss float64
	// BitsPerSecond is every node's line in each direction (50 Mbit/s).
	BitsPerSecond int
	// Seed of everything that is random (1).
	Seed uint64
	// LAN lets the laptops hear of each other at once, as on a local network.
	LAN bool
	// DHT switches discovery by rendezvous on; it needs a relay.
	DHT bool
	// Neighbours is how many of the laptops that started earlier each laptop knows and keeps connected,
	// chosen at random (0).
	Neighbours int
	// Durable keeps each laptop's store across its restarts.
	Durable bool
	// Asleep makes no laptop start by itself.
	Asleep bool
	// Heard is told of each room message that arrives at a node for the first time; see node.Simulation.
	Heard func(i int, id string, from peer.ID)
	// Change may change a node's configuration before it starts; relays come after the laptops.
	Change func(i int, cfg *node.Config)
}

func (o *Options) fill() {
	if o.Latency == 0 {
		o.Latency = 20 * time.Millisecond
	}
	if o.Jitter == 0 {
		o.Jitter = o.Latency / 4
	}
	if o.BitsPerSecond == 0 {
		o.BitsPerSecond = 50_000_000
	}
	if o.Seed == 0 {
		o.Seed = 1
	}
}

// Network is a running network.
type Network struct {
	Nodes  []*Node // laptops, in the order of their start
	Relays []*Node

	t         testing.TB
	opts      Options
	sim       *simnet.Simnet
	ports     []*port // of the laptops, then of the relays
	byAddress map[string]*port
	pumps     sync.WaitGroup // their goroutines
	lan       *lan

	packets, bytes atomic.Uint64 // sent so far, IP and UDP headers included

	mu      sync.Mutex     // guards parts, secrets
	parts   map[string]int // address -> part of the network; nil: whole
	secrets map[[2]string]wire.RoomSecret
}

// Node is one node of a network, across its restarts.
type Node struct {
	*node.Node // of the present run

	Keys *Keys

	net   *Network
	index int
	relay bool
	knows []int          // laptops
	store *storage.Store // across restarts; nil unless that is wanted
	stop  func()         // nil when it does not run
}

// Start makes a network and returns when every node is ready.
func Start(t testing.TB, o Options) *Network {
	t.Helper()
	o.fill()
	n := &Network{t: t, opts: o, lan: &lan{}, byAddress: make(map[string]*port), secrets: make(map[[2]string]wire.RoomSecret)}
	n.sim = &simnet.Simnet{LatencyFunc: n.latency, Logger: slog.New(slog.DiscardHandler)}
	for i := range o.Nodes + o.Relays {
		ip := simnet.IntToPublicIPv4(i)
		p := n.newPort(ip, ip.String()+":4001", rand.New(rand.NewPCG(o.Seed, uint64(i)<<32)))
		n.ports, n.byAddress[p.from] = append(n.ports, p), p
	}
	n.sim.Start()
	for _, p := range n.ports {
		n.pumps.Go(p.pump) // ends when the network stops, which waits for it
	}
	for i := range o.Relays {
		r := &Node{net: n, index: o.Nodes + i, relay: true, Keys: NewKeys(t, o.Seed, o.Nodes+i)}
		r.Start()
		n.Relays = append(n.Relays, r)
	}
	random := rand.New(rand.NewPCG(o.Seed, 1))
	for i := range o.Nodes {
		l := &Node{net: n, index: i, Keys: NewKeys(t, o.Seed, i), knows: random.Perm(i)[:min(i, o.Neighbours)]}
		n.Nodes = append(n.Nodes, l)
		if !o.Asleep {
			l.Start()
		}
	}
	return n
}

// Stop ends every node and the network.
func (n *Network) Stop() {
	n.t.Helper()
	for _, l := range n.Nodes {
		l.Stop()
	}
	for _, r := range n.Relays {
		r.Stop()
	}
	n.sim.Close()
	n.pumps.Wait()
}

// latency is how long a packet travels.
func (n *Network) latency(p *simnet.Packet) time.Duration {
	return n.opts.Latency + n.byAddress[p.From.String()].jitter(n.opts.Jitter)
}

// cut says whether two addresses are in different parts of the network.
func (n *Network) cut(from, to string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.parts != nil && n.parts[from] != n.parts[to]
}

// roomSecret derives a room's secret once for all nodes: each would take a tenth of a second for it.
func (n *Network) roomSecret(network, name, password string) (wire.RoomSecret, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := [2]string{name, password}
	if secret, ok := n.secrets[key]; ok {
		return secret, nil
	}
	secret, err := wire.PublicRoomSecret(network, name, password)
	if err == nil {
		n.secrets[key] = secret
	}
	return secret, err
}

// Split cuts the network into parts: nodes of different groups do not reach each other. Who is in
// no group is in the first.
func (n *Network) Split(groups ...[]*Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.parts = make(map[string]int)
	for i, g := range groups {
		for _, l := range g {
			n.parts[l.address()] = i
		}
	}
}

// Heal undoes Split.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.parts = nil
}

// Start runs a node that does not run.
func (l *Node) Start() {
	t := l.net.t
	t.Helper()
	if l.stop != nil {
		return
	}
	made, err := node.New(t.Context(), l.config())
	if err != nil {
		t.Fatalf("nodetest: node %d: %v", l.index, err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- made.Run(ctx) }() // ends with cancel; stop waits for it
	l.Node = made
	l.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("nodetest: node %d ended with %v", l.index, err)
		}
	}
	select {
	case <-made.Ready():
	case err := <-done:
		t.Fatalf("nodetest: node %d ended before it was ready: %v", l.index, err)
	}
}

// Stop ends a node. Its store is lost.
func (l *Node) Stop() {
	if l.stop != nil {
		l.stop()
		l.stop = nil
	}
}

// config makes the configuration of a node.
func (l *Node) config() node.Config {
	o := l.net.opts
	cfg := node.DefaultLaptop()
	if l.relay {
		cfg = node.DefaultRelay()
		cfg.Relay = &relay.Config{}
	}
	cfg.Keys = l.Keys
	cfg.Network = "simulation"
	cfg.Reachability = node.ReachabilityPublic // there is no NAT, and nothing to reserve
	cfg.DHT = o.DHT
	cfg.Listen = []string{"/ip4/" + l.ip() + "/udp/4001/quic-v1"}
	for _, r := range l.net.Relays {
		if r != l {
			cfg.Relays = append(cfg.Relays, r.Addrs()...)
		}
	}
	for _, i := range l.knows {
		cfg.Bootstraps = append(cfg.Bootstraps, l.net.Nodes[i].fullAddress(l.net.t))
	}
	cfg.Simulation = &node.Simulation{Options: []libp2p.Option{l.net.transport(l)}, RoomSecret: l.net.roomSecret}
	if o.Durable && !l.relay {
		cfg.Simulation.Store = l.openStore()
	}
	if o.Heard != nil {
		cfg.Simulation.Heard = func(id string, from peer.ID) { o.Heard(l.index, id, from) }
	}
	if o.LAN && !l.relay {
		cfg.Simulation.LAN = func(h host.Host) discovery.LAN { return &member{lan: l.net.lan, host: h} }
	}
	if o.Change != nil {
		o.Change(l.index, &cfg)
	}
	return cfg
}

func (l *Node) ip() string { return simnet.IntToPublicIPv4(l.index).String() }

func (l *Node) address() string { return l.ip() + ":4001" }

// fullAddress is where others find the node, whether it runs or not.
func (l *Node) fullAddress(t testing.TB) string {
	return "/ip4/" + l.ip() + "/udp/4001/quic-v1/p2p/" + l.peerID(t).String()
}

func (l *Node) peerID(t testing.TB) peer.ID {
	t.Helper()
	id, err := peer.IDFromBytes([]byte(l.Keys.device.ID().PeerID()))
	if err != nil {
		t.Fatalf("nodetest: node %d: %v", l.index, err)
	}
	return id
}

// openStore returns the store that outlives the node's restarts.
func (l *Node) openStore() *storage.Store {
	if l.store == nil {
		var err error
		if l.store, err = storage.OpenMemory(storage.Options{}); err != nil {
			l.net.t.Fatalf("nodetest: node %d: %v", l.index, err)
		}
	}
	return l.store
}

// Join joins a public room and returns it as a target.
func (l *Node) Join(room string) chat.Target {
	t := l.net.t
	t.Helper()
	if _, err := l.Chat().Join(t.Context(), room, ""); err != nil {
		t.Fatalf("nodetest: node %d: joining: %v", l.index, err)
	}
	target, err := l.Chat().Resolve("#" + room)
	if err != nil {
		t.Fatalf("nodetest: node %d: %v", l.index, err)
	}
	return target
}

// Say sends a text and returns once it is accepted.
func (l *Node) Say(to chat.Target, text string) chat.Message {
	t := l.net.t
	t.Helper()
	m, err := l.Chat().Send(t.Context(), chat.SendRequest{Target: to, Text: text})
	if err != nil {
		t.Fatalf("nodetest: node %d: sending: %v", l.index, err)
	}
	return m
}

// Texts returns the texts of the messages in a conversation, in the order shown.
func (l *Node) Texts(target chat.Target) []string {
	t := l.net.t
	t.Helper()
	messages, err := l.Chat().History(t.Context(), chat.HistoryQuery{Target: target, N: 1000})
	if err != nil {
		t.Fatalf("nodetest: node %d: reading history: %v", l.index, err)
	}
	var out []string
	for _, m := range messages {
		if m.Kind == "message" {
			out = append(out, m.Text)
		}
	}
	return out
}

// Account returns the node's account as a target.
func (l *Node) Account() chat.Target {
	id := l.Keys.account.ID()
	return chat.Target{Account: &id}
}

// Befriend makes two nodes each other's contact, with what their links tell.
func Befriend(a, b *Node) {
	t := a.net.t
	t.Helper()
	for _, pair := range [2][2]*Node{{a, b}, {b, a}} {
		if _, err := pair[0].Chat().AddContact(t.Context(), pair[1].Chat().Me().Link, ""); err != nil {
			t.Fatalf("nodetest: node %d: adding a contact: %v", pair[0].index, err)
		}
	}
}

// Eventually waits in virtual time until ok holds.
func (n *Network) Eventually(within time.Duration, what string, ok func() bool) time.Duration {
	n.t.Helper()
	const step = 10 * time.Millisecond
	began := time.Now()
	for !ok() {
		if time.Since(began) > within {
			n.t.Fatalf("nodetest: not within %s: %s", within, what)
		}
		time.Sleep(step)
	}
	return time.Since(began)
}

// Keys are a node's keys, made from a seed.
type Keys struct {
	account *identity.Account
	device  *identity.Device
}

// NewKeys makes the keys of one node of a network.
func NewKeys(t testing.TB, seed uint64, index int) *Keys {
	t.Helper()
	random := &stream{seed: binary.BigEndian.AppendUint64(nil, seed)}
	random.seed = binary.BigEndian.AppendUint64(random.seed, uint64(index))
	account, err := identity.NewAccount(random)
	if err != nil {
		t.Fatalf("nodetest: %v", err)
	}
	device, err := identity.NewDevice(random)
	if err != nil {
		t.Fatalf("nodetest: %v", err)
	}
	return &Keys{account: account, device: device}
}

// Device implements node.Keys.
func (k *Keys) Device() *identity.Device { return k.device }

// Certificate implements node.Keys.
func (k *Keys) Certificate(now time.Time) (wire.Certificate, error) {
	return k.account.CertificateAt(k.device.ID(), now)
}

// SignDeviceList implements node.ListSigner.
func (k *Keys) SignDeviceList(l *wire.DeviceList) ([]byte, error) { return k.account.SignDeviceList(l) }

// SubKey implements node.Keys.
func (k *Keys) SubKey(label string) [32]byte { return k.account.SubKey(label) }

// Protected implements node.Keys.
func (k *Keys) Protected() bool { return false }

// stream is an endless stream of bytes from a seed.
type stream struct {
	seed  []byte
	count uint64
	rest  []byte
}

var _ io.Reader = (*stream)(nil)

// Read implements io.Reader.
func (s *stream) Read(b []byte) (int, error) {
	for i := range b {
		if len(s.rest) == 0 {
			sum := sha256.Sum256(binary.BigEndian.AppendUint64(append([]byte(nil), s.seed...), s.count))
			s.rest = sum[:]
			s.count++
		}
		b[i], s.rest = s.rest[0], s.rest[1:]
	}
	return len(b), nil
}

// lan is a local network on which everybody hears of everybody.
type lan struct {
	mu      sync.Mutex // guards members
	members []*member
}

// member is one host's place on it.
type member struct {
	lan   *lan
	host  host.Host
	found func(peer.AddrInfo)
}

var _ discovery.LAN = (*member)(nil)

// Run implements discovery.LAN.
func (m *member) Run(ctx context.Context, found func(peer.AddrInfo)) error {
	m.found = found
	m.lan.mu.Lock()
	others := append([]*member(nil), m.lan.members...)
	m.lan.members = append(m.lan.members, m)
	m.lan.mu.Unlock()
	for _, o := range others {
		o.found(m.info())
		found(o.info())
	}
	<-ctx.Done()
	m.lan.mu.Lock()
	defer m.lan.mu.Unlock()
	for i, o := range m.lan.members {
		if o == m {
			m.lan.members = append(m.lan.members[:i], m.lan.members[i+1:]...)
			break
		}
	}
	return nil
}

// Restart implements discovery.LAN; addresses do not change here.
func (*member) Restart() {}

func (m *member) info() peer.AddrInfo {
	return peer.AddrInfo{ID: m.host.ID(), Addrs: m.host.Addrs()}
}

// String names the node in test output.
func (l *Node) String() string {
	if l.relay {
		return fmt.Sprintf("relay %d", l.index-l.net.opts.Nodes)
	}
	return fmt.Sprintf("node %d", l.index)
}
