package node

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// interfacesFor is how long the list of interface addresses is taken as it is: a host asks for its
// addresses in bursts.
const interfacesFor = time.Second

// interfaces knows the addresses of this machine's network interfaces now. The host keeps a list of its
// own for up to a minute, and so would tell others for that long where it can no longer be reached.
type interfaces struct {
	list func() ([]net.Addr, error)

	mu      sync.Mutex            // guards all below
	listen  func() []ma.Multiaddr // what the host listens on; nil until there is one
	read    time.Time
	present map[netip.Addr]struct{}
	past    map[netip.Addr]struct{} // every address that was ever present
}

func newInterfaces(list func() ([]net.Addr, error)) *interfaces {
	return &interfaces{list: list, past: make(map[netip.Addr]struct{})}
}

// listensOn says what the host listens on, once there is one.
func (i *interfaces) listensOn(listen func() []ma.Multiaddr) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.listen = listen
}

// maxPast bounds the addresses of the past; a machine that has had more forgets them all.
const maxPast = 1024

// now returns the addresses of all interfaces, but for loopback and link-local ones. The map is never
// changed.
func (i *interfaces) now() map[netip.Addr]struct{} {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.present != nil && time.Since(i.read) < interfacesFor {
		return i.present
	}
	addrs, err := i.list()
	if err != nil {
		return i.present // what was known is better than nothing
	}
	present := make(map[netip.Addr]struct{}, len(addrs))
	for _, a := range addrs {
		ipnet, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(ipnet.IP)
		if ip = ip.Unmap(); ok && !ip.IsLoopback() && !ip.IsLinkLocalUnicast() {
			present[ip] = struct{}{}
		}
	}
	if len(i.past) > maxPast {
		clear(i.past)
	}
	maps.Copy(i.past, present)
	i.present, i.read = present, time.Now()
	return present
}

// correct replaces addresses of interfaces that are gone by those that came; it is the host's
// AddrsFactory. What others see of us, and mappings of the router, stay as they are; a new public address
// is left to the host, which knows whether it tells public ones.
func (i *interfaces) correct(addrs []ma.Multiaddr) []ma.Multiaddr {
	present := i.now()
	i.mu.Lock()
	past, listen := maps.Clone(i.past), i.listen
	i.mu.Unlock()
	out := slices.DeleteFunc(slices.Clone(addrs), func(a ma.Multiaddr) bool {
		ip, ok := addrIP(a)
		_, was := past[ip]
		_, is := present[ip]
		return ok && was && !is && !isCircuit(a)
	})
	if listen == nil {
		return out
	}
	var fresh []ma.Multiaddr
	for ip := range present {
		if a, err := manet.FromIP(ip.AsSlice()); err == nil && !manet.IsPublicAddr(a) {
			fresh = append(fresh, a)
		}
	}
	for _, l := range listen() {
		if !manet.IsIPUnspecified(l) {
			continue
		}
		resolved, err := manet.ResolveUnspecifiedAddress(l, fresh)
		if err != nil {
			continue
		}
		for _, a := range resolved {
			if !slices.ContainsFunc(out, a.Equal) {
				out = append(out, a)
			}
		}
	}
	return out
}

// addrIP returns the IP address at the front of a multiaddr.
func addrIP(a ma.Multiaddr) (netip.Addr, bool) {
	raw, err := manet.ToIP(a)
	if err != nil {
		return netip.Addr{}, false
	}
	ip, ok := netip.AddrFromSlice(raw)
	return ip.Unmap(), ok
}

// without returns what is in a and not in b.
func without(a, b map[netip.Addr]struct{}) map[netip.Addr]struct{} {
	out := make(map[netip.Addr]struct{})
	for ip := range a {
		if _, ok := b[ip]; !ok {
			out[ip] = struct{}{}
		}
	}
	return out
}
