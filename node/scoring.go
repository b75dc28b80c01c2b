package node

import (
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// Peer scores decide who stays in a topic's mesh. What they punish is only what is provably wrong,
// since an honest peer can be silent for weeks (a quiet room), can never be the first to deliver
// (a leaf behind a hub), and shares its address with a whole office. So gossipsub's penalties for
// delivering too little (P3) and for sharing an address (P6) are off. Whoever does deliver earns
// points instead: when a mesh is over its size, or its median falls to nothing, those who never
// forward are the ones that make room.
const (
	// scoreGossip and below: neither gossip to nor from the peer, and no place in a mesh (any
	// negative score costs that). scoreGraylist and below: everything it sends is dropped unread.
	scoreGossip    = -10
	scorePublish   = -40
	scoreGraylist  = -100
	scoreOpportune = 1 // a median below it makes the mesh look for better peers

	// An invalid message counts -20 times the square of their number: one ends the place in the
	// mesh, three the connection's use, and ten quiet minutes forgive most of it.
	invalidWeight = -20
	invalidDecay  = 10 * time.Minute

	// A first delivery earns a point, up to 100, half of it gone within five minutes.
	firstDeliveryWeight = 1
	firstDeliveryCap    = 100
	firstDeliveryDecay  = 15 * time.Minute

	// Breaking gossipsub's own rules (grafting too early, announcing what is not served) costs the
	// square of what exceeds six times.
	behaviourWeight    = -1
	behaviourThreshold = 6
	behaviourDecay     = 10 * time.Minute

	scoreDecayInterval = time.Second
	scoreDecayToZero   = 0.01
	scoreInspect       = time.Second
	scoreRetain        = 30 * time.Minute // a reconnect does not wash off a bad score
)

func scoreParams() (*pubsub.PeerScoreParams, *pubsub.PeerScoreThresholds) {
	return &pubsub.PeerScoreParams{
		Topics:                    map[string]*pubsub.TopicScoreParams{},
		TopicScoreCap:             firstDeliveryCap * firstDeliveryWeight,
		AppSpecificScore:          func(peer.ID) float64 { return 0 },
		BehaviourPenaltyWeight:    behaviourWeight,
		BehaviourPenaltyThreshold: behaviourThreshold,
		BehaviourPenaltyDecay:     decayPer(behaviourDecay),
		DecayInterval:             scoreDecayInterval,
		DecayToZero:               scoreDecayToZero,
		RetainScore:               scoreRetain,
	}, &pubsub.PeerScoreThresholds{
		GossipThreshold:             scoreGossip,
		PublishThreshold:            scorePublish,
		GraylistThreshold:           scoreGraylist,
		OpportunisticGraftThreshold: scoreOpportune,
	}
}

// topicScoreParams are the same for every topic.
func topicScoreParams() *pubsub.TopicScoreParams {
	return &pubsub.TopicScoreParams{
		SkipAtomicValidation:           true, // P1 and P3 stay at zero
		TopicWeight:                    1,
		TimeInMeshQuantum:              time.Second, // divides even at weight zero
		FirstMessageDeliveriesWeight:   firstDeliveryWeight,
		FirstMessageDeliveriesDecay:    decayPer(firstDeliveryDecay),
		FirstMessageDeliveriesCap:      firstDeliveryCap,
		InvalidMessageDeliveriesWeight: invalidWeight,
		InvalidMessageDeliveriesDecay:  decayPer(invalidDecay),
	}
}

// decayPer returns the factor per decay interval that takes a counter to (almost) zero in d.
func decayPer(d time.Duration) float64 {
	return pubsub.ScoreParameterDecayWithBase(d, scoreDecayInterval, scoreDecayToZero)
}

// meshParams returns gossipsub's parameters for a fan-out. Up to 7 they make a mesh of four, not of the
// library's six: copies are most of what a room costs, and whoever misses one is served by the author's
// own flood, by gossip, or by sync (docs/adr/0014-small-mesh.md). A hub with a large fan-out keeps
// everybody who grafts it in its mesh, and prunes nobody.
func meshParams(fanout int) pubsub.GossipSubParams {
	p := pubsub.DefaultGossipSubParams()
	p.D, p.Dlo, p.Dhi, p.Dscore, p.Dout = 4, 4, 7, 3, 1
	// Leaving a room and coming back is something people do; for the library's 10 s the old
	// neighbours would refuse the newcomer.
	p.UnsubscribeBackoff = 2 * time.Second
	// A mesh that is over its size keeps those who delivered, and none at random.
	p.Dscore = p.D
	if fanout > p.Dhi {
		p.Dhi = fanout
		p.D = fanout * 3 / 4
		p.Dout = 0 // a hub dials nobody
	}
	return p
}

// floodFeatures are what a relay believes of everybody: that they take part in no mesh. So it hands what
// it forwards to every subscriber in the same moment, as the protocol has it for older peers. In a mesh a
// member that has just come would be grafted by the next heartbeat, up to a second later, and get nothing
// of what passed before; and it is no use to a hub to gossip about what it pushes. The members' own
// meshes have the relay in them all the same.
func floodFeatures(feature pubsub.GossipSubFeature, proto protocol.ID) bool {
	return feature != pubsub.GossipSubFeatureMesh && pubsub.GossipSubDefaultFeatures(feature, proto)
}
