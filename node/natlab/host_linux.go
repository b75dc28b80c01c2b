package natlab

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
)

// Host is one machine: a namespace with a loopback interface and eth0.
type Host struct {
	lab     *Lab
	name    string
	ns      *namespace
	network *Network
	addr    netip.Addr
	link    *link
}

// Name returns the name given when the host was made.
func (h *Host) Name() string { return h.name }

// Addr returns the host's own IPv4 address, a private one behind a NAT.
func (h *Host) Addr() netip.Addr {
	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	return h.addr
}

// Do calls fn on a thread inside the host's namespace, and returns fn's error. Sockets
// that fn opens stay the host's and may be used from anywhere afterwards. fn must do its
// work in its own goroutine, as goroutines it starts run outside; note that a net.Dialer
// starts some when it is given a name or has several addresses to try. fn must not call
// FailNow or Fatal.
func (h *Host) Do(fn func() error) error { return h.ns.enter(fn) }

// seenFrom returns the address under which packets of h reach viewer, and whether other
// hosts share it; the address is invalid if no packets do. The caller holds lab.mu.
func (h *Host) seenFrom(viewer *Host) (addr netip.Addr, shared bool) {
	reachable := map[*Network]bool{}
	for n := viewer.network; n != nil; n = n.parent {
		reachable[n] = true
	}
	addr = h.addr
	for n := h.network; n != nil; n = n.parent {
		if reachable[n] {
			return addr, shared
		}
		addr, shared = n.wan, true
	}
	return netip.Addr{}, false
}

// SetAddr gives the host another address in its network, at once, as a new DHCP lease
// does. Connections from the old address die without a word.
func (h *Host) SetAddr(addr netip.Addr) {
	h.lab.tb.Helper()
	h.lab.change("address of "+h.name, func() error {
		if !h.network.subnet.Contains(addr) || addr == h.network.gateway {
			return fmt.Errorf("%s is not an address for a host in %s", addr, h.network.subnet)
		}
		for _, other := range h.lab.hosts {
			if other != h && other.network == h.network && other.addr == addr {
				return fmt.Errorf("%s is the address of %s", addr, other.name)
			}
		}
		return h.readdress(addr)
	})
}

// MoveTo carries the host into another network, where it gets a new address on the same
// interface: a laptop that changes from one Wi-Fi to another. Loss, rate and Block of the
// host move with it.
func (h *Host) MoveTo(n *Network) {
	h.lab.tb.Helper()
	h.lab.change("move of "+h.name, func() error {
		addr, err := n.takeAddr()
		if err != nil {
			return err
		}
		if err := h.link.move(n.ns); err != nil {
			return err
		}
		h.network = n
		return h.readdress(addr)
	})
}

// readdress puts a new address and what follows from it into force.
func (h *Host) readdress(addr netip.Addr) error {
	if err := h.link.address(addr, h.network.subnet, h.network.gateway); err != nil {
		return err
	}
	h.addr = addr
	return h.lab.sever()
}

// adjust changes the state of the host's link and puts it into force.
func (h *Host) adjust(change func(*link)) {
	h.lab.tb.Helper()
	h.lab.change("link of "+h.name, func() error {
		change(h.link)
		return h.link.apply()
	})
}

// SetLoss makes the host's link lose this share of packets, 0 to 1, independently each
// way.
func (h *Host) SetLoss(share float64) {
	h.lab.tb.Helper()
	h.lab.checkShare(share)
	h.adjust(func(l *link) { l.loss = share })
}

// SetRate limits the host's link to a number of bytes per second each way; 0 is
// unlimited.
func (h *Host) SetRate(bytesPerSecond uint64) {
	h.lab.tb.Helper()
	h.adjust(func(l *link) { l.rate = bytesPerSecond })
}

// Block makes packets between this host and a prefix vanish.
func (h *Host) Block(p netip.Prefix) {
	h.lab.tb.Helper()
	h.adjust(func(l *link) { l.blocked[p.Masked()] = struct{}{} })
}

// Unblock undoes Block.
func (h *Host) Unblock(p netip.Prefix) {
	h.lab.tb.Helper()
	h.adjust(func(l *link) { delete(l.blocked, p.Masked()) })
}

// Cut makes all packets from and to this host vanish, without an error on either side:
// what the others see of a machine that died, and what killing the address of a relay
// is. Loopback keeps working.
func (h *Host) Cut() {
	h.lab.tb.Helper()
	h.adjust(func(l *link) { l.down = true })
}

// Restore undoes Cut.
func (h *Host) Restore() {
	h.lab.tb.Helper()
	h.adjust(func(l *link) { l.down = false })
}

// Capture records every packet the host sends or receives over the network, not over
// loopback, until the test tb ends.
func (h *Host) Capture(tb testing.TB) *Capture {
	tb.Helper()
	return capture(tb, h.name, h.link.near)
}

// Traffic returns the bytes, with link headers, that the host has sent and received over
// the network since it was made.
func (h *Host) Traffic() (sent, received uint64) {
	h.lab.tb.Helper()
	h.lab.change("traffic of "+h.name, func() error {
		return h.link.near.configure(func(_ *netlink.Handle, dev netlink.Link) error {
			s := dev.Attrs().Statistics
			sent, received = s.TxBytes, s.RxBytes
			return nil
		})
	})
	return sent, received
}
