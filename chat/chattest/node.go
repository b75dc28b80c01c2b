package chattest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/identity"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// Node is one device with its store. It can be stopped and started again.
type Node struct {
	Name    string
	Store   *storage.Store
	Config  chat.Config // what Start gives to chat.New; may be changed before
	net     *Network
	id      wire.DeviceID
	account wire.AccountID
	owner   *identity.Account

	// Guarded by the network's mu.
	running bool
	topics  map[wire.TopicKey]func(chat.Incoming)
	queued  float64
	drained time.Time
	greeted map[wire.DeviceID]bool
	probes  int

	svc    *chat.Service
	cancel context.CancelFunc
	done   chan error
	check  *wire.Verifier
	skew   atomic.Int64 // nanoseconds
}

// secrets remembers the secrets of public rooms, which are slow to make on purpose.
var secrets struct {
	sync.Mutex
	of map[string]wire.RoomSecret
}

func roomSecret(network, name, password string) (wire.RoomSecret, error) {
	secrets.Lock()
	defer secrets.Unlock()
	key := network + "\x00" + name + "\x00" + password
	if s, ok := secrets.of[key]; ok {
		return s, nil
	}
	s, err := wire.PublicRoomSecret(network, name, password)
	if err == nil {
		if secrets.of == nil {
			secrets.of = make(map[string]wire.RoomSecret)
		}
		secrets.of[key] = s
	}
	return s, err
}

// Node adds a node with keys of its own and an empty store in memory. It is not started.
func (n *Network) Node(name string) *Node {
	n.t.Helper()
	account, err := identity.NewAccount(n.reader())
	if err != nil {
		n.t.Fatal(err)
	}
	return n.device(name, account)
}

// Device makes a node that is another device of an account, with a store of its own.
func (n *Network) Device(name string, of *Node) *Node {
	n.t.Helper()
	return n.device(name, of.owner)
}

func (n *Network) device(name string, account *identity.Account) *Node {
	n.t.Helper()
	device, err := identity.NewDevice(n.reader())
	if err != nil {
		n.t.Fatal(err)
	}
	nd := &Node{
		Name: name, net: n, id: device.ID(), account: account.ID(), owner: account, topics: make(map[wire.TopicKey]func(chat.Incoming)),
		greeted: make(map[wire.DeviceID]bool), check: wire.NewVerifier(wire.DefaultVerifierLimits()),
	}
	if nd.Store, err = storage.OpenMemory(storage.Options{Now: nd.Now}); err != nil {
		n.t.Fatal(err)
	}
	nd.Config = chat.Config{
		Network: "test", Device: device, Store: nd.Store, Gossip: nd, Direct: nd, Directory: nd, Relays: nd, Clock: nd,
		SignDeviceList: account.SignDeviceList,
		Certificate:    func(now time.Time) (wire.Certificate, error) { return account.CertificateAt(device.ID(), now) },
		Logger:         slog.New(slog.NewTextHandler(logWriter{n.t, name}, &slog.HandlerOptions{Level: slog.LevelWarn})),
		RoomSecret:     roomSecret,
	}
	n.mu.Lock()
	n.nodes[nd.id] = nd
	n.order = append(n.order, nd)
	n.mu.Unlock()
	return nd
}

// reader yields bytes that follow from the seed.
func (n *Network) reader() *bytes.Reader {
	n.mu.Lock()
	defer n.mu.Unlock()
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(n.random.Uint32())
	}
	return bytes.NewReader(b)
}

// logWriter sends what a node logs to the test.
type logWriter struct {
	t    testing.TB
	name string
}

func (w logWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s: %s", w.name, bytes.TrimSpace(b))
	return len(b), nil
}

// ID returns the node's device.
func (nd *Node) ID() wire.DeviceID { return nd.id }

// Account returns the node's account.
func (nd *Node) Account() wire.AccountID { return nd.account }

// Start makes a service on the node's store, runs it, and connects it to all that are up.
func (nd *Node) Start() *chat.Service {
	nd.net.t.Helper()
	svc, err := chat.New(nd.Config)
	if err != nil {
		nd.net.t.Fatalf("starting %s: %v", nd.Name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	nd.svc, nd.cancel, nd.done = svc, cancel, make(chan error, 1)
	done := nd.done
	nd.net.mu.Lock()
	nd.running = true
	nd.net.mu.Unlock()
	go func() { done <- svc.Run(ctx) }() // ended and waited for by Stop
	for _, other := range nd.net.others(nd) {
		nd.noticed(other.id, chat.PathLAN)
		other.noticed(nd.id, chat.PathLAN)
	}
	return svc
}

// others returns the running nodes that can be reached.
func (n *Network) others(nd *Node) []*Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	var list []*Node
	for id, other := range n.nodes {
		if id != nd.id && n.reachable(nd.id, id) {
			list = append(list, other)
		}
	}
	return list
}

// Stop ends the node's service and waits for it. The store stays.
func (nd *Node) Stop() {
	nd.net.t.Helper()
	if !nd.up() {
		return
	}
	others := nd.net.others(nd)
	nd.net.mu.Lock()
	nd.running = false
	nd.greeted = make(map[wire.DeviceID]bool)
	for _, o := range others {
		delete(o.greeted, nd.id)
	}
	nd.net.mu.Unlock()
	nd.cancel()
	if err := <-nd.done; err != nil {
		nd.net.t.Errorf("%s ended with %v", nd.Name, err)
	}
	nd.net.mu.Lock()
	clear(nd.topics)
	nd.net.mu.Unlock()
	for _, o := range others {
		o.noticed(nd.id, chat.PathNone)
	}
}

// Service returns the running service.
func (nd *Node) Service() *chat.Service { return nd.svc }

func (nd *Node) up() bool {
	nd.net.mu.Lock()
	defer nd.net.mu.Unlock()
	return nd.running
}

// noticed tells the service that a connection changed.
func (nd *Node) noticed(dev wire.DeviceID, path chat.Path) {
	nd.net.mu.Lock()
	running := nd.running
	if path == chat.PathNone {
		delete(nd.greeted, dev)
	}
	nd.net.mu.Unlock()
	if running {
		nd.svc.PeerChanged(dev, path)
	}
}

// deliver hands a gossip message to the service, as a topic validator and subscription do.
func (nd *Node) deliver(topic wire.TopicKey, from wire.DeviceID, raw []byte) {
	nd.net.mu.Lock()
	fn := nd.topics[topic]
	running := nd.running
	nd.net.mu.Unlock()
	if fn == nil || !running {
		return
	}
	sealed, err := nd.check.CheckSealed(topic, slices.Clone(raw))
	if err != nil {
		return
	}
	fn(chat.Incoming{Sealed: sealed, From: from})
}

// Deliver gives a recorded event to the node as if a stranger to it had forwarded it.
func (nd *Node) Deliver(r Recorded) { nd.deliver(r.Topic, wire.DeviceID{1}, r.Sealed) }

// frame hands a frame of the stream of direct messages to the service.
func (nd *Node) frame(from wire.DeviceID, frame []byte) {
	if nd.up() {
		nd.svc.HandleFrame(from, chat.PathLAN, slices.Clone(frame))
	}
}

// Now implements chat.Clock.
func (nd *Node) Now() time.Time { return time.Now().Add(time.Duration(nd.skew.Load())) }

// SetSkew says how far the node's wall clock is from the true time.
func (nd *Node) SetSkew(d time.Duration) { nd.skew.Store(int64(d)) }

// Join implements chat.Gossip.
func (nd *Node) Join(_ context.Context, keys *wire.RoomKeys, deliver func(chat.Incoming)) error {
	nd.net.mu.Lock()
	defer nd.net.mu.Unlock()
	nd.topics[keys.Topic] = deliver
	return nil
}

// Leave implements chat.Gossip.
func (nd *Node) Leave(topic wire.TopicKey) {
	nd.net.mu.Lock()
	defer nd.net.mu.Unlock()
	delete(nd.topics, topic)
}

// errNotInTopic is what gossip says without Join.
var errNotInTopic = errors.New("topic is not joined")

// Publish implements chat.Gossip.
func (nd *Node) Publish(ctx context.Context, topic wire.TopicKey, sealed []byte) error {
	nd.net.mu.Lock()
	joined := nd.topics[topic] != nil && nd.running
	nd.net.mu.Unlock()
	if !joined {
		return errNotInTopic
	}
	if !nd.net.neighbour(nd, topic) {
		return fmt.Errorf("publishing: %w", chat.ErrUnreachable)
	}
	nd.net.publish(nd, topic, slices.Clone(sealed))
	return ctx.Err()
}

// Peers implements chat.Gossip.
func (nd *Node) Peers(topic wire.TopicKey) []wire.DeviceID {
	nd.net.mu.Lock()
	defer nd.net.mu.Unlock()
	var list []wire.DeviceID
	for id, other := range nd.net.nodes {
		if id != nd.id && other.topics[topic] != nil && nd.net.reachable(nd.id, id) && !nd.net.deaf[pair(nd.id, id)] {
			list = append(list, id)
		}
	}
	slices.SortFunc(list, func(a, b wire.DeviceID) int { return bytes.Compare(a[:], b[:]) })
	return list
}

// Send implements chat.Direct. The first frame to a device opens the stream: both sides greet.
func (nd *Node) Send(ctx context.Context, to wire.DeviceID, frames ...[]byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	nd.net.mu.Lock()
	other := nd.net.nodes[to]
	reachable := nd.net.reachable(nd.id, to)
	first := reachable && !nd.greeted[to]
	if first {
		nd.greeted[to], other.greeted[nd.id] = true, true
	}
	nd.net.mu.Unlock()
	if !reachable {
		return fmt.Errorf("sending to %s: %w", to, chat.ErrUnreachable)
	}
	if first {
		if err := nd.net.send(nd, to, nd.svc.Greeting()); err != nil {
			return err
		}
		if err := nd.net.send(other, nd.id, other.svc.Greeting()); err != nil {
			return err
		}
	}
	for _, frame := range frames {
		if err := nd.net.send(nd, to, frame); err != nil {
			return err
		}
	}
	return nil
}

// Open implements chat.Direct.
func (nd *Node) Open(_ context.Context, to wire.DeviceID, protocol string) (chat.Stream, error) {
	nd.net.mu.Lock()
	running := nd.running
	reachable := nd.net.reachable(nd.id, to)
	other := nd.net.nodes[to]
	silent := nd.net.silent
	nd.net.mu.Unlock()
	if relay := nd.net.relay(to); relay != nil && running {
		mine, theirs := newPipe(nd.watch)
		go relay.serve(nd.id, protocol, theirs) // ends with the stream, which has deadlines
		return mine, nil
	}
	if !reachable {
		return nil, fmt.Errorf("opening a stream to %s: %w", to, chat.ErrUnreachable)
	}
	mine, theirs := newPipe(nd.watch)
	if silent {
		return mine, nil
	}
	svc := other.svc
	go func() { // ends with the stream, whose deadlines the service sets
		svc.ServeStream(context.Background(), nd.id, protocol, theirs)
	}()
	return mine, nil
}

// Probe implements chat.Prober.
func (nd *Node) Probe(wire.DeviceID) {
	nd.net.mu.Lock()
	defer nd.net.mu.Unlock()
	nd.probes++
}

// Probes counts how often connections to others were to be asked whether they still work.
func (nd *Node) Probes() int {
	nd.net.mu.Lock()
	defer nd.net.mu.Unlock()
	return nd.probes
}

// watch looks for watched texts in what travels on a stream.
func (nd *Node) watch(b []byte) {
	nd.net.mu.Lock()
	defer nd.net.mu.Unlock()
	nd.net.watch(b)
}

// Path implements chat.Direct.
func (nd *Node) Path(to wire.DeviceID) chat.Path {
	nd.net.mu.Lock()
	defer nd.net.mu.Unlock()
	if nd.net.reachable(nd.id, to) {
		return chat.PathLAN
	}
	return chat.PathNone
}

// Hint implements chat.Direct: everybody is findable anyway.
func (nd *Node) Hint(wire.DeviceID, []string) {}

// Announce implements chat.Directory.
func (nd *Node) Announce(ctx context.Context, key [32]byte) { nd.net.announce(ctx, key, nd.id) }

// Find implements chat.Directory.
func (nd *Node) Find(_ context.Context, key [32]byte) ([]wire.DeviceID, error) {
	nd.net.mu.Lock()
	defer nd.net.mu.Unlock()
	var list []wire.DeviceID
	for id := range nd.net.found[key] {
		if nd.net.reachable(nd.id, id) {
			list = append(list, id)
		}
	}
	return list, nil
}

// PutRecord implements chat.Records.
func (nd *Node) PutRecord(_ context.Context, key wire.RecordKey, value []byte) error {
	if _, err := wire.CheckLookup(key, value, nd.Now()); err != nil {
		return err
	}
	nd.net.mu.Lock()
	defer nd.net.mu.Unlock()
	nd.net.watch(value)
	if old, ok := nd.net.table[key]; !ok || wire.NewerLookup(value, old) {
		nd.net.table[key] = slices.Clone(value)
	}
	return nil
}

// GetRecord implements chat.Records. What has expired is handed out all the same: a server need not check.
func (nd *Node) GetRecord(_ context.Context, key wire.RecordKey) ([]byte, error) {
	nd.net.mu.Lock()
	defer nd.net.mu.Unlock()
	value, ok := nd.net.table[key]
	if !ok {
		return nil, chat.ErrNotFound
	}
	return slices.Clone(value), nil
}

// CertifyDevice makes this node's account vouch for any device.
func (nd *Node) CertifyDevice(dev wire.DeviceID, now time.Time) (wire.Certificate, error) {
	return nd.owner.CertificateAt(dev, now)
}

// Hello returns the greeting of a device.
func Hello(cert wire.Certificate, nick string) ([]byte, error) {
	return wire.EncodeFrame(&wire.DMHello{Certificate: cert, Nick: nick})
}
