package relay

import (
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"github.com/starling-chat/starling/chat/wire"
)

// table holds the leases: who has which topic until when. It does no I/O; the server guards it.
type table struct {
	cfg     Config
	topics  map[wire.TopicKey]*topicLeases
	clients map[peer.ID]*client
}

// topicLeases is one topic with its holders.
type topicLeases struct {
	holders map[peer.ID]time.Time // until when
	stop    func()                // ends the forwarding; nil while it is being joined
	bucket  *bucket
}

type client struct {
	topics   map[wire.TopicKey]struct{}
	requests *rate.Limiter
	seen     time.Time
}

func newTable(cfg Config) *table {
	return &table{cfg: cfg, topics: make(map[wire.TopicKey]*topicLeases), clients: make(map[peer.ID]*client)}
}

// request says whether a client is within its request rate.
func (t *table) request(p peer.ID, now time.Time) bool {
	c := t.clients[p]
	if c == nil {
		// Whoever only asks and holds nothing is forgotten by expire; the host bounds how many there are.
		c = &client{
			topics:   make(map[wire.TopicKey]struct{}),
			requests: rate.NewLimiter(rate.Limit(t.cfg.Requests)/60, min(requestBurst, t.cfg.Requests)),
		}
		t.clients[p] = c
	}
	c.seen = now
	return c.requests.AllowN(now, 1)
}

// grant gives or renews a lease. join says that the topic is not forwarded yet.
func (t *table) grant(p peer.ID, topic wire.TopicKey, until time.Time) (code wire.RelayCode, join bool) {
	c := t.clients[p]
	if c == nil {
		return wire.RelayFull, false
	}
	tl := t.topics[topic]
	if _, held := c.topics[topic]; !held {
		switch {
		case len(c.topics) >= t.cfg.TopicsPerPeer:
			return wire.RelayTopicLimit, false
		case tl == nil && len(t.topics) >= t.cfg.Topics:
			return wire.RelayFull, false
		case len(c.topics) == 0 && t.holders() >= t.cfg.Clients:
			return wire.RelayFull, false
		}
	}
	if tl == nil {
		tl = &topicLeases{holders: make(map[peer.ID]time.Time), bucket: newBucket(t.cfg)}
		t.topics[topic] = tl
	}
	tl.holders[p] = until
	c.topics[topic] = struct{}{}
	return wire.RelayOK, tl.stop == nil
}

// holders counts the clients with a lease.
func (t *table) holders() int {
	n := 0
	for _, c := range t.clients {
		if len(c.topics) > 0 {
			n++
		}
	}
	return n
}

// joined stores how to stop forwarding; false when it is not wanted any more.
func (t *table) joined(topic wire.TopicKey, stop func()) bool {
	tl := t.topics[topic]
	if tl == nil || tl.stop != nil {
		return false
	}
	tl.stop = stop
	return true
}

// release gives back a client's leases and returns what to stop.
func (t *table) release(p peer.ID, topics []wire.TopicKey) (stops []func()) {
	for _, topic := range topics {
		tl := t.topics[topic]
		if tl == nil {
			continue
		}
		delete(tl.holders, p)
		if c := t.clients[p]; c != nil {
			delete(c.topics, topic)
		}
		if len(tl.holders) == 0 {
			delete(t.topics, topic)
			if tl.stop != nil {
				stops = append(stops, tl.stop)
			}
		}
	}
	return stops
}

func (t *table) releaseAll(p peer.ID) []func() {
	c := t.clients[p]
	if c == nil {
		return nil
	}
	topics := make([]wire.TopicKey, 0, len(c.topics))
	for topic := range c.topics {
		topics = append(topics, topic)
	}
	return t.release(p, topics)
}

// expire takes back leases that ran out and forgets clients that hold none.
func (t *table) expire(now time.Time) (stops []func()) {
	for topic, tl := range t.topics {
		for p, until := range tl.holders {
			if now.After(until) {
				stops = append(stops, t.release(p, []wire.TopicKey{topic})...)
			}
		}
	}
	for p, c := range t.clients {
		if len(c.topics) == 0 && now.Sub(c.seen) > time.Minute {
			delete(t.clients, p)
		}
	}
	return stops
}

// clear empties the table and returns what to stop.
func (t *table) clear() (stops []func()) {
	for _, tl := range t.topics {
		if tl.stop != nil {
			stops = append(stops, tl.stop)
		}
	}
	t.topics, t.clients = make(map[wire.TopicKey]*topicLeases), make(map[peer.ID]*client)
	return stops
}

// bucket returns the limits of a forwarded topic, or nil.
func (t *table) bucket(topic wire.TopicKey) *bucket {
	if tl := t.topics[topic]; tl != nil {
		return tl.bucket
	}
	return nil
}

// bucket limits one topic's events and bytes together: a message takes from both or from none.
type bucket struct {
	mu            sync.Mutex // guards both
	events, bytes *rate.Limiter
}

// burstSeconds is how much of its rate a topic may use at once.
const burstSeconds = 10

func newBucket(cfg Config) *bucket {
	return &bucket{
		events: rate.NewLimiter(rate.Limit(cfg.EventsPerSecond), burstSeconds*cfg.EventsPerSecond),
		bytes:  rate.NewLimiter(rate.Limit(cfg.BytesPerSecond), burstSeconds*cfg.BytesPerSecond),
	}
}

func (b *bucket) take(now time.Time, size int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.events.TokensAt(now) < 1 || b.bytes.TokensAt(now) < float64(size) {
		return false
	}
	return b.events.AllowN(now, 1) && b.bytes.AllowN(now, size)
}
