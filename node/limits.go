package node

import (
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	relayv2 "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"github.com/libp2p/go-libp2p/x/rate"
)

// Streams that one peer may have open at once, by protocol.
const (
	dmStreamsPerPeer   = 8
	syncStreamsPerPeer = 4
	fileStreamsPerPeer = 4
	treeStreamsPerPeer = 4 // one, and those it replaces
)

// connGrace is how long the connection manager leaves a new connection alone: long enough for its
// peer to say which rooms it is in.
const connGrace = 30 * time.Second

// exemptNetworks are not limited by address: a local network is limited by its own size, and a
// carrier's or container's private range stands for many hosts.
var exemptNetworks = [...]string{
	"127.0.0.0/8", "::1/128",
	"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10",
}

// newResourceManager builds the resource manager from our limits. libp2p's defaults scale with the
// machine's memory; ours are the same everywhere, so that what holds in a test holds in the field.
func newResourceManager(c Connections) (network.ResourceManager, error) {
	scaling := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&scaling)
	base := scaling.Scale(c.Memory, c.FileDescriptors)
	// Streams of one kind at once, over all peers: everybody comes back at once after a relay's
	// restart, and each newcomer opens an identify, a gossip and a relay stream.
	burst := rcmgr.ResourceLimits{
		Streams:         rcmgr.LimitVal(2 * c.SystemTotal),
		StreamsInbound:  rcmgr.LimitVal(c.SystemTotal),
		StreamsOutbound: rcmgr.LimitVal(c.SystemTotal),
		Memory:          rcmgr.LimitVal64(c.Memory / 2),
	}
	partial := rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{
			Conns:           rcmgr.LimitVal(c.SystemTotal),
			ConnsInbound:    rcmgr.LimitVal(c.SystemInbound),
			ConnsOutbound:   rcmgr.LimitVal(c.SystemTotal),
			Streams:         rcmgr.LimitVal(32 * c.SystemTotal),
			StreamsInbound:  rcmgr.LimitVal(16 * c.SystemTotal),
			StreamsOutbound: rcmgr.LimitVal(16 * c.SystemTotal),
			FD:              rcmgr.LimitVal(fileDescriptors(c.FileDescriptors)),
			Memory:          rcmgr.LimitVal64(c.Memory),
		},
		Transient: rcmgr.ResourceLimits{
			Conns:           rcmgr.LimitVal(2 * c.TransientInbound),
			ConnsInbound:    rcmgr.LimitVal(c.TransientInbound),
			ConnsOutbound:   rcmgr.LimitVal(c.TransientInbound),
			Streams:         rcmgr.LimitVal(4 * c.TransientInbound),
			StreamsInbound:  rcmgr.LimitVal(2 * c.TransientInbound),
			StreamsOutbound: rcmgr.LimitVal(2 * c.TransientInbound),
			FD:              rcmgr.LimitVal(fileDescriptors(c.TransientInbound)),
			Memory:          rcmgr.LimitVal64(c.TransientMemory),
		},
		ServiceDefault:  burst,
		ProtocolDefault: burst,
		Service: map[string]rcmgr.ResourceLimits{
			identify.ServiceName: burst,
			relayv2.ServiceName:  burst,
		},
		Protocol: map[protocol.ID]rcmgr.ResourceLimits{
			identify.ID:     burst,
			identify.IDPush: burst,
		},
		ProtocolPeer: map[protocol.ID]rcmgr.ResourceLimits{
			dmProtocol:   streamLimit(dmStreamsPerPeer),
			syncProtocol: streamLimit(syncStreamsPerPeer),
			fileProtocol: streamLimit(fileStreamsPerPeer),
			treeProtocol: streamLimit(treeStreamsPerPeer),
		},
	}
	limiter := rcmgr.NewFixedLimiter(partial.Build(base))
	v4, v6, prefixes := exemptions()
	rm, err := rcmgr.NewResourceManager(
		limiter,
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithNetworkPrefixLimit(v4, v6),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{
				{PrefixLength: 32, ConnCount: c.PerIPv4}, {PrefixLength: 24, ConnCount: c.PerIPv4Net},
			},
			[]rcmgr.ConnLimitPerSubnet{
				{PrefixLength: 56, ConnCount: c.PerIPv6Site}, {PrefixLength: 48, ConnCount: c.PerIPv6Net},
			},
		),
		rcmgr.WithConnRateLimiters(&rate.Limiter{
			NetworkPrefixLimits: prefixes,
			SubnetRateLimiter: rate.SubnetLimiter{
				IPv4SubnetLimits: []rate.SubnetLimit{
					{PrefixLength: 32, Limit: rate.Limit{RPS: c.NewPerSecond, Burst: c.NewBurst}},
				},
				IPv6SubnetLimits: []rate.SubnetLimit{
					{PrefixLength: 56, Limit: rate.Limit{RPS: c.NewPerSecond, Burst: c.NewBurst}},
					{PrefixLength: 48, Limit: rate.Limit{RPS: 4 * c.NewPerSecond, Burst: 4 * c.NewBurst}},
				},
				GracePeriod: time.Minute,
			},
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("making the resource manager: %w", err)
	}
	return rm, nil
}

func streamLimit(n int) rcmgr.ResourceLimits {
	return rcmgr.ResourceLimits{
		Streams:         rcmgr.LimitVal(2 * n),
		StreamsInbound:  rcmgr.LimitVal(n),
		StreamsOutbound: rcmgr.LimitVal(n),
		Memory:          rcmgr.LimitVal64(n << 20),
	}
}

func exemptions() (v4, v6 []rcmgr.NetworkPrefixLimit, prefixes []rate.PrefixLimit) {
	for _, text := range exemptNetworks {
		p := netip.MustParsePrefix(text)
		limit := rcmgr.NetworkPrefixLimit{Network: p, ConnCount: math.MaxInt}
		if p.Addr().Is4() {
			v4 = append(v4, limit)
		} else {
			v6 = append(v6, limit)
		}
		prefixes = append(prefixes, rate.PrefixLimit{Prefix: p}) // a zero limit admits everything
	}
	return v4, v6, prefixes
}

func newConnManager(c Connections) (*connmgr.BasicConnMgr, error) {
	cm, err := connmgr.NewConnManager(c.Low, c.High, connmgr.WithGracePeriod(connGrace))
	if err != nil {
		return nil, fmt.Errorf("making the connection manager: %w", err)
	}
	return cm, nil
}
