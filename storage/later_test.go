package storage

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// What opening leaves for later after a clean stop, and that nothing is lost by it.

// rot flips a bit of a file as a disk does, which leaves no trace.
func rot(t *testing.T, path string, offset int64) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	flip(t, path, offset)
	if err := os.Chtimes(path, time.Time{}, info.ModTime()); err != nil {
		t.Fatal(err)
	}
}

// TestRottenTable damages a table that nobody has written to since it was closed, which only its content
// tells. That is read later, before anything is merged.
func TestRottenTable(t *testing.T) {
	dir, w := cleanWorld(t)
	s := mustOpen(t, testOptions(dir))
	tables := s.disk.tables
	if tables == nil || len(tables.rest) < 2 {
		t.Fatalf("tables to be read later: %+v", tables)
	}
	s.checkTables(t.Context())
	if len(tables.rest) > 0 || s.State().Mode != ModeOK {
		t.Fatalf("%d tables not read, %+v", len(tables.rest), s.State())
	}
	w.whole(t, s)
	mustClose(t, s)

	rot(t, tablesIn(t, dir)[0], 100)
	s = mustOpen(t, testOptions(dir))
	defer s.Close() // fails when a merge has met the damage
	if err := s.disk.engine.gate.intact(); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("a merge may begin: %v", err)
	}
	s.checkTables(t.Context())
	if st := s.State(); st.Mode != ModeFailed || !errors.Is(st.Err, ErrCorrupt) || !errors.Is(st.Recovery.Damage, ErrCorrupt) {
		t.Fatalf("nothing said: %+v", st)
	}
	var b Batch
	b.Put("bucket", []byte("key"), []byte("value"))
	if _, err := s.Commit(t.Context(), &b, Durable); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("a commit: %v", err)
	}
	left := filepath.Join(memoryDir(t), "copy")
	copyDir(t, dir, left)
	refuses(t, testOptions(left), ErrCorrupt)
}

// TestTouchedTable: a table that somebody has written to is read before the database is opened, and once.
func TestTouchedTable(t *testing.T) {
	dir, _ := cleanWorld(t)
	touched := tablesIn(t, dir)[0]
	now := time.Now().Add(time.Hour)
	if err := os.Chtimes(touched, now, now); err != nil {
		t.Fatal(err)
	}
	for _, later := range []bool{false, true} {
		s := mustOpen(t, testOptions(dir))
		found := slices.ContainsFunc(s.disk.tables.rest, func(i tableInfo) bool { return i.Name == filepath.Base(touched) })
		if found != later {
			t.Errorf("to be read later: %v, want %v", found, later)
		}
		mustClose(t, s)
	}
}

// TestJournalStaysAsItIs: opening what was closed looks nothing up and writes no journal.
func TestJournalStaysAsItIs(t *testing.T) {
	dir, w := cleanWorld(t)
	path := filepath.Join(dir, guardName)
	before, err := os.ReadFile(path)
	if err != nil || len(before) <= len(guardMagic) {
		t.Fatalf("journal of %d bytes, %v", len(before), err)
	}
	s := mustOpen(t, testOptions(dir))
	if !s.disk.settled || len(s.disk.guard.live) == 0 {
		t.Error("the journal was looked through, or is not known")
	}
	mustClose(t, s)
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the journal was written anew: %v", err)
	}
	st, err := readDiskState(dir)
	if err != nil {
		t.Fatal(err)
	}
	st.Journal = false // as an older program leaves it
	if err := st.write(dir); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, testOptions(dir))
	w.whole(t, s)
	mustClose(t, s)
	if st, err = readDiskState(dir); err != nil || !st.Journal {
		t.Errorf("not noted that the journal was looked through: %v", err)
	}
}
