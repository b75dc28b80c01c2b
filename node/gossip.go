package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/wire"
)

const (
	// maxRPC bounds one message between two nodes of the topic layer, in bytes. It holds the largest
	// sealed event with room to spare; and the list of all topics of a relay, which the library
	// sends as one piece.
	maxRPC = 1 << 20
	// verifiedTopics is how many topics' keys are kept prepared, 1.6 KB each.
	verifiedTopics = 512
	// seenFor is how long a message is remembered, so that a late copy is not delivered again.
	seenFor = 5 * time.Minute
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

// gossip is the topic layer: one pubsub instance with this network's options. It implements
// chat.Gossip, and for a relay the forwarding of topics that nobody here has joined.
type gossip struct {
	self     peer.ID
	clock    chat.Clock
	log      *slog.Logger
	limits   GossipLimits
	counters gossipCounters
	verifier *wire.Verifier // keeps the topics' keys prepared: half the cost of a verification
	skew     skewMeter
	filter   *topicFilter
	hooks    roomHooks
	isRelay  func(peer.ID) bool
	inspect  func(map[peer.ID]float64) // is told everybody's score now and then, for tests
	floods   bool                      // a relay's: what it forwards goes to every subscriber at once
	// keep takes what a relay forwarded and checked, with who handed it over; nil keeps nothing.
	keep func(s *wire.Sealed, from wire.DeviceID)
	// admit bounds what a relay forwards; nil admits everything.
	admit func(topic wire.TopicKey, size int) bool

	ops sync.Mutex // serializes Join, Leave and Forward, which take several steps

	mu     sync.RWMutex // guards ps, topics
	ps     *pubsub.PubSub
	topics map[wire.TopicKey]*gossipTopic
}

// gossipTopic is one topic: joined by chat, forwarded by the relay, or both.
type gossipTopic struct {
	topic    *pubsub.Topic
	room     *gossipRoom // nil unless joined
	forwards int         // leases of the forwarder
	unrelay  pubsub.RelayCancelFunc
}

// gossipRoom is a joined topic.
type gossipRoom struct {
	sub     *pubsub.Subscription
	events  *pubsub.TopicEventHandler
	cancel  context.CancelFunc
	loops   sync.WaitGroup
	deliver atomic.Pointer[func(chat.Incoming)]

	mu      sync.Mutex // guards members
	members map[peer.ID]struct{}
}

func newGossip(p *plan, self peer.ID) *gossip {
	g := &gossip{
		self:     self,
		clock:    p.Clock,
		log:      p.Logger,
		limits:   p.Limits.Gossip,
		floods:   p.Relay != nil,
		verifier: wire.NewVerifier(wire.VerifierLimits{Keys: verifiedTopics}),
		inspect:  func(map[peer.ID]float64) {},
		topics:   make(map[wire.TopicKey]*gossipTopic),
	}
	g.filter = newTopicFilter(g.limits.TopicsPerPeer)
	g.counters.here, g.counters.gone = g.filter.open, g.filter.forget
	return g
}

// run starts the topic layer on a host and keeps it until ctx ends. ready is called once Join may
// be.
func (g *gossip) run(ctx context.Context, h host.Host, ready func()) error {
	params, thresholds := scoreParams()
	features := pubsub.GossipSubDefaultFeatures
	if g.floods {
		features = floodFeatures
	}
	ps, err := pubsub.NewGossipSub(
		ctx, h,
		pubsub.WithGossipSubProtocols(pubsub.GossipSubDefaultProtocols, features),
		// Authorship is inside our sealed events; signing again would print the sender's peer id on
		// every ciphertext and cost more than everything else together.
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign),
		pubsub.WithNoAuthor(),
		pubsub.WithMessageIdFn(messageID),
		pubsub.WithMaxMessageSize(maxRPC),
		pubsub.WithPeerOutboundQueueSize(g.limits.Queue),
		pubsub.WithValidateQueueSize(g.limits.Queue),
		pubsub.WithFloodPublish(true),
		pubsub.WithPeerExchange(false),
		pubsub.WithGossipSubParams(meshParams(g.limits.Fanout)),
		pubsub.WithPeerScore(params, thresholds),
		pubsub.WithSeenMessagesTTL(seenFor),
		pubsub.WithSubscriptionFilter(g.filter),
		pubsub.WithDefaultValidator(g.validate, pubsub.WithValidatorInline(true)),
		pubsub.WithRawTracer(&g.counters),
		pubsub.WithPeerScoreInspect(g.inspect, scoreInspect),
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
		if t.room != nil {
			t.room.stop()
		}
	}
	return nil
}

// messageID names a message by its topic and all of its bytes, not by the sealed id: that one
// covers neither the signature nor whether the body is still there, and the library remembers ids
// before it verifies, for all topics together. So anybody on the way could spoil a copy, or send it
// to another topic, and have the true one dropped as a duplicate.
func messageID(m *pb.Message) string {
	b := make([]byte, 0, len(m.GetTopic())+len(m.GetData()))
	id := wire.GossipID(append(append(b, m.GetTopic()...), m.GetData()...))
	return string(id[:])
}

// validate decides about one message: accepted, or ignored when it may come from an honest node,
// or rejected, which costs its forwarder score, when no honest node sends it. It runs inside the
// library's workers, and inside Publish: CPU only.
func (g *gossip) validate(_ context.Context, from peer.ID, m *pubsub.Message) pubsub.ValidationResult {
	topic, err := wire.ParseTopic(m.GetTopic())
	if err != nil {
		return pubsub.ValidationReject
	}
	if from == g.self {
		return pubsub.ValidationAccept // our own: made and sealed a moment ago
	}
	if len(m.Data) > wire.MaxSealed {
		return pubsub.ValidationReject
	}
	if g.admit != nil && !g.admit(topic, len(m.Data)) {
		g.counters.rateLimitDrops.Add(1)
		return pubsub.ValidationIgnore
	}
	sealed, err := g.verifier.CheckSealed(topic, m.Data)
	switch {
	case errors.Is(err, wire.ErrUnsupported):
		return pubsub.ValidationIgnore
	case err != nil:
		return pubsub.ValidationReject
	case sealed.IsStub():
		// Somebody cut the body off on the way; sync alone carries stubs.
		return pubsub.ValidationIgnore
	}
	g.skew.observe(from, sealed.HLC.Time(), g.clock.Now())
	if sealed.HLC.Time().After(g.clock.Now().Add(wire.MaxAhead)) {
		return pubsub.ValidationIgnore
	}
	m.ValidatorData = sealed
	if g.keep != nil {
		if dev, err := wire.DeviceFromPeerID([]byte(from)); err == nil {
			g.keep(sealed, dev)
		}
	}
	return pubsub.ValidationAccept
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
	if t.room != nil {
		t.room.deliver.Store(&deliver)
		return nil
	}
	room := &gossipRoom{members: make(map[peer.ID]struct{})}
	room.deliver.Store(&deliver)
	if room.events, err = t.topic.EventHandler(); err == nil {
		room.sub, err = t.topic.Subscribe(pubsub.WithBufferSize(g.limits.Queue))
	}
	if err != nil {
		if room.events != nil {
			room.events.Cancel()
		}
		g.release(keys.Topic, t)
		return fmt.Errorf("joining a topic: %w", err)
	}
	var loopCtx context.Context
	loopCtx, room.cancel = context.WithCancel(context.WithoutCancel(ctx))
	// Both loops end with room.cancel; stop waits for them.
	room.loops.Go(func() { g.receive(loopCtx, room) })
	room.loops.Go(func() { g.watch(loopCtx, keys.Topic, room) })
	g.mu.Lock()
	t.room = room
	g.mu.Unlock()
	g.hooks.joined(keys)
	return nil
}

// receive hands what arrives to the room.
func (g *gossip) receive(ctx context.Context, room *gossipRoom) {
	for {
		m, err := room.sub.Next(ctx)
		if err != nil {
			return
		}
		if m.ReceivedFrom == g.self {
			continue
		}
		sealed, ok := m.ValidatorData.(*wire.Sealed)
		if !ok {
			continue
		}
		from, err := wire.DeviceFromPeerID([]byte(m.ReceivedFrom))
		if err != nil {
			continue
		}
		(*room.deliver.Load())(chat.Incoming{Sealed: sealed, From: from})
	}
}

// watch notes and reports who takes part.
func (g *gossip) watch(ctx context.Context, topic wire.TopicKey, room *gossipRoom) {
	for {
		e, err := room.events.NextPeerEvent(ctx)
		if err != nil {
			return
		}
		room.mu.Lock()
		if e.Type == pubsub.PeerJoin {
			room.members[e.Peer] = struct{}{}
		} else {
			delete(room.members, e.Peer)
		}
		room.mu.Unlock()
		if e.Type == pubsub.PeerJoin {
			g.hooks.member(topic, e.Peer)
		}
	}
}

func (r *gossipRoom) stop() {
	r.cancel()
	r.sub.Cancel()
	r.events.Cancel()
	r.loops.Wait()
}

// Leave implements chat.Gossip. It must not be called from deliver.
func (g *gossip) Leave(topic wire.TopicKey) {
	g.ops.Lock()
	defer g.ops.Unlock()
	g.mu.Lock()
	t := g.topics[topic]
	var room *gossipRoom
	if t != nil {
		room, t.room = t.room, nil
	}
	g.mu.Unlock()
	if room == nil {
		return
	}
	room.stop()
	g.release(topic, t)
	g.hooks.left(topic)
}

// open returns the topic, joining it in the library if need be. The caller holds ops.
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
	if err := topic.SetScoreParams(topicScoreParams()); err != nil {
		return nil, errors.Join(err, topic.Close())
	}
	t = &gossipTopic{topic: topic}
	g.mu.Lock()
	g.topics[key] = t
	g.mu.Unlock()
	return t, nil
}

// release closes a topic that nobody uses any more. The caller holds ops.
func (g *gossip) release(key wire.TopicKey, t *gossipTopic) {
	if t.room != nil || t.forwards > 0 {
		return
	}
	g.mu.Lock()
	delete(g.topics, key)
	g.mu.Unlock()
	if err := t.topic.Close(); err != nil {
		g.log.Debug("topic did not close", "err", err)
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
	if t.forwards == 0 {
		if t.unrelay, err = t.topic.Relay(); err != nil {
			g.release(key, t)
			return nil, fmt.Errorf("forwarding a topic: %w", err)
		}
	}
	t.forwards++
	return sync.OnceFunc(func() {
		g.ops.Lock()
		defer g.ops.Unlock()
		if t.forwards--; t.forwards == 0 {
			t.unrelay()
			g.release(key, t)
		}
	}), nil
}

// Publish implements chat.Gossip.
func (g *gossip) Publish(ctx context.Context, topic wire.TopicKey, sealed []byte) error {
	if len(sealed) > wire.MaxSealed {
		return fmt.Errorf("publishing: %d bytes, at most %d", len(sealed), wire.MaxSealed)
	}
	g.mu.RLock()
	t := g.topics[topic]
	joined := t != nil && t.room != nil
	g.mu.RUnlock()
	if !joined {
		return fmt.Errorf("publishing: %w", errNotJoined)
	}
	// The library takes a message for nobody without a word, and remembers it: it could not be published
	// again once somebody comes.
	if len(t.topic.ListPeers()) == 0 {
		return fmt.Errorf("publishing: %w", chat.ErrUnreachable)
	}
	if err := t.topic.Publish(ctx, sealed); err != nil {
		return fmt.Errorf("publishing: %w", err)
	}
	g.counters.published.Add(1)
	return nil
}

// Subscribed says whether a peer is handed what passes in a topic: it has subscribed, and there is a stream to
// it. The library takes messages for a stream that it still opens, and drops them if it fails. It implements
// relay.Forwarder.
func (g *gossip) Subscribed(topic wire.TopicKey, p peer.ID) bool { return g.filter.has(p, topic) }

// Pass publishes a checked sealed event of a forwarded topic that came by another way than gossip. What
// gossip has had already is left alone by the library. It implements relay.Forwarder.
func (g *gossip) Pass(ctx context.Context, s *wire.Sealed) error {
	g.mu.RLock()
	t := g.topics[s.Topic]
	forwarded := t != nil && t.forwards > 0
	g.mu.RUnlock()
	if !forwarded || (g.admit != nil && !g.admit(s.Topic, len(s.Bytes()))) {
		return nil
	}
	if err := t.topic.Publish(ctx, s.Bytes()); err != nil {
		return fmt.Errorf("passing an event on: %w", err)
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
	g.mu.RLock()
	var room *gossipRoom
	if t := g.topics[topic]; t != nil {
		room = t.room
	}
	g.mu.RUnlock()
	if room == nil {
		return nil
	}
	room.mu.Lock()
	defer room.mu.Unlock()
	return slices.Collect(maps.Keys(room.members))
}

// joined lists the topics of this device's rooms.
func (g *gossip) joined() []wire.TopicKey {
	g.mu.RLock()
	defer g.mu.RUnlock()
	out := make([]wire.TopicKey, 0, len(g.topics))
	for key, t := range g.topics {
		if t.room != nil {
			out = append(out, key)
		}
	}
	return out
}

// topicFilter admits subscriptions to topics of our form only, and so many for each peer.
type topicFilter struct {
	max int

	mu      sync.Mutex // guards all below
	peers   map[peer.ID]map[wire.TopicKey]struct{}
	streams map[peer.ID]struct{} // to whom a stream is open
}

var _ pubsub.SubscriptionFilter = (*topicFilter)(nil)

func newTopicFilter(most int) *topicFilter {
	return &topicFilter{max: most, peers: make(map[peer.ID]map[wire.TopicKey]struct{}), streams: make(map[peer.ID]struct{})}
}

// CanSubscribe implements pubsub.SubscriptionFilter.
func (*topicFilter) CanSubscribe(topic string) bool {
	_, err := wire.ParseTopic(topic)
	return err == nil
}

// FilterIncomingSubscriptions implements pubsub.SubscriptionFilter. What is over the limit is
// dropped, not punished: a relay's list may well be long.
func (f *topicFilter) FilterIncomingSubscriptions(from peer.ID, subs []*pb.RPC_SubOpts) ([]*pb.RPC_SubOpts, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	have := f.peers[from]
	if have == nil {
		have = make(map[wire.TopicKey]struct{})
		f.peers[from] = have
	}
	out := subs[:0]
	for _, s := range subs {
		key, err := wire.ParseTopic(s.GetTopicid())
		if err != nil {
			continue
		}
		if !s.GetSubscribe() {
			delete(have, key)
			out = append(out, s)
			continue
		}
		if _, ok := have[key]; !ok && len(have) >= f.max {
			continue
		}
		have[key] = struct{}{}
		out = append(out, s)
	}
	return out, nil
}

func (f *topicFilter) has(p peer.ID, topic wire.TopicKey) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, subscribed := f.peers[p][topic]
	_, open := f.streams[p]
	return subscribed && open
}

// open notes that there is a stream to a peer.
func (f *topicFilter) open(p peer.ID) {
	f.mu.Lock()
	f.streams[p] = struct{}{}
	f.mu.Unlock()
}

// forget drops what is known of a peer whose stream ended.
func (f *topicFilter) forget(p peer.ID) {
	f.mu.Lock()
	delete(f.peers, p)
	delete(f.streams, p)
	f.mu.Unlock()
}
