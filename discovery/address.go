package discovery

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// maxAddrs bounds the addresses remembered for one peer. A dual-stack host behind two relays has
// about twelve.
const maxAddrs = 16

// ParsePeerAddr reads a full address such as /ip4/198.51.100.7/udp/4001/quic-v1/p2p/12D3Koo... The
// error says what is missing.
func ParsePeerAddr(text string) (peer.AddrInfo, error) {
	addr, err := ma.NewMultiaddr(text)
	if err != nil {
		return peer.AddrInfo{}, fmt.Errorf("address %q is not a multiaddr: %w", text, err)
	}
	transport, id := peer.SplitAddr(addr)
	if id == "" {
		return peer.AddrInfo{}, fmt.Errorf("address %q does not name its peer: it must end in /p2p/PEERID, as the ready line of the other node prints it", text)
	}
	if transport == nil {
		return peer.AddrInfo{}, fmt.Errorf("address %q says who but not where: it must begin with /ip4/, /ip6/ or /dns/ and a port", text)
	}
	return peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{transport}}, nil
}

// ParsePeerAddrs reads several full addresses and merges those of one peer, keeping their order.
func ParsePeerAddrs(texts []string) ([]peer.AddrInfo, error) {
	var out []peer.AddrInfo
	at := make(map[peer.ID]int, len(texts))
	var errs []error
	for _, text := range texts {
		info, err := ParsePeerAddr(text)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if i, ok := at[info.ID]; ok {
			out[i].Addrs = append(out[i].Addrs, info.Addrs...)
			continue
		}
		at[info.ID] = len(out)
		out = append(out, info)
	}
	return out, errors.Join(errs...)
}

// reach says how far an address can be expected to be reachable.
type reach int

const (
	reachNone reach = iota // this machine only, or not an IP address
	reachHost
	reachPrivate
	reachPublic
)

// reachOf classifies an address by its first hop: for a circuit that is the relay's address.
func reachOf(a ma.Multiaddr) reach {
	first, _ := ma.SplitFirst(a)
	if first == nil {
		return reachNone
	}
	switch first.Protocol().Code {
	case ma.P_DNS, ma.P_DNS4, ma.P_DNS6, ma.P_DNSADDR:
		return reachPublic
	case ma.P_IP4, ma.P_IP6:
	default:
		return reachNone
	}
	switch {
	case manet.IsIPUnspecified(a):
		return reachNone
	case manet.IsIPLoopback(a):
		return reachHost
	case manet.IsPublicAddr(a):
		return reachPublic
	}
	return reachPrivate
}

// Policy decides which addresses are put into the DHT and which of those found there are dialled.
// The zero value admits public addresses only.
type Policy struct {
	// floor is the least reach at which everybody in this network is taken to be: when the
	// bootstraps themselves have private addresses, the network is private, and its members'
	// private addresses are as good as public ones.
	floor reach
}

// PolicyFor derives the policy from where the network's bootstraps are.
func PolicyFor(bootstraps []peer.AddrInfo) Policy {
	p := Policy{floor: reachPublic}
	for _, b := range bootstraps {
		for _, a := range b.Addrs {
			if r := reachOf(a); r != reachNone && r < p.floor {
				p.floor = r
			}
		}
	}
	return p
}

// Publish keeps the addresses that may be told to strangers.
func (p Policy) Publish(addrs []ma.Multiaddr) []ma.Multiaddr {
	floor := p.floor
	if floor == reachNone {
		floor = reachPublic
	}
	out := make([]ma.Multiaddr, 0, len(addrs))
	for _, a := range addrs {
		if reachOf(a) >= floor {
			out = append(out, a)
		}
	}
	return out
}

// dialable keeps the addresses from a stranger that may be dialled: those the policy would
// publish, and private ones in a subnet of our own.
func (p Policy) dialable(addrs []ma.Multiaddr, subnets []netip.Prefix) []ma.Multiaddr {
	floor := p.floor
	if floor == reachNone {
		floor = reachPublic
	}
	out := make([]ma.Multiaddr, 0, len(addrs))
	for _, a := range addrs {
		r := reachOf(a)
		if r >= floor || (r == reachPrivate && inSubnets(a, subnets)) {
			out = append(out, a)
		}
	}
	return out
}

func inSubnets(a ma.Multiaddr, subnets []netip.Prefix) bool {
	ip, err := manet.ToIP(a)
	if err != nil {
		return false
	}
	addr, ok := netip.AddrFromSlice(ip)
	if !ok {
		return false
	}
	addr = addr.Unmap()
	for _, s := range subnets {
		if s.Contains(addr) {
			return true
		}
	}
	return false
}

func parseSubnets(texts []string) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(texts))
	for _, t := range texts {
		if p, err := netip.ParsePrefix(t); err == nil {
			out = append(out, p.Masked())
		}
	}
	return out
}

// mergeAddrs puts fresh before known, drops repeats, and keeps at most maxAddrs.
func mergeAddrs(fresh, known []ma.Multiaddr) []ma.Multiaddr {
	out := make([]ma.Multiaddr, 0, min(len(fresh)+len(known), maxAddrs))
	seen := make(map[string]struct{}, maxAddrs)
	for _, list := range [2][]ma.Multiaddr{fresh, known} {
		for _, a := range list {
			if a == nil || len(out) == maxAddrs {
				continue
			}
			key := string(a.Bytes())
			if _, ok := seen[key]; ok {
				continue
			}
			seen[key] = struct{}{}
			out = append(out, a)
		}
	}
	return out
}
