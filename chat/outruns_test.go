package chat

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/starling-chat/starling/storage"
)

// TestOutRuns holds the runs against a plain map: in memory, and as they are stored.
func TestOutRuns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store, err := storage.OpenMemory(storage.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		stream, err := store.Stream(t.Context(), "dm/x")
		if err != nil {
			t.Fatal(err)
		}
		want := make(map[uint64]outStateRow)
		var runs outRuns
		for range rapid.IntRange(1, 20).Draw(t, "batches") {
			dirty := make(map[uint64]bool)
			for range rapid.IntRange(1, 8).Draw(t, "messages") {
				seq := rapid.Uint64Range(1, 24).Draw(t, "seq")
				row := outStateRow{
					State: rapid.SampledFrom([]State{StateDelivered, StateRead}).Draw(t, "state"),
					Path:  rapid.SampledFrom([]Path{PathLAN, PathDirect}).Draw(t, "path"),
				}
				want[seq] = row
				runs = runs.set(seq, row.State, row.Path, dirty)
			}
			var b storage.Batch
			runs.store(&b, stream, dirty)
			if _, err := store.Commit(t.Context(), &b, storage.Relaxed); err != nil {
				t.Fatal(err)
			}
		}
		stored, err := loadOutRuns(t.Context(), store, stream)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range []outRuns{runs, stored} {
			for seq := uint64(0); seq < 26; seq++ {
				row, ok := l.at(seq)
				if w, has := want[seq]; ok != has || row != w {
					t.Fatalf("message %d: %v %v, want %v %v in %v", seq, row, ok, w, has, l)
				}
			}
			for i := 1; i < len(l); i++ {
				if l[i-1].last >= l[i].first || l[i-1].joins(l[i]) {
					t.Fatalf("runs %v and %v should be one", l[i-1], l[i])
				}
			}
		}
	})
}
