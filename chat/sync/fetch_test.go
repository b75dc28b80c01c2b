package sync

import (
	"slices"
	"testing"
)

// A newcomer fetches pages, newest first, and knows for which stretch it is complete.
func TestPages(t *testing.T) {
	all := history("x", 1000, 100)
	for _, c := range []struct {
		name   string
		pages  Pages
		items  int
		end    bool
		before int // index in all of the first record above the bound
	}{
		{"newest", Pages{Events: 450}, 450, false, 1000},
		{"everything", Pages{Events: 5000}, 1000, true, 1000},
		{"exactly everything", Pages{Events: 1000}, 1000, true, 1000},
		{"scroll back", Pages{Events: 50}, 50, false, 600},
		{"nothing older", Pages{Events: 50}, 0, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := newNode("a"), newNode("b")
			b.addAll(all)
			if c.before < len(all) {
				c.pages.Before, _ = openRecord(all[c.before])
			}
			ra, rb, l := syncNodes(t, a, b, &c.pages)
			mustFinish(t, ra, rb)
			if ra.Accepted != c.items || ra.PageEnd != c.end || rb.Served != c.items {
				t.Fatalf("fetched %d, end %v", ra.Accepted, ra.PageEnd)
			}
			want := all[c.before-c.items : c.before]
			for _, r := range want {
				if item, _ := openRecord(r); !a.set.Has(item) {
					t.Fatal("the newest are not there")
				}
			}
			if len(ra.Complete) != 1 && c.items > 0 {
				t.Fatalf("complete: %v", ra.Complete)
			}
			if c.items > 0 {
				oldest, _ := openRecord(want[0])
				got := ra.Complete[0]
				if c.end && got.From != 0 || !c.end && got.From != oldest.Time+1 {
					t.Errorf("complete from %d, oldest %d", got.From, oldest.Time)
				}
			}
			if rb.PeerCount != 0 || ra.Rounds != 0 {
				t.Error("pages reconciled")
			}
			if pages := (c.items + MaxPage - 1) / MaxPage; l.flights > 2*pages+6 {
				t.Errorf("%d flights for %d pages", l.flights, pages)
			}
		})
	}
}

// A page of large records takes several batches.
func TestPagesOfLargeRecords(t *testing.T) {
	a, b := newNode("a"), newNode("b")
	b.addAll(history("big", 15, 60_000))
	ra, rb, _ := syncNodes(t, a, b, &Pages{Events: 100})
	mustFinish(t, ra, rb)
	mustBeEqual(t, a, b)
	if !ra.PageEnd || !slices.Equal(ra.Complete, []Interval{{0, ra.Cut}}) {
		t.Errorf("end %v, complete %v", ra.PageEnd, ra.Complete)
	}
}

// A record that got too large into a store must not make its holder a liar.
func TestOversizedRecordsAreUnavailable(t *testing.T) {
	a, b := newNode("a"), newNode("b")
	b.addAll(append(history("x", 3, 20), makeRecord(timeOf(testStart, 9), make([]byte, MaxRecord))))
	ra, rb, _ := syncNodes(t, a, b, nil)
	mustFinish(t, ra, rb)
	if ra.Accepted != 3 || ra.Unavailable != 1 {
		t.Errorf("accepted %d, unavailable %d", ra.Accepted, ra.Unavailable)
	}
}

// Stubs in a page interrupt what is known to be complete, but not the paging.
func TestPagesOverStubs(t *testing.T) {
	all := history("x", 900, 20)
	a, b := newNode("a"), newNode("b")
	b.addAll(all)
	for _, r := range all[300:550] {
		item, _ := openRecord(r)
		delete(b.records, item.ID)
	}
	ra, rb, _ := syncNodes(t, a, b, &Pages{Events: 900})
	mustFinish(t, ra, rb)
	if ra.Accepted != 650 || ra.Unavailable != 250 || !ra.PageEnd {
		t.Fatalf("fetched %d, unavailable %d", ra.Accepted, ra.Unavailable)
	}
	at := func(i int) Time { item, _ := openRecord(all[i]); return item.Time }
	// Pages are 900-700, 700-500, 500-300, 300-100, 100-0: the second and third hold stubs.
	want := []Interval{{at(700) + 1, ra.Cut}, {0, at(300)}}
	if !slices.Equal(ra.Complete, want) {
		t.Errorf("complete %v, want %v", ra.Complete, want)
	}
}

func TestUnavailableRecordsLeaveTheWindowIncomplete(t *testing.T) {
	all := history("x", 50, 20)
	a, b, c := newNode("a"), newNode("b"), newNode("c")
	a.addAll(all[:40])
	b.addAll(all)
	c.addAll(all)
	item, _ := openRecord(all[45])
	delete(b.records, item.ID)
	ra, rb, _ := syncNodes(t, a, b, nil)
	mustFinish(t, ra, rb)
	if ra.Accepted != 9 || ra.Unavailable != 1 || len(ra.Complete) != 0 || ra.Strike() {
		t.Fatalf("%+v", ra)
	}
	if rc, rb, _ := syncNodes(t, c, b, nil); !rc.Equal || !rb.Equal {
		t.Error("a stub does not count in the set")
	}
	if ra, _, _ := syncNodes(t, a, c, nil); ra.Accepted != 1 || len(ra.Complete) != 1 {
		t.Errorf("the other peer did not help: %+v", ra)
	}
}

// What limits leave out, later sessions bring: no limit loses anything.
func TestLimitsOnlyPostpone(t *testing.T) {
	for _, c := range []struct {
		name        string
		a, b        [][]byte
		maxSessions int
	}{
		{"12 MiB of large records one way", nil, history("big", 200, 60_000), 3},
		{"10 MiB each way", history("biga", 170, 60_000), historyAt("bigb", 170, 60_000, testStart+1, 30_000), 3},
		{"largest records", history("max", 8, MaxRecord-16), nil, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := newNode("a"), newNode("b")
			a.addAll(c.a)
			b.addAll(c.b)
			for i := range c.maxSessions {
				ra, rb, _ := syncNodes(t, a, b, nil)
				mustFinish(t, ra, rb)
				last := i == c.maxSessions-1
				if !ra.Partial && !rb.Partial {
					break
				}
				if last {
					t.Fatalf("still partial after %d sessions", c.maxSessions)
				}
				if len(ra.Complete)+len(rb.Complete) > 0 {
					t.Error("a partial session calls itself complete")
				}
			}
			mustBeEqual(t, a, b)
		})
	}
}

// 150,000 ids do not fit into the reconciliation budget of one session.
func TestTheRoundBudgetOnlyPostpones(t *testing.T) {
	if testing.Short() {
		t.Skip("150,000 records")
	}
	a, b := newNode("a"), newNode("b")
	b.addAll(historyAt("m", 150_000, 0, testStart, 1000))
	sessions := 0
	for ; a.set.Len() < b.set.Len() && sessions < 10; sessions++ {
		before := a.set.Len()
		ra, rb, _ := syncNodes(t, a, b, nil)
		mustFinish(t, ra, rb)
		if sent := rb.Sent.Reconcile; sent > MaxReconcile+16 {
			t.Fatalf("sent %d bytes of rounds", sent)
		}
		if a.set.Len() == before {
			t.Fatal("a session brought nothing")
		}
	}
	mustBeEqual(t, a, b)
	if sessions < 2 {
		t.Errorf("done in %d session: the budget was not tested", sessions)
	}
}

func TestCutSessionKeepsWhatWasCommitted(t *testing.T) {
	all := history("x", 2000, 300)
	a, b := newNode("a"), newNode("b")
	b.addAll(all)
	k := &link{
		a: &endpoint{node: a, session: a.initiate("b", nil)}, b: &endpoint{node: b, session: b.respond("a")},
		cutAfter: 20,
	}
	if err := k.run(); err != nil {
		t.Fatal(err)
	}
	r := k.a.session.Report()
	if r.End != EndCut || r.Accepted == 0 || r.Accepted != a.set.Len() || r.Accepted == len(all) || r.Strike() {
		t.Fatalf("%+v", r)
	}
	newest, _ := openRecord(all[len(all)-1])
	if !a.set.Has(newest) {
		t.Error("the newest did not come first")
	}
	ra, rb, _ := syncNodes(t, a, b, nil)
	mustFinish(t, ra, rb)
	mustBeEqual(t, a, b)
	if ra.Accepted != len(all)-r.Accepted {
		t.Errorf("the second session brought %d", ra.Accepted)
	}
}

func TestBatchesArePackedOnlyWhenItHelps(t *testing.T) {
	plain, packed := packBatch(history("x", 20, 500))
	if packed != nil {
		t.Errorf("random bytes packed from %d to %d", len(plain), len(packed))
	}
	repetitive := [][]byte{make([]byte, 5000), make([]byte, 5000), nil}
	batch, packed := packBatch(repetitive)
	if packed == nil || len(packed) > 200 {
		t.Fatalf("zeros packed from %d to %d", len(batch), len(packed))
	}
	got, err := unpackBatch(packed, len(batch), true, 3)
	if err != nil || !slices.EqualFunc(got, repetitive, slices.Equal) {
		t.Errorf("came back as %d entries, %v", len(got), err)
	}
}

func TestStrikes(t *testing.T) {
	for _, c := range []struct {
		name   string
		report Report
		strike bool
	}{
		{"clean", Report{End: EndFinished, Accepted: 5}, false},
		{"cut after progress", Report{End: EndCut, Accepted: 5, Unserved: 3}, false},
		{"cut with nothing served", Report{End: EndCut, Unserved: 3}, true},
		{"left with claims unserved", Report{End: EndAccused, Accepted: 5, Unserved: 3}, true},
		{"cut before any claim", Report{End: EndCut}, false},
		{"honest stubs", Report{End: EndFinished, Unavailable: 20}, false},
		{"nothing but stubs, thousands", Report{End: EndFinished, Unavailable: 2000}, true},
	} {
		if got := c.report.Strike(); got != c.strike {
			t.Errorf("%s: strike %v", c.name, got)
		}
	}
}
