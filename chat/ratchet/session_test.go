package ratchet

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestConversation(t *testing.T) {
	for _, oneTime := range []bool{false, true} {
		t.Run(fmt.Sprintf("one-time key %v", oneTime), func(t *testing.T) {
			a, b := pair(t, 1)
			bundle := b.bundle()
			if oneTime {
				bundle = b.bundleWithOneTime()
			}
			id, err := a.Initiate(rand.Reader, a.secrets, bundle)
			if err != nil {
				t.Fatal(err)
			}
			first, second := a.says("first"), a.says("second")
			opened := b.hears(second, "second") // whichever comes first begins the session
			if !opened.Started || opened.Session != id || (opened.OneTime != nil) != oneTime {
				t.Errorf("opened %+v", opened)
			}
			if oneTime && *opened.OneTime != testOneTime {
				t.Errorf("used one-time key %d", *opened.OneTime)
			}
			if opened = b.hears(first, "first"); opened.Started {
				t.Error("a session began twice")
			}
			for i := range 20 {
				text := strings.Repeat("x", i*100)
				a.reload()
				b.hears(a.says(text), text)
				b.reload()
				a.hears(b.says(text), text)
			}
		})
	}
}

func TestInitPartGoesUntilTheFirstAnswer(t *testing.T) {
	a, b := pair(t, 2)
	a.start(b)
	for range 3 {
		sealed := a.says("hi")
		if h, err := ReadHeader(sealed); err != nil || !h.Init || h.Identity != a.party.Identity || len(sealed) != 2048 {
			t.Fatalf("header %+v of %d bytes, %v", h, len(sealed), err)
		}
		b.hears(sealed, "hi")
	}
	a.hears(b.says("yes?"), "yes?")
	sealed := a.says("hi")
	if h, err := ReadHeader(sealed); err != nil || h.Init || h.Account != a.party.Account || h.Device != a.party.Device || len(sealed) != 256 {
		t.Fatalf("header %+v of %d bytes, %v", h, len(sealed), err)
	}
}

func TestConcurrentInitiation(t *testing.T) {
	for seed := range uint64(8) { // either side has the smaller key in some
		a, b := pair(t, 100+seed)
		ida, idb := a.start(b), b.start(a)
		fromA, fromB := a.says("a1"), b.says("b1")
		a.hears(fromB, "b1")
		crossed := a.says("a2") // a has chosen already, b has not
		b.hears(crossed, "a2")
		b.hears(fromA, "a1")
		if a.sealing().id() != b.sealing().id() {
			t.Fatalf("seed %d: a seals on %x, b on %x", seed, a.sealing().id(), b.sealing().id())
		}
		small := a.find(ida).ephemeral
		if other := a.find(idb).ephemeral; bytes.Compare(other[:], small[:]) < 0 {
			small = other
		}
		if a.sealing().ephemeral != small {
			t.Errorf("seed %d: the larger ephemeral key was chosen", seed)
		}
		for i := range 4 {
			b.hears(a.says(fmt.Sprint(i)), fmt.Sprint(i))
			a.hears(b.says(fmt.Sprint(i)), fmt.Sprint(i))
		}
	}
}

func TestRestartWinsOverWhatItReplaces(t *testing.T) {
	for seed := range uint64(8) {
		a, b := talking(t, 200+seed)
		old := a.sealing().id()
		late := b.says("sent before")
		id := a.start(b)
		opened := b.hears(a.says("again"), "again")
		if !opened.Started || len(opened.Replaced) != 1 || opened.Replaced[0] != old {
			t.Fatalf("opened %+v", opened)
		}
		if b.sealing().id() != id {
			t.Fatal("the other side still seals on the replaced session")
		}
		a.hears(late, "sent before") // replaced sessions still open
		a.hears(b.says("fine"), "fine")
	}
}

// The replaced session may arrive after the one that replaces it.
func TestReplacedSessionArrivesLate(t *testing.T) {
	for seed := range uint64(8) {
		a, b := pair(t, 300+seed)
		a.start(b)
		first := a.says("one")
		id := a.start(b)
		b.hears(a.says("two"), "two")
		b.hears(first, "one")
		if b.sealing().id() != id {
			t.Fatal("the replaced session is used")
		}
	}
}

func TestLostStateHeals(t *testing.T) {
	for seed := range uint64(8) {
		a, b := talking(t, 400+seed)
		a.Set = NewSet(a.self, a.peer)
		a.refuses(b.says("lost on you"), ErrUnknownSession)
		if !a.NeedsRestart() {
			t.Fatal("no restart is due after a message of an unknown session")
		}
		a.start(b)
		if a.NeedsRestart() {
			t.Error("a restart is due right after one")
		}
		opened := b.hears(a.says(""), "")
		if len(opened.Replaced) != 1 {
			t.Fatalf("the lost session was not replaced: %+v", opened)
		}
		a.hears(b.says("lost on you"), "lost on you")
	}
}

func TestRolledBackStateHeals(t *testing.T) {
	a, b := talking(t, 3)
	stored := a.Marshal()
	for range 3 {
		b.hears(a.says("x"), "x")
	}
	a.restore(stored)
	for i := range FailuresBeforeRestart {
		if b.NeedsRestart() != false {
			t.Fatalf("a restart is due after %d failures", i)
		}
		b.refuses(a.says("reused number"), ErrUndecryptable)
	}
	if !b.NeedsRestart() {
		t.Fatal("no restart is due")
	}
	b.start(a)
	if opened := a.hears(b.says(""), ""); len(opened.Replaced) != 1 {
		t.Fatalf("opened %+v", opened)
	}
	b.hears(a.says("new number"), "new number")
	a.hears(b.says("good"), "good")
}

// A state that went back must not encrypt twice under one key and nonce.
func TestRolledBackStateReusesNoKeystream(t *testing.T) {
	a, b := talking(t, 4)
	b.hears(a.says("x"), "x") // the ratchet key is made before the copy is
	stored := a.Marshal()
	first := a.says(strings.Repeat("p", 50))
	a.restore(stored)
	second := a.says(strings.Repeat("p", 50))
	ma, err := parseSealed(first)
	if err != nil {
		t.Fatal(err)
	}
	mb, err := parseSealed(second)
	if err != nil {
		t.Fatal(err)
	}
	if ma.at != mb.at {
		t.Fatal("the two messages have different keys: nothing is tested")
	}
	if ma.nonce == mb.nonce || bytes.Equal(ma.ciphertext, mb.ciphertext) {
		t.Error("nonce or ciphertext repeats")
	}
	b.hears(second, strings.Repeat("p", 50))
}

func TestOpeningAnythingEndsTheFailures(t *testing.T) {
	a, b := talking(t, 5)
	for range 2 * FailuresBeforeRestart {
		bad := a.says("x")
		bad[len(bad)-1] ^= 1
		b.refuses(bad, ErrUndecryptable)
		b.refuses(bad, ErrUndecryptable)
		if b.NeedsRestart() {
			t.Fatal("a restart is due after two failures")
		}
		b.hears(a.says("y"), "y")
	}
}

func TestUnknownPrekeyAsksForARestart(t *testing.T) {
	a, b := pair(t, 6)
	id := a.start(b)
	first := a.says("too late")
	kept := b.secrets.Prekeys
	b.secrets.Prekeys = nil
	b.refuses(first, ErrUnknownPrekey)
	b.secrets.Prekeys = kept
	if !b.NeedsRestart() {
		t.Fatal("no restart is due")
	}
	b.start(a)
	opened := a.hears(b.says(""), "")
	if len(opened.Replaced) != 1 || opened.Replaced[0] != id {
		t.Errorf("opened %+v", opened)
	}
}

func TestOneTimeKeyServesOnce(t *testing.T) {
	a, b := pair(t, 7)
	if _, err := a.Initiate(rand.Reader, a.secrets, b.bundleWithOneTime()); err != nil {
		t.Fatal(err)
	}
	first := a.says("once")
	opened := b.hears(first, "once")
	delete(b.secrets.OneTime, *opened.OneTime)
	b.Set = NewSet(b.self, b.peer)
	b.refuses(first, ErrUnknownPrekey)
}

func TestFourthSessionEvicts(t *testing.T) {
	a, b := pair(t, 8)
	var firsts [][]byte
	var ids []SessionID
	for i := range MaxSessions + 1 {
		ids = append(ids, a.start(b))
		firsts = append(firsts, a.says(fmt.Sprint(i)))
	}
	for i, sealed := range firsts {
		b.hears(sealed, fmt.Sprint(i))
	}
	if len(b.sessions) != MaxSessions || b.Holds(ids[0]) || !b.Holds(ids[1]) || b.sealing().id() != ids[3] {
		t.Fatalf("holds %d sessions", len(b.sessions))
	}
	// The init part still works, but the session has been: a replay must not begin it again.
	b.recent = nil
	b.refuses(firsts[0], ErrUnknownSession)
	b.reload()
	b.refuses(firsts[0], ErrUnknownSession)
	if b.NeedsRestart() {
		t.Error("a replay of an ended session makes a restart due at once")
	}
}

func TestEvictionSparesTheSealingSession(t *testing.T) {
	for seed := range uint64(30) {
		a, b := pair(t, 900+seed)
		b.start(a) // unanswered, so nothing of a's replaces it
		sealing := b.sealing()
		for range 5 {
			a.Set = NewSet(a.self, a.peer) // a forgets, and so replaces nothing
			a.start(b)
			b.hears(a.says("x"), "x")
			if now := b.sealing(); now.ephemeral != sealing.ephemeral {
				if bytes.Compare(now.ephemeral[:], sealing.ephemeral[:]) > 0 {
					t.Fatal("the sealing session gave way to one with a larger key")
				}
				sealing = now
			}
			if len(b.sessions) > MaxSessions {
				t.Fatalf("%d sessions", len(b.sessions))
			}
		}
	}
}

func TestEvictionOrder(t *testing.T) {
	for _, v := range []struct {
		name     string
		replaces [MaxSessions][]byte // what each held session names, oldest first; keys fall with age
		evicted  int
	}{
		{"oldest", [MaxSessions][]byte{}, 0},
		{"a replaced one before an older one", [MaxSessions][]byte{{2}, nil, nil}, 2},
		{"the older of two replaced", [MaxSessions][]byte{{1, 2}, nil, nil}, 1},
		{"oldest replaced", [MaxSessions][]byte{nil, {0}, {0, 1}}, 0},
	} {
		s := NewSet(Party{}, Party{})
		for i, names := range v.replaces {
			held := &session{transcript: key{byte(i)}, ephemeral: key{byte(9 - i)}}
			for _, name := range names {
				held.replaces = append(held.replaces, SessionID{name})
			}
			s.sessions = append(s.sessions, held)
		}
		s.add(&session{transcript: key{100}, ephemeral: key{0}})
		if s.Holds(SessionID{byte(v.evicted)}) || len(s.sessions) != MaxSessions || !s.Holds(SessionID{100}) {
			t.Errorf("%s: another session was evicted", v.name)
		}
	}
}

// One side knows of a session that replaces what the other seals on, and the other never hears
// of it: nothing is lost, but they talk past each other and do not heal. That has to end.
func TestTalkingPastEachOtherEnds(t *testing.T) {
	apart := 0
	for seed := range uint64(60) {
		a, b := pair(t, 700+seed)
		a.start(b)
		first := a.says("one")
		b.hears(first, "one")
		a.start(b) // and nothing is sent on it
		b.Set = NewSet(b.self, b.Set.peer)
		b.start(a)
		a.hears(b.says("two"), "two")
		b.hears(first, "one") // which b has forgotten
		if exchangeUntilAgreed(t, a, b, 2) {
			continue
		}
		apart++
		if !exchangeUntilAgreed(t, a, b, AstrayBeforeRestart+5) {
			t.Fatalf("seed %d: the two sides never come together", seed)
		}
	}
	if apart == 0 {
		t.Fatal("no seed set them apart: nothing is tested")
	}
}

// exchangeUntilAgreed lets both say something, and restart when due, until they seal on one session.
func exchangeUntilAgreed(t *testing.T, a, b *side, rounds int) bool {
	t.Helper()
	for range rounds {
		fromA, fromB := a.says("a"), b.says("b")
		for _, v := range []struct {
			to, from *side
			sealed   []byte
		}{{b, a, fromA}, {a, b, fromB}} {
			if _, err := v.to.Open(v.to.secrets, v.sealed, nil); err != nil && !errors.Is(err, ErrUnknownSession) {
				t.Fatal(err)
			}
			if v.to.NeedsRestart() {
				v.to.start(v.from)
			}
		}
		if a.sealing().id() == b.sealing().id() {
			return true
		}
	}
	return false
}

func TestDuplicatesAreNoFailures(t *testing.T) {
	a, b := talking(t, 13)
	sealed := a.says("x")
	b.hears(sealed, "x")
	for range 2 * FailuresBeforeRestart {
		b.refuses(sealed, ErrDuplicate)
	}
	if b.NeedsRestart() {
		t.Error("duplicates make a restart due")
	}
}

func TestReplayNeverOpens(t *testing.T) {
	a, b := talking(t, 9)
	var all [][]byte
	for i := range 2 * maxRecent {
		sealed := a.says("x")
		b.hears(sealed, "x")
		all = append(all, sealed)
		if i%10 == 0 {
			a.hears(b.says("y"), "y")
		}
	}
	for i, sealed := range all {
		why := ErrUndecryptable
		if i >= maxRecent {
			why = ErrDuplicate
		}
		b.refuses(sealed, why)
	}
}

func TestInitiateRefuses(t *testing.T) {
	a, b := pair(t, 10)
	c := newDevice(999)
	wrongOwner := c.bundle()
	smallOrder, badKEM, shortKEM := b.bundle(), b.bundle(), b.bundle()
	smallOrder.Prekey = [32]byte{1}
	badKEM.KEM = bytes.Repeat([]byte{0xFF}, len(badKEM.KEM)) // coefficients out of range
	shortKEM.KEM = shortKEM.KEM[1:]
	for name, f := range map[string]func() error{
		"bundle of another": func() error { _, err := a.Initiate(rand.Reader, a.secrets, wrongOwner); return err },
		"identity of another": func() error {
			_, err := a.Initiate(rand.Reader, c.secrets, b.bundle())
			return err
		},
		"prekey of small order": func() error { _, err := a.Initiate(rand.Reader, a.secrets, smallOrder); return err },
		"invalid ML-KEM key":    func() error { _, err := a.Initiate(rand.Reader, a.secrets, badKEM); return err },
		"short ML-KEM key":      func() error { _, err := a.Initiate(rand.Reader, a.secrets, shortKEM); return err },
		"no randomness": func() error {
			_, err := a.Initiate(iotest.ErrReader(io.ErrUnexpectedEOF), a.secrets, b.bundle())
			return err
		},
		"too little randomness": func() error {
			_, err := a.Initiate(io.LimitReader(rand.Reader, 40), a.secrets, b.bundle())
			return err
		},
		"itself": func() error {
			_, err := NewSet(a.party, a.party).Initiate(rand.Reader, a.secrets, a.bundle())
			return err
		},
	} {
		if err := f(); err == nil {
			t.Errorf("%s: initiated", name)
		}
	}
	if _, _, err := a.Seal(rand.Reader, nil, nil); !errors.Is(err, ErrNoSession) {
		t.Errorf("sealed with no session: %v", err)
	}
	if len(a.sessions) != 0 {
		t.Error("a failed initiation left a session")
	}
}

// A key of small order in a message must not open or change anything.
func TestSmallOrderKeysInMessages(t *testing.T) {
	a, b := pair(t, 11)
	a.start(b)
	first := a.says("x")
	for _, at := range []int{outerSize, outerSize + 32} { // identity, ephemeral
		bad := bytes.Clone(first)
		clear(bad[at : at+32])
		why := ErrUndecryptable
		if at == outerSize {
			why = ErrWrongPeer
		}
		b.refuses(bad, why)
	}
	b.hears(first, "x")
	a.hears(b.says("y"), "y")
	b.hears(a.says("z"), "z")
	b.says("sending")
	bad := a.says("x")
	clear(bad[outerSize+1 : outerSize+1+32])
	b.refuses(bad, ErrUndecryptable)
}

func TestFailedSealChangesNothing(t *testing.T) {
	a, b := talking(t, 12)
	b.hears(a.says("x"), "x") // b's next message makes a new ratchet key
	before := b.Marshal()
	for n := range int64(56) {
		if _, _, err := b.Seal(io.LimitReader(rand.Reader, n), []byte("y"), nil); err == nil {
			t.Fatalf("sealed with %d random bytes", n)
		}
	}
	if _, _, err := b.Seal(rand.Reader, make([]byte, MaxContent+1), nil); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	if _, _, err := b.Seal(rand.Reader, nil, make([]byte, MaxAD+1)); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	if !bytes.Equal(b.Marshal(), before) {
		t.Error("a failed seal changed the state")
	}
}
