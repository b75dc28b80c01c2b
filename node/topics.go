package node

import (
	"sync"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/starling-chat/starling/chat/wire"
)

// subscriptionProtocol is how nodes tell each other which topics they take part in: the subscriptions of
// gossipsub's stream, and nothing else of it.
const subscriptionProtocol = pubsub.GossipSubID_v11

// subscriptions is the library's router that routes nothing: messages and the mesh's control that somebody
// sends all the same are dropped unread. It implements pubsub.PubSubRouter, whose methods are called from the
// library's loop.
type subscriptions struct{ filter *topicFilter }

var _ pubsub.PubSubRouter = subscriptions{}

// Protocols implements pubsub.PubSubRouter.
func (subscriptions) Protocols() []protocol.ID { return []protocol.ID{subscriptionProtocol} }

// Attach implements pubsub.PubSubRouter.
func (subscriptions) Attach(*pubsub.PubSub) {}

// OnNewOutboundStream implements pubsub.PubSubRouter.
func (subscriptions) OnNewOutboundStream(_ peer.ID, _ protocol.ID, hello *pubsub.RPC) *pubsub.RPC {
	return hello
}

// OnClosedOutboundStream implements pubsub.PubSubRouter. The library forgets what the peer had subscribed to.
func (s subscriptions) OnClosedOutboundStream(p peer.ID) { s.filter.forget(p) }

// OnNewIncomingStream implements pubsub.PubSubRouter.
func (subscriptions) OnNewIncomingStream(peer.ID, protocol.ID) {}

// OnClosedIncomingStream implements pubsub.PubSubRouter.
func (subscriptions) OnClosedIncomingStream(peer.ID, protocol.ID) {}

// EnoughPeers implements pubsub.PubSubRouter.
func (subscriptions) EnoughPeers(string, int) bool { return true }

// AcceptFrom implements pubsub.PubSubRouter.
func (subscriptions) AcceptFrom(peer.ID) pubsub.AcceptStatus { return pubsub.AcceptControl }

// Preprocess implements pubsub.PubSubRouter.
func (subscriptions) Preprocess(peer.ID, []*pubsub.Message) {}

// HandleRPC implements pubsub.PubSubRouter.
func (subscriptions) HandleRPC(*pubsub.RPC) {}

// Publish implements pubsub.PubSubRouter.
func (subscriptions) Publish(*pubsub.Message) {}

// Join implements pubsub.PubSubRouter.
func (subscriptions) Join(string) {}

// Leave implements pubsub.PubSubRouter.
func (subscriptions) Leave(string) {}

// topicFilter admits subscriptions to topics of our form only, and so many for each peer.
type topicFilter struct {
	max int

	mu    sync.Mutex // guards peers
	peers map[peer.ID]map[wire.TopicKey]struct{}
}

var _ pubsub.SubscriptionFilter = (*topicFilter)(nil)

func newTopicFilter(most int) *topicFilter {
	return &topicFilter{max: most, peers: make(map[peer.ID]map[wire.TopicKey]struct{})}
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
	return subscribed
}

// forget drops what is known of a peer whose stream ended.
func (f *topicFilter) forget(p peer.ID) {
	f.mu.Lock()
	delete(f.peers, p)
	f.mu.Unlock()
}
