package natlab

import (
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"
)

// publicSubnet is the lab's internet; see the package comment for why this one.
var publicSubnet = netip.MustParsePrefix("192.0.0.192/26")

// Lab is one isolated internet. It lives as long as the test that made it.
type Lab struct {
	tb testing.TB

	mu         sync.Mutex // guards all fields below and the state of links, networks and hosts
	internet   *Network
	namespaces []*namespace
	hosts      []*Host
	cables     int               // how many were made; names the ports
	partitions map[[2]*Host]bool // pairs cut from each other, in the order of Partition's arguments

	procMu    sync.Mutex // guards processes and closed
	processes []*Cmd
	closed    bool
}

// Require skips the test unless this machine can build a lab, and says what is missing:
// root, or a feature of the kernel.
func Require(tb testing.TB) {
	tb.Helper()
	if reason := missing(); reason != "" {
		tb.Skip("the NAT lab cannot run here: " + reason)
	}
}

// missing returns why no lab can be built here, or "". It tries once per process.
var missing = sync.OnceValue(func() string {
	if os.Geteuid() != 0 {
		return "network namespaces need root; run the test as root"
	}
	if err := probe(); err != nil {
		return err.Error()
	}
	return ""
})

// probe builds one of everything the lab needs and throws it away.
func probe() error {
	var made []*namespace
	defer func() {
		for _, ns := range made {
			ns.close()
		}
	}()
	for _, name := range []string{"probe router", "probe host"} {
		ns, err := newNamespace(name)
		if err != nil {
			return err
		}
		made = append(made, ns)
	}
	if err := made[0].run(addBridge); err != nil {
		return err
	}
	l, err := newLink(end{made[1], hostDevice}, end{made[0], "p1"})
	if err != nil {
		return err
	}
	if err := l.plug(); err != nil {
		return err
	}
	l.loss, l.rate = 0.5, 1<<20
	if err := l.apply(); err != nil {
		return err
	}
	for _, kind := range []Kind{Cone, Symmetric} {
		if err := made[0].run(func() error { return translate(kind) }); err != nil {
			return fmt.Errorf("nftables masquerade: %w", err)
		}
	}
	return nil
}

// New returns an empty internet: a public segment on which nobody is yet. It skips the
// test where no lab can be built. When the test ends, all processes started in the lab
// are killed and all of it is gone.
func New(tb testing.TB) *Lab {
	tb.Helper()
	Require(tb)
	lab := &Lab{tb: tb, partitions: map[[2]*Host]bool{}}
	tb.Cleanup(lab.close)
	lab.internet = lab.network("internet", nil, publicSubnet, publicSubnet.Addr().Next())
	return lab
}

// Public returns a new host on the public segment: a node that everybody can reach.
func (lab *Lab) Public(name string) *Host {
	lab.tb.Helper()
	return lab.internet.Host(name)
}

// close ends the lab; the kernel frees what the namespaces hold.
func (lab *Lab) close() {
	lab.procMu.Lock()
	lab.closed = true
	processes := lab.processes
	lab.procMu.Unlock()
	for _, p := range processes {
		_ = p.Process.Kill()
		_ = p.Wait() // at most processGrace once it is dead
	}
	lab.mu.Lock()
	defer lab.mu.Unlock()
	for _, ns := range lab.namespaces {
		ns.close()
	}
	lab.namespaces = nil
}

// namespace makes a namespace that ends with the lab. The caller holds lab.mu.
func (lab *Lab) namespace(name string) (*namespace, error) {
	ns, err := newNamespace(name)
	if err == nil {
		lab.namespaces = append(lab.namespaces, ns)
	}
	return ns, err
}

// cable connects a new interface to the switch of a network. The caller holds lab.mu.
func (lab *Lab) cable(ns *namespace, dev string, to *Network) (*link, error) {
	lab.cables++
	l, err := newLink(end{ns, dev}, end{to.ns, fmt.Sprintf("p%d", lab.cables)})
	if err != nil {
		return nil, err
	}
	return l, l.plug()
}

// change runs fn under the lab's lock and ends the test if it fails; fn must not end it
// itself, as the lock would stay.
func (lab *Lab) change(what string, fn func() error) {
	lab.tb.Helper()
	lab.mu.Lock()
	err := fn()
	lab.mu.Unlock()
	if err != nil {
		lab.tb.Fatalf("natlab: %s: %v", what, err)
	}
}

// checkShare ends the test unless share is a probability.
func (lab *Lab) checkShare(share float64) {
	lab.tb.Helper()
	if !(share >= 0 && share <= 1) {
		lab.tb.Fatalf("natlab: a loss of %v is not between 0 and 1", share)
	}
}

// Partition makes a and b unreachable to each other, both ways, until Heal: packets
// vanish without an error. It works by address, as seen from the other side. Between a
// host behind a NAT and a public one, or two hosts of one network, exactly these two are
// cut. Between two hosts behind different NATs, b is cut from everybody in a's network,
// since a shares its public address with its neighbours.
func (lab *Lab) Partition(a, b *Host) {
	lab.tb.Helper()
	lab.change("partition "+a.name+" and "+b.name, func() error {
		if !lab.partitions[[2]*Host{b, a}] {
			lab.partitions[[2]*Host{a, b}] = true
		}
		return lab.sever()
	})
}

// Heal undoes Partition; without one it does nothing.
func (lab *Lab) Heal(a, b *Host) {
	lab.tb.Helper()
	lab.change("heal "+a.name+" and "+b.name, func() error {
		delete(lab.partitions, [2]*Host{a, b})
		delete(lab.partitions, [2]*Host{b, a})
		return lab.sever()
	})
}

// Split partitions every host of each group from every host of the other groups.
func (lab *Lab) Split(groups ...[]*Host) {
	lab.tb.Helper()
	lab.change("split", func() error {
		for i, group := range groups {
			for _, other := range groups[i+1:] {
				for _, a := range group {
					for _, b := range other {
						lab.partitions[[2]*Host{a, b}] = true
					}
				}
			}
		}
		return lab.sever()
	})
}

// HealAll undoes all partitions. It leaves Block, Cut and SetLoss as they are.
func (lab *Lab) HealAll() {
	lab.tb.Helper()
	lab.change("heal all", func() error {
		clear(lab.partitions)
		return lab.sever()
	})
}

// sever derives the blocked addresses of every host's link from the partitions, afresh,
// so that it also serves when a host has changed its address.
func (lab *Lab) sever() error {
	wanted := map[*Host]map[netip.Prefix]struct{}{}
	for pair := range lab.partitions {
		a, b := pair[0], pair[1]
		// One side is enough; better one that sees an address which is the other's alone.
		at, addr, shared := a, netip.Addr{}, false
		if addr, shared = b.seenFrom(a); shared {
			at = b
			addr, _ = a.seenFrom(b)
		}
		if !addr.IsValid() {
			continue // no path between them anyway
		}
		if wanted[at] == nil {
			wanted[at] = map[netip.Prefix]struct{}{}
		}
		wanted[at][netip.PrefixFrom(addr, addr.BitLen())] = struct{}{}
	}
	for _, h := range lab.hosts {
		if len(wanted[h]) == 0 && len(h.link.severed) == 0 {
			continue
		}
		h.link.severed = wanted[h]
		if err := h.link.apply(); err != nil {
			return err
		}
	}
	return nil
}
