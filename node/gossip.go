package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/node/plumtree"
)

const (
	// maxRPC bounds one message of the subscription protocol, in bytes: it holds the list of all topics of
	// a relay, which the library sends as one piece.
	maxRPC = 1 << 20
	// verifiedTopics is how many topics' keys are kept prepared, 1.6 KB each.
	verifiedTopics = 512
)

var (
	errGossipStopped = errors.New("gossip does not run")
	errNotJoined     = errors.New("topic is not joined")
)

// roomHooks tell the rest of the node which rooms this device takes part in. They are called
// without locks.
type roomHooks struct {
	joined func(keys *wire.RoomKeys)
	left   func(topic wire.TopicKey)
	member func(topic wire.TopicKey, p peer.ID) // subscribed to a joined topic
}

// gossip is the topic layer: pubsub says who takes part in which topic, and what is said goes along
// broadcast trees (docs/spec/tree.md). It implements chat.Gossip, and for a relay the forwarding of topics
// that nobody here has joined.
type gossip struct {
	self     peer.ID
	host     host.Host
	clock    chat.Clock
	log      *slog.Logger
	limits   GossipLimits
	counters gossipCounters
	verifier *wire.Verifier // keeps the topics' keys prepared: half the cost of a verification
	skew     skewMeter
	scores   standings
	filter   *topicFilter
	hooks    roomHooks
	isRelay  func(peer.ID) bool
	hub      bool // a relay: it tells everybody what it does not push
	// keep takes what a relay forwarded and checked, with who handed it over; nil keeps nothing.
	keep func(s *wire.Sealed, from wire.DeviceID)
	// admit bounds what a relay forwards; nil admits everything.
	admit func(topic wire.TopicKey, size int) bool

	ops sync.Mutex // serializes Join, Leave and Forward, which take several steps

	mu     sync.RWMutex // guards ps, topics
	ps     *pubsub.PubSub
	topics map[wire.TopicKey]*gossipTopic

	linkMu sync.Mutex                      // guards all below
	spawn  func(func(ctx context.Context)) // starts a goroutine that run waits for; nil before and after
	links  map[peer.ID]*treeLink
	in     map[peer.ID]*inbound // from others
}

// gossipTopic is one topic: joined by chat, forwarded by the relay, or both.
type gossipTopic struct {
	key      wire.TopicKey
	name     []byte // of the topic, as ids are made of it
	topic    *pubsub.Topic
	events   *pubsub.TopicEventHandler
	unrelay  pubsub.RelayCancelFunc
	cancel   context.CancelFunc
	watching sync.WaitGroup
	forwards int // leases of the forwarder; guarded by gossip.ops

	mu      sync.Mutex // guards all below
	members map[peer.ID]struct{}
	deliver func(chat.Incoming) // nil unless joined
	tree    *plumtree.Tree
	timer   *time.Timer // nil until it is needed
	due     time.Time   // when timer fires
	closed  bool
}

func newGossip(p *plan, self peer.ID) *gossip {
	return &gossip{
		self:     self,
		clock:    p.Clock,
		log:      p.Logger,
		limits:   p.Limits.Gossip,
		hub:      p.Relay != nil,
		verifier: wire.NewVerifier(wire.VerifierLimits{Keys: verifiedTopics}),
		filter:   newTopicFilter(p.Limits.Gossip.TopicsPerPeer),
		topics:   make(map[wire.TopicKey]*gossipTopic),
		links:    make(map[peer.ID]*treeLink),
		in:       make(map[peer.ID]*inbound),
	}
}

// run starts the topic layer on a host and keeps it until ctx ends. ready is called once Join may
// be.
func (g *gossip) run(ctx context.Context, h host.Host, ready func()) error {
	g.host = h
	stopLinks := g.startLinks(ctx)
	defer stopLinks()
	ps, err := pubsub.NewPubSub(
		ctx, h, subscriptions{g.filter},
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign),
		pubsub.WithNoAuthor(),
		pubsub.WithMaxMessageSize(maxRPC),
		pubsub.WithPeerOutboundQueueSize(g.limits.Queue),
		pubsub.WithSubscriptionFilter(g.filter),
	)
	if err != nil {
		return fmt.Errorf("starting gossip: %w", err)
	}
	g.mu.Lock()
	g.ps = ps
	g.mu.Unlock()
	ready()
	<-ctx.Done()
	g.ops.Lock()
	defer g.ops.Unlock()
	g.mu.Lock()
	topics := g.topics
	g.ps, g.topics = nil, make(map[wire.TopicKey]*gossipTopic)
	g.mu.Unlock()
	for _, t := range topics {
		t.stop()
	}
	return nil
}

// Join implements chat.Gossip.
func (g *gossip) Join(ctx context.Context, keys *wire.RoomKeys, deliver func(chat.Incoming)) error {
	g.ops.Lock()
	defer g.ops.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	t, err := g.open(keys.Topic)
	if err != nil {
		return fmt.Errorf("joining a topic: %w", err)
	}
	t.mu.Lock()
	again := t.deliver != nil
	t.deliver = deliver
	members := slices.Collect(maps.Keys(t.members))
	t.mu.Unlock()
	if again {
		return nil
	}
	g.hooks.joined(keys)
	for _, p := range members {
		g.hooks.member(keys.Topic, p)
	}
	return nil
}

// Leave implements chat.Gossip. It must not be called from deliver.
func (g *gossip) Leave(topic wire.TopicKey) {
	g.ops.Lock()
	defer g.ops.Unlock()
	t := g.topic(topic)
	if t == nil {
		return
	}
	t.mu.Lock()
	joined := t.deliver != nil
	t.deliver = nil
	t.mu.Unlock()
	if joined {
		g.release(t)
		g.hooks.left(topic)
	}
}

// topic returns a topic that is joined or forwarded, or nil.
func (g *gossip) topic(key wire.TopicKey) *gossipTopic {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.topics[key]
}

// open returns the topic, taking part in it if need be. The caller holds ops.
func (g *gossip) open(key wire.TopicKey) (*gossipTopic, error) {
	g.mu.RLock()
	ps, t := g.ps, g.topics[key]
	g.mu.RUnlock()
	if ps == nil {
		return nil, errGossipStopped
	}
	if t != nil {
		return t, nil
	}
	topic, err := ps.Join(wire.Topic(key))
	if err != nil {
		return nil, err
	}
	t = &gossipTopic{key: key, name: []byte(wire.Topic(key)), topic: topic, members: make(map[peer.ID]struct{})}
	t.tree = g.newTree(t)
	if t.events, err = topic.EventHandler(); err != nil {
		return nil, errors.Join(err, topic.Close())
	}
	// The library calls it relaying: it subscribes, and has nothing read.
	if t.unrelay, err = topic.Relay(); err != nil {
		t.events.Cancel()
		return nil, errors.Join(err, topic.Close())
	}
	g.mu.Lock()
	g.topics[key] = t
	g.mu.Unlock()
	var ctx context.Context
	ctx, t.cancel = context.WithCancel(context.Background())
	t.watching.Go(func() { g.watch(ctx, t) }) // ends with cancel; stop waits for it
	return t, nil
}

// release leaves a topic that nobody uses any more. The caller holds ops.
func (g *gossip) release(t *gossipTopic) {
	t.mu.Lock()
	used := t.deliver != nil
	t.mu.Unlock()
	if used || t.forwards > 0 {
		return
	}
	g.mu.Lock()
	delete(g.topics, t.key)
	g.mu.Unlock()
	t.stop()
	t.mu.Lock()
	members := t.members
	t.members = nil
	t.mu.Unlock()
	for p := range members {
		g.unlink(p)
	}
	if err := t.topic.Close(); err != nil {
		g.log.Debug("topic did not close", "err", err)
	}
}

// stop ends what goes on in a topic.
func (t *gossipTopic) stop() {
	t.mu.Lock()
	t.closed, t.deliver = true, nil
	if t.timer != nil {
		t.timer.Stop()
	}
	t.mu.Unlock()
	t.cancel()
	t.watching.Wait()
	t.events.Cancel()
	t.unrelay()
}

// watch notes and reports who takes part.
func (g *gossip) watch(ctx context.Context, t *gossipTopic) {
	for {
		e, err := t.events.NextPeerEvent(ctx)
		if err != nil {
			return
		}
		if e.Type == pubsub.PeerJoin {
			g.memberCame(t, e.Peer)
		} else {
			g.memberWent(t, e.Peer)
		}
	}
}

func (g *gossip) memberCame(t *gossipTopic, p peer.ID) {
	t.mu.Lock()
	_, known := t.members[p]
	t.members[p] = struct{}{}
	joined := t.deliver != nil
	t.mu.Unlock()
	if known {
		return
	}
	link := g.link(p)
	t.mu.Lock()
	if link != nil && link.usable() {
		t.tree.AddPeer(time.Now(), plumtree.Peer(p))
		g.schedule(t)
	}
	t.mu.Unlock()
	if joined {
		g.hooks.member(t.key, p)
	}
}

func (g *gossip) memberWent(t *gossipTopic, p peer.ID) {
	t.mu.Lock()
	_, known := t.members[p]
	delete(t.members, p)
	t.tree.RemovePeer(time.Now(), plumtree.Peer(p))
	g.schedule(t)
	t.mu.Unlock()
	if known {
		g.unlink(p)
	}
}

// Forward makes this node pass a topic's messages on without reading them, until the returned
// function is called. It implements relay.Forwarder.
func (g *gossip) Forward(key wire.TopicKey) (stop func(), err error) {
	g.ops.Lock()
	defer g.ops.Unlock()
	t, err := g.open(key)
	if err != nil {
		return nil, fmt.Errorf("forwarding a topic: %w", err)
	}
	t.forwards++
	return sync.OnceFunc(func() {
		g.ops.Lock()
		defer g.ops.Unlock()
		if t.forwards--; t.forwards == 0 && g.topic(key) == t {
			g.release(t)
		}
	}), nil
}

// Publish implements chat.Gossip.
func (g *gossip) Publish(_ context.Context, topic wire.TopicKey, sealed []byte) error {
	if len(sealed) == 0 || len(sealed) > wire.MaxSealed {
		return fmt.Errorf("publishing: %d bytes, want 1 to %d", len(sealed), wire.MaxSealed)
	}
	t := g.topic(topic)
	if t == nil {
		return fmt.Errorf("publishing: %w", errNotJoined)
	}
	id := t.messageID(sealed)
	t.mu.Lock()
	joined, alone := t.deliver != nil, t.tree.Peers() == 0
	said := joined && !alone && t.tree.Publish(time.Now(), id, t.key, sealed)
	g.schedule(t)
	t.mu.Unlock()
	switch {
	case !joined:
		return fmt.Errorf("publishing: %w", errNotJoined)
	case alone:
		return fmt.Errorf("publishing: %w", chat.ErrUnreachable)
	case said:
		g.counters.took(string(id[:]), g.self)
	}
	g.counters.published.Add(1)
	return nil
}

// Subscribed says whether a peer is handed what passes in a topic: it has subscribed, and there is a stream to
// it. It implements relay.Forwarder.
func (g *gossip) Subscribed(topic wire.TopicKey, p peer.ID) bool {
	t := g.topic(topic)
	if t == nil || !g.filter.has(p, topic) {
		return false
	}
	t.mu.Lock()
	_, member := t.members[p]
	t.mu.Unlock()
	return member && g.linked(p)
}

// Pass publishes a checked sealed event of a forwarded topic that came by another way than gossip. What
// gossip has had already is left alone. It implements relay.Forwarder.
func (g *gossip) Pass(_ context.Context, s *wire.Sealed) error {
	t := g.topic(s.Topic)
	if t == nil || (g.admit != nil && !g.admit(s.Topic, len(s.Bytes()))) {
		return nil
	}
	id := t.messageID(s.Bytes())
	t.mu.Lock()
	said := !t.closed && t.tree.Publish(time.Now(), id, t.key, s.Bytes())
	g.schedule(t)
	t.mu.Unlock()
	if said {
		g.counters.took(string(id[:]), g.self)
	}
	return nil
}

// Peers implements chat.Gossip.
func (g *gossip) Peers(topic wire.TopicKey) []wire.DeviceID {
	var out []wire.DeviceID
	for _, p := range g.peers(topic) {
		if g.isRelay(p) {
			continue
		}
		if dev, err := wire.DeviceFromPeerID([]byte(p)); err == nil {
			out = append(out, dev)
		}
	}
	return out
}

// peers lists everybody who takes part in a joined topic and is connected, relays included. It is asked
// for every room every second: the library would stop its loop for each, and wake two threads.
func (g *gossip) peers(topic wire.TopicKey) []peer.ID {
	t := g.topic(topic)
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.deliver == nil {
		return nil
	}
	return slices.Collect(maps.Keys(t.members))
}

// joined lists the topics of this device's rooms.
func (g *gossip) joined() []wire.TopicKey {
	g.mu.RLock()
	defer g.mu.RUnlock()
	out := make([]wire.TopicKey, 0, len(g.topics))
	for key, t := range g.topics {
		t.mu.Lock()
		if t.deliver != nil {
			out = append(out, key)
		}
		t.mu.Unlock()
	}
	return out
}
