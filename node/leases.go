package node

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/wire"
)

const (
	// relaysPerTopic is how many relays forward a room: the loss of one loses nothing.
	relaysPerTopic = 2
	// exchangeTimeout bounds one request to a relay.
	exchangeTimeout = 10 * time.Second
	// refusedPause is how long a relay that refused a topic is not asked for it again, and
	// failedPause how long after a request that got no answer.
	refusedPause = time.Minute
	failedPause  = 3 * time.Second
)

// leases keeps this device's rooms attached to relays, which forward their topics: a peer that can be
// reached over a circuit only takes no part in gossip, so without a relay in the topic two people
// behind unfriendly NATs would never hear each other. Members choose the relays of a room by the same
// hash, so that they meet. One goroutine (run) owns the state; requests run beside it.
type leases struct {
	n    *Node
	kick chan struct{}    // capacity 1
	done chan leaseResult // results of requests

	mu    sync.Mutex // guards everything below
	rooms map[wire.TopicKey]*wire.RoomKeys
	seen  map[peer.ID]relayState            // for the status
	kept  map[wire.TopicKey][]wire.DeviceID // relays that mirror a topic for us
	known []wire.DeviceID                   // trusted relays that are connected
}

// relayState is how this device stands with one relay.
type relayState struct {
	topics int
	err    string
}

// lease is one topic at one relay.
type lease struct {
	renew   time.Time // when to ask (again)
	until   time.Time // zero: not granted
	refused bool
}

type relayLeases struct {
	busy   bool
	keeps  bool // it mirrors what it forwards
	topics map[wire.TopicKey]lease
	err    string
}

// leaseResult is what came of one request.
type leaseResult struct {
	relay    peer.ID
	topics   []wire.TopicKey // asked for
	detached []wire.TopicKey
	answer   *wire.RelayAttached
	err      error
}

func newLeases(n *Node) *leases {
	return &leases{
		n:     n,
		kick:  make(chan struct{}, 1),
		done:  make(chan leaseResult, 8),
		rooms: make(map[wire.TopicKey]*wire.RoomKeys),
		seen:  make(map[peer.ID]relayState),
	}
}

var _ chat.Relays = (*leases)(nil)

func (l *leases) join(keys *wire.RoomKeys) {
	l.mu.Lock()
	l.rooms[keys.Topic] = keys
	l.mu.Unlock()
	l.wake()
}

func (l *leases) leave(topic wire.TopicKey) {
	l.mu.Lock()
	delete(l.rooms, topic)
	l.mu.Unlock()
	l.wake()
}

func (l *leases) wake() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// state returns how this device stands with a relay.
func (l *leases) state(p peer.ID) relayState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen[p]
}

// run asks relays for leases, renews them at half their time and gives back what is not needed,
// until ctx ends; then it gives all back.
func (l *leases) run(ctx context.Context) error {
	at := make(map[peer.ID]*relayLeases)
	var requests sync.WaitGroup
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			requests.Wait()
			return nil
		case <-l.kick:
		case <-timer.C:
		case r := <-l.done:
			l.settle(at, r)
		}
		timer.Reset(l.plan(ctx, at, &requests))
	}
}

// plan brings what is attached in line with what should be, and returns when to look again.
func (l *leases) plan(ctx context.Context, at map[peer.ID]*relayLeases, requests *sync.WaitGroup) time.Duration {
	now := time.Now()
	relays := l.n.trustedRelays()
	for p := range at {
		if !slices.Contains(relays, p) {
			delete(at, p) // whatever it granted is void once the connection is gone
		}
	}
	for _, p := range relays {
		if at[p] == nil {
			at[p] = &relayLeases{topics: make(map[wire.TopicKey]lease)}
		}
	}
	wanted := l.wanted(at, relays, now)
	wait := time.Hour
	for p, rl := range at {
		var ask, drop []wire.TopicKey
		for topic := range wanted[p] {
			if le := rl.topics[topic]; !le.renew.After(now) {
				ask = append(ask, topic)
			} else {
				wait = min(wait, le.renew.Sub(now))
			}
		}
		for topic, le := range rl.topics {
			if _, ok := wanted[p][topic]; !ok && !le.until.IsZero() {
				drop = append(drop, topic)
			} else if le.refused {
				wait = min(wait, max(0, le.renew.Sub(now)))
			}
		}
		if rl.busy || len(ask)+len(drop) == 0 {
			continue
		}
		rl.busy = true
		ask, drop = ascending(ask), ascending(drop)
		// Ends within the exchange's time-out or with ctx; run waits for it.
		requests.Go(func() { l.exchange(ctx, p, ask, drop) })
	}
	l.publish(at)
	return wait
}

// wanted chooses the relays of each room: the first two by hash that have not refused it.
func (l *leases) wanted(at map[peer.ID]*relayLeases, relays []peer.ID, now time.Time) map[peer.ID]map[wire.TopicKey]struct{} {
	out := make(map[peer.ID]map[wire.TopicKey]struct{}, len(relays))
	for _, p := range relays {
		out[p] = make(map[wire.TopicKey]struct{})
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for topic := range l.rooms {
		chosen := 0
		for _, p := range rendezvousOrder(topic, relays) {
			if le := at[p].topics[topic]; le.refused && le.renew.After(now) {
				continue
			}
			out[p][topic] = struct{}{}
			if chosen++; chosen == relaysPerTopic {
				break
			}
		}
	}
	return out
}

// rendezvousOrder sorts relays by the hash of topic and relay (highest random weight): every member
// comes to the same order, and a relay that goes moves only its own topics.
func rendezvousOrder(topic wire.TopicKey, relays []peer.ID) []peer.ID {
	weight := make(map[peer.ID][32]byte, len(relays))
	for _, p := range relays {
		weight[p] = sha256.Sum256(slices.Concat([]byte("starling/relay-choice/1"), topic[:], []byte(p)))
	}
	return slices.SortedFunc(slices.Values(relays), func(a, b peer.ID) int {
		wa, wb := weight[a], weight[b]
		return bytes.Compare(wa[:], wb[:])
	})
}

func ascending(topics []wire.TopicKey) []wire.TopicKey {
	slices.SortFunc(topics, func(a, b wire.TopicKey) int { return bytes.Compare(a[:], b[:]) })
	return topics[:min(len(topics), wire.MaxAttachTopics)] // the rest follows in the next round
}

// exchange gives back topics and asks for others on one stream.
func (l *leases) exchange(ctx context.Context, relay peer.ID, ask, drop []wire.TopicKey) {
	r := leaseResult{relay: relay, topics: ask}
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	r.answer, r.detached, r.err = l.request(ctx, relay, ask, drop)
	l.done <- r
}

func (l *leases) request(ctx context.Context, relay peer.ID, ask, drop []wire.TopicKey) (*wire.RelayAttached, []wire.TopicKey, error) {
	s, err := l.n.host.NewStream(ctx, relay, wire.RelayProtocol)
	if err != nil {
		return nil, nil, fmt.Errorf("opening a stream: %w", err)
	}
	defer s.Close()
	deadline, _ := ctx.Deadline()
	if err := s.SetDeadline(deadline); err != nil {
		return nil, nil, err
	}
	call := func(f wire.Frame) (*wire.RelayAttached, error) {
		b, err := wire.AppendFrame(nil, f)
		if err != nil {
			return nil, err
		}
		if _, err := s.Write(b); err != nil {
			return nil, err
		}
		payload, err := wire.ReadFrame(s, wire.MaxFrame)
		if err != nil {
			return nil, err
		}
		answer, err := wire.ParseRelayFrame(payload)
		if err != nil {
			return nil, err
		}
		attached, ok := answer.(*wire.RelayAttached)
		if !ok {
			return nil, errors.New("relay answered with something else")
		}
		return attached, nil
	}
	if len(drop) > 0 {
		if _, err := call(&wire.RelayDetach{Topics: drop}); err != nil {
			return nil, nil, fmt.Errorf("detaching: %w", err)
		}
	}
	if len(ask) == 0 {
		return nil, drop, nil
	}
	req, err := l.attachFrame(relay, ask)
	if err != nil || len(req.Topics) == 0 {
		return nil, drop, err
	}
	answer, err := call(req)
	if err != nil {
		return nil, drop, fmt.Errorf("attaching: %w", err)
	}
	return answer, drop, nil
}

// attachFrame proves for each topic that this device holds its key.
func (l *leases) attachFrame(relay peer.ID, topics []wire.TopicKey) (*wire.RelayAttach, error) {
	relayID, err := wire.DeviceFromPeerID([]byte(relay))
	if err != nil {
		return nil, err
	}
	self, err := wire.DeviceFromPeerID([]byte(l.n.id))
	if err != nil {
		return nil, err
	}
	req := &wire.RelayAttach{Want: wire.WantMirror, Lease: wire.DefaultLease}
	if _, err := rand.Read(req.Nonce[:]); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, topic := range topics {
		if keys := l.rooms[topic]; keys != nil {
			req.Topics = append(req.Topics, wire.RelayTopic{Topic: topic, Proof: keys.ProveAttach(relayID, self, req.Nonce)})
		}
	}
	return req, nil
}

// settle takes the result of a request.
func (l *leases) settle(at map[peer.ID]*relayLeases, r leaseResult) {
	rl := at[r.relay]
	if rl == nil {
		return // disconnected meanwhile
	}
	rl.busy = false
	rl.err = ""
	now := time.Now()
	for _, topic := range r.detached {
		delete(rl.topics, topic)
	}
	if r.err != nil {
		rl.err = r.err.Error()
		for _, topic := range r.topics {
			le := rl.topics[topic]
			le.renew = now.Add(failedPause)
			rl.topics[topic] = le
		}
		l.n.plan.Logger.Debug("relay did not answer", "relay", r.relay, "err", r.err)
		return
	}
	granted := make(map[wire.TopicKey]time.Duration)
	if r.answer != nil {
		rl.keeps = r.answer.Limits.MirrorEvents > 0
		for _, g := range r.answer.Grants {
			if g.Code == wire.RelayOK {
				granted[g.Topic] = min(g.Lease, wire.MaxLease)
			}
		}
		if len(granted) < len(r.topics) {
			rl.err = cmp.Or(r.answer.Detail, fmt.Sprintf("refused (code %d)", r.answer.Code))
			l.n.plan.Logger.Info("relay refused a topic", "relay", r.relay, "reason", rl.err)
		}
	}
	for _, topic := range r.topics {
		if d, ok := granted[topic]; ok {
			rl.topics[topic] = lease{renew: now.Add(d / 2), until: now.Add(d)}
		} else {
			rl.topics[topic] = lease{renew: now.Add(refusedPause), refused: true}
		}
	}
}

// publish updates what others may ask, and says so if relays came or went.
func (l *leases) publish(at map[peer.ID]*relayLeases) {
	if l.note(at) && l.n.chat != nil { // a relay that knows another one chats with nobody
		l.n.chat.RelaysChanged()
	}
}

// note updates what others may ask. It says whether relays came or went.
func (l *leases) note(at map[peer.ID]*relayLeases) (changed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.seen)
	before := l.known
	l.kept, l.known = make(map[wire.TopicKey][]wire.DeviceID), nil
	for p, rl := range at {
		st := relayState{err: rl.err}
		dev, err := wire.DeviceFromPeerID([]byte(p))
		if err == nil {
			l.known = append(l.known, dev)
		}
		for topic, le := range rl.topics {
			if le.until.IsZero() {
				continue
			}
			st.topics++
			if rl.keeps && err == nil {
				l.kept[topic] = append(l.kept[topic], dev)
			}
		}
		l.seen[p] = st
	}
	slices.SortFunc(l.known, func(a, b wire.DeviceID) int { return bytes.Compare(a[:], b[:]) }) // a map has no order
	return !slices.Equal(before, l.known)
}

// Relays implements chat.Relays.
func (l *leases) Relays() []wire.DeviceID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.known)
}

// Mirrors implements chat.Relays.
func (l *leases) Mirrors(topic wire.TopicKey) []wire.DeviceID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.kept[topic])
}

// Address implements chat.Relays.
func (l *leases) Address(relay wire.DeviceID) string {
	for _, info := range l.n.plan.bootstraps {
		if info.ID != peer.ID(relay.PeerID()) {
			continue
		}
		for _, a := range info.Addrs {
			if text := a.String() + "/p2p/" + info.ID.String(); len(text) <= wire.MaxAddress {
				return text
			}
		}
	}
	return ""
}
