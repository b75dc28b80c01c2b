package discovery

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	// mdnsRetry is the pause after multicast could not be used: no interface is up, or a
	// container has none.
	mdnsRetry = 30 * time.Second
	// mdnsSettle gathers address changes that come in a burst.
	mdnsSettle = 300 * time.Millisecond
)

// MDNS is multicast DNS on the local link. libp2p's service announces a snapshot of the addresses
// it had at its start, so a change of addresses replaces it.
type MDNS struct {
	host    host.Host
	service string
	log     *slog.Logger
	restart chan struct{} // capacity 1
}

// NewMDNS returns the local discovery of a network. Peers of other networks use other service
// names and never meet.
func NewMDNS(h host.Host, network string, log *slog.Logger) *MDNS {
	return &MDNS{host: h, service: serviceName(network), log: log, restart: make(chan struct{}, 1)}
}

// serviceName derives a DNS-SD service name, at most 15 characters between the underscores (RFC
// 6335), from the network's name, which may be longer and is nobody else's business.
func serviceName(network string) string {
	sum := sha256.Sum256([]byte("starling/mdns/1" + network))
	return "_starl" + hex.EncodeToString(sum[:4]) + "._udp"
}

// Restart announces the addresses of now.
func (m *MDNS) Restart() {
	select {
	case m.restart <- struct{}{}:
	default:
	}
}

// Run implements [LAN].
func (m *MDNS) Run(ctx context.Context, found func(peer.AddrInfo)) error {
	warned := false
	for ctx.Err() == nil {
		svc := mdns.NewMdnsService(freshHost{m.host}, m.service, notifee(found))
		err := svc.Start()
		wait := time.Duration(1 << 62)
		if err != nil {
			wait = mdnsRetry
			if !warned {
				warned = true
				m.log.Info("local discovery is off for now: no multicast", "err", err)
			}
		}
		again, ok := pauseOrWake(ctx, wait, m.restart)
		if cerr := svc.Close(); cerr != nil {
			m.log.Debug("local discovery did not close", "err", cerr)
		}
		if !ok {
			return nil
		}
		if again && !pause(ctx, mdnsSettle, nil) {
			return nil
		}
	}
	return nil
}

type notifee func(peer.AddrInfo)

// HandlePeerFound implements mdns.Notifee.
func (n notifee) HandlePeerFound(info peer.AddrInfo) { n(info) }

// freshHost is a host that looks at the network interfaces whenever it is asked: libp2p's network
// remembers their addresses for a minute, and a service that starts after a move would announce the old.
type freshHost struct{ host.Host }

// Network implements host.Host.
func (h freshHost) Network() network.Network { return freshNetwork{h.Host.Network()} }

type freshNetwork struct{ network.Network }

// InterfaceListenAddresses implements network.Network.
func (n freshNetwork) InterfaceListenAddresses() ([]ma.Multiaddr, error) {
	return manet.ResolveUnspecifiedAddresses(n.ListenAddresses(), nil)
}
