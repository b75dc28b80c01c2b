package natlab_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/starling-chat/starling/node/natlab"
)

// innerPort is a port that is free on every fresh host of the lab.
const innerPort = 40001

func TestMapping(t *testing.T) {
	for _, tc := range []struct {
		kind natlab.Kind
		same bool // one outside port for all destinations
	}{{natlab.Cone, true}, {natlab.Symmetric, false}} {
		t.Run(tc.kind.String(), func(t *testing.T) {
			lab := natlab.New(t)
			servers := []*natlab.Host{lab.Public("one"), lab.Public("two"), lab.Public("three")}
			home := lab.Home("home", tc.kind)
			a := home.Host("a")
			if !home.Subnet().Contains(a.Addr()) {
				t.Errorf("host a has %s, outside %s", a.Addr(), home.Subnet())
			}

			conn := listenUDP(t, a, innerPort)
			var seen []netip.AddrPort
			for _, s := range servers {
				addr, err := askUDP(conn, mirrorUDP(t, s), soon)
				if err != nil {
					t.Fatal(err)
				}
				seen = append(seen, addr)
			}
			checkMapping(t, "UDP", home, tc.same, seen)

			seen = nil
			for _, s := range servers {
				addr, err := askTCP(a, innerPort, mirrorTCP(t, s), soon)
				if err != nil {
					t.Fatal(err)
				}
				seen = append(seen, addr)
			}
			checkMapping(t, "TCP", home, tc.same, seen)
		})
	}
}

func checkMapping(t *testing.T, what string, home *natlab.Network, same bool, seen []netip.AddrPort) {
	t.Helper()
	ports := map[uint16]bool{}
	for _, s := range seen {
		ports[s.Port()] = true
		if s.Addr() != home.WAN() {
			t.Errorf("%s: seen as %s, want the address %s", what, s, home.WAN())
		}
	}
	// Two of several random ports may be equal, once in a long while; never all.
	if (len(ports) == 1) != same {
		t.Errorf("%s: the servers saw %v; the same everywhere: want %t", what, seen, same)
	}
}

// Two hosts with the same inside port share the router's address; the second gets another
// port, but still one for all destinations.
func TestConeOfNeighbours(t *testing.T) {
	lab := natlab.New(t)
	servers := []netip.AddrPort{mirrorUDP(t, lab.Public("one")), mirrorUDP(t, lab.Public("two"))}
	home := lab.Home("home", natlab.Cone)
	used := map[netip.AddrPort]bool{}
	for _, name := range []string{"a", "b", "c"} {
		conn := listenUDP(t, home.Host(name), innerPort)
		var seen [2]netip.AddrPort
		for i, s := range servers {
			var err error
			if seen[i], err = askUDP(conn, s, soon); err != nil {
				t.Fatal(err)
			}
		}
		if seen[0] != seen[1] {
			t.Errorf("host %s: seen as %s and as %s", name, seen[0], seen[1])
		}
		used[seen[0]] = true
	}
	if len(used) != 3 {
		t.Errorf("three hosts have %d outside addresses: %v", len(used), used)
	}
}

func TestUnsolicitedIsDropped(t *testing.T) {
	t.Parallel()
	for _, kind := range []natlab.Kind{natlab.Cone, natlab.Symmetric} {
		t.Run(kind.String(), func(t *testing.T) {
			lab := natlab.New(t)
			server, stranger := lab.Public("server"), lab.Public("stranger")
			home := lab.Home("home", kind)
			a := home.Host("a")
			conn := listenUDP(t, a, innerPort)
			outside, err := askUDP(conn, mirrorUDP(t, server), soon)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := listenUDP(t, stranger, 0).WriteToUDPAddrPort([]byte("hello"), outside); err != nil {
				t.Fatal(err)
			}
			_ = conn.SetReadDeadline(time.Now().Add(silence))
			if n, from, err := conn.ReadFromUDPAddrPort(make([]byte, 100)); err == nil {
				t.Errorf("%d bytes came in from %s", n, from)
			}
			// The router must keep silent: a reset would end the other's attempt to punch.
			_, err = askTCP(stranger, 0, netip.AddrPortFrom(home.WAN(), innerPort), silence)
			var timeout net.Error
			if !errors.As(err, &timeout) || !timeout.Timeout() {
				t.Errorf("connecting to the router: got %v, want a timeout", err)
			}
		})
	}
}

// Both homes use the same private prefix, as homes do.
func TestPunchUDP(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		a, b natlab.Kind
		want bool
	}{
		{natlab.Cone, natlab.Cone, true},
		{natlab.Cone, natlab.Symmetric, false},
		{natlab.Symmetric, natlab.Symmetric, false},
	} {
		t.Run(tc.a.String()+" x "+tc.b.String(), func(t *testing.T) {
			lab := natlab.New(t)
			server := mirrorUDP(t, lab.Public("server"))
			var conns [2]*net.UDPConn
			var seen [2]netip.AddrPort
			for i, home := range []*natlab.Network{lab.Home("homeA", tc.a), lab.Home("homeB", tc.b)} {
				host := home.Host([]string{"a", "b"}[i])
				conns[i] = listenUDP(t, host, innerPort)
				var err error
				if seen[i], err = askUDP(conns[i], server, soon); err != nil {
					t.Fatal(err)
				}
			}
			var wg sync.WaitGroup
			var got [2]bool
			for i := range conns {
				wg.Go(func() { got[i] = punchUDP(conns[i], seen[1-i], wait(tc.want)) })
			}
			wg.Wait()
			if got != [2]bool{tc.want, tc.want} {
				t.Errorf("heard from the other side: %v, want %t for both", got, tc.want)
			}
		})
	}
}

// punchUDP sends to peer again and again until it hears from it, then once more for the
// other side.
func punchUDP(conn *net.UDPConn, peer netip.AddrPort, limit time.Duration) bool {
	buf := make([]byte, 100)
	for end := time.Now().Add(limit); time.Now().Before(end); {
		_, _ = conn.WriteToUDPAddrPort([]byte("punch"), peer)
		_ = conn.SetReadDeadline(time.Now().Add(retry))
		if n, _, err := conn.ReadFromUDPAddrPort(buf); err == nil && string(buf[:n]) == "punch" {
			_, _ = conn.WriteToUDPAddrPort([]byte("punch"), peer)
			return true
		}
	}
	return false
}

func TestPunchTCP(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		a, b natlab.Kind
		want bool
	}{
		{natlab.Cone, natlab.Cone, true},
		{natlab.Symmetric, natlab.Symmetric, false},
	} {
		t.Run(tc.a.String()+" x "+tc.b.String(), func(t *testing.T) {
			lab := natlab.New(t)
			server := mirrorTCP(t, lab.Public("server"))
			var hosts [2]*natlab.Host
			var seen [2]netip.AddrPort
			for i, home := range []*natlab.Network{lab.Home("homeA", tc.a), lab.Home("homeB", tc.b)} {
				hosts[i] = home.Host([]string{"a", "b"}[i])
				var err error
				if seen[i], err = askTCP(hosts[i], innerPort, server, soon); err != nil {
					t.Fatal(err)
				}
			}
			var wg sync.WaitGroup
			var errs [2]error
			for i := range hosts {
				wg.Go(func() {
					errs[i] = hosts[i].Do(func() error {
						d := net.Dialer{Control: shared, Timeout: wait(tc.want), LocalAddr: &net.TCPAddr{Port: innerPort}}
						conn, err := d.DialContext(context.Background(), "tcp4", seen[1-i].String())
						if err == nil {
							_ = conn.Close()
						}
						return err
					})
				})
			}
			wg.Wait()
			if got := errs[0] == nil && errs[1] == nil; got != tc.want {
				t.Errorf("simultaneous open: got %v, want success %t", errs, tc.want)
			}
		})
	}
}

func TestBlockedKinds(t *testing.T) {
	t.Parallel()
	lab := natlab.New(t)
	relay, other := lab.Public("relay"), lab.Public("other")
	relayUDP, relayTCP := mirrorUDP(t, relay), mirrorTCP(t, relay)
	otherUDP, otherTCP := mirrorUDP(t, other), mirrorTCP(t, other)

	// What a host should reach: the relay by UDP and TCP, the other by UDP and TCP.
	check := func(t *testing.T, when string, h *natlab.Host, want [4]bool) {
		t.Helper()
		checkUDP(t, when, h, relayUDP, want[0])
		checkTCP(t, when, h, relayTCP, want[1])
		checkUDP(t, when, h, otherUDP, want[2])
		checkTCP(t, when, h, otherTCP, want[3])
	}
	all := [4]bool{true, true, true, true}
	t.Run("UDP blocked", func(t *testing.T) {
		home := lab.Home("udp blocked", natlab.UDPBlocked)
		a := home.Host("a")
		check(t, "at first", a, [4]bool{false, true, false, true})
		home.BlockUDP(false)
		check(t, "UDP unblocked", a, all)
	})
	t.Run("relay only", func(t *testing.T) {
		home := lab.Home("relay only", natlab.RelayOnly)
		b := home.Host("b")
		check(t, "at first", b, [4]bool{})
		home.AllowOnly(relayTCP)
		check(t, "one port", b, [4]bool{false, true, false, false})
		home.AllowOnly(relayTCP, otherUDP)
		check(t, "two ports", b, [4]bool{false, true, true, false})
		home.AllowAll()
		check(t, "all", b, all)
	})
}

// Two levels: the world sees the carrier's address, and two cones make a cone.
func TestCarrier(t *testing.T) {
	lab := natlab.New(t)
	one, two := lab.Public("one"), lab.Public("two")
	carrier := lab.Carrier("carrier", natlab.Cone)
	home := lab.Home("home", natlab.Cone, natlab.Behind(carrier))
	if !carrier.Subnet().Contains(home.WAN()) {
		t.Errorf("the home's address outside is %s, want one of %s", home.WAN(), carrier.Subnet())
	}
	conn := listenUDP(t, home.Host("a"), innerPort)
	var seen []netip.AddrPort
	for _, s := range []netip.AddrPort{mirrorUDP(t, one), mirrorUDP(t, two)} {
		addr, err := askUDP(conn, s, soon)
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, addr)
	}
	checkMapping(t, "UDP", carrier, true, seen)
}

// There is no way out: a public host has no route at all, and a home's router answers
// that it knows none. The target is from the documentation range.
func TestNothingLeaves(t *testing.T) {
	lab := natlab.New(t)
	away := netip.MustParseAddrPort("203.0.113.1:443")
	public := lab.Public("public")
	inside := lab.Home("home", natlab.Cone).Host("inside")
	alone := lab.LAN("office").Host("alone")
	for _, h := range []*natlab.Host{public, inside, alone} {
		if _, err := askTCP(h, 0, away, soon); !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("host %s: got %v, want %v", h.Name(), err, unix.ENETUNREACH)
		}
	}
	own, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range own {
		addrs, err := i.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Contains(public.Addr()) {
				t.Errorf("this machine has %s on %s, an address of the lab", a, i.Name)
			}
		}
	}
}
