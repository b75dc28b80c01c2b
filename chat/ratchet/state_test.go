package ratchet

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"
)

// states returns stored states of every shape there is, with the side they belong to.
func states(t testing.TB) (*side, map[string][]byte) {
	t.Helper()
	all := map[string][]byte{}
	a, b := pair(t, 50)
	all["empty"] = b.Marshal()
	b.start(a)
	all["initiated"] = b.Marshal()
	b.startWith(a.bundleWithOneTime())
	all["replaced, with one-time key"] = b.Marshal()
	a.start(b)
	a.says("lost")
	b.hears(a.says("x"), "x")
	all["responded, one key kept"] = b.Marshal()
	b.says("y")
	all["both chains"] = b.Marshal()
	a.hears(b.says("y"), "y")
	b.hears(a.says("x"), "x")
	all["a spent chain"] = b.Marshal()
	for range 5 {
		a.start(b)
		b.hears(a.says("x"), "x")
	}
	all["sessions evicted"] = b.Marshal()
	for i := range 10 {
		for range i {
			a.says("lost")
		}
		b.hears(a.says("x"), "x")
		a.hears(b.says("y"), "y")
	}
	all["many chains"] = b.Marshal()
	return b, all
}

func TestStateRoundTrip(t *testing.T) {
	b, all := states(t)
	for name, stored := range all {
		set, err := UnmarshalSet(b.self, b.peer, stored)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !bytes.Equal(set.Marshal(), stored) {
			t.Errorf("%s: another encoding after reading", name)
		}
		for n := 0; n < len(stored); n += 1 + n/64 {
			if _, err := UnmarshalSet(b.self, b.peer, stored[:n]); !errors.Is(err, ErrState) {
				t.Fatalf("%s: read from %d of %d bytes: %v", name, n, len(stored), err)
			}
		}
		if _, err := UnmarshalSet(b.self, b.peer, append(bytes.Clone(stored), 0)); !errors.Is(err, ErrState) {
			t.Errorf("%s: read with a byte too many: %v", name, err)
		}
	}
}

func TestStateOfAnotherContactIsRefused(t *testing.T) {
	b, all := states(t)
	other := newDevice(79).party
	for name, stored := range all {
		if _, err := UnmarshalSet(b.self, other, stored); !errors.Is(err, ErrState) {
			t.Errorf("%s: read for another peer: %v", name, err)
		}
		if _, err := UnmarshalSet(b.peer, b.self, stored); !errors.Is(err, ErrState) {
			t.Errorf("%s: read the other way round: %v", name, err)
		}
	}
}

func TestStateDoesNotReferToTheBytesRead(t *testing.T) {
	a, b := talking(t, 51)
	stored := b.Marshal()
	b.restore(stored)
	clear(stored)
	b.hears(a.says("x"), "x")
}

func TestStateSpoilt(t *testing.T) {
	b, all := states(t)
	stored := all["both chains"]
	for name, spoil := range map[string]func(*Set){
		"a session twice":              func(s *Set) { s.sessions[1] = s.sessions[0] },
		"too many sessions":            func(s *Set) { s.sessions = append(s.sessions, s.sessions...) },
		"a replaced id twice":          func(s *Set) { s.sessions[0].replaces = make([]SessionID, 2) },
		"too many replaced ids":        func(s *Set) { s.sessions[0].replaces = make([]SessionID, maxReplaces+1) },
		"too many kept keys":           func(s *Set) { s.sessions[0].kept = make([]keptKey, MaxKept+1) },
		"too many ended":               func(s *Set) { s.ended = make([]fingerprint, maxEnded+1) },
		"too many nonces":              func(s *Set) { s.recent = make([]fingerprint, maxRecent+1) },
		"receipts beyond the limit":    func(s *Set) { s.sessions[0].own, s.sessions[0].receipts = nil, MaxReceipts+1 },
		"spent and not spent":          func(s *Set) { s.sessions[0].receipts = 1 },
		"another public key":           func(s *Set) { s.sessions[0].ownPublic[0] ^= 1 },
		"init without a sending chain": func(s *Set) { s.sessions[0].init, s.sessions[0].own = &initPart{}, nil },
	} {
		set, err := UnmarshalSet(b.self, b.peer, stored)
		if err != nil {
			t.Fatal(err)
		}
		if set.sessions[0].own == nil {
			t.Fatal("the first session has no sending chain")
		}
		spoil(set)
		if _, err := UnmarshalSet(b.self, b.peer, set.Marshal()); !errors.Is(err, ErrState) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, at := range map[string]int{"version": 0, "binding": 1, "session count": 33, "session flags": 35} {
		bad := bytes.Clone(stored)
		bad[at] ^= 0x80
		if _, err := UnmarshalSet(b.self, b.peer, bad); !errors.Is(err, ErrState) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A stored state stays small while messages come in order.
func TestStateSize(t *testing.T) {
	a, b := talking(t, 52)
	for range 1000 {
		b.hears(a.says("x"), "x")
	}
	if n := len(b.Marshal()); n > 1400 {
		t.Errorf("%d bytes of state for one session in order", n)
	}
	for range MaxSkip {
		a.says("lost")
	}
	b.hears(a.says("x"), "x")
	if n := len(b.Marshal()); n > 1400+keptSize*MaxSkip {
		t.Errorf("%d bytes of state with %d keys kept", n, MaxSkip)
	}
}

func ExampleSet() {
	da, db := newDevice(1), newDevice(2)
	alice, bob := NewSet(da.party, db.party), NewSet(db.party, da.party)

	if _, err := alice.Initiate(rand.Reader, da.secrets, db.bundle()); err != nil {
		fmt.Println(err)
		return
	}
	sealed, _, err := alice.Seal(rand.Reader, []byte("hello"), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	// alice.Marshal() and sealed go to disk in one transaction; then sealed is sent.
	opened, err := bob.Open(db.secrets, sealed, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	// bob.Marshal() and the message go to disk in one transaction; then bob acknowledges.
	fmt.Printf("%s, new session: %v\n", opened.Content, opened.Started)
	// Output: hello, new session: true
}
