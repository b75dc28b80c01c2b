package main

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/starling-chat/starling/node/api"
	"github.com/starling-chat/starling/node/natlab"
)

const (
	// backTime is how soon a node has to be back after its network changed.
	backTime = 30 * time.Second
	// restartTime bounds coming back after a relay's restart, or finding each other from the cache.
	restartTime = 40 * time.Second
)

// Twenty people of one office, behind one address, all use one relay: each has a connection, a place and
// its room's lease there, and everybody hears everybody and a friend outside.
func TestLabOffice(t *testing.T) {
	t.Parallel()
	onlyFull(t)
	const people = 20
	f := newField(t)
	relays := f.relays(1)
	office := f.Home("office", natlab.Cone)
	// Without mDNS, and without addresses of each other: the relay is all they have.
	flags := append(by(relays...), "--no-mdns")
	var all []*station
	for i := range people {
		all = append(all, f.run(office.Host(fmt.Sprint("p", i+1)), flags...))
	}
	all = append(all, f.run(f.Home("home", natlab.Symmetric).Host("friend"), flags...))
	for _, s := range all {
		s.join("lobby")
	}
	for _, s := range all {
		s.usesRelay(relays[0])
	}
	begun := time.Now()
	var texts []string
	for _, s := range all {
		texts = append(texts, s.sendAll("#lobby", "hello", 1)...)
	}
	for i, s := range all {
		others := append(append([]string(nil), texts[:i]...), texts[i+1:]...)
		s.hears(volleyTime, others...)
	}
	t.Logf("%d messages heard by %d each in %s", len(all), len(all)-1, time.Since(begun).Round(time.Millisecond))
}

// usesRelay waits until a relay holds a place and a lease for the node.
func (s *station) usesRelay(relay *station) {
	s.t.Helper()
	var last []api.Relay
	ok := until(s.t, patience, func() bool {
		last = ask(s, "status", s.api.Status).Relays
		for _, r := range last {
			if r.PeerID == relay.ready.PeerID && r.Connected && r.Reserved && r.Topics > 0 {
				return true
			}
		}
		return false
	})
	if !ok {
		s.t.Fatalf("%s does not use relay %s: %+v", s.name, relay.name, last)
	}
}

// With every relay down, those who were in touch find each other again after a restart, by the addresses
// they remember: one at a public address, one behind a NAT.
func TestLabCache(t *testing.T) {
	t.Parallel()
	onlyFull(t)
	f := newField(t)
	relays := f.relays(1)
	a := f.run(f.Home("home A", natlab.Cone).Host("ada"), by(relays...)...)
	b := f.run(f.Public("bob"), append(by(relays...), "--reachability", "public")...)
	for _, s := range []*station{a, b} {
		s.join("lobby")
	}
	befriend(a, b)
	a.send("#lobby", "first")
	b.hears(patience, "first")
	awaitPath(a, b, pathTime, "direct")

	a.stop()
	b.stop()
	relays[0].host.Cut()
	b.start()
	a.start()
	awaitPath(a, b, restartTime, "direct")
	t.Logf("found again %s after the second start", time.Since(a.began).Round(time.Millisecond))
	talk(a, b, "without any relay")
}

// A laptop that gets another address, or is carried to another Wi-Fi, is back within half a minute, and
// what was said meanwhile arrives.
func TestLabRoaming(t *testing.T) {
	t.Parallel()
	f := newField(t)
	relays := f.relays(1)
	home := f.Home("home A", natlab.Cone)
	cafe := f.Home("cafe", natlab.Cone, natlab.Subnet("10.9.8.0/24"))
	a := f.run(home.Host("ada"), by(relays...)...)
	b := f.run(f.Home("home B", natlab.Cone).Host("bob"), by(relays...)...)
	for _, s := range []*station{a, b} {
		s.join("lobby")
	}
	befriend(a, b)
	awaitPath(a, b, pathTime, direct...)

	lease := home.Subnet().Addr().Next().Next().Next() // below those that the lab gives out
	for _, move := range []struct {
		name string
		do   func()
	}{
		{"another address", func() { a.host.SetAddr(lease) }},
		{"another Wi-Fi", func() { a.host.MoveTo(cafe) }},
	} {
		name := move.name
		move.do()
		begun := time.Now()
		fromA, fromB := []string{"room of ada after " + name}, []string{"room of bob after " + name}
		a.send("#lobby", fromA[0])
		b.send("#lobby", fromB[0])
		toB, toA := "private to bob after "+name, "private to ada after "+name
		a.send("@bob", toB)
		b.send("@ada", toA)
		a.hears(backTime-time.Since(begun), fromB[0], toA)
		b.hears(backTime-time.Since(begun), fromA[0], toB)
		t.Logf("%s: back after %s and %s", name, since(begun, a, toA), since(begun, b, toB))
		awaitPath(a, b, backTime, direct...)
		talk(a, b, "after "+name)
	}
}

// A relay that dies in the middle of a conversation loses nothing: with a second one nobody notices, and
// with none what was said arrives once the relay is back.
func TestLabRelayDies(t *testing.T) {
	t.Parallel()
	f := newField(t)
	relays := f.relays(2)
	a := f.run(f.Home("home A", natlab.Symmetric).Host("ada"), by(relays...)...)
	b := f.run(f.Home("home B", natlab.Symmetric).Host("bob"), by(relays...)...)
	for _, s := range []*station{a, b} {
		s.join("lobby")
	}
	befriend(a, b)
	for _, s := range []*station{a, b} {
		for _, r := range relays {
			s.usesRelay(r)
		}
	}
	a.send("#lobby", "first")
	b.hears(patience, "first")
	awaitPath(a, b, pathTime, relayed...)

	// One of two dies between two messages of a volley.
	var room, private []string
	for i := range volley {
		if i == volley/2 {
			relays[0].kill()
		}
		text := fmt.Sprint("while a relay dies ", i)
		a.send("#lobby", "room "+text)
		a.send("@bob", "private "+text)
		room, private = append(room, "room "+text), append(private, "private "+text)
	}
	begun := time.Now()
	b.hears(restartTime, append(room, private...)...)
	t.Logf("one relay of two killed: the last of %d messages heard in the room after %s, in private after %s", 2*volley,
		since(begun, b, room...), since(begun, b, private...))
	b.holds("#lobby", room)
	b.holds("@ada", private)

	// Then, when all is acknowledged, the other, and nobody is left.
	a.waiting(0)
	relays[1].kill()
	a.send("#lobby", "room without relays")
	a.send("@bob", "private without relays")
	b.send("#lobby", "room without relays, from bob")
	a.waiting(1)
	relays[0].start()
	begun = time.Now()
	b.hears(restartTime, "room without relays", "private without relays")
	a.hears(restartTime, "room without relays, from bob")
	t.Logf("relay restarted: what waited was heard after %s", since(begun, b, "private without relays"))
	talk(a, b, "after the restart")
}

// waiting waits until so many private messages are not acknowledged.
func (s *station) waiting(want int) {
	s.t.Helper()
	var last []api.OutboxEntry
	if !until(s.t, restartTime, func() bool { last = ask(s, "outbox", s.api.Outbox); return len(last) == want }) {
		s.t.Fatalf("%d messages in the outbox of %s, want %d: %+v", len(last), s.name, want, last[:min(len(last), 3)])
	}
}

// A relay that goes silent without closing anything, as one does whose machine hangs, is left for the other:
// its connections stand for half a minute, and nothing that is written to them fails.
func TestLabRelayFreezes(t *testing.T) {
	t.Parallel()
	f := newField(t)
	relays := f.relays(2)
	a := f.run(f.Home("home A", natlab.Symmetric).Host("ada"), by(relays...)...)
	b := f.run(f.Home("home B", natlab.Symmetric).Host("bob"), by(relays...)...)
	for _, s := range []*station{a, b} {
		s.join("lobby")
	}
	befriend(a, b)
	for _, s := range []*station{a, b} {
		for _, r := range relays {
			s.usesRelay(r)
		}
	}
	a.send("#lobby", "first")
	b.hears(patience, "first")
	awaitPath(a, b, pathTime, relayed...)
	// Whichever of the two carries the circuit between them: each is frozen in turn.
	for k, r := range relays {
		var room, private []string
		begun := time.Now()
		for i := range volley {
			if i == volley/2 {
				r.freeze()
				begun = time.Now()
			}
			text := fmt.Sprintf("relay %d freezes, %d", k, i)
			a.send("#lobby", "room "+text)
			a.send("@bob", "private "+text)
			room, private = append(room, "room "+text), append(private, "private "+text)
		}
		b.hears(restartTime, append(room, private...)...)
		t.Logf("relay %d frozen: the last of %d messages heard in the room after %s, in private after %s", k, 2*volley,
			since(begun, b, room...), since(begun, b, private...))
		b.holds("#lobby", room)
		b.holds("@ada", private)
		r.thaw()
		for _, s := range []*station{a, b} {
			s.usesRelay(r)
		}
	}
	talk(a, b, "after the thaw")
}

// freeze stops a process where it is, without a word to anybody; thaw lets it go on.
func (s *station) freeze() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = s.cmd.Process.Signal(syscall.SIGCONT) })
}

func (s *station) thaw() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		s.t.Fatal(err)
	}
}
