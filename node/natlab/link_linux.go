package natlab

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	settleLimit = 5 * time.Second // the kernel takes up to one
	settlePoll  = time.Millisecond
)

// mtu of every interface in the lab, in bytes: Ethernet's.
const mtu = 1500

// end is one end of a cable: an interface in a namespace.
type end struct {
	ns  *namespace
	dev string
}

// link is a cable: a veth pair made directly between two namespaces, and whatever makes
// it a bad one. The near end belongs to a host or a router, the far end is a port of the
// network's switch. All impairments act where packets come *in*, at both ends: a rule on
// the way out would make the sender's system call fail, which no real network does.
type link struct {
	near, far end

	down     bool                      // cut: nothing passes
	loss     float64                   // probability for each packet, each way
	rate     uint64                    // bytes per second each way, 0 = unlimited
	blocked  map[netip.Prefix]struct{} // asked for with Block
	severed  map[netip.Prefix]struct{} // follows from the partitions of the lab
	shapedAt [2]bool                   // near, far: a token bucket is installed
}

// newLink makes a veth pair between two namespaces, both ends down and without address.
func newLink(near, far end) (*link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = near.dev
	attrs.MTU = mtu
	veth := netlink.NewVeth(attrs)
	veth.PeerName = far.dev
	veth.PeerNamespace = netlink.NsFd(int(far.ns.fd))
	veth.PeerMTU = mtu
	err := near.ns.run(func() error {
		return withNetlink(func(h *netlink.Handle) error { return h.LinkAdd(veth) })
	})
	if err != nil {
		return nil, fmt.Errorf("making a cable from %s to %s: %w", near.ns.name, far.ns.name, err)
	}
	return &link{
		near: near, far: far,
		blocked: map[netip.Prefix]struct{}{},
		severed: map[netip.Prefix]struct{}{},
	}, nil
}

// configure calls fn with the interface of an end, inside its namespace.
func (e end) configure(fn func(h *netlink.Handle, dev netlink.Link) error) error {
	return e.ns.run(func() error {
		return withNetlink(func(h *netlink.Handle) error {
			dev, err := h.LinkByName(e.dev)
			if err != nil {
				return fmt.Errorf("finding interface %s of %s: %w", e.dev, e.ns.name, err)
			}
			return fn(h, dev)
		})
	})
}

// plug makes the far end a port of the bridge in its namespace and brings it up.
func (l *link) plug() error {
	return l.far.configure(func(h *netlink.Handle, port netlink.Link) error {
		bridge, err := h.LinkByName(bridgeName)
		if err != nil {
			return fmt.Errorf("finding the switch of %s: %w", l.far.ns.name, err)
		}
		if err := h.LinkSetMaster(port, bridge); err != nil {
			return fmt.Errorf("plugging into the switch of %s: %w", l.far.ns.name, err)
		}
		return h.LinkSetUp(port)
	})
}

// address replaces the near end's addresses by addr with the length of subnet, and the
// default route by one through gateway; an invalid gateway means no route. The cable can
// be used when it returns.
func (l *link) address(addr netip.Addr, subnet netip.Prefix, gateway netip.Addr) error {
	err := l.near.configure(func(h *netlink.Handle, dev netlink.Link) error {
		old, err := h.AddrList(dev, netlink.FAMILY_V4)
		if err != nil {
			return fmt.Errorf("listing addresses: %w", err)
		}
		for _, a := range old {
			if err := h.AddrDel(dev, &a); err != nil {
				return fmt.Errorf("removing address %s: %w", a.IPNet, err)
			}
		}
		if err := h.LinkSetUp(dev); err != nil {
			return fmt.Errorf("bringing up %s: %w", l.near.dev, err)
		}
		if err := h.AddrAdd(dev, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(addr, subnet.Bits()))}); err != nil {
			return fmt.Errorf("adding address %s: %w", addr, err)
		}
		if !gateway.IsValid() {
			return nil
		}
		route := &netlink.Route{LinkIndex: dev.Attrs().Index, Gw: gateway.AsSlice()}
		if err := h.RouteReplace(route); err != nil {
			return fmt.Errorf("routing through %s: %w", gateway, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return l.settle()
}

// settle waits until the kernel has noticed that both ends are up, which it does in the
// background. Before, a switch drops what comes from the port, and a lost address
// resolution costs a second.
func (l *link) settle() error {
	for deadline := time.Now().Add(settleLimit); ; {
		var state netlink.LinkOperState
		err := l.far.configure(func(_ *netlink.Handle, port netlink.Link) error {
			state = port.Attrs().OperState
			return nil
		})
		if err != nil || state == netlink.OperUp {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("port %s of %s stays %s", l.far.dev, l.far.ns.name, state)
		}
		<-time.After(settlePoll)
	}
}

// move pulls the far end out of its switch and plugs it into that of another namespace,
// with all impairments. The near end stays the same interface.
func (l *link) move(to *namespace) error {
	if err := l.far.ns.run(func() error { return deleteTable(l.far.table()) }); err != nil {
		return err
	}
	err := l.far.configure(func(h *netlink.Handle, port netlink.Link) error {
		return h.LinkSetNsFd(port, int(to.fd))
	})
	if err != nil {
		return fmt.Errorf("moving a cable from %s to %s: %w", l.far.ns.name, to.name, err)
	}
	l.far.ns = to
	l.shapedAt[1] = false
	if err := l.plug(); err != nil {
		return err
	}
	return l.apply()
}

// apply brings the kernel's rules in line with the fields of the link.
func (l *link) apply() error {
	prefixes := slices.Collect(maps.Keys(l.blocked))
	for p := range l.severed {
		if _, twice := l.blocked[p]; !twice {
			prefixes = append(prefixes, p)
		}
	}
	for i, e := range []end{l.near, l.far} {
		// What comes in at the near end came from the blocked prefix, what comes in at
		// the far end is on its way to it.
		offset := uint32(ipv4SourceOffset)
		if i == 1 {
			offset = ipv4DestinationOffset
		}
		err := e.ns.run(func() error { return l.filter(e, offset, prefixes) })
		if err != nil {
			return fmt.Errorf("filtering at %s of %s: %w", e.dev, e.ns.name, err)
		}
		if err := l.shape(e, &l.shapedAt[i]); err != nil {
			return fmt.Errorf("shaping at %s of %s: %w", e.dev, e.ns.name, err)
		}
	}
	return nil
}

// table is the filter table of one end; each interface has its own, so that links can
// come and go independently.
func (e end) table() *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyNetdev, Name: "natlab-" + e.dev}
}

// filter writes the ingress rules of one end in one transaction. Only IPv4 is dropped:
// with address resolution untouched, the victim is a silent network and not a missing
// cable.
func (l *link) filter(e end, offset uint32, prefixes []netip.Prefix) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	table := conn.AddTable(e.table())
	chain := conn.AddChain(&nftables.Chain{
		Name: "ingress", Table: table, Type: nftables.ChainTypeFilter, Device: e.dev,
		Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFilter,
	})
	conn.FlushChain(chain)
	drop := func(when ...[]expression) {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: sequence(append([][]expression{isIPv4()}, append(when, dropPacket())...)...)})
	}
	if l.down {
		drop()
	}
	for _, p := range prefixes {
		drop(inPrefix(offset, p))
	}
	if l.loss > 0 {
		drop(withProbability(l.loss))
	}
	return conn.Flush()
}

// deleteTable removes a table of the calling thread's namespace if it exists.
func deleteTable(table *nftables.Table) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	conn.AddTable(table) // makes the deletion succeed in either case
	conn.DelTable(table)
	return conn.Flush()
}

const (
	// shapeDelay bounds how long a packet waits in a token bucket's queue before the
	// queue is full, as a part of a second: 1/10, a modest home router.
	shapeDelay = 10
	// shapeBurst is the bucket's size in bytes, large enough for the kernel's aggregated
	// TCP segments, which it would otherwise have to take apart.
	shapeBurst = 64 << 10
)

// shape installs, changes or removes the token bucket of one end; it limits what leaves
// through that interface.
func (l *link) shape(e end, installed *bool) error {
	if l.rate == 0 && !*installed {
		return nil
	}
	err := e.configure(func(h *netlink.Handle, dev netlink.Link) error {
		bucket := &netlink.Tbf{
			QdiscAttrs: netlink.QdiscAttrs{
				LinkIndex: dev.Attrs().Index,
				Handle:    netlink.MakeHandle(1, 0),
				Parent:    netlink.HANDLE_ROOT,
			},
			Rate:   l.rate,
			Limit:  uint32(min(l.rate/shapeDelay+shapeBurst, 1<<30)),
			Buffer: netlink.Xmittime(max(l.rate, 1), shapeBurst),
		}
		if l.rate > 0 {
			return h.QdiscReplace(bucket)
		}
		if err := h.QdiscDel(bucket); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		return nil
	})
	if err == nil {
		*installed = l.rate > 0
	}
	return err
}
