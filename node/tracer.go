package node

import (
	"sync/atomic"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// gossipCounters counts what the topic layer did and lost. Publish returns nil when a queue was
// full, so these are the only way to see a loss. It implements pubsub.RawTracer, whose methods are
// called from the library's loop and must not block.
type gossipCounters struct {
	published, delivered, duplicates  atomic.Uint64
	rejected, ignored                 atomic.Uint64
	outboundDrops, inboundDrops       atomic.Uint64
	subscriptionDrops, rateLimitDrops atomic.Uint64

	here  func(peer.ID)                 // a stream to a peer is open
	gone  func(peer.ID)                 // it ended
	heard func(id string, from peer.ID) // a message arrived for the first time; for simulations, may be nil
}

var _ pubsub.RawTracer = (*gossipCounters)(nil)

// dropped returns the losses of all queues together.
func (c *gossipCounters) dropped() uint64 {
	return c.outboundDrops.Load() + c.inboundDrops.Load() + c.subscriptionDrops.Load()
}

// OnNewOutboundStream implements pubsub.RawTracer.
func (c *gossipCounters) OnNewOutboundStream(p peer.ID, _ protocol.ID) { c.here(p) }

// OnClosedOutboundStream implements pubsub.RawTracer.
func (c *gossipCounters) OnClosedOutboundStream(p peer.ID) { c.gone(p) }

// Join implements pubsub.RawTracer.
func (*gossipCounters) Join(string) {}

// Leave implements pubsub.RawTracer.
func (*gossipCounters) Leave(string) {}

// Graft implements pubsub.RawTracer.
func (*gossipCounters) Graft(peer.ID, string) {}

// Prune implements pubsub.RawTracer.
func (*gossipCounters) Prune(peer.ID, string) {}

// ValidateMessage implements pubsub.RawTracer.
func (*gossipCounters) ValidateMessage(*pubsub.Message) {}

// DeliverMessage implements pubsub.RawTracer.
func (c *gossipCounters) DeliverMessage(m *pubsub.Message) {
	c.delivered.Add(1)
	if c.heard != nil {
		c.heard(m.ID, m.ReceivedFrom)
	}
}

// RejectMessage implements pubsub.RawTracer.
func (c *gossipCounters) RejectMessage(_ *pubsub.Message, reason string) {
	switch reason {
	case pubsub.RejectValidationIgnored:
		c.ignored.Add(1)
	case pubsub.RejectValidationQueueFull, pubsub.RejectValidationThrottled:
		c.inboundDrops.Add(1)
	default:
		c.rejected.Add(1)
	}
}

// DuplicateMessage implements pubsub.RawTracer.
func (c *gossipCounters) DuplicateMessage(*pubsub.Message) { c.duplicates.Add(1) }

// ThrottlePeer implements pubsub.RawTracer.
func (*gossipCounters) ThrottlePeer(peer.ID) {}

// RecvRPC implements pubsub.RawTracer.
func (*gossipCounters) RecvRPC(*pubsub.RPC) {}

// SendRPC implements pubsub.RawTracer.
func (*gossipCounters) SendRPC(*pubsub.RPC, peer.ID) {}

// DropRPC implements pubsub.RawTracer.
func (c *gossipCounters) DropRPC(rpc *pubsub.RPC, _ peer.ID) {
	c.outboundDrops.Add(uint64(max(1, len(rpc.GetPublish()))))
}

// UndeliverableMessage implements pubsub.RawTracer.
func (c *gossipCounters) UndeliverableMessage(*pubsub.Message) { c.subscriptionDrops.Add(1) }
