package storage

import (
	"path/filepath"
	"testing"
	"time"
)

// TestRelaxedSync: syncs that nobody waits for are apart, Sync is not held up by that, and syncs nothing
// twice.
func TestRelaxedSync(t *testing.T) {
	syncs := make(chan time.Time, 100)
	o := testOptions(filepath.Join(memoryDir(t), "store"))
	o.hook = func(point string) error {
		if point == "after-sync" {
			syncs <- time.Now()
		}
		return nil
	}
	s := mustOpen(t, o)
	defer s.Close()
	put := func() {
		t.Helper()
		var b Batch
		b.Put("bucket", []byte("key"), []byte("value"))
		_, err := s.Commit(t.Context(), &b, Relaxed)
		check(t, err)
	}
	check(t, s.Sync(t.Context()))
	for len(syncs) > 0 {
		<-syncs // of opening
	}
	put()
	first := <-syncs
	put()
	if apart := (<-syncs).Sub(first); apart < relaxedPause-10*time.Millisecond {
		t.Errorf("two syncs that nobody waits for were %s apart, want %s", apart, relaxedPause)
	}
	put()
	if !s.unsynced.Load() {
		t.Error("nothing waits for a sync after a relaxed batch")
	}
	began := time.Now()
	check(t, s.Sync(t.Context()))
	if at := <-syncs; at.Before(began) || s.unsynced.Load() {
		t.Error("Sync did not sync")
	}
	check(t, s.Sync(t.Context()))
	if len(syncs) > 0 {
		t.Error("Sync synced what was on the disk")
	}
}
