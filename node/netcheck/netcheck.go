// Package netcheck finds out what a machine's network lets a node do, by trying: it reaches each
// public node once over TCP and once over QUIC from a socket of its own, and compares the addresses
// at which they saw it. The result is one [Report].
//
// It changes nothing, needs no running node, and uses a random identity. [Run] may be called from
// any goroutine; each call opens its own sockets.
package netcheck

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// dialTimeout bounds one attempt; who needs longer is of no use for talking.
const dialTimeout = 8 * time.Second

// maxNodes bounds the public nodes that are tried.
const maxNodes = 4

// NAT says how this machine's router treats outgoing connections.
type NAT string

// Kinds of NAT. Two public nodes must see the machine for the difference between the last two.
const (
	NATUnknown NAT = "unknown"
	NATNone    NAT = "none"      // seen at its own address
	NATCone    NAT = "cone"      // the same outer port towards everybody: holes can be punched
	NATSymm    NAT = "symmetric" // another outer port towards everybody: they cannot
)

// Attempt is one try to reach a public node.
type Attempt struct {
	Tried    bool // it has an address of this transport
	OK       bool
	RTT      time.Duration // of the handshake
	Observed netip.AddrPort
	Err      error
}

// Node is what came of one public node.
type Node struct {
	Peer peer.ID
	TCP  Attempt
	QUIC Attempt
}

// Report is what a machine's network lets a node do.
type Report struct {
	IPv4, IPv6 bool // a usable address of the family on some interface
	Nodes      []Node
	TCP, UDP   bool // some node was reached over it
	NAT        NAT
	// Behind is by how much this machine's clock seems to be behind that of a public node; zero
	// unless a certificate was refused for being from the future.
	Behind time.Duration
}

// Run tries every public node, at most four, all at once. It takes as long as the slowest attempt, at
// most about eight seconds. The error is about this machine only (no socket can be opened); what
// could not be reached is in the report.
func Run(ctx context.Context, nodes []peer.AddrInfo) (Report, error) {
	r := Report{NAT: NATUnknown}
	r.IPv4, r.IPv6 = families()
	nodes = nodes[:min(len(nodes), maxNodes)]
	r.Nodes = make([]Node, len(nodes))
	overTCP, err := probe(libp2p.Transport(tcp.NewTCPTransport), libp2p.ListenAddrStrings("/ip4/0.0.0.0/tcp/0"))
	if err != nil {
		return r, fmt.Errorf("opening a socket to check with: %w", err)
	}
	defer overTCP.Close()
	overQUIC, err := probe(libp2p.Transport(libp2pquic.NewTransport), libp2p.ListenAddrStrings("/ip4/0.0.0.0/udp/0/quic-v1"))
	if err != nil {
		return r, fmt.Errorf("opening a socket to check with: %w", err)
	}
	defer overQUIC.Close()
	var wg sync.WaitGroup
	for i, info := range nodes {
		r.Nodes[i].Peer = info.ID
		wg.Go(func() { r.Nodes[i].TCP = try(ctx, overTCP, info, ma.P_TCP) })
		wg.Go(func() { r.Nodes[i].QUIC = try(ctx, overQUIC, info, ma.P_QUIC_V1) })
	}
	wg.Wait()
	r.conclude()
	return r, nil
}

// probe makes a host that only dials, from one socket.
func probe(opts ...libp2p.Option) (host.Host, error) {
	return libp2p.New(append(
		opts,
		libp2p.Security(libp2ptls.ID, libp2ptls.New),
		libp2p.Security(noise.ID, noise.New),
		libp2p.DisableRelay(),
		libp2p.DisableMetrics(),
		libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.UserAgent("starling/1"),
	)...)
}

func try(ctx context.Context, h host.Host, info peer.AddrInfo, proto int) Attempt {
	var a Attempt
	addrs := slices.DeleteFunc(slices.Clone(info.Addrs), func(addr ma.Multiaddr) bool {
		_, err := addr.ValueForProtocol(proto)
		_, circuit := addr.ValueForProtocol(ma.P_CIRCUIT)
		return err != nil || circuit == nil
	})
	if a.Tried = len(addrs) > 0; !a.Tried {
		return a
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	seen, err := h.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted))
	if err != nil {
		a.Err = err
		return a
	}
	defer seen.Close()
	start := time.Now()
	if a.Err = h.Connect(ctx, peer.AddrInfo{ID: info.ID, Addrs: addrs}); a.Err != nil {
		return a
	}
	a.OK, a.RTT = true, time.Since(start)
	for {
		select {
		case e := <-seen.Out():
			if id, ok := e.(event.EvtPeerIdentificationCompleted); ok && id.Peer == info.ID {
				a.Observed = addrPort(id.ObservedAddr)
				return a
			}
		case <-ctx.Done():
			return a
		}
	}
}

func addrPort(a ma.Multiaddr) netip.AddrPort {
	if a == nil {
		return netip.AddrPort{}
	}
	na, err := manet.ToNetAddr(trimQUIC(a))
	if err != nil {
		return netip.AddrPort{}
	}
	ap, err := netip.ParseAddrPort(na.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// trimQUIC cuts an address after its port.
func trimQUIC(a ma.Multiaddr) ma.Multiaddr {
	head, _ := ma.SplitFunc(a, func(c ma.Component) bool { return c.Protocol().Code == ma.P_QUIC_V1 })
	return head
}

// conclude draws the conclusions from the attempts.
func (r *Report) conclude() {
	var seen []netip.AddrPort
	for _, n := range r.Nodes {
		r.TCP = r.TCP || n.TCP.OK
		r.UDP = r.UDP || n.QUIC.OK
		if n.QUIC.Observed.IsValid() {
			seen = append(seen, n.QUIC.Observed)
		}
		for _, a := range [2]Attempt{n.TCP, n.QUIC} {
			r.Behind = max(r.Behind, behind(a.Err))
		}
	}
	r.NAT = natKind(seen, ownAddrs())
}

// natKind compares the addresses at which one socket was seen.
func natKind(seen []netip.AddrPort, own []netip.Addr) NAT {
	if len(seen) == 0 {
		return NATUnknown
	}
	if slices.Contains(own, seen[0].Addr()) {
		return NATNone
	}
	for _, s := range seen[1:] {
		if s != seen[0] {
			return NATSymm
		}
	}
	if len(seen) < 2 {
		return NATUnknown
	}
	return NATCone
}

// behind reads from a handshake error by how much this clock is behind. Certificates of libp2p begin
// to be valid an hour before they are made.
func behind(err error) time.Duration {
	if err == nil {
		return 0
	}
	const marker = " is before "
	text := err.Error()
	i := strings.Index(text, marker)
	if i < 0 {
		return 0
	}
	rest := text[i+len(marker):]
	if len(rest) < len(time.RFC3339)-5 {
		return 0
	}
	end := strings.IndexAny(rest, " \n;,)")
	if end >= 0 {
		rest = rest[:end]
	}
	from, perr := time.Parse(time.RFC3339, strings.TrimRight(rest, "."))
	if perr != nil {
		return 0
	}
	return time.Until(from.Add(time.Hour))
}

func families() (v4, v6 bool) {
	for _, a := range ownAddrs() {
		if a.Is4() {
			v4 = true
		} else {
			v6 = true
		}
	}
	return v4, v6
}

// ownAddrs lists this machine's addresses that lead somewhere.
func ownAddrs() []netip.Addr {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, a := range addrs {
		ipnet, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(ipnet.IP)
		if ip = ip.Unmap(); ok && !ip.IsLoopback() && !ip.IsLinkLocalUnicast() {
			out = append(out, ip)
		}
	}
	return out
}
