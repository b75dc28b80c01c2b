package sync

import (
	"testing"
)

// The budgets of docs/spec/sync.md for a room of 10,000 events, in bytes of whole frames.
func TestBudgets(t *testing.T) {
	const total, size = 10_000, 300
	all := history("x", total, size)
	partition := func(n int, who string) [][]byte {
		// Both sides talked during the same hours.
		return historyAt(who, n, size, testStart+total*30_000, 60_000)
	}
	for _, c := range []struct {
		name      string
		a, b      [][]byte
		reconcile int // bytes of Summary, Round, Done of both sides
		besides   int // all bytes but records
		flights   int // one-way trips after the Hellos
	}{
		{"nothing missing", all, all, 64, 1000, 3},                     // Summary, Round and Done, Done
		{"10 newest missing here", all[:total-10], all, 1500, 1500, 5}, // two round trips, then Done
		{"10 newest missing there", all, all[:total-10], 1500, 1500, 6},
		{"1000 newest missing here", all[:total-1000], all, 12_000, 12_000, 14},
		{"1000 newest missing there", all, all[:total-1000], 12_000, 12_000, 14},
		{
			"partition of 463 and 537",
			append(all[:total:total], partition(463, "a")...), append(all[:total:total], partition(537, "b")...),
			16_000, 16_000, 14,
		},
		{"one of 10,000 missing in the middle", append(all[:4000:4000], all[4001:]...), all, 2000, 2500, 12},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := newNode("12D3KooWAlice"), newNode("12D3KooWBobby")
			a.addAll(c.a)
			b.addAll(c.b)
			ra, rb, l := syncNodes(t, a, b, nil)
			mustFinish(t, ra, rb)
			mustBeEqual(t, a, b)
			sum := func(f func(Traffic) int) int { return f(ra.Sent) + f(rb.Sent) }
			reconcile := sum(func(t Traffic) int { return t.Reconcile })
			records := sum(func(t Traffic) int { return t.Records })
			besides := sum(Traffic.Total) - records
			flights := l.flights - 2
			t.Logf("hello %d, reconcile %d, requests %d, records %d (%d fetched), all %d B; rounds %d, flights %d",
				sum(func(t Traffic) int { return t.Hello }), reconcile, sum(func(t Traffic) int { return t.Requests }),
				records, ra.Accepted+rb.Accepted, sum(Traffic.Total), ra.Rounds, flights)
			if reconcile > c.reconcile || besides > c.besides || flights > c.flights {
				t.Errorf("reconcile %d B, besides records %d B, %d flights; budget %d, %d, %d",
					reconcile, besides, flights, c.reconcile, c.besides, c.flights)
			}
		})
	}
}

// Catching up costs little more than what is missing: row 12 of docs/performance.md.
func TestCatchUpBytes(t *testing.T) {
	const total, size = 10_000, 300
	all := history("x", total, size)
	payload := 0
	for _, r := range all {
		payload += len(r)
	}
	for _, c := range []struct {
		name  string
		pages *Pages
	}{{"reconciled", nil}, {"in pages", &Pages{Events: total}}} {
		a, b := newNode("a"), newNode("b")
		b.addAll(all)
		ra, rb, l := syncNodes(t, a, b, c.pages)
		mustFinish(t, ra, rb)
		mustBeEqual(t, a, b)
		moved := ra.Sent.Total() + rb.Sent.Total()
		t.Logf("%s: %d B for %d B of records, %.3f times, %d flights", c.name, moved, payload, float64(moved)/float64(payload), l.flights)
		if float64(moved) > 1.15*float64(payload) {
			t.Errorf("%s: %d B for %d B of records", c.name, moved, payload)
		}
	}
}
