package bench

import (
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// bareTracer counts the copies that the anchor receives.
type bareTracer struct{ b *bare }

var _ pubsub.RawTracer = (*bareTracer)(nil)

// DuplicateMessage implements pubsub.RawTracer; so do the others, which do nothing.
func (t *bareTracer) DuplicateMessage(*pubsub.Message) { t.b.duplicates.Add(1) }

func (*bareTracer) OnNewOutboundStream(peer.ID, protocol.ID) {}
func (*bareTracer) OnClosedOutboundStream(peer.ID)           {}
func (*bareTracer) Join(string)                              {}
func (*bareTracer) Leave(string)                             {}
func (*bareTracer) Graft(peer.ID, string)                    {}
func (*bareTracer) Prune(peer.ID, string)                    {}
func (*bareTracer) ValidateMessage(*pubsub.Message)          {}
func (*bareTracer) DeliverMessage(*pubsub.Message)           {}
func (*bareTracer) RejectMessage(*pubsub.Message, string)    {}
func (*bareTracer) ThrottlePeer(peer.ID)                     {}
func (*bareTracer) RecvRPC(*pubsub.RPC)                      {}
func (*bareTracer) SendRPC(*pubsub.RPC, peer.ID)             {}
func (*bareTracer) DropRPC(*pubsub.RPC, peer.ID)             {}
func (*bareTracer) UndeliverableMessage(*pubsub.Message)     {}
