package storage

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// compactorsAtWork counts Badger's compactors in the process.
func compactorsAtWork() int {
	stacks := make([]byte, 4<<20)
	return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "levelsController).runCompactor(")
}

// restingStore returns a store whose compactors rest.
func restingStore(t *testing.T) (*Store, Options) {
	t.Helper()
	o := testOptions(filepath.Join(memoryDir(t), "store"))
	o.restAfter = time.Millisecond
	resting := make(chan struct{}, 1)
	o.hook = func(point string) error {
		if point == "compactors-rest" {
			select {
			case resting <- struct{}{}:
			default:
			}
		}
		return nil
	}
	s := mustOpen(t, o)
	select {
	case <-resting:
	case <-s.disk.engine.compactors.done:
		t.Fatal("Flatten did not stop at its first line")
	}
	if n := compactorsAtWork(); n != 0 {
		t.Fatalf("%d compactors work during the rest", n)
	}
	return s, o
}

// TestCompactorsRest: a write buffer that is full ends the rest, so that it is compacted with others, and
// the rest itself compacts nothing.
func TestCompactorsRest(t *testing.T) {
	s, _ := restingStore(t)
	defer s.Close()
	e := s.disk.engine
	value := make([]byte, MaxValueSize)
	tables, moved := 0, false
	look := func() bool {
		levels := e.db.Levels()
		tables = max(tables, levels[0].NumTables)
		for _, l := range levels[1:] {
			moved = moved || l.NumTables > 0
		}
		return moved
	}
	for n := 0; n < 1500 && !look(); n++ {
		var b Batch
		b.Put("bucket", fmt.Append(nil, n), value)
		_, err := s.Commit(t.Context(), &b, Durable)
		check(t, err)
	}
	// A busy machine writes 190 MB sooner than it merges five tables.
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	patience := time.After(time.Minute)
	for !look() {
		select {
		case <-tick.C:
		case <-patience:
			t.Fatal("after 190 MB nothing is compacted: the compactors were not roused")
		}
	}
	if tables < 3 {
		t.Errorf("there were %d tables at level 0 at most: something compacts them before there are enough", tables)
	}
	select {
	case <-e.compactors.done:
		t.Error("Flatten did not stop at its first line")
	default:
	}
}

// TestCloseAtRest: a store closes while its compactors rest, and is purged meanwhile.
func TestCloseAtRest(t *testing.T) {
	for range 3 {
		s, o := restingStore(t)
		var b Batch
		b.Put("bucket", []byte("key"), []byte("value"))
		_, err := s.Commit(t.Context(), &b, Durable)
		check(t, err)
		check(t, s.Purge(t.Context()))
		check(t, s.Close())
		if n := compactorsAtWork(); n != 0 {
			t.Errorf("%d compactors work after closing", n)
		}
		o.hook, o.restAfter = nil, 0
		s = mustOpen(t, o)
		tick, late := time.NewTicker(time.Millisecond), time.After(10*time.Second)
		for n := compactorsAtWork(); n != 2; n = compactorsAtWork() {
			select {
			case <-tick.C: // their goroutines have to begin
			case <-late:
				t.Fatalf("%d compactors work after opening, want 2", n)
			}
		}
		tick.Stop()
		if v, err := s.GetBucket(t.Context(), "bucket", []byte("key")); err != nil || string(v) != "value" {
			t.Errorf("after a rest: %q, %v", v, err)
		}
		check(t, s.Close())
	}
}
