package storagetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/starling-chat/starling/storage"
)

func testTrim(t *testing.T, open Open) {
	h := start(t, open, nil)
	s := h.stream("room")
	for i := range 2500 {
		h.commit(func(b *storage.Batch) {
			b.Append(Record(s, uint64(i+1), fmt.Sprintf("%04d", i)))
			if i%100 == 0 {
				b.Append(storage.Record{Stream: s, Time: uint64(i+1) << 16, ID: IDOf(fmt.Sprint("stub", i)), Flags: storage.FlagStub})
			}
		})
	}
	h.commit(func(b *storage.Batch) { b.MarkComplete(s, storage.Interval{From: 0, To: 3000 << 16}) })
	trim := func(keep storage.Retention, count, records, stubs int) {
		t.Helper()
		got, err := h.Trim(h.ctx, s, keep)
		if err != nil || got.Records != records || got.Stubs != stubs || got.Bytes != uint64(4*records) {
			t.Fatalf("trimmed %+v, %v, want %d and %d", got, err, records, stubs)
		}
		if i := h.info(s); int(i.Count) != count || i.Bytes != uint64(4*count) {
			t.Fatalf("left %+v, want %d", i, count)
		}
	}
	trim(storage.Retention{}, 2500, 0, 0)
	trim(storage.Retention{Count: 2500, Bytes: 10000}, 2500, 0, 0)
	trim(storage.Retention{Before: 101 << 16}, 2400, 100, 1)
	trim(storage.Retention{Count: 1200}, 1200, 1200, 12)
	trim(storage.Retention{Bytes: 4 * 1100}, 1100, 100, 1)
	first, err := h.First(h.ctx, s)
	if err != nil || string(first.Value) != "1400" {
		t.Fatalf("first %q, %v", first.Value, err)
	}
	if i := h.info(s); i.Floor != 1400<<16+1 {
		t.Fatalf("floor %d", i.Floor)
	}
	list, err := h.Complete(h.ctx, s)
	if err != nil || !slices.Equal(list, []storage.Interval{{From: 1400<<16 + 1, To: 3000 << 16}}) {
		t.Fatalf("intervals %v, %v", list, err)
	}
	_, err = h.Trim(h.ctx, storage.StreamID{9}, storage.Retention{})
	h.wantErr(err, storage.ErrNotFound)
	h.sound()
}

func testCap(t *testing.T, open Open) {
	h := start(t, open, nil)
	big, small, kept := h.stream("big"), h.stream("small"), h.stream("kept")
	text := strings.Repeat("x", 800)
	for i := range 300 {
		h.commit(func(b *storage.Batch) {
			b.Append(Record(big, uint64(i+1), text+fmt.Sprint(i)))
			if i < 20 {
				b.Append(Record(small, uint64(i+1), text+fmt.Sprint(i)))
				b.Append(Record(kept, uint64(i+1), text+fmt.Sprint(i)))
			}
		})
	}
	use, err := h.Usage(h.ctx)
	if err != nil || use < 340*800 {
		t.Fatalf("usage %d, %v", use, err)
	}
	keep := func(i storage.StreamInfo) bool { return i.Name == "kept" }
	if _, err := h.Cap(h.ctx, use/2, keep); err != nil {
		t.Fatal(err)
	}
	if use2, _ := h.Usage(h.ctx); use2 > use/2 || use2 < use/4 {
		t.Fatalf("usage %d after a cap of %d", use2, use/2)
	}
	if h.info(small).Count != 20 || h.info(kept).Count != 20 {
		t.Fatal("small streams were trimmed while a big one was there")
	}
	if last, err := h.Last(h.ctx, big); err != nil || last.Time != 300<<16 {
		t.Fatalf("the newest record is gone: %v", err)
	}
	if _, err := h.Cap(h.ctx, 0, keep); err != nil {
		t.Fatal(err)
	}
	if h.info(small).Count != 0 || h.info(big).Count != 0 || h.info(kept).Count != 20 {
		t.Fatalf("a cap of 0 left %d, %d, %d", h.info(small).Count, h.info(big).Count, h.info(kept).Count)
	}
	h.sound()
}

func testSweep(t *testing.T, open Open) {
	now := at(1_000_000_000_000)
	h := start(t, open, func(o *storage.Options) { o.Now = func() time.Time { return now } })
	s := h.stream("room")
	var rs []storage.Record
	for i := range 600 {
		r := Record(s, uint64(i+1), fmt.Sprintf("m%03d", i))
		r.Expires = now.Add(time.Duration(i+1) * time.Minute)
		rs = append(rs, h.add(r)[0])
	}
	h.add(Record(s, 1000, "for ever"))
	got, err := h.Get(h.ctx, rs[9].ID)
	if err != nil || !got.Expires.Equal(rs[9].Expires) {
		t.Fatalf("expires %v, %v", got.Expires, err)
	}
	if n, err := h.Sweep(h.ctx, nil); n != 0 || err != nil {
		t.Fatalf("swept %d, %v, too early", n, err)
	}
	now = now.Add(100 * time.Minute)
	h.commit(func(b *storage.Batch) { b.Replace(rs[0].ID, 0, []byte("edited in time")) })
	n, err := h.Sweep(h.ctx, func(r storage.Record) []byte {
		if string(r.Value) < "m050" {
			return []byte("stub")
		}
		return nil
	})
	if n != 99 || err != nil {
		t.Fatalf("swept %d, %v, want 99", n, err)
	}
	if got, err := h.Get(h.ctx, rs[1].ID); err != nil || string(got.Value) != "stub" || !got.Expires.IsZero() {
		t.Fatalf("stub %+v, %v", got, err)
	}
	if got, err := h.Get(h.ctx, rs[0].ID); err != nil || string(got.Value) != "edited in time" {
		t.Fatalf("replaced record %+v, %v", got, err)
	}
	_, err = h.Get(h.ctx, rs[99].ID)
	h.wantErr(err, storage.ErrNotFound)
	if got, err := h.Get(h.ctx, rs[100].ID); err != nil || string(got.Value) != "m100" {
		t.Fatalf("swept too much: %+v, %v", got, err)
	}
	// One that is late on arrival is kept until the next sweep.
	late := Record(s, 5000, "late")
	late.Expires = now.Add(-time.Hour)
	h.add(late)
	if got, err := h.Get(h.ctx, late.ID); err != nil || string(got.Value) != "late" {
		t.Fatalf("late record %+v, %v", got, err)
	}
	now = now.Add(24 * time.Hour)
	if n, err := h.Sweep(h.ctx, nil); n != 501 || err != nil {
		t.Fatalf("swept %d, %v, want 501", n, err)
	}
	if i := h.info(s); i.Count != 51 {
		t.Fatalf("left %d", i.Count)
	}
	h.sound()
}

func testSpace(t *testing.T, open Open) {
	free := uint64(1 << 40)
	h := start(t, open, func(o *storage.Options) {
		o.FreeSpace = func(string) (uint64, error) { return free, nil }
		o.Space = storage.SpaceLimits{NoHistory: 500 << 20, ReadOnly: 200 << 20, Ballast: 1 << 20}
	})
	s := h.stream("room")
	n := 0
	try := func(d storage.Durability) error {
		var b storage.Batch
		n++
		b.Append(Record(s, uint64(n), fmt.Sprint(n)))
		_, err := h.Commit(h.ctx, &b, d)
		return err
	}
	for _, step := range []struct {
		free             uint64
		mode             storage.Mode
		durable, relaxed error
	}{
		{600 << 20, storage.ModeOK, nil, nil},
		{400 << 20, storage.ModeNoHistory, nil, storage.ErrNoSpace},
		{100 << 20, storage.ModeReadOnly, storage.ErrNoSpace, storage.ErrNoSpace},
		{0, storage.ModeReadOnly, storage.ErrNoSpace, storage.ErrNoSpace},
		{800 << 20, storage.ModeOK, nil, nil},
	} {
		free = step.free
		if st := h.State(); st.Mode != step.mode || st.Free != step.free || !st.FreeKnown {
			t.Fatalf("state %+v with %d free", st, free)
		}
		before := h.info(s)
		h.wantErr(try(storage.Durable), step.durable)
		h.wantErr(try(storage.Relaxed), step.relaxed)
		want := before.Count
		if step.durable == nil {
			want++
		}
		if step.relaxed == nil {
			want++
		}
		if got := h.info(s).Count; got != want {
			t.Fatalf("%d records with %d free, want %d", got, free, want)
		}
		if _, err := h.First(h.ctx, s); err != nil {
			t.Fatalf("reading with %d free: %v", free, err)
		}
	}
	h.sound()
}
