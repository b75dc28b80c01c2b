package ratchet

import (
	"bytes"
	"fmt"
	"testing"
)

// capture is a Sealed DM as somebody has it who recorded the wire.
type capture struct {
	from   *side
	sealed []byte
	text   string
}

// converse exchanges messages in runs of changing length, some of them late, and returns all.
func converse(a, b *side, rounds int, tag string) []capture {
	var all []capture
	for i := range rounds {
		from, to := a, b
		if i%2 == 1 {
			from, to = b, a
		}
		var run []capture
		for j := range 1 + i%3 {
			text := fmt.Sprint(tag, " ", i, " ", j)
			run = append(run, capture{from, from.says(text), text})
		}
		for j := range run { // backwards: keys are kept and used up again
			c := run[len(run)-1-j]
			to.hears(c.sealed, c.text)
		}
		all = append(all, run...)
	}
	return all
}

// cannotOpen checks that a thief's copy of one side opens none of the captures.
func cannotOpen(t *testing.T, thief *side, captures []capture) {
	t.Helper()
	thief.recent = nil
	thief.secrets = &Secrets{Identity: thief.secrets.Identity} // prekeys that served are erased
	for _, c := range captures {
		if c.from.party == thief.party {
			continue // see TestOldKeysLeaveTheState
		}
		if opened, err := thief.Open(thief.secrets, c.sealed, nil); err == nil {
			t.Fatalf("a later snapshot opens %q", opened.Content)
		}
	}
}

func TestForwardSecrecy(t *testing.T) {
	a, b := talking(t, 30)
	captures := converse(a, b, 20, "early")
	for range 4 { // whatever side sent last
		for _, s := range []*side{a, b} {
			cannotOpen(t, s.stolen(), captures)
		}
		captures = append(captures, converse(a, b, 1, "more")...)
		captures = append(captures, converse(b, a, 1, "more")...)
	}
}

// What opened a message, and what led to it, is not in the stored state any more: neither message
// keys, nor chain keys, nor root keys, nor ratchet keys of chains that ended.
func TestOldKeysLeaveTheState(t *testing.T) {
	a, b := pair(t, 31)
	a.start(b)
	old := map[*side]map[key]string{a: {}, b: {}}
	remember := func(s *side) {
		held := s.sealing()
		if held == nil {
			return
		}
		old[s][held.root] = "root key"
		old[s][held.sendChain] = "sending chain key"
		old[s][held.recvChain] = "receiving chain key"
		for _, chain := range []key{held.sendChain, held.recvChain} {
			message, _ := advance(chain)
			old[s][message] = "message key"
		}
		if held.own != nil {
			old[s][key(held.own.Bytes())] = "ratchet key"
		}
		delete(old[s], key{})
	}
	b.hears(a.says("begin"), "begin")
	for i := range 30 {
		remember(a)
		remember(b)
		captures := converse(a, b, 2+i%2, "x")
		if len(captures) == 0 {
			t.Fatal("nothing was said")
		}
	}
	// Two more turns, so that each side has stepped past everything remembered.
	converse(a, b, 4, "last")
	for s, secrets := range old {
		if len(secrets) < 50 {
			t.Fatalf("only %d secrets were seen", len(secrets))
		}
		stored := s.Marshal()
		for secret, what := range secrets {
			if bytes.Contains(stored, secret[:]) {
				t.Errorf("an old %s is still in the state", what)
			}
		}
	}
}

func TestHealing(t *testing.T) {
	for _, victim := range []string{"a", "b"} {
		t.Run("stolen from "+victim, func(t *testing.T) {
			a, b := talking(t, 32)
			if victim == "b" {
				a, b = b, a
			}
			converse(a, b, 5, "before")
			thief := a.stolen() // and goes on reading along
			readable := b.says("still readable")
			thief.hears(readable, "still readable") // or the test would prove nothing
			a.hears(readable, "still readable")
			// One round trip: a sends on a key made after the theft, b answers it.
			b.hears(a.says("round"), "round")
			captures := []capture{{b, b.says("trip"), "trip"}}
			a.hears(captures[0].sealed, "trip")
			captures = append(captures, converse(a, b, 10, "after")...)
			cannotOpen(t, thief, captures)
			// Nor can the thief speak for a any more.
			forged, _, err := thief.Seal(thief.random, []byte("forged"), nil)
			if err != nil {
				t.Fatal(err)
			}
			b.refuses(forged, ErrUndecryptable)
		})
	}
}

// Receipts save the key agreement, but not for ever: a conversation in which one side only
// acknowledges heals too.
func TestHealingByReceiptsAlone(t *testing.T) {
	for _, victim := range []string{"who talks", "who acknowledges"} {
		t.Run("stolen from the one "+victim, func(t *testing.T) {
			a, b := talking(t, 35)
			exchange := func() capture {
				b.hears(a.says("news"), "news")
				sealed, _, err := b.SealReceipt(b.random, []byte("got it"), nil)
				if err != nil {
					t.Fatal(err)
				}
				a.hears(sealed, "got it")
				return capture{b, sealed, "got it"}
			}
			exchange()
			thief := a.stolen()
			if victim == "who acknowledges" {
				thief = b.stolen()
			}
			// Twice the run of receipts, and the two exchanges in which the new keys go round.
			for range 2*MaxReceipts + 2 {
				exchange()
			}
			later := capture{a, a.says("later"), "later"}
			b.hears(later.sealed, later.text)
			cannotOpen(t, thief, []capture{later, exchange()})
		})
	}
}

// A receipt takes no new key while the chain lasts, and any other message does.
func TestReceiptsGoOnWithTheChain(t *testing.T) {
	a, b := talking(t, 36)
	b.hears(a.says("x"), "x") // b's chain is spent
	keyOf := func(sealed []byte) key {
		m, err := parseSealed(sealed)
		if err != nil {
			t.Fatal(err)
		}
		return m.at.key
	}
	receipt := func() []byte {
		sealed, _, err := b.SealReceipt(b.random, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		a.hears(sealed, "")
		return sealed
	}
	first := keyOf(receipt())
	for range MaxReceipts - 1 {
		b.reload()
		if keyOf(receipt()) != first {
			t.Fatal("a receipt took a new key")
		}
	}
	second := keyOf(receipt())
	if second == first {
		t.Fatalf("more than %d receipts on a spent chain", MaxReceipts)
	}
	b.hears(a.says("y"), "y")
	if keyOf(receipt()) != second {
		t.Error("a receipt took a new key")
	}
	said := b.says("content")
	if keyOf(said) == second {
		t.Error("content went on with a spent chain")
	}
	a.hears(said, "content")
	if keyOf(receipt()) != keyOf(said) {
		t.Error("a receipt does not follow on the new chain")
	}
}

// While a thief holds a fresh copy it can read what the victim could: the tests above would
// also pass if nothing ever opened for anybody but the owner.
func TestSnapshotOpensWhatIsStillToCome(t *testing.T) {
	a, b := talking(t, 33)
	thief := b.stolen()
	for i := range 5 {
		thief.hears(a.says(fmt.Sprint(i)), fmt.Sprint(i))
	}
}

// Two messages of one content have nothing in common but the header.
func TestCiphertextsDiffer(t *testing.T) {
	a, b := talking(t, 34)
	b.hears(a.says("x"), "x")
	seen := map[string]bool{}
	for range 100 {
		sealed := a.says("x")
		tail := string(sealed[outerSize+1+32+8:])
		if seen[tail[:24]] || seen[tail[24:]] {
			t.Fatal("a nonce or ciphertext repeats")
		}
		seen[tail[:24]], seen[tail[24:]] = true, true
	}
}
