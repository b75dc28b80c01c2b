package storagetest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/starling-chat/starling/storage"
)

func testLimits(t *testing.T, open Open) {
	h := start(t, open, nil)
	s := h.stream("room")
	long := strings.Repeat("n", storage.MaxNameSize+1)
	for name, fill := range map[string]func(b *storage.Batch){
		"value":       func(b *storage.Batch) { b.Append(Record(s, 1, strings.Repeat("x", storage.MaxValueSize+1))) },
		"bucket name": func(b *storage.Batch) { b.Put(long, nil, nil) },
		"no name":     func(b *storage.Batch) { b.Delete("", nil) },
		"key":         func(b *storage.Batch) { b.Put("b", make([]byte, storage.MaxKeySize+1), nil) },
		"queue name":  func(b *storage.Batch) { b.Schedule(long, at(1), storage.ID{}, nil) },
		"operations": func(b *storage.Batch) {
			for range storage.MaxBatchOps + 1 {
				b.Remove(storage.ID{})
			}
		},
		"bytes": func(b *storage.Batch) {
			for i := range 9 {
				b.Put("b", []byte{byte(i)}, make([]byte, storage.MaxValueSize))
			}
		},
	} {
		var b storage.Batch
		b.Append(Record(s, 1, "beside"))
		fill(&b)
		if _, err := h.Commit(h.ctx, &b, storage.Durable); err == nil || !strings.Contains(err.Error(), "size limit") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for name, r := range map[string]storage.Record{
		"reserved flag":    {Stream: s, Flags: 1 << 6},
		"stub with a body": {Stream: s, Flags: storage.FlagStub, Value: []byte("x")},
	} {
		var b storage.Batch
		b.Append(r)
		if _, err := h.Commit(h.ctx, &b, storage.Durable); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	_, err := h.Stream(h.ctx, long)
	h.wantErr(err, storage.ErrTooBig)
	_, err = h.GetBucket(h.ctx, long, nil)
	h.wantErr(err, storage.ErrTooBig)
	h.wantErr(h.Index(h.ctx, s, 1, strings.Repeat("x", storage.MaxIndexText+1)), storage.ErrTooBig)
	if n := h.info(s).Count; n != 0 {
		t.Fatalf("refused batches left %d records", n)
	}
}

func testConcurrent(t *testing.T, open Open) {
	h := start(t, open, nil)
	s := h.stream("room")
	const workers, each = 32, 25
	var wg sync.WaitGroup
	arrivals := make([][]uint64, workers)
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				var b storage.Batch
				b.Append(Record(s, uint64(i+1), fmt.Sprintf("%d-%d", w, i)))
				b.Append(Record(s, uint64(i+1), fmt.Sprintf("shared-%d", i)))
				b.PutEphemeral("state", []byte{byte(w)}, []byte{byte(i)})
				res, err := h.Commit(h.ctx, &b, storage.Durability(i%2))
				if err != nil {
					t.Errorf("worker %d: %v", w, err)
					return
				}
				arrivals[w] = append(arrivals[w], res.Appended[0].Arrival)
				if _, err := h.GetEphemeral(h.ctx, "state", []byte{byte(w)}); err != nil {
					t.Errorf("worker %d: %v", w, err)
					return
				}
				if w == 0 && i%5 == 0 {
					if err := h.RotateEpoch(h.ctx); err != nil {
						t.Errorf("rotating: %v", err)
					}
				}
			}
		})
	}
	wg.Wait()
	seen := make(map[uint64]bool)
	for w, list := range arrivals {
		for i, a := range list {
			if seen[a] || i > 0 && a <= list[i-1] {
				t.Fatalf("worker %d: arrival %d twice or out of order", w, a)
			}
			seen[a] = true
		}
	}
	if i := h.info(s); i.Count != workers*each+each || i.Arrival != i.Count {
		t.Fatalf("info %+v", i)
	}
	h.sound()
}

func testCancelled(t *testing.T, open Open) {
	h := start(t, open, nil)
	s := h.stream("room")
	h.add(Record(s, 1, "a"))
	ctx, cancel := context.WithCancel(h.ctx)
	cancel()
	var b storage.Batch
	b.Append(Record(s, 2, "b"))
	_, err := h.Commit(ctx, &b, storage.Durable)
	h.wantErr(err, context.Canceled)
	_, err = h.Get(ctx, Record(s, 1, "a").ID)
	h.wantErr(err, context.Canceled)
	for _, err := range h.Scan(ctx, s, storage.Range{}) {
		h.wantErr(err, context.Canceled)
	}
	for _, err := range h.Keys(ctx, s, storage.Range{}) {
		h.wantErr(err, context.Canceled)
	}
	h.equal(h.scan(s, storage.Range{}), []string{"a"})
}

func testClosed(t *testing.T, open Open) {
	h := start(t, open, nil)
	s := h.stream("room")
	h.add(Record(s, 1, "a"), Record(s, 2, "b"))
	// A loop that is running ends, and Close waits for it.
	n := 0
	closed := make(chan error, 1)
	for _, err := range h.Scan(h.ctx, s, storage.Range{}) {
		if n++; n == 1 {
			go func() { closed <- h.Close() }() // received below
			for h.State(); ; {
				if _, gerr := h.Get(h.ctx, storage.ID{}); gerr != nil && strings.Contains(gerr.Error(), "closed") {
					break
				}
			}
		} else {
			h.wantErr(err, storage.ErrClosed)
		}
	}
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	if n != 2 {
		t.Fatalf("%d steps", n)
	}
	if err := h.Close(); err != nil {
		t.Fatalf("second close: %v", err)
	}
	var b storage.Batch
	b.Append(Record(s, 3, "c"))
	_, err := h.Commit(h.ctx, &b, storage.Durable)
	h.wantErr(err, storage.ErrClosed)
	_, err = h.Get(h.ctx, Record(s, 1, "a").ID)
	h.wantErr(err, storage.ErrClosed)
	_, err = h.Stream(h.ctx, "new")
	h.wantErr(err, storage.ErrClosed)
	h.wantErr(h.RotateEpoch(h.ctx), storage.ErrClosed)
}
