package sync

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// drawNodes makes nodes that hold parts of one history with holes anywhere, over days, with bursts in
// one millisecond and at one reading of the clock; some are mirrors, some keep only stubs of something.
func drawNodes(t *rapid.T, n int) []*node {
	nodes := make([]*node, n)
	for i := range nodes {
		nodes[i] = newNode(fmt.Sprintf("node %d", i))
	}
	nodes[n-1].mirror = n > 2 && rapid.Bool().Draw(t, "a mirror")
	at := uint64(testStart)
	for i := range rapid.IntRange(0, 150).Draw(t, "events") {
		at += rapid.SampledFrom([]uint64{0, 0, 1, 30_000, 3_600_000, dayMillis}).Draw(t, "gap")
		record := makeRecord(timeOf(at, rapid.Uint16Range(0, 2).Draw(t, "counter")), fmt.Appendf(nil, "event %d", i))
		holders := rapid.IntRange(1, 1<<n-1).Draw(t, "holders")
		for j, node := range nodes {
			if holders>>j&1 == 1 {
				node.add(record)
			} else if rapid.IntRange(0, 20).Draw(t, "refuse") == 0 {
				item, _ := openRecord(record)
				node.refuse[item.ID] = true
			}
		}
	}
	return nodes
}

// convergePairwise syncs all pairs, often enough for everything to travel anywhere, and compares.
func convergePairwise(t *rapid.T, nodes []*node) {
	for range 2 {
		for i, a := range nodes {
			for _, b := range nodes[i+1:] {
				ra, rb, _ := syncNodes(t, a, b, nil)
				mustFinish(t, ra, rb)
				if ra.Unavailable == 0 && rb.Unavailable == 0 {
					mustBeEqual(t, a, b)
				}
			}
		}
	}
	for _, n := range nodes[1:] {
		mustBeEqual(t, nodes[0], n)
	}
}

func TestNodesConvergeThroughCutSessions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := drawNodes(t, rapid.IntRange(2, 6).Draw(t, "nodes"))
		for range rapid.IntRange(0, 12).Draw(t, "cut sessions") {
			a := rapid.SampledFrom(nodes).Draw(t, "a")
			b := rapid.SampledFrom(nodes).Draw(t, "b")
			if a == b {
				continue
			}
			var pages *Pages
			if rapid.IntRange(0, 4).Draw(t, "with pages") == 0 {
				pages = &Pages{Events: rapid.IntRange(1, 300).Draw(t, "events")}
			}
			k := &link{
				a: &endpoint{node: a, session: a.initiate(b.name, pages)}, b: &endpoint{node: b, session: b.respond(a.name)},
				cutAfter: rapid.IntRange(0, 12).Draw(t, "frames until the cut"),
			}
			before := a.set.Len() + b.set.Len()
			if err := k.run(); err != nil {
				t.Fatal(err)
			}
			ra, rb := k.a.session.Report(), k.b.session.Report()
			for _, r := range []Report{ra, rb} {
				if r.End != EndCut && r.End != EndFinished {
					t.Fatalf("an honest session ended with %d: %v", r.End, r.Fault)
				}
			}
			if got := a.set.Len() + b.set.Len() - before; got != ra.Accepted+ra.Refused+rb.Accepted+rb.Refused {
				t.Fatalf("sets grew by %d, reports say %d+%d and %d+%d", got, ra.Accepted, ra.Refused, rb.Accepted, rb.Refused)
			}
		}
		convergePairwise(t, nodes)
	})
}

// Two ids with the same short id hide each other, but only in one session: the next one has another key.
func TestShortIDCollisionsHealInLaterSessions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := drawNodes(t, 2)
		for _, n := range nodes {
			n.mask, n.refuse = 0x3f, map[ID]bool{}
		}
		a, b := nodes[0], nodes[1]
		for range 200 {
			ra, rb, _ := syncNodes(t, a, b, nil)
			mustFinish(t, ra, rb)
			if ra.Equal {
				mustBeEqual(t, a, b)
				return
			}
		}
		t.Fatalf("sets of %d and %d items never became equal", a.set.Len(), b.set.Len())
	})
}

// A session whose bytes come one at a time does the same.
func TestBytesMayComeInAnyPieces(t *testing.T) {
	a, b := newNode("a"), newNode("b")
	a.addAll(history("a", 50, 3000))
	b.addAll(history("b", 60, 3000))
	ea, eb := &endpoint{node: a, session: a.initiate("b", nil)}, &endpoint{node: b, session: b.respond("a")}
	for from, to := ea, eb; !ea.over || !eb.over; from, to = to, from {
		if err := from.work(); err != nil {
			t.Fatal(err)
		}
		for _, f := range from.frames {
			for i := range f {
				if err := to.take(f[i : i+1]); err != nil {
					t.Fatal(err)
				}
			}
		}
		from.frames = nil
	}
	mustFinish(t, ea.session.Report(), eb.session.Report())
	mustBeEqual(t, a, b)
}
