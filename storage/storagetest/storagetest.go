// Package storagetest is the conformance suite that every store passes, the
// one on disk and the one in memory, and helpers for tests that need records.
package storagetest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/starling-chat/starling/storage"
)

// Open makes a new, empty store for one test and closes it at the test's end.
// The function may change the options.
type Open func(t *testing.T, change func(*storage.Options)) *storage.Store

// Run runs the whole suite against stores made by open.
func Run(t *testing.T, open Open) {
	tests := []struct {
		name string
		fn   func(t *testing.T, open Open)
	}{
		{"Append", testAppend},
		{"AppendTwiceInABatch", testAppendTwice},
		{"RefusedBatch", testRefusedBatch},
		{"Ranges", testRanges},
		{"Arrival", testArrival},
		{"Stubs", testStubs},
		{"ReplaceAndRemove", testReplaceRemove},
		{"Digests", testDigests},
		{"Buckets", testBuckets},
		{"Ephemeral", testEphemeral},
		{"Queues", testQueues},
		{"Streams", testStreams},
		{"Intervals", testIntervals},
		{"Trim", testTrim},
		{"Cap", testCap},
		{"Sweep", testSweep},
		{"Search", testSearch},
		{"SearchStreams", testSearchStreams},
		{"SearchRebuild", testSearchRebuild},
		{"Limits", testLimits},
		{"BigBatch", testBigBatch},
		{"Snapshot", testSnapshot},
		{"Concurrent", testConcurrent},
		{"Space", testSpace},
		{"Cancelled", testCancelled},
		{"Closed", testClosed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.fn(t, open) })
	}
}

// IDOf returns the ID of a test record.
func IDOf(name string) storage.ID { return sha256.Sum256([]byte(name)) }

// Record makes a record at a time given in milliseconds; its ID is derived
// from the value and the time.
func Record(s storage.StreamID, ms uint64, value string) storage.Record {
	return storage.Record{
		Stream: s, Time: ms << 16, ID: IDOf(fmt.Sprintf("%x/%d/%s", s, ms, value)), Value: []byte(value),
	}
}

// harness is a store under test with helpers that fail the test on errors.
type harness struct {
	*storage.Store
	t   *testing.T
	ctx context.Context
}

func start(t *testing.T, open Open, change func(*storage.Options)) harness {
	t.Helper()
	if change == nil {
		change = func(*storage.Options) {}
	}
	return harness{open(t, change), t, t.Context()}
}

func (h harness) stream(name string) storage.StreamID {
	h.t.Helper()
	id, err := h.Stream(h.ctx, name)
	if err != nil {
		h.t.Fatal(err)
	}
	return id
}

func (h harness) commit(fill func(b *storage.Batch)) storage.Result {
	h.t.Helper()
	var b storage.Batch
	fill(&b)
	res, err := h.Commit(h.ctx, &b, storage.Durable)
	if err != nil {
		h.t.Fatal(err)
	}
	return res
}

// add appends records one batch each and returns them with their arrival.
func (h harness) add(records ...storage.Record) []storage.Record {
	h.t.Helper()
	for i, r := range records {
		res := h.commit(func(b *storage.Batch) { b.Append(r) })
		if !res.Appended[0].New {
			h.t.Fatalf("record %d is not new", i)
		}
		records[i].Arrival = res.Appended[0].Arrival
	}
	return records
}

func (h harness) scan(s storage.StreamID, r storage.Range) []string {
	h.t.Helper()
	var out []string
	for rec, err := range h.Scan(h.ctx, s, r) {
		if err != nil {
			h.t.Fatal(err)
		}
		out = append(out, string(rec.Value))
	}
	return out
}

func (h harness) info(s storage.StreamID) storage.StreamInfo {
	h.t.Helper()
	info, err := h.Info(h.ctx, s)
	if err != nil {
		h.t.Fatal(err)
	}
	return info
}

// sound fails the test if Check finds anything.
func (h harness) sound() {
	h.t.Helper()
	rep, err := h.Check(h.ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	if !rep.OK() {
		h.t.Fatalf("check: damaged %v, repaired %v", rep.Damaged, rep.Repaired)
	}
}

func (h harness) wantErr(err, want error) {
	h.t.Helper()
	if !errors.Is(err, want) {
		h.t.Fatalf("got error %v, want %v", err, want)
	}
}

func (h harness) equal(got, want []string) {
	h.t.Helper()
	if !slices.Equal(got, want) {
		h.t.Fatalf("got %q, want %q", got, want)
	}
}

// at returns a wall-clock time in milliseconds since 1970.
func at(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
