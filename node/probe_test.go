package node

import (
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// line forwards TCP connections until it is cut: then it keeps them open and swallows every byte, as a
// network does whose other end moved away.
type line struct {
	ln  net.Listener
	cut atomic.Bool
}

func newLine(t *testing.T, to net.Addr) *line {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &line{ln: ln}
	t.Cleanup(func() { ln.Close() })
	go func() { // ends with the listener
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to.String())
			if err != nil {
				in.Close()
				return
			}
			t.Cleanup(func() { in.Close(); out.Close() })
			// Each ends with its connection.
			go io.Copy(&swallow{in, &l.cut}, out)
			go io.Copy(&swallow{out, &l.cut}, in)
		}
	}()
	return l
}

type swallow struct {
	io.Writer
	cut *atomic.Bool
}

func (s *swallow) Write(b []byte) (int, error) {
	if s.cut.Load() {
		return len(b), nil
	}
	return s.Writer.Write(b)
}

func tcpHost(t *testing.T, opts ...libp2p.Option) host.Host {
	t.Helper()
	h, err := libp2p.New(append(opts, libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableMetrics())...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// A connection that stands and is dead is told from one that works, and from one whose other end merely
// does not know what it is asked.
func TestProbe(t *testing.T) {
	a := tcpHost(t)
	for _, tc := range []struct {
		name  string
		other host.Host
		cut   bool
		want  bool
	}{
		{"it works", tcpHost(t), false, true},
		{"it does not speak ping", tcpHost(t, libp2p.Ping(false)), false, true},
		{"it is dead", tcpHost(t), true, false},
	} {
		to, err := manet.ToNetAddr(tc.other.Addrs()[0])
		if err != nil {
			t.Fatal(err)
		}
		l := newLine(t, to)
		addr, err := manet.FromNetAddr(l.ln.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Connect(t.Context(), peer.AddrInfo{ID: tc.other.ID(), Addrs: []ma.Multiaddr{addr}}); err != nil {
			t.Fatal(err)
		}
		l.cut.Store(tc.cut)
		begun := time.Now()
		if got := answers(t.Context(), a.Network().ConnsToPeer(tc.other.ID())[0]); got != tc.want {
			t.Errorf("%s: answers says %v after %s", tc.name, got, time.Since(begun))
		}
		if took := time.Since(begun); took > 2*probeTimeout {
			t.Errorf("%s: it took %s", tc.name, took)
		}
	}
}

// An address that was ours and is gone is told to nobody, a new one at once; what others see of us stays.
func TestInterfacesCorrectTheAddresses(t *testing.T) {
	var present []net.Addr
	have := func(prefixes ...string) {
		present = nil
		for _, p := range prefixes {
			ip, ipnet, err := net.ParseCIDR(p)
			if err != nil {
				t.Fatal(err)
			}
			present = append(present, &net.IPNet{IP: ip, Mask: ipnet.Mask})
		}
	}
	i := newInterfaces(func() ([]net.Addr, error) { return present, nil })
	i.listensOn(func() []ma.Multiaddr { return []ma.Multiaddr{ma.StringCast("/ip4/0.0.0.0/tcp/4001")} })
	forget := func() { i.read = time.Time{} }
	correct := func(addrs ...string) string {
		var in []ma.Multiaddr
		for _, a := range addrs {
			in = append(in, ma.StringCast(a))
		}
		var out []string
		for _, a := range i.correct(in) {
			out = append(out, a.String())
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	const (
		home, seen = "/ip4/192.168.1.10/tcp/4001", "/ip4/203.0.113.9/tcp/30000"
		loop       = "/ip4/127.0.0.1/tcp/4001"
	)
	have("127.0.0.1/8", "192.168.1.10/24", "fe80::1/64")
	if got, want := correct(home, loop, seen), loop+" "+home+" "+seen; got != want {
		t.Errorf("at home it tells %s, want %s", got, want)
	}
	have("127.0.0.1/8", "10.9.8.10/24", "1.2.3.4/24")
	forget()
	if got, want := correct(home, loop, seen), "/ip4/10.9.8.10/tcp/4001 "+loop+" "+seen; got != want {
		t.Errorf("in the cafe it tells %s, want %s", got, want)
	}
	gone := without(map[netip.Addr]struct{}{netip.MustParseAddr("192.168.1.10"): {}}, i.now())
	if len(gone) != 1 {
		t.Errorf("the old address is not gone: %v", gone)
	}
}
