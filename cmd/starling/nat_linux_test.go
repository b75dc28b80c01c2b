package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/starling-chat/starling/node/natlab"
)

const (
	// volley is how many messages each side sends of each sort; all of them have to arrive.
	volley = 100
	// volleyTime bounds the arrival of a volley. It is patience, not a target: the rows run beside each
	// other on few cores, and a repair by sync after a loss takes seconds.
	volleyTime = 40 * time.Second
	// firstMessage is the target for the first message after joining, and for its answer.
	firstMessage = 2 * time.Second
	// pathTime bounds the wait for the label of a path: a hole punch takes a third of a second, but
	// 15 s when it needs all of its tries.
	pathTime = 20 * time.Second
)

// only gives the flags of a node that uses these relays over one transport.
func only(listen string, relays []*station) []string {
	flags := []string{"--listen", listen}
	transport := strings.Split(listen, "/")[3]
	for _, r := range relays {
		for _, a := range r.addrs() {
			if strings.Contains(a, "/"+transport+"/") {
				flags = append(flags, "--relay", a)
			}
		}
	}
	return flags
}

// natRow is one pair of homes.
type natRow struct {
	name   string
	a, b   natlab.Kind
	only   string   // both listen and know the relays on this transport only; empty: on all
	relays int      // public nodes that both know
	path   []string // the labels that the kinds allow
	quick  bool     // is part of the ordinary run
}

// What a node listens on that uses one transport only.
const (
	quic = "/ip4/0.0.0.0/udp/0/quic-v1"
	tcp  = "/ip4/0.0.0.0/tcp/0"
)

var (
	direct  = []string{"punched", "direct"}
	relayed = []string{"relayed"}
)

var natRows = []natRow{
	{name: "cone and cone, QUIC", a: natlab.Cone, b: natlab.Cone, only: quic, relays: 1, path: direct, quick: true},
	{name: "cone and cone, TCP only", a: natlab.Cone, b: natlab.Cone, only: tcp, relays: 1, path: direct},
	{name: "cone and cone, defaults", a: natlab.Cone, b: natlab.Cone, relays: 1, path: direct},
	{name: "cone and symmetric", a: natlab.Cone, b: natlab.Symmetric, relays: 1, path: relayed},
	{name: "symmetric and symmetric", a: natlab.Symmetric, b: natlab.Symmetric, relays: 1, path: relayed},
	// A node learns its outside address of the transport by which it reached public nodes, and reaches
	// the first one by QUIC: only a second public node makes TCP punching possible.
	{name: "UDP blocked and cone, one relay", a: natlab.UDPBlocked, b: natlab.Cone, relays: 1, path: relayed},
	{name: "UDP blocked and cone, two relays", a: natlab.UDPBlocked, b: natlab.Cone, relays: 2, path: direct, quick: true},
	{name: "UDP blocked and UDP blocked", a: natlab.UDPBlocked, b: natlab.UDPBlocked, relays: 1, path: direct},
	{name: "all blocked but the relay", a: natlab.RelayOnly, b: natlab.RelayOnly, relays: 1, path: relayed, quick: true},
}

// Two people in homes with the same private addresses, and relays run by somebody else: rooms and
// direct messages lose nothing, whatever the NATs; the path is direct where they allow it, and then
// outlives the relay.
func TestLabNAT(t *testing.T) {
	t.Parallel()
	for _, row := range natRows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			if !row.quick {
				onlyFull(t)
			}
			row.run(t)
		})
	}
}

func (row natRow) run(t *testing.T) {
	f := newField(t)
	relays := f.relays(row.relays)
	flags := by(relays...)
	if row.only != "" {
		flags = only(row.only, relays)
	}
	a := f.run(f.home("home A", row.a, relays).Host("ada"), flags...)
	b := f.run(f.home("home B", row.b, relays).Host("bob"), flags...)

	a.join("lobby")
	a.send("#lobby", "before bob came")
	b.join("lobby")
	joined := time.Now()
	a.send("#lobby", "while bob came")
	b.send("#lobby", "first of bob")
	a.hears(firstMessage-time.Since(joined), "first of bob")
	a.send("#lobby", "answer of ada")
	b.hears(firstMessage-time.Since(joined), "answer of ada")
	t.Logf("first message %s, its answer %s after joining", since(joined, a, "first of bob"), since(joined, b, "answer of ada"))

	awaitPath(a, b, pathTime, row.path...)
	t.Logf("path %s after %s", a.path(b), time.Since(joined).Round(time.Millisecond))
	if row.direct() {
		b.hears(volleyTime, "before bob came", "while bob came")
		t.Logf("what was said before: %s after joining", since(joined, b, "before bob came"))
	}
	befriend(a, b)
	talk(a, b, "before")
	if !row.direct() {
		return
	}
	for _, r := range relays {
		r.host.Cut()
	}
	talk(a, b, "without the relay")
}

func (row natRow) direct() bool { return row.path[0] != relayed[0] }

func since(begin time.Time, s *station, texts ...string) time.Duration {
	var last time.Duration
	for _, text := range texts {
		last = max(last, s.ear.at(text).Sub(begin))
	}
	return last.Round(time.Millisecond)
}

// relays starts public relays.
func (f *field) relays(n int) []*station {
	f.t.Helper()
	var out []*station
	for i := range n {
		out = append(out, f.relay(f.Public("relay"+string(rune('1'+i)))))
	}
	return out
}

// home makes a home; one that lets nothing pass but the relays gets their addresses.
func (f *field) home(name string, kind natlab.Kind, relays []*station) *natlab.Network {
	f.t.Helper()
	home := f.Home(name, kind)
	if kind == natlab.RelayOnly {
		var open []netip.AddrPort
		for _, r := range relays {
			open = append(open, netip.AddrPortFrom(r.host.Addr(), 4001))
		}
		home.AllowOnly(open...)
	}
	return home
}

// talk exchanges a volley in the room and one of direct messages, both ways at once.
func talk(a, b *station, what string) {
	a.t.Helper()
	begun := time.Now()
	fromA, fromB := a.sendAll("#lobby", "room "+what, volley), b.sendAll("#lobby", "room "+what, volley)
	a.hears(volleyTime, fromB...)
	b.hears(volleyTime, fromA...)
	room := time.Since(begun)
	begun = time.Now()
	toB, toA := a.sendAll("@bob", "private "+what, volley), b.sendAll("@ada", "private "+what, volley)
	a.hears(volleyTime, toA...)
	b.hears(volleyTime, toB...)
	a.t.Logf("%s: %d room messages in %s, %d direct messages in %s",
		what, 2*volley, room.Round(time.Millisecond), 2*volley, time.Since(begun).Round(time.Millisecond))
	for _, s := range []*station{a, b} {
		s.holds("#lobby", append(fromA, fromB...))
	}
	a.holds("@bob", append(toA, toB...))
	b.holds("@ada", append(toA, toB...))
}
