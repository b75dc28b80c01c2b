package sync

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func newTestReconciler(items []Item, budget int) *reconciler {
	return &reconciler{
		hash: newHasher(Nonce{1}, Nonce{2}, fullMask), items: items, budget: budget,
		floor: Item{}, cut: Item{Time: timeOf(maxMilli, 0)},
	}
}

// runRounds lets two reconcilers answer each other to the end and checks what every frame costs.
func runRounds(t rapidTB, responder, initiator *reconciler) (rounds int) {
	budgets := [2]int{responder.budget, initiator.budget}
	var sent [2]int
	frames := responder.opening()
	sides := [2]*reconciler{responder, initiator}
	for from := 0; len(frames) > 0; from = 1 - from {
		rounds++
		var answer [][]byte
		var over bool
		for i, f := range frames {
			if sent[from] += len(f); len(f) > MaxFrame || sent[from] > budgets[from] {
				t.Fatalf("frame of %d B, %d B sent of %d allowed", len(f), sent[from], budgets[from])
			}
			m := new(round)
			if err := m.decode(cutLength(f)[1:]); err != nil {
				t.Fatal(err)
			}
			if m.more == (i == len(frames)-1) {
				t.Fatal("more is wrong")
			}
			var fault *Misbehaviour
			if answer, over, fault = sides[1-from].receive(m); fault != nil {
				t.Fatal(fault)
			}
		}
		if over && len(answer) > 0 {
			sent[1-from] += len(answer[0])
			for _, f := range answer { // closed: it is taken and not answered
				m := new(round)
				if err := m.decode(cutLength(f)[1:]); err != nil {
					t.Fatal(err)
				}
				if again, over, fault := sides[from].receive(m); again != nil || fault != nil || over == m.more {
					t.Fatalf("a closed round was answered: %v, %v", over, fault)
				}
			}
			return rounds + 1
		}
		frames = answer
	}
	return rounds
}

// missing are the short ids, sorted, of what other holds and r lacks.
func missing(r, other *reconciler) []uint64 {
	var shorts []uint64
	for i := range other.items {
		if _, found := slices.BinarySearchFunc(r.items, other.items[i], Item.Compare); !found {
			shorts = append(shorts, r.hash.short(&other.items[i].ID))
		}
	}
	slices.Sort(shorts)
	return shorts
}

// checkWants compares what a reconciler wants with what it misses, and the claims behind the wants with what
// the other side holds.
func checkWants(t rapidTB, r, other *reconciler, exact bool) {
	var wants []uint64
	for i, w := range r.wants {
		if i > 0 && r.wants[i-1].number >= w.number {
			t.Fatal("wants do not ascend")
		}
		item, ok := other.claimedItem(w.number)
		if !ok || other.hash.short(&item.ID) != w.short {
			t.Fatalf("claim %d stands for something else", w.number)
		}
		wants = append(wants, w.short)
	}
	slices.Sort(wants)
	truth := missing(r, other)
	if exact && !slices.Equal(wants, truth) {
		t.Fatalf("wants %d ids, misses %d", len(wants), len(truth))
	}
	for _, w := range slices.Compact(wants) {
		if _, found := slices.BinarySearch(truth, w); !found {
			t.Fatal("wants what it has")
		}
	}
	if n := len(slices.Compact(wants)); n != len(r.wants) {
		t.Fatalf("wants %d ids %d times", n, len(r.wants))
	}
}

// drawItems draws two sets with much in common, with crowds at one reading of the clock whose ids share
// long prefixes.
func drawItems(t *rapid.T) (a, b []Item) {
	at := uint64(0)
	for i := range rapid.IntRange(0, 400).Draw(t, "items") {
		at += rapid.SampledFrom([]uint64{0, 0, 0, 1, 1000}).Draw(t, "gap")
		id := ID(sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i))))
		copy(id[:rapid.SampledFrom([]int{0, 1, 5, 28}).Draw(t, "prefix")], make([]byte, 32))
		item := Item{timeOf(at, rapid.SampledFrom([]uint16{0, 0, 1, 65535}).Draw(t, "counter")), id}
		switch rapid.IntRange(0, 9).Draw(t, "who") {
		case 0:
			a = append(a, item)
		case 1:
			b = append(b, item)
		default:
			a, b = append(a, item), append(b, item)
		}
	}
	slices.SortFunc(a, Item.Compare)
	slices.SortFunc(b, Item.Compare)
	return a, b
}

func TestRoundsFindExactlyTheDifference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawItems(t)
		ra, rb := newTestReconciler(a, MaxReconcile), newTestReconciler(b, MaxReconcile)
		if n := runRounds(t, ra, rb); n > MaxRounds {
			t.Fatalf("%d rounds", n)
		}
		if ra.partial || rb.partial {
			t.Fatal("partial without need")
		}
		checkWants(t, ra, rb, true)
		checkWants(t, rb, ra, true)
	})
}

func TestRoundsKeepToTheirBudget(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawItems(t)
		budget := rapid.IntRange(64, 4000)
		ra, rb := newTestReconciler(a, budget.Draw(t, "budget")), newTestReconciler(b, budget.Draw(t, "budget"))
		runRounds(t, ra, rb)
		exact := !ra.partial && !rb.partial
		checkWants(t, ra, rb, exact)
		checkWants(t, rb, ra, exact)
	})
}

// A large set with differences everywhere needs frames of more than 1,024 ranges, and of more than 64 KiB.
func TestRoundsOfManyFrames(t *testing.T) {
	all := benchItems(60_000)
	for _, every := range []int{2, 20} {
		var some []Item
		for i, item := range all {
			if i%every != 0 {
				some = append(some, item)
			}
		}
		ra, rb := newTestReconciler(some, MaxReconcile), newTestReconciler(all, MaxReconcile)
		runRounds(t, ra, rb)
		if ra.partial || rb.partial {
			t.Error("partial without need")
		}
		checkWants(t, ra, rb, true)
		checkWants(t, rb, ra, true)
	}
}
