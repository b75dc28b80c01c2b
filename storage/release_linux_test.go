package storage

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// residentTables returns how many kilobytes of a store's tables this process holds.
func residentTables(t *testing.T, dir string) (kb int) {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Skipf("without /proc nobody says what is resident: %v", err)
	}
	defer f.Close()
	ours := false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		if first, _, _ := strings.Cut(line, " "); !strings.HasSuffix(first, ":") {
			m, ok := mappingOf(line)
			ours = ok && filepath.Dir(m.path) == dir && filepath.Ext(m.path) == tableExt
		}
		var n int
		if _, err := fmt.Sscanf(line, "Rss: %d kB", &n); err == nil && ours {
			kb += n
		}
	}
	return kb
}

// TestFreeMemory: the pages of the tables leave the process, and what is asked for comes back.
func TestFreeMemory(t *testing.T) {
	dir, w := cleanWorld(t)
	s := mustOpen(t, testOptions(dir))
	w.whole(t, s)
	engine := s.disk.engine.gate.dir
	if before := residentTables(t, engine); before == 0 {
		t.Fatal("no table is resident: nothing is tested")
	}
	if err := s.FreeMemory(); err != nil {
		t.Fatal(err)
	}
	if after := residentTables(t, engine); after > 0 {
		t.Errorf("%d kB of tables are still resident", after)
	}
	w.whole(t, s)
	mustClose(t, s)
	if err := s.FreeMemory(); err == nil {
		t.Error("a closed store freed memory")
	}
}

// TestFreeMemoryWhileMerging gives memory back while tables are merged and unmapped all the time. A wrong
// address would clear somebody else's memory.
func TestFreeMemoryWhileMerging(t *testing.T) {
	dir, w := cleanWorld(t)
	s := mustOpen(t, testOptions(dir))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { // ends with ctx; waited for below
		for ctx.Err() == nil {
			if err := s.FreeMemory(); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for range 20 {
		w = fillWorldMore(t, s, w)
		if err := s.Purge(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	w.whole(t, s)
	if rep, err := s.Check(t.Context()); err != nil || !rep.OK() {
		t.Errorf("check %+v, %v", rep, err)
	}
	mustClose(t, s)
}

func TestMappingOf(t *testing.T) {
	for line, want := range map[string]mapping{
		"7f0000000000-7f0000400000 rw-s 00000000 08:01 42                         /s/db/000001.sst":           {0x7f0000000000, 0x7f0000400000, "/s/db/000001.sst"},
		"7f0000000000-7f0000400000 rw-s 00000000 08:01 42                         /s/db/000001.sst (deleted)": {},
		"7f0000000000-7f0000400000 rw-p 00000000 00:00 0":                                                     {},
		"7f0000000000-7f0000400000 rw-p 00000000 00:00 0                          [heap]":                     {},
		"7f0000400000-7f0000000000 rw-s 00000000 08:01 42                         /s/db/000001.sst":           {},
		"Rss:                 4 kB": {},
		"":                          {},
	} {
		if got, ok := mappingOf(line); ok != (want.path != "") || ok && got != want {
			t.Errorf("%q: got %+v, %v", line, got, ok)
		}
	}
}
