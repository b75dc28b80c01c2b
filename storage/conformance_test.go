package storage_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/starling-chat/starling/storage"
	"github.com/starling-chat/starling/storage/storagetest"
)

var testKey = bytes.Repeat([]byte{7}, storage.KeySize)

func openMemory(t *testing.T, change func(*storage.Options)) *storage.Store {
	t.Helper()
	var o storage.Options
	change(&o)
	s, err := storage.OpenMemory(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func openDisk(t *testing.T, change func(*storage.Options)) *storage.Store {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "storage") // nothing here asks for a real disk
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	o := storage.DefaultOptions(dir, testKey)
	change(&o)
	s, err := storage.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestMemory(t *testing.T) { storagetest.Run(t, openMemory) }

func TestDisk(t *testing.T) { storagetest.Run(t, openDisk) }
