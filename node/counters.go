package node

import (
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/peer"
)

// gossipCounters counts what the topic layer did and lost. Publish returns nil when a queue was full, so
// these are the only way to see a loss.
type gossipCounters struct {
	published, delivered, duplicates atomic.Uint64
	rejected, ignored                atomic.Uint64
	outboundDrops, rateLimitDrops    atomic.Uint64

	heard func(id string, from peer.ID) // a message arrived for the first time; for simulations, may be nil
}

// dropped returns the losses of all queues together.
func (c *gossipCounters) dropped() uint64 { return c.outboundDrops.Load() }

// took counts a message that was accepted, own ones included.
func (c *gossipCounters) took(id string, from peer.ID) {
	c.delivered.Add(1)
	if c.heard != nil {
		c.heard(id, from)
	}
}
