package natlab

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Kind says how a home's router treats the world.
type Kind int

const (
	// Cone keeps the source port, so that one inside address and port has one outside
	// address and port, whatever the destination. Replies come in only from addresses and
	// ports that were written to. Hole punching works, for UDP and TCP. Most home routers.
	Cone Kind = iota + 1
	// Symmetric gives every destination a fresh random outside port, so that what a third
	// party observed says nothing about the next connection. Hole punching fails. Many
	// carrier and company networks.
	Symmetric
	// UDPBlocked is Cone that drops all UDP.
	UDPBlocked
	// RelayOnly is Cone that drops everything, except towards the addresses and ports
	// given to AllowOnly. Before that call nothing passes.
	RelayOnly
)

// String returns the kind in words.
func (k Kind) String() string {
	switch k {
	case Cone:
		return "cone"
	case Symmetric:
		return "symmetric"
	case UDPBlocked:
		return "UDP blocked"
	case RelayOnly:
		return "relay only"
	}
	return fmt.Sprintf("Kind(%d)", int(k))
}

// Names of interfaces inside the lab's namespaces.
const (
	bridgeName = "lan"  // the switch of a network, with the router's inside address
	wanDevice  = "wan"  // a router's outside
	hostDevice = "eth0" // a host's only interface
)

// firstHost is the offset in its subnet of the first host's address; below it is room
// for the router and for addresses that a test picks itself.
const firstHost = 10

var (
	homeSubnet    = netip.MustParsePrefix("192.168.1.0/24")
	carrierSubnet = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598
	officeSubnet  = netip.MustParsePrefix("10.20.30.0/24")
)

// Network is a switch with hosts on it and, unless it is an isolated LAN, a router that
// connects it through a NAT to another network. Hosts of one network reach each other
// directly, with broadcast and multicast.
type Network struct {
	lab    *Lab
	name   string
	ns     *namespace // holds the switch and is the router
	subnet netip.Prefix
	next   netip.Addr // the next host's address

	// The rest is zero in a network without a router.
	gateway   netip.Addr // the router's address inside
	parent    *Network   // where the router's outside is
	wan       netip.Addr // the router's address there
	uplink    *link
	noUDP     bool
	allowOnly []netip.AddrPort // nil = everything
}

// Option changes what LAN and Home build.
type Option func(*options)

type options struct {
	subnet string
	behind *Network
}

// Subnet sets the network's private IPv4 prefix, like "192.168.1.0/24". Several homes may
// use the same one.
func Subnet(prefix string) Option { return func(o *options) { o.subnet = prefix } }

// Behind puts a home behind a carrier's NAT instead of on the public segment: two levels
// of translation.
func Behind(carrier *Network) Option { return func(o *options) { o.behind = carrier } }

// LAN returns a local network without any way out, 10.20.30.0/24 unless told otherwise.
func (lab *Lab) LAN(name string, opts ...Option) *Network {
	lab.tb.Helper()
	o := collect(opts)
	if o.behind != nil {
		lab.tb.Fatalf("natlab: LAN %s has no way out; use Home for a network behind another", name)
	}
	subnet := lab.parseSubnet(name, o.subnet, officeSubnet)
	return lab.network(name, nil, subnet, nth(subnet, firstHost))
}

// Home returns a local network, 192.168.1.0/24 unless told otherwise, behind a NAT router
// that stands on the public segment.
func (lab *Lab) Home(name string, kind Kind, opts ...Option) *Network {
	lab.tb.Helper()
	return lab.routed(name, kind, homeSubnet, opts)
}

// Carrier returns a provider's network in 100.64.0.0/10 behind a NAT of its own. Homes
// are put into it with Behind.
func (lab *Lab) Carrier(name string, kind Kind, opts ...Option) *Network {
	lab.tb.Helper()
	return lab.routed(name, kind, carrierSubnet, opts)
}

func collect(opts []Option) options {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

func (lab *Lab) parseSubnet(name, text string, fallback netip.Prefix) netip.Prefix {
	lab.tb.Helper()
	if text == "" {
		return fallback
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || !p.Addr().Is4() || p.Bits() > 28 || publicSubnet.Overlaps(p) {
		lab.tb.Fatalf("natlab: network %s: %q is not a private IPv4 prefix of at most /28", name, text)
	}
	return p.Masked()
}

// nth returns the address at an offset in a prefix.
func nth(p netip.Prefix, offset int) netip.Addr {
	a := p.Masked().Addr()
	for range offset {
		a = a.Next()
	}
	return a
}

// network makes a namespace with a switch in it.
func (lab *Lab) network(name string, parent *Network, subnet netip.Prefix, first netip.Addr) *Network {
	lab.tb.Helper()
	n := &Network{lab: lab, name: name, parent: parent, subnet: subnet, next: first}
	lab.change("network "+name, func() (err error) {
		if n.ns, err = lab.namespace(name); err != nil {
			return err
		}
		return n.ns.run(addBridge)
	})
	return n
}

// addBridge makes the switch in the calling thread's namespace.
func addBridge() error {
	return withNetlink(func(h *netlink.Handle) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = bridgeName
		attrs.MTU = mtu
		// With snooping, a switch forwards multicast only to those who asked for it, and
		// only while somebody queries: home switches just flood.
		snooping := false
		bridge := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}
		if err := h.LinkAdd(bridge); err != nil {
			return fmt.Errorf("making a switch: %w", err)
		}
		return h.LinkSetUp(bridge)
	})
}

// routed makes a network and its router.
func (lab *Lab) routed(name string, kind Kind, subnet netip.Prefix, opts []Option) *Network {
	lab.tb.Helper()
	o := collect(opts)
	parent := o.behind
	if parent == nil {
		parent = lab.internet
	}
	subnet = lab.parseSubnet(name, o.subnet, subnet)
	n := lab.network(name, parent, subnet, nth(subnet, firstHost))
	lab.change("router of "+name, func() error {
		n.gateway = nth(subnet, 1)
		n.noUDP = kind == UDPBlocked
		if kind == RelayOnly {
			n.allowOnly = []netip.AddrPort{}
		}
		wan, err := parent.takeAddr()
		if err != nil {
			return err
		}
		n.wan = wan
		if n.uplink, err = lab.cable(n.ns, wanDevice, parent); err != nil {
			return err
		}
		if err := n.uplink.address(wan, parent.subnet, parent.gateway); err != nil {
			return err
		}
		if err := (end{n.ns, bridgeName}).configure(func(h *netlink.Handle, dev netlink.Link) error {
			return h.AddrAdd(dev, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(n.gateway, subnet.Bits()))})
		}); err != nil {
			return err
		}
		if err := n.ns.run(func() error { return translate(kind) }); err != nil {
			return fmt.Errorf("address translation: %w", err)
		}
		if err := n.ns.run(n.filter); err != nil {
			return fmt.Errorf("filter rules: %w", err)
		}
		// Last, so that nothing was ever forwarded untranslated.
		return n.ns.run(func() error { return sysctl("net/ipv4/ip_forward", "1") })
	})
	return n
}

// translate installs the NAT of a router in the calling thread's namespace. Linux keeps a
// source port when it is free and re-uses the mapping of a socket for other destinations:
// a cone. "Fully random" turns both off.
func translate(kind Kind) error {
	r, err := newRuleset("natlab-nat")
	if err != nil {
		return err
	}
	c := r.chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, nftables.ChainPolicyAccept)
	r.add(c, goesTo(wanDevice), []expression{&expr.Masq{FullyRandom: kind == Symmetric}})
	return r.conn.Flush()
}

// filter installs the router's firewall in the calling thread's namespace.
func (n *Network) filter() error {
	r, err := newRuleset("natlab-filter")
	if err != nil {
		return err
	}
	// The kernel would answer a packet that arrives before the hole is open, with a reset
	// or an ICMP error, and remember the connection as the router's own, so that the
	// mapping wanted by the host inside is taken: no hole punching would ever work.
	input := r.chain("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter, nftables.ChainPolicyAccept)
	r.add(input, comesFrom(wanDevice), dropPacket())

	forward := r.chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter, nftables.ChainPolicyDrop)
	if n.noUDP {
		r.add(forward, isTransport(unix.IPPROTO_UDP), dropPacket())
	}
	r.add(forward, comesFrom(wanDevice), goesTo(bridgeName), isReply(), acceptPacket())
	if n.allowOnly == nil {
		r.add(forward, comesFrom(bridgeName), goesTo(wanDevice), acceptPacket())
	}
	for _, to := range n.allowOnly {
		for _, protocol := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			r.add(forward, comesFrom(bridgeName), goesTo(wanDevice), isIPv4(), isTransport(protocol),
				inPrefix(ipv4DestinationOffset, netip.PrefixFrom(to.Addr(), 32)), toPort(to.Port()), acceptPacket())
		}
	}
	return r.conn.Flush()
}

// takeAddr returns the next free address. The caller holds lab.mu.
func (n *Network) takeAddr() (netip.Addr, error) {
	addr := n.next
	if !n.subnet.Contains(addr.Next()) { // the last one is for broadcast
		return addr, fmt.Errorf("network %s has no address left in %s", n.name, n.subnet)
	}
	n.next = addr.Next()
	return addr, nil
}

// WAN returns the address under which the world sees the hosts of this network, or an
// invalid address for a LAN. Behind a carrier it is the address inside the carrier.
func (n *Network) WAN() netip.Addr { return n.wan }

// Subnet returns the network's prefix.
func (n *Network) Subnet() netip.Prefix { return n.subnet }

// BlockUDP makes the router drop all UDP, or stop doing so.
func (n *Network) BlockUDP(blocked bool) {
	n.lab.tb.Helper()
	n.refilter(func() { n.noUDP = blocked })
}

// AllowOnly makes the router drop everything that is not TCP or UDP to one of these
// addresses and ports. Without arguments nothing passes; AllowAll lifts it.
func (n *Network) AllowOnly(destinations ...netip.AddrPort) {
	n.lab.tb.Helper()
	for _, d := range destinations {
		if !d.Addr().Is4() || d.Port() == 0 {
			n.lab.tb.Fatalf("natlab: AllowOnly: %s is not an IPv4 address with a port", d)
		}
	}
	n.refilter(func() { n.allowOnly = append([]netip.AddrPort{}, destinations...) })
}

// AllowAll lifts AllowOnly, also that of the kind RelayOnly.
func (n *Network) AllowAll() {
	n.lab.tb.Helper()
	n.refilter(func() { n.allowOnly = nil })
}

func (n *Network) refilter(change func()) {
	n.lab.tb.Helper()
	n.mustRoute()
	n.lab.change("firewall of "+n.name, func() error {
		change()
		return n.ns.run(n.filter)
	})
}

// mustRoute ends the test if the network has no router.
func (n *Network) mustRoute() {
	n.lab.tb.Helper()
	if n.uplink == nil {
		n.lab.tb.Fatalf("natlab: network %s has no router", n.name)
	}
}

// adjust changes the state of the uplink and puts it into force.
func (n *Network) adjust(change func(*link)) {
	n.lab.tb.Helper()
	n.mustRoute()
	n.lab.change("uplink of "+n.name, func() error {
		change(n.uplink)
		return n.uplink.apply()
	})
}

// SetLoss makes the uplink lose this share of packets, 0 to 1, independently each way.
func (n *Network) SetLoss(share float64) {
	n.lab.tb.Helper()
	n.lab.checkShare(share)
	n.adjust(func(l *link) { l.loss = share })
}

// SetRate limits the uplink to a number of bytes per second each way; 0 is unlimited.
func (n *Network) SetRate(bytesPerSecond uint64) {
	n.lab.tb.Helper()
	n.adjust(func(l *link) { l.rate = bytesPerSecond })
}

// Block makes packets between this network and a prefix vanish at the uplink.
func (n *Network) Block(p netip.Prefix) {
	n.lab.tb.Helper()
	n.adjust(func(l *link) { l.blocked[p.Masked()] = struct{}{} })
}

// Unblock undoes Block.
func (n *Network) Unblock(p netip.Prefix) {
	n.lab.tb.Helper()
	n.adjust(func(l *link) { delete(l.blocked, p.Masked()) })
}

// Cut makes all packets vanish at the uplink: the provider is down.
func (n *Network) Cut() {
	n.lab.tb.Helper()
	n.adjust(func(l *link) { l.down = true })
}

// Restore undoes Cut.
func (n *Network) Restore() {
	n.lab.tb.Helper()
	n.adjust(func(l *link) { l.down = false })
}

// Capture records what passes the uplink, outside the NAT, until the test tb ends.
func (n *Network) Capture(tb testing.TB) *Capture {
	tb.Helper()
	n.mustRoute()
	return capture(tb, n.name, n.uplink.near)
}

// Host returns a new host on this network.
func (n *Network) Host(name string) *Host {
	n.lab.tb.Helper()
	h := &Host{lab: n.lab, name: name, network: n}
	n.lab.change("host "+name, func() error {
		if slices.ContainsFunc(n.lab.hosts, func(o *Host) bool { return o.name == name }) {
			return fmt.Errorf("there is a host of this name")
		}
		addr, err := n.takeAddr()
		if err != nil {
			return err
		}
		h.addr = addr
		if h.ns, err = n.lab.namespace(name); err != nil {
			return err
		}
		if h.link, err = n.lab.cable(h.ns, hostDevice, n); err != nil {
			return err
		}
		n.lab.hosts = append(n.lab.hosts, h)
		return h.link.address(addr, n.subnet, n.gateway)
	})
	return h
}
