package storage

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
)

// TestBegin holds the disk still: a batch is visible before it is durable, the
// next one can be begun meanwhile, and a sync that fails is told to all.
func TestBegin(t *testing.T) {
	broken := errors.New("the disk is gone")
	syncing, result := make(chan struct{}), make(chan error)
	var hold atomic.Bool
	o := testOptions(filepath.Join(memoryDir(t), "store"))
	o.hook = func(point string) error {
		if point != "before-sync" || !hold.Load() {
			return nil
		}
		syncing <- struct{}{}
		return <-result
	}
	s := mustOpen(t, o)
	defer s.Close() // it fails: the sync did
	begin := func(key string) Pending {
		t.Helper()
		var b Batch
		b.Put("bucket", []byte(key), []byte("value"))
		p, err := s.Begin(t.Context(), &b)
		check(t, err)
		if v, err := s.GetBucket(t.Context(), "bucket", []byte(key)); err != nil || string(v) != "value" {
			t.Fatalf("not visible: %q, %v", v, err)
		}
		return p
	}
	durable := func(p Pending) bool {
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		select {
		case <-p.r.done:
			return true
		default:
			return !errors.Is(p.Wait(ended), context.Canceled)
		}
	}
	check(t, begin("before").Wait(t.Context()))
	hold.Store(true)
	first := begin("first")
	<-syncing
	if durable(first) {
		t.Fatal("durable before the sync")
	}
	result <- nil
	check(t, first.Wait(t.Context()))
	second := begin("second")
	<-syncing
	hold.Store(false) // closing syncs as well
	result <- broken
	if err := second.Wait(t.Context()); !errors.Is(err, broken) {
		t.Fatalf("a failed sync: %v", err)
	}
	var b Batch
	b.Put("bucket", []byte("third"), nil)
	if _, err := s.Begin(t.Context(), &b); err == nil {
		t.Fatal("written after a failed sync")
	}
	if _, err := s.Begin(t.Context(), &b); err == nil {
		t.Fatal("a batch was begun twice")
	}
}
