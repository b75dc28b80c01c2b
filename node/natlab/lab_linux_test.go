package natlab_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/starling-chat/starling/node/natlab"
)

// eventually polls until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(soon)
	for !cond() {
		select {
		case <-deadline:
			t.Fatalf("not within %s: %s", soon, what)
		case <-time.After(retry / 5):
		}
	}
}

func TestPartition(t *testing.T) {
	t.Parallel()
	lab := natlab.New(t)
	public, other := lab.Public("public"), lab.Public("other")
	home := lab.Home("home", natlab.Cone)
	a, b := home.Host("a"), home.Host("b")
	atPublic, atOther, atA := mirrorUDP(t, public), mirrorUDP(t, other), mirrorUDP(t, a)

	type path struct {
		from *natlab.Host
		to   netip.AddrPort
	}
	all := map[string]path{
		"a-public": {a, atPublic}, "b-public": {b, atPublic}, "a-other": {a, atOther},
		"other-public": {other, atPublic}, "b-a": {b, atA},
	}
	check := func(when string, cut ...string) {
		t.Helper()
		for name, p := range all {
			checkUDP(t, when+", "+name, p.from, p.to, !slices.Contains(cut, name))
		}
	}
	check("at first")
	lab.Partition(public, a) // cuts a, and not its whole home, in either order
	check("NATed and public", "a-public")
	lab.Partition(b, a)
	check("and two of one network", "a-public", "b-a")
	lab.Heal(a, public)
	check("healed in the other order", "b-a")
	lab.HealAll()
	lab.Split([]*natlab.Host{a, b}, []*natlab.Host{public}, []*natlab.Host{other})
	check("three parts", "a-public", "b-public", "a-other", "other-public")
	lab.HealAll()
	check("all healed")
}

// A partition is about hosts: it follows one that changes its address.
func TestPartitionFollowsAddress(t *testing.T) {
	t.Parallel()
	lab := natlab.New(t)
	office := lab.LAN("office")
	a, b := office.Host("a"), office.Host("b")
	lab.Partition(a, b)
	fresh := netip.MustParseAddr("10.20.30.99")
	b.SetAddr(fresh)
	server := mirrorUDP(t, b)
	if server.Addr() != fresh {
		t.Fatalf("b has %s, want %s", server.Addr(), fresh)
	}
	checkUDP(t, "partitioned", a, server, false)
	lab.Heal(a, b)
	checkUDP(t, "healed", a, server, true)
}

// What is cut is cut each way on its own, not only because the answers are missing.
func TestBlockBothWays(t *testing.T) {
	t.Parallel()
	lab := natlab.New(t)
	office := lab.LAN("office")
	a, b := office.Host("a"), office.Host("b")
	ca, cb := listenUDP(t, a, innerPort), listenUDP(t, b, innerPort)
	hear := func(conn *net.UDPConn, want bool) {
		t.Helper()
		_ = conn.SetReadDeadline(time.Now().Add(wait(want)))
		if _, err := conn.Read(make([]byte, 100)); (err == nil) != want {
			t.Errorf("heard at %s: %t, want %t", conn.LocalAddr(), err == nil, want)
		}
	}
	for _, tc := range []struct {
		off  func()
		want bool
	}{
		{func() { lab.Partition(a, b) }, false},
		{lab.HealAll, true},
		{func() { a.Block(netip.PrefixFrom(b.Addr(), 32)) }, false},
		{func() { a.Unblock(netip.PrefixFrom(b.Addr(), 32)) }, true},
		{a.Cut, false},
	} {
		tc.off()
		_, errA := ca.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(b.Addr(), innerPort))
		_, errB := cb.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(a.Addr(), innerPort))
		if err := errors.Join(errA, errB); err != nil {
			t.Fatal(err)
		}
		hear(ca, tc.want)
		hear(cb, tc.want)
	}
}

// Between two NATs a partition goes by their public addresses.
func TestPartitionOfHomes(t *testing.T) {
	t.Parallel()
	lab := natlab.New(t)
	server := mirrorUDP(t, lab.Public("server"))
	homes := []*natlab.Network{lab.Home("homeA", natlab.Cone), lab.Home("homeB", natlab.Cone)}
	a, b := homes[0].Host("a"), homes[1].Host("b")
	ca, cb := listenUDP(t, a, innerPort), listenUDP(t, b, innerPort)
	seenA, errA := askUDP(ca, server, soon)
	seenB, errB := askUDP(cb, server, soon)
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	punch := func(limit time.Duration) bool {
		done := make(chan bool)
		go func() { done <- punchUDP(ca, seenB, limit) }()
		ok := punchUDP(cb, seenA, limit)
		return <-done && ok
	}
	lab.Partition(a, b)
	if punch(silence) {
		t.Error("a and b hear each other through the partition")
	}
	if _, err := askUDP(ca, server, soon); err != nil {
		t.Errorf("a is cut from the server as well: %v", err)
	}
	lab.Heal(a, b)
	if !punch(soon) {
		t.Error("a and b do not hear each other after healing")
	}
}

func TestCutAndBlock(t *testing.T) {
	t.Parallel()
	lab := natlab.New(t)
	relay := lab.Public("relay")
	server := mirrorUDP(t, relay)
	home := lab.Home("home", natlab.Cone)
	a := home.Host("a")
	prefix := netip.PrefixFrom(relay.Addr(), 32)
	for _, tc := range []struct {
		name      string
		off, back func()
	}{
		{"host cut", relay.Cut, relay.Restore},
		{"uplink cut", home.Cut, home.Restore},
		{"blocked at the host", func() { a.Block(prefix) }, func() { a.Unblock(prefix) }},
		{"blocked at the home", func() { home.Block(prefix) }, func() { home.Unblock(prefix) }},
		{"all lost", func() { home.SetLoss(1) }, func() { home.SetLoss(0) }},
	} {
		checkUDP(t, "before "+tc.name, a, server, true)
		tc.off()
		checkUDP(t, tc.name, a, server, false)
		tc.back()
		checkUDP(t, "after "+tc.name, a, server, true)
	}
}

func TestLoss(t *testing.T) {
	const sent, share = 2000, 0.3
	lab := natlab.New(t)
	office := lab.LAN("office")
	a, b := office.Host("a"), office.Host("b")
	a.SetLoss(share)
	for _, pair := range [][2]*natlab.Host{{a, b}, {b, a}} { // each way on its own
		from, to := listenUDP(t, pair[0], 0), listenUDP(t, pair[1], 0)
		raw, err := to.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20) })
		if err != nil {
			t.Fatal(err)
		}
		target := netip.AddrPortFrom(pair[1].Addr(), localPort(to.LocalAddr()))
		for range sent {
			// An error here would be one no real network gives.
			if _, err := from.WriteToUDPAddrPort([]byte("x"), target); err != nil {
				t.Fatal(err)
			}
		}
		got := 0
		for buf := make([]byte, 10); ; got++ {
			_ = to.SetReadDeadline(time.Now().Add(silence))
			if _, err := to.Read(buf); err != nil {
				break
			}
		}
		// Six standard deviations of the binomial distribution on either side.
		if want := sent * (1 - share); float64(got) < want-123 || float64(got) > want+123 {
			t.Errorf("%s to %s: %d of %d arrived, want about %.0f", pair[0].Name(), pair[1].Name(), got, sent, want)
		}
	}
}

func TestRate(t *testing.T) {
	const size, rate = 1 << 20, 1 << 20
	lab := natlab.New(t)
	server := lab.Public("server")
	home := lab.Home("home", natlab.Cone)
	a := home.Host("a")
	transfer := func() time.Duration {
		var l net.Listener
		if err := server.Do(func() (err error) {
			l, err = net.Listen("tcp4", "0.0.0.0:0")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		var conn net.Conn
		if err := a.Do(func() (err error) {
			conn, err = net.Dial("tcp4", netip.AddrPortFrom(server.Addr(), localPort(l.Addr())).String())
			return err
		}); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		go func() {
			_, _ = conn.Write(make([]byte, size))
			_ = conn.Close()
		}()
		in, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if n, err := io.Copy(io.Discard, in); n != size || err != nil {
			t.Fatalf("received %d bytes, error %v", n, err)
		}
		return time.Since(begin)
	}
	free := transfer()
	home.SetRate(rate)
	limited := transfer()
	home.SetRate(0)
	freed := transfer()
	// The bucket lets its content of 64 KiB pass at once.
	if low, high := 700*time.Millisecond, 10*time.Second; limited < low || limited > high {
		t.Errorf("%d bytes at %d bytes/s took %s, want between %s and %s", size, rate, limited, low, high)
	}
	if free > limited/2 || freed > limited/2 {
		t.Errorf("without limit it took %s before and %s after, with it %s", free, freed, limited)
	}
	if sent, received := a.Traffic(); sent < 3*size || received == 0 || received > sent {
		t.Errorf("traffic of a: sent %d, received %d", sent, received)
	}
}

// A laptop moves from the office to a home and keeps its cable's faults.
func TestMoveTo(t *testing.T) {
	t.Parallel()
	lab := natlab.New(t)
	server := mirrorUDP(t, lab.Public("server"))
	office, home := lab.LAN("office"), lab.Home("home", natlab.Cone)
	laptop, desk := office.Host("laptop"), office.Host("desk")
	atDesk := mirrorUDP(t, desk)
	checkUDP(t, "in the office", laptop, server, false)
	checkUDP(t, "in the office", laptop, atDesk, true)
	laptop.SetRate(1 << 20) // a queue that has to move along
	laptop.MoveTo(home)
	if !home.Subnet().Contains(laptop.Addr()) {
		t.Errorf("address after the move: %s, want one of %s", laptop.Addr(), home.Subnet())
	}
	checkUDP(t, "at home", laptop, server, true)
	checkUDP(t, "at home", laptop, atDesk, false)
	laptop.SetRate(0)
	laptop.SetLoss(1)
	checkUDP(t, "with a bad cable", laptop, server, false)
	laptop.MoveTo(office)
	arrived := desk.Capture(t)
	checkUDP(t, "with a bad cable in the office", laptop, atDesk, false)
	if arrived.Contains([]byte(question)) {
		t.Error("the moved cable loses only what comes back")
	}
	laptop.SetLoss(0)
	checkUDP(t, "back in the office", laptop, atDesk, true)
	if !arrived.Contains([]byte(question)) {
		t.Error("the question is not in the capture of who answered it")
	}
}

// What mDNS needs: a datagram to 224.0.0.251 reaches the neighbours and nobody else.
func TestMulticast(t *testing.T) {
	t.Parallel()
	lab := natlab.New(t)
	group := &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: 5353}
	join := func(h *natlab.Host) (conn *net.UDPConn) {
		if err := h.Do(func() error {
			eth, err := net.InterfaceByName("eth0")
			if err != nil {
				return err
			}
			conn, err = net.ListenMulticastUDP("udp4", eth, group)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	for _, n := range []*natlab.Network{lab.LAN("office"), lab.Home("home", natlab.Cone)} {
		from := join(n.Host(fmt.Sprint(n.Subnet(), " 1")))
		near := []*net.UDPConn{join(n.Host(fmt.Sprint(n.Subnet(), " 2"))), join(n.Host(fmt.Sprint(n.Subnet(), " 3")))}
		far := join(lab.Public(fmt.Sprint("far from ", n.Subnet())))
		if _, err := from.WriteTo([]byte("anybody here"), group); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		for _, c := range near {
			_ = c.SetReadDeadline(time.Now().Add(soon))
			if k, err := c.Read(buf); err != nil || string(buf[:k]) != "anybody here" {
				t.Errorf("in %s: heard %q, error %v", n.Subnet(), buf[:k], err)
			}
		}
		_ = far.SetReadDeadline(time.Now().Add(silence))
		if k, err := far.Read(buf); err == nil {
			t.Errorf("multicast left %s: %q", n.Subnet(), buf[:k])
		}
	}
}

// A process runs inside its host, and when the lab ends nothing is left: no process, no
// thread or open file in one of its namespaces, no name, no interface on this machine.
func TestNothingIsLeft(t *testing.T) {
	interfaces, names := machine(t)
	var child presence
	var inside string
	t.Run("lab", func(t *testing.T) {
		lab := natlab.New(t)
		h := lab.Home("home", natlab.Cone).Host("a")
		if err := start(t, h, "idle").out.Decode(&child); err != nil {
			t.Fatal(err)
		}
		if err := h.Do(func() (err error) {
			inside, err = os.Readlink("/proc/thread-self/ns/net")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if inside != child.Namespace {
			t.Errorf("the process is in %s, its host is %s", child.Namespace, inside)
		}
		if !holds(t, inside) {
			t.Error("the search for what holds a namespace finds nothing while the lab stands")
		}
		if i, n := machine(t); !slices.Equal(i, interfaces) || !slices.Equal(n, names) {
			t.Errorf("this machine shows interfaces %v and names %v, before %v and %v", i, n, interfaces, names)
		}
	})
	if unix.Kill(child.PID, 0) == nil {
		t.Errorf("process %d is still there", child.PID)
	}
	eventually(t, "the namespace is let go", func() bool { return !holds(t, inside) })
	if i, n := machine(t); !slices.Equal(i, interfaces) || !slices.Equal(n, names) {
		t.Errorf("this machine shows interfaces %v and names %v, before %v and %v", i, n, interfaces, names)
	}
}

// machine returns the names of interfaces and of namespaces of this machine.
func machine(t *testing.T) (interfaces, namespaces []string) {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		interfaces = append(interfaces, i.Name)
	}
	entries, _ := os.ReadDir("/run/netns") // need not exist
	for _, e := range entries {
		namespaces = append(namespaces, e.Name())
	}
	return interfaces, namespaces
}

// holds says whether a thread or an open file of this process refers to a namespace.
func holds(t *testing.T, namespace string) bool {
	t.Helper()
	threads, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(append(threads, files...), func(path string) bool {
		target, err := os.Readlink(path)
		return err == nil && strings.HasSuffix(target, namespace)
	})
}

// A test binary that is killed takes the processes of its lab along, and the namespaces
// with them.
func TestNothingIsLeftAfterCrash(t *testing.T) {
	lab := natlab.New(t)
	crashing := start(t, lab.Public("machine"), "victim")
	var orphan presence
	if err := crashing.out.Decode(&orphan); err != nil {
		t.Fatal(err)
	}
	if own, err := here(); err != nil || own.Namespace == orphan.Namespace {
		t.Fatalf("the process is in %s, this test in %s (error %v)", orphan.Namespace, own.Namespace, err)
	}
	if err := crashing.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = crashing.Wait()
	eventually(t, "the orphan ends", func() bool {
		_, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", orphan.PID))
		return err != nil
	})
}

func TestCapture(t *testing.T) {
	t.Parallel()
	lab := natlab.New(t)
	relay := lab.Public("relay")
	home := lab.Home("home", natlab.Cone)
	a := home.Host("a")
	mirror := mirrorUDP(t, relay)
	atHost, atHome, atRelay := a.Capture(t), home.Capture(t), relay.Capture(t)
	captures := map[string]*natlab.Capture{"host": atHost, "home": atHome, "relay": atRelay}

	conn := listenUDP(t, a, 0)
	if _, err := conn.WriteToUDPAddrPort([]byte("xx canary-udp xx"), mirror); err != nil {
		t.Fatal(err)
	}
	// In two segments, so that no packet has it whole.
	var l net.Listener
	if err := relay.Do(func() (err error) {
		l, err = net.Listen("tcp4", "0.0.0.0:0")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := a.Do(func() error {
		c, err := net.Dial("tcp4", netip.AddrPortFrom(relay.Addr(), localPort(l.Addr())).String())
		if err != nil {
			return err
		}
		defer c.Close()
		in, err := l.Accept()
		if err != nil {
			return err
		}
		defer in.Close()
		for _, part := range []string{"xx canary", "-tcp xx"} {
			if _, err := io.WriteString(c, part); err != nil {
				return err
			}
			if _, err := io.ReadFull(in, make([]byte, len(part))); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	// Loopback is nobody's business.
	local := listenUDP(t, a, 0)
	if _, err := conn.WriteToUDPAddrPort([]byte("canary-local"), netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), localPort(local.LocalAddr()))); err != nil {
		t.Fatal(err)
	}
	if n, err := local.Read(make([]byte, 100)); err != nil || n != len("canary-local") {
		t.Fatalf("loopback: %d bytes, error %v", n, err)
	}

	for where, c := range captures {
		if packets, octets := c.Count(); packets < 5 || octets < 5*60 {
			t.Errorf("%s: captured %d packets, %d bytes", where, packets, octets)
		}
		for canary, want := range map[string]bool{"canary-udp": true, "canary-tcp": true, "canary-local": false, "canary-never": false} {
			if got := c.Contains([]byte(canary)); got != want {
				t.Errorf("%s: contains %s: %t, want %t", where, canary, got, want)
			}
		}
	}
	// The uplink is outside the NAT: the inside address does not show there.
	if inside := a.Addr().AsSlice(); !atHost.Contains(inside) || atHome.Contains(inside) {
		t.Error("the inside address should show at the host and not at the uplink")
	}
}

func TestWithoutRoot(t *testing.T) {
	lab := natlab.New(t)
	refused := hear(t, "nobody", start(t, lab.Public("machine"), "nobody")).Refused
	if !strings.Contains(refused, "need root") {
		t.Errorf("without root the lab says %q", refused)
	}
}

// stubborn is a test that goes on after Fatalf but is cleaned up as usual.
type stubborn struct {
	outsideTB
	t *testing.T
}

func (s stubborn) Cleanup(fn func()) { s.t.Cleanup(fn) }

// A mistake in a test's set-up ends that test with the reason, and the lab stays usable.
func TestMisuse(t *testing.T) {
	lab := natlab.New(stubborn{t: t})
	home, office := lab.Home("home", natlab.Cone), lab.LAN("office", natlab.Subnet("10.9.8.0/28"))
	a := home.Host("a")
	for want, do := range map[string]func(){
		"there is a host of this name":    func() { home.Host("a") },
		"not a private IPv4 prefix":       func() { lab.LAN("wrong", natlab.Subnet("192.0.0.0/16")) },
		"is not an address for a host":    func() { a.SetAddr(netip.MustParseAddr("10.1.1.1")) },
		"is the address of":               func() { home.Host("c").SetAddr(a.Addr()) },
		"has no router":                   func() { office.BlockUDP(true) },
		"no way out":                      func() { lab.LAN("deep", natlab.Behind(home)) },
		"not between 0 and 1":             func() { a.SetLoss(5) },
		"not an IPv4 address with a port": func() { home.AllowOnly(netip.MustParseAddrPort("[::1]:80")) },
		"has no address left in 10.9.8.0/28": func() {
			for _, name := range []string{"d", "e", "f", "g", "h", "j"} {
				office.Host(name)
			}
		},
	} {
		if got := panicOf(do); !strings.Contains(got, want) {
			t.Errorf("got %q, want something with %q", got, want)
		}
	}
	if err := a.Do(func() error { return os.ErrInvalid }); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("Do returns %v", err)
	}
	if err := a.Do(func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("Do is content with a function that left its goroutine")
	}
	checkUDP(t, "after all that", a, mirrorUDP(t, home.Host("i")), true)
}
