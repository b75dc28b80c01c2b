package storagetest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"

	"github.com/starling-chat/starling/storage"
)

func testDigests(t *testing.T, open Open) {
	h := start(t, open, nil)
	s := h.stream("room")
	const day = 24 * 60 * 60 * 1000
	ids := make(map[uint32][]storage.ID)
	add := func(ms uint64, name string) storage.Record {
		r := h.add(Record(s, ms, name))[0]
		ids[uint32(ms/day)] = append(ids[uint32(ms/day)], r.ID)
		return r
	}
	check := func() {
		t.Helper()
		var got []storage.DayDigest
		for d, err := range h.Digests(h.ctx, s, 0, 1<<32-1) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, d)
		}
		if len(got) != len(ids) {
			t.Fatalf("%d days, want %d", len(got), len(ids))
		}
		for _, d := range got {
			list := ids[d.Day]
			slices.SortFunc(list, func(a, b storage.ID) int { return bytes.Compare(a[:], b[:]) })
			sum := sha256.New()
			for _, id := range list {
				sum.Write(id[:])
			}
			if int(d.Count) != len(list) || !bytes.Equal(d.Sum[:], sum.Sum(nil)) {
				t.Fatalf("day %d: digest %+v is wrong", d.Day, d)
			}
		}
	}
	check()
	for i := range 30 {
		add(uint64(i)*day/7+day-1, fmt.Sprint(i))
	}
	late := add(3258000*uint64(day)/1000, "later")
	check()
	check() // now from the cache
	add(2*day, "one more")
	check()
	h.commit(func(b *storage.Batch) { b.Remove(late.ID) })
	delete(ids, uint32(late.Time>>16/day))
	check()
	if d, err := h.Digest(h.ctx, s, 1_000_000); err != nil || d.Count != 0 || d.Sum != sha256.Sum256(nil) {
		t.Fatalf("empty day: %+v, %v", d, err)
	}
	var some []uint32
	for d, err := range h.Digests(h.ctx, s, 2, 3) {
		if err != nil {
			t.Fatal(err)
		}
		some = append(some, d.Day)
	}
	if !slices.Equal(some, []uint32{2, 3}) {
		t.Fatalf("days %v", some)
	}
	_, err := h.Digest(h.ctx, storage.StreamID{9}, 0)
	h.wantErr(err, storage.ErrNotFound)
	h.sound()
}

func testBuckets(t *testing.T, open Open) {
	h := start(t, open, nil)
	put := func(bucket, key, value string) {
		h.commit(func(b *storage.Batch) { b.Put(bucket, []byte(key), []byte(value)) })
	}
	list := func(bucket, prefix string) (out []string) {
		for kv, err := range h.ScanBucket(h.ctx, bucket, []byte(prefix)) {
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, string(kv.Key)+"="+string(kv.Value))
		}
		return out
	}
	put("a", "x1", "1")
	put("a", "x2", "2")
	put("a", "y", "3")
	put("a", "", "empty key")
	put("ab", "x1", "of another bucket")
	h.equal(list("a", ""), []string{"=empty key", "x1=1", "x2=2", "y=3"})
	h.equal(list("a", "x"), []string{"x1=1", "x2=2"})
	h.equal(list("none", ""), nil)
	put("a", "x1", "changed")
	v, err := h.GetBucket(h.ctx, "a", []byte("x1"))
	if err != nil || string(v) != "changed" {
		t.Fatalf("got %q, %v", v, err)
	}
	h.commit(func(b *storage.Batch) {
		b.Delete("a", []byte("x1"))
		b.Delete("a", []byte("missing"))
		b.Put("a", []byte("y"), []byte("first"))
		b.Put("a", []byte("y"), []byte("second"))
	})
	_, err = h.GetBucket(h.ctx, "a", []byte("x1"))
	h.wantErr(err, storage.ErrNotFound)
	h.equal(list("a", ""), []string{"=empty key", "x2=2", "y=second"})
	h.sound()
}

func testEphemeral(t *testing.T, open Open) {
	h := start(t, open, nil)
	for i := range 700 { // more than one transaction re-seals
		h.commit(func(b *storage.Batch) {
			b.PutEphemeral("ratchet", fmt.Appendf(nil, "%04d", i), fmt.Appendf(nil, "v%d", i))
		})
	}
	h.commit(func(b *storage.Batch) { b.Put("ratchet", []byte("0001"), []byte("ordinary")) })
	for range 3 {
		if err := h.RotateEpoch(h.ctx); err != nil {
			t.Fatal(err)
		}
		n := 0
		for kv, err := range h.ScanEphemeral(h.ctx, "ratchet", nil) {
			if err != nil || string(kv.Value) != fmt.Sprintf("v%d", n) {
				t.Fatalf("entry %d: %q, %v", n, kv.Value, err)
			}
			n++
		}
		if n != 700 {
			t.Fatalf("%d entries", n)
		}
	}
	// A reader in the middle of a rotation sees present values, not errors.
	n := 0
	for kv, err := range h.ScanEphemeral(h.ctx, "ratchet", nil) {
		if err != nil {
			t.Fatalf("entry %d: %v", n, err)
		}
		if n == 5 {
			if err := h.RotateEpoch(h.ctx); err != nil {
				t.Fatal(err)
			}
		}
		if string(kv.Value) != fmt.Sprintf("v%d", n) {
			t.Fatalf("entry %d: %q", n, kv.Value)
		}
		n++
	}
	h.commit(func(b *storage.Batch) { b.DeleteEphemeral("ratchet", []byte("0001")) })
	_, err := h.GetEphemeral(h.ctx, "ratchet", []byte("0001"))
	h.wantErr(err, storage.ErrNotFound)
	v, err := h.GetBucket(h.ctx, "ratchet", []byte("0001"))
	if err != nil || string(v) != "ordinary" {
		t.Fatalf("got %q, %v", v, err)
	}
	if err := h.Purge(h.ctx); err != nil {
		t.Fatal(err)
	}
	if v, err = h.GetEphemeral(h.ctx, "ratchet", []byte("0002")); err != nil || string(v) != "v2" {
		t.Fatalf("after purge: %q, %v", v, err)
	}
	h.sound()
}

func testQueues(t *testing.T, open Open) {
	h := start(t, open, nil)
	put := func(queue string, due int64, name string) {
		h.commit(func(b *storage.Batch) { b.Schedule(queue, at(due), IDOf(name), []byte(name)) })
	}
	due := func(now int64, limit int) (out []string) {
		items, err := h.Due(h.ctx, "outbox", at(now), limit)
		if err != nil {
			t.Fatal(err)
		}
		for _, it := range items {
			out = append(out, fmt.Sprintf("%d %s", it.Due.UnixMilli(), it.Value))
		}
		return out
	}
	if _, ok, err := h.NextDue(h.ctx, "outbox"); ok || err != nil {
		t.Fatalf("an empty queue has an item, or %v", err)
	}
	put("outbox", 30, "c")
	put("outbox", 10, "a")
	put("outbox", 20, "b")
	put("outbox2", 1, "other")
	h.equal(due(9, 0), nil)
	h.equal(due(20, 0), []string{"10 a", "20 b"})
	h.equal(due(99, 1), []string{"10 a"})
	if next, ok, err := h.NextDue(h.ctx, "outbox"); err != nil || !ok || !next.Equal(at(10)) {
		t.Fatalf("next %v %v %v", next, ok, err)
	}
	put("outbox", 40, "a") // moves
	h.equal(due(99, 0), []string{"20 b", "30 c", "40 a"})
	h.commit(func(b *storage.Batch) {
		b.Unschedule("outbox", IDOf("b"))
		b.Unschedule("outbox", IDOf("missing"))
		b.Schedule("outbox", at(35), IDOf("d"), nil)
		b.Schedule("outbox", at(36), IDOf("d"), []byte("d"))
	})
	h.equal(due(99, 0), []string{"30 c", "36 d", "40 a"})
	it, err := h.QueueItem(h.ctx, "outbox", IDOf("d"))
	if err != nil || !it.Due.Equal(at(36)) || string(it.Value) != "d" {
		t.Fatalf("item %+v, %v", it, err)
	}
	_, err = h.QueueItem(h.ctx, "outbox", IDOf("b"))
	h.wantErr(err, storage.ErrNotFound)
	n := 0
	for _, err := range h.Queue(h.ctx, "outbox") {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 3 {
		t.Fatalf("%d items", n)
	}
	h.commit(func(b *storage.Batch) {
		b.Hold("held", IDOf("h"), []byte("old"))
		b.Hold("held", IDOf("h"), []byte("held"))
		b.Hold("held", IDOf("i"), nil)
		b.Release("held", IDOf("i"))
		b.Release("held", IDOf("missing"))
		b.Schedule("held", at(5), IDOf("s"), []byte("scheduled"))
	})
	if items, err := h.Due(h.ctx, "held", at(1<<50), 0); err != nil || len(items) != 1 || items[0].ID != IDOf("s") {
		t.Fatalf("due: %+v, %v", items, err)
	}
	if it, err := h.QueueItem(h.ctx, "held", IDOf("h")); err != nil || !it.Due.IsZero() || string(it.Value) != "held" {
		t.Fatalf("held item %+v, %v", it, err)
	}
	_, err = h.QueueItem(h.ctx, "held", IDOf("i"))
	h.wantErr(err, storage.ErrNotFound)
	var order []string
	for it, err := range h.Queue(h.ctx, "held") {
		if err != nil {
			t.Fatal(err)
		}
		order = append(order, string(it.Value))
	}
	h.equal(order, []string{"scheduled", "held"})
	put("outbox", -5, "before 1970")
	h.equal(due(0, 0), []string{"0 before 1970"})
	h.sound()
}

func testStreams(t *testing.T, open Open) {
	h := start(t, open, nil)
	a := h.stream("a")
	if h.stream("a") != a {
		t.Fatal("a name has two handles")
	}
	b := h.stream("b\x00\xff")
	if a == b {
		t.Fatal("two names share a handle")
	}
	_, err := h.LookupStream(h.ctx, "c")
	h.wantErr(err, storage.ErrNotFound)
	for i := range 1500 { // more than one transaction drops
		h.commit(func(bt *storage.Batch) { bt.Append(Record(a, uint64(i+1), fmt.Sprint(i))) })
	}
	h.commit(func(bt *storage.Batch) {
		bt.Append(storage.Record{Stream: a, Time: 1, ID: IDOf("stub"), Flags: storage.FlagStub})
		bt.MarkComplete(a, storage.Interval{From: 1, To: 2})
	})
	h.add(Record(b, 1, "stays"))
	streams, err := h.Streams(h.ctx)
	if err != nil || len(streams) != 2 || streams[0].Count != 1500 || streams[1].Name != "b\x00\xff" {
		t.Fatalf("streams %+v, %v", streams, err)
	}
	if err := h.DropStream(h.ctx, a); err != nil {
		t.Fatal(err)
	}
	if err := h.DropStream(h.ctx, a); err != nil {
		t.Fatalf("dropping again: %v", err)
	}
	_, err = h.Info(h.ctx, a)
	h.wantErr(err, storage.ErrNotFound)
	h.equal(h.scan(a, storage.Range{}), nil)
	_, err = h.Get(h.ctx, Record(a, 1, "0").ID)
	h.wantErr(err, storage.ErrNotFound)
	if list, err := h.Complete(h.ctx, a); err != nil || len(list) != 0 {
		t.Fatalf("intervals %v, %v", list, err)
	}
	if again := h.stream("a"); again == a {
		t.Fatal("a dropped handle was used again")
	}
	h.equal(h.scan(b, storage.Range{}), []string{"stays"})
	h.sound()
}

func testIntervals(t *testing.T, open Open) {
	h := start(t, open, nil)
	s := h.stream("room")
	mark := func(from, to uint64) {
		h.commit(func(b *storage.Batch) { b.MarkComplete(s, storage.Interval{From: from, To: to}) })
	}
	want := func(list ...storage.Interval) {
		t.Helper()
		got, err := h.Complete(h.ctx, s)
		if err != nil || !slices.Equal(got, list) {
			t.Fatalf("intervals %v, %v, want %v", got, err, list)
		}
	}
	want()
	mark(10, 20)
	mark(40, 50)
	mark(5, 5)
	want(storage.Interval{From: 10, To: 20}, storage.Interval{From: 40, To: 50})
	mark(20, 25) // touches
	mark(1, 3)
	want(storage.Interval{From: 1, To: 3}, storage.Interval{From: 10, To: 25}, storage.Interval{From: 40, To: 50})
	mark(2, 45)
	want(storage.Interval{From: 1, To: 50})
	for i := range uint64(1100) { // the oldest are forgotten
		mark(100+i*10, 105+i*10)
	}
	got, err := h.Complete(h.ctx, s)
	if err != nil || len(got) != 1024 || got[1023].To != 105+1099*10 {
		t.Fatalf("%d intervals, %v", len(got), err)
	}
}
