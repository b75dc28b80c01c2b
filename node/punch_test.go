package node

import (
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/starling-chat/starling/chat"
)

// A circuit that came before the other side was ready is punched as soon as it is, a failed try is
// repeated ever more rarely, and a change of network ends the pauses.
func TestPuncherRetries(t *testing.T) {
	able, ours := false, true
	u := &puncher{
		log:    slog.New(slog.DiscardHandler),
		speaks: func(peer.ID) bool { return able },
		first:  func(peer.ID) bool { return ours },
		kick:   make(chan struct{}, 1),
		marks:  make(map[peer.ID]chat.Path),
	}
	peers := make(map[peer.ID]*punch)
	now := time.Now()
	tried := 0
	begin := func(at time.Time) (wait time.Duration) {
		tried = 0
		return u.start(peers, at, func(peer.ID) { tried++ })
	}
	u.mark("p", chat.PathRelayed)
	if u.update(peers, now) {
		t.Error("a peer behind a relay can tell our address")
	}
	if begin(now); tried != 0 {
		t.Error("tried with a peer that does not speak DCUtR yet")
	}
	able = true
	u.mark("p", chat.PathRelayed)
	u.update(peers, now)
	ours = false
	if begin(now); tried != 0 {
		t.Error("tried although the circuit is ours")
	}
	ours = true
	if begin(now); tried != 1 {
		t.Fatal("did not try when the peer became ready")
	}
	if begin(now); tried != 0 {
		t.Error("tried while a try is under way")
	}

	failed := errors.New("no hole")
	var pauses []time.Duration
	for range 8 {
		before := time.Now()
		u.settle(peers, punchResult{"p", failed})
		pauses = append(pauses, peers["p"].next.Sub(before).Round(time.Second))
		if wait := begin(before); tried != 0 || wait <= 0 {
			t.Fatalf("tried at once after a failure, wait %s", wait)
		}
		if begin(peers["p"].next); tried != 1 {
			t.Fatal("did not try after the pause")
		}
	}
	if pauses[0] != punchPause || pauses[1] != 3*punchPause || pauses[7] != punchPauseMax {
		t.Errorf("pauses %v", pauses)
	}
	u.settle(peers, punchResult{"p", failed})
	u.again()
	u.update(peers, now)
	if begin(now); tried != 1 {
		t.Error("did not try after a change of network")
	}
	u.settle(peers, punchResult{"p", holepunch.ErrHolePunchActive})
	if pause := peers["p"].pause; pause != punchPause {
		t.Errorf("a try of libp2p's own counted as a failure: %s", pause)
	}

	u.mark("p", chat.PathPunched)
	if !u.update(peers, now) {
		t.Error("a peer that is met directly cannot tell our address")
	}
	if len(peers) != 0 {
		t.Error("a peer that is met directly is still waited for")
	}
	u.settle(peers, punchResult{"p", nil})
}

// QUIC keeps a head start at public addresses, and only there: the order of a LAN and of circuits is
// libp2p's.
func TestRankDials(t *testing.T) {
	const relayed = "/ip4/8.8.4.4/tcp/1/p2p/12D3KooWQ9cnALbFKccLkGTJu5x8tyPUXPkpzxr2SKtNG9fEXLiV/p2p-circuit"
	delays := func(texts ...string) []time.Duration {
		addrs := make([]ma.Multiaddr, len(texts))
		for i, text := range texts {
			addrs[i] = ma.StringCast(text)
		}
		ranked := rankDials(slices.Clone(addrs))
		out := make([]time.Duration, len(texts))
		for i, a := range addrs {
			at := slices.IndexFunc(ranked, func(r network.AddrDelay) bool { return r.Addr.Equal(a) })
			out[i] = ranked[at].Delay
		}
		return out
	}
	const ms = time.Millisecond
	for _, c := range []struct {
		addrs []string
		want  []time.Duration
	}{
		{[]string{"/ip4/8.8.8.8/tcp/1", "/ip4/8.8.8.8/udp/1/quic-v1"}, []time.Duration{250*ms + quicHeadStart, 0}},
		{[]string{"/ip4/8.8.8.8/tcp/1"}, []time.Duration{0}},
		{[]string{"/ip4/192.168.1.7/tcp/1", "/ip4/192.168.1.7/udp/1/quic-v1"}, []time.Duration{30 * ms, 0}},
		{[]string{"/ip4/8.8.8.8/udp/1/quic-v1", relayed}, []time.Duration{0, 500 * ms}},
	} {
		if got := delays(c.addrs...); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.addrs, got, c.want)
		}
	}
}
