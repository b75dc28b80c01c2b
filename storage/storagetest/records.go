package storagetest

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/starling-chat/starling/storage"
)

func testAppend(t *testing.T, open Open) {
	h := start(t, open, nil)
	s := h.stream("room")
	r := Record(s, 1000, "hello")
	r.Flags = 5
	r = h.add(r)[0]
	if r.Arrival != 1 {
		t.Fatalf("arrival %d, want 1", r.Arrival)
	}
	got, err := h.Get(h.ctx, r.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got.Stream != s || got.Time != r.Time || got.ID != r.ID || got.Flags != 5 || got.Arrival != 1 ||
		!got.Expires.IsZero() || string(got.Value) != "hello" {
		t.Fatalf("got %+v, want %+v", got, r)
	}
	// The same ID again changes nothing, wherever it is put.
	other := h.stream("other")
	again := storage.Record{Stream: other, Time: 7, ID: r.ID, Value: []byte("forged")}
	res := h.commit(func(b *storage.Batch) { b.Append(again) })
	if a := res.Appended[0]; a.New || a.Arrival != 1 {
		t.Fatalf("second append: %+v", a)
	}
	if got, _ = h.Get(h.ctx, r.ID); string(got.Value) != "hello" || h.info(other).Count != 0 {
		t.Fatalf("a second append changed the record to %q", got.Value)
	}
	_, err = h.Get(h.ctx, IDOf("nothing"))
	h.wantErr(err, storage.ErrNotFound)
	have, err := h.Has(h.ctx, []storage.ID{IDOf("nothing"), r.ID})
	if err != nil || have[0] || !have[1] {
		t.Fatalf("Has: %v, %v", have, err)
	}
	if i := h.info(s); i.Count != 1 || i.Bytes != 5 || i.Arrival != 1 || i.Name != "room" {
		t.Fatalf("info %+v", i)
	}
	h.sound()
}

func testAppendTwice(t *testing.T, open Open) {
	h := start(t, open, nil)
	s := h.stream("room")
	r := Record(s, 1, "a")
	empty := Record(s, 2, "")
	res := h.commit(func(b *storage.Batch) {
		b.Append(r)
		b.Append(r)
		b.Append(empty)
		b.Put("cursor", []byte("k"), nil)
	})
	if a := res.Appended; len(a) != 3 || !a[0].New || a[1].New || a[1].Arrival != 1 || !a[2].New || a[2].Arrival != 2 {
		t.Fatalf("results %+v", a)
	}
	v, err := h.GetBucket(h.ctx, "cursor", []byte("k"))
	if err != nil || v == nil || len(v) != 0 {
		t.Fatalf("empty value: %v, %v", v, err)
	}
	h.equal(h.scan(s, storage.Range{}), []string{"a", ""})
	h.sound()
}

func testRefusedBatch(t *testing.T, open Open) {
	h := start(t, open, nil)
	s := h.stream("room")
	var b storage.Batch
	b.Append(Record(s, 1, "first"))
	b.Put("bucket", []byte("k"), []byte("v"))
	b.Schedule("queue", at(5), IDOf("q"), nil)
	b.Replace(IDOf("missing"), 0, nil) // refuses the whole
	_, err := h.Commit(h.ctx, &b, storage.Durable)
	h.wantErr(err, storage.ErrNotFound)
	if _, err = h.Commit(h.ctx, &b, storage.Durable); err == nil {
		t.Fatal("a batch was committed twice")
	}
	_, err = h.GetBucket(h.ctx, "bucket", []byte("k"))
	h.wantErr(err, storage.ErrNotFound)
	_, err = h.QueueItem(h.ctx, "queue", IDOf("q"))
	h.wantErr(err, storage.ErrNotFound)
	if i := h.info(s); i.Count != 0 || i.Arrival != 0 || i.Changes != 0 {
		t.Fatalf("a refused batch left %+v", i)
	}
	var unknown storage.Batch
	unknown.Append(Record(storage.StreamID{9}, 1, "x"))
	_, err = h.Commit(h.ctx, &unknown, storage.Durable)
	h.wantErr(err, storage.ErrNotFound)
	h.sound()
}

func testRanges(t *testing.T, open Open) {
	h := start(t, open, nil)
	s, other := h.stream("a"), h.stream("b")
	var all []storage.Record
	for i := range 40 {
		// Two records at each time, so that the ID decides.
		all = append(all, Record(s, uint64(100+i/2), fmt.Sprint(i)))
	}
	h.add(slices.Clone(all)...)
	h.add(Record(other, 110, "other"))
	slices.SortFunc(all, func(a, b storage.Record) int { return a.Position().Compare(b.Position()) })
	want := func(from, to int, reverse bool, limit int) []string {
		part := slices.Clone(all[from:to])
		if reverse {
			slices.Reverse(part)
		}
		if limit > 0 && limit < len(part) {
			part = part[:limit]
		}
		var out []string
		for _, r := range part {
			out = append(out, string(r.Value))
		}
		return out
	}
	for _, reverse := range []bool{false, true} {
		for _, limit := range []int{0, 1, 7, 100} {
			for _, b := range [][2]int{{0, 40}, {1, 39}, {5, 6}, {10, 30}, {20, 20}} {
				r := storage.Range{Reverse: reverse, Limit: limit}
				if b[0] > 0 {
					r.After = all[b[0]-1].Position()
				}
				if b[1] < 40 {
					r.Before = all[b[1]].Position()
				}
				h.equal(h.scan(s, r), want(b[0], b[1], reverse, limit))
				var keys []string
				for p, err := range h.Keys(h.ctx, s, r) {
					if err != nil {
						t.Fatal(err)
					}
					keys = append(keys, p.ID.String())
				}
				if len(keys) != len(want(b[0], b[1], reverse, limit)) {
					t.Fatalf("Keys gave %d, Scan %d", len(keys), len(want(b[0], b[1], reverse, limit)))
				}
			}
		}
	}
	first, err := h.First(h.ctx, s)
	if err != nil || first.ID != all[0].ID {
		t.Fatalf("First: %v, %v", first, err)
	}
	last, err := h.Last(h.ctx, s)
	if err != nil || last.ID != all[39].ID {
		t.Fatalf("Last: %v, %v", last, err)
	}
	_, err = h.Last(h.ctx, h.stream("empty"))
	h.wantErr(err, storage.ErrNotFound)
}

func testArrival(t *testing.T, open Open) {
	h := start(t, open, nil)
	s := h.stream("room")
	// Back-dated records arrive last nevertheless.
	rs := h.add(Record(s, 30, "c"), Record(s, 20, "b"), Record(s, 10, "a"))
	arrivals := func(after uint64, limit int) (out []string) {
		for r, err := range h.ScanArrival(h.ctx, s, after, limit) {
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, fmt.Sprintf("%d%s", r.Arrival, r.Value))
		}
		return out
	}
	h.equal(arrivals(0, 0), []string{"1c", "2b", "3a"})
	h.equal(arrivals(1, 1), []string{"2b"})
	h.equal(arrivals(3, 0), nil)
	h.commit(func(b *storage.Batch) { b.Remove(rs[1].ID) })
	h.add(Record(s, 5, "z"))
	h.equal(arrivals(0, 0), []string{"1c", "3a", "4z"})
	for after, want := range map[uint64]int{0: 3, 1: 2, 3: 1, 4: 0} {
		if n, err := h.CountAfter(h.ctx, s, after, 0); err != nil || n != want {
			t.Fatalf("CountAfter(%d): %d, %v, want %d", after, n, err, want)
		}
	}
	if n, _ := h.CountAfter(h.ctx, s, 0, 2); n != 2 {
		t.Fatalf("CountAfter with limit 2: %d", n)
	}
	h.sound()
}

func testStubs(t *testing.T, open Open) {
	h := start(t, open, nil)
	s := h.stream("room")
	h.add(Record(s, 10, "a"), Record(s, 30, "c"))
	refused := Record(s, 20, "b")
	stub := storage.Record{Stream: s, Time: refused.Time, ID: refused.ID, Flags: storage.FlagStub}
	res := h.commit(func(b *storage.Batch) { b.Append(stub) })
	if a := res.Appended[0]; !a.New || a.Arrival != 0 {
		t.Fatalf("stub: %+v", a)
	}
	h.equal(h.scan(s, storage.Range{}), []string{"a", "c"})
	keys := func(r storage.Range) (n int, times []uint64) {
		for p, err := range h.Keys(h.ctx, s, r) {
			if err != nil {
				t.Fatal(err)
			}
			times = append(times, p.Time>>16)
		}
		return len(times), times
	}
	if _, times := keys(storage.Range{}); !slices.Equal(times, []uint64{10, 20, 30}) {
		t.Fatalf("keys %v", times)
	}
	if _, times := keys(storage.Range{Reverse: true, Limit: 2}); !slices.Equal(times, []uint64{30, 20}) {
		t.Fatalf("keys in reverse %v", times)
	}
	got, err := h.Get(h.ctx, refused.ID)
	if err != nil || got.Flags != storage.FlagStub || len(got.Value) != 0 {
		t.Fatalf("stub reads as %+v, %v", got, err)
	}
	if i := h.info(s); i.Count != 2 || i.Stubs != 1 {
		t.Fatalf("info %+v", i)
	}
	var b storage.Batch
	b.Replace(refused.ID, 0, []byte("x"))
	_, err = h.Commit(h.ctx, &b, storage.Durable)
	h.wantErr(err, storage.ErrNotFound)
	before, err := h.Digest(h.ctx, s, 0)
	if err != nil || before.Count != 3 {
		t.Fatalf("digest %+v, %v", before, err)
	}
	// The record itself takes the stub's place; the set of ids stays.
	h.add(refused)
	h.equal(h.scan(s, storage.Range{}), []string{"a", "b", "c"})
	if after, err := h.Digest(h.ctx, s, 0); err != nil || after != before {
		t.Fatalf("digest changed: %+v, %v", after, err)
	}
	if i := h.info(s); i.Count != 3 || i.Stubs != 0 || i.Arrival != 3 {
		t.Fatalf("info %+v", i)
	}
	h.sound()
}

func testReplaceRemove(t *testing.T, open Open) {
	h := start(t, open, nil)
	s := h.stream("room")
	rs := h.add(Record(s, 10, "secret"), Record(s, 20, "b"))
	before, err := h.Digest(h.ctx, s, 0)
	if err != nil {
		t.Fatal(err)
	}
	h.commit(func(b *storage.Batch) { b.Replace(rs[0].ID, 2, []byte("stub")) })
	got, err := h.Get(h.ctx, rs[0].ID)
	if err != nil || string(got.Value) != "stub" || got.Flags != 2 || got.Arrival != 1 || got.Time != rs[0].Time {
		t.Fatalf("replaced: %+v, %v", got, err)
	}
	if after, _ := h.Digest(h.ctx, s, 0); after != before {
		t.Fatal("a replacement changed the digest")
	}
	if i := h.info(s); i.Bytes != 5 || i.Count != 2 {
		t.Fatalf("info %+v", i)
	}
	h.commit(func(b *storage.Batch) {
		b.Remove(rs[0].ID)
		b.Remove(IDOf("missing"))
	})
	h.equal(h.scan(s, storage.Range{}), []string{"b"})
	if i := h.info(s); i.Bytes != 1 || i.Count != 1 || i.Arrival != 2 {
		t.Fatalf("info %+v", i)
	}
	// A removed record may come again, as a new arrival.
	r := Record(s, 10, "secret")
	if r = h.add(r)[0]; r.Arrival != 3 {
		t.Fatalf("arrival %d, want 3", r.Arrival)
	}
	h.sound()
}

func testSnapshot(t *testing.T, open Open) {
	h := start(t, open, nil)
	s := h.stream("room")
	for i := range 20 {
		h.add(Record(s, uint64(i+1), fmt.Sprint(i)))
	}
	n := 0
	for r, err := range h.Scan(h.ctx, s, storage.Range{}) {
		if err != nil {
			t.Fatal(err)
		}
		// Writing and reading inside the loop works, and does not disturb it.
		if n < 5 {
			h.add(Record(s, uint64(100+n), "new"))
			h.commit(func(b *storage.Batch) { b.Remove(Record(s, uint64(20-n), fmt.Sprint(19-n)).ID) })
			if _, err := h.Get(h.ctx, r.ID); err != nil {
				t.Fatal(err)
			}
		}
		n++
	}
	if n != 20 {
		t.Fatalf("the scan saw %d records, want the 20 of its snapshot", n)
	}
	if got := h.info(s).Count; got != 20 {
		t.Fatalf("count %d", got)
	}
	h.sound()
}

func testBigBatch(t *testing.T, open Open) {
	h := start(t, open, nil)
	s := h.stream("room")
	// As large as a batch may be in both ways: all of it arrives, at once.
	res := h.commit(func(b *storage.Batch) {
		for i := range storage.MaxBatchOps {
			r := Record(s, uint64(i+1), fmt.Sprint(i))
			r.Value = bytes.Repeat([]byte{byte(i)}, storage.MaxBatchBytes/storage.MaxBatchOps-64)
			r.Expires = at(1 << 40)
			b.Append(r)
		}
	})
	if len(res.Appended) != storage.MaxBatchOps || res.Appended[storage.MaxBatchOps-1].Arrival != storage.MaxBatchOps {
		t.Fatalf("%d results", len(res.Appended))
	}
	if got := h.info(s).Count; got != storage.MaxBatchOps {
		t.Fatalf("count %d", got)
	}
	h.commit(func(b *storage.Batch) {
		r := Record(s, 1, "largest")
		r.Value = bytes.Repeat([]byte{1}, storage.MaxValueSize)
		b.Append(r)
		for i := range 6 {
			b.Put("bucket", []byte{byte(i)}, r.Value)
		}
	})
	for kv, err := range h.ScanBucket(h.ctx, "bucket", nil) {
		if err != nil || len(kv.Value) != storage.MaxValueSize {
			t.Fatalf("value of %d bytes, %v", len(kv.Value), err)
		}
	}
	h.sound()
}
