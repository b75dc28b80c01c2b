package storage

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMillion keeps a million messages and measures, after closing and opening
// again: the time to open, pages of 50 anywhere, searches, and memory. The
// bounds are the product's, so the test runs on demand only:
//
//	STARLING_FULL=1 go test -run TestMillion -v -timeout 60m ./storage
func TestMillion(t *testing.T) {
	if os.Getenv("STARLING_FULL") == "" {
		t.Skip("a million messages take minutes: set STARLING_FULL")
	}
	const records = 1_000_000
	o := DefaultOptions(t.TempDir(), testKey)
	s := mustOpen(t, o)
	st, err := s.Stream(t.Context(), "room")
	check(t, err)
	began := time.Now()
	for n := 0; n < records; n += 1000 {
		var batch Batch
		for i := n; i < n+1000; i++ {
			batch.Append(Record{Stream: st, Time: uint64(i) << 16, ID: testID(i), Value: []byte(millionText(i))})
		}
		_, err := s.Commit(t.Context(), &batch, Durable)
		check(t, err)
		for i := n; i < n+1000; i++ {
			check(t, s.Index(t.Context(), st, uint64(i+1), millionText(i)))
		}
		if n%100_000 == 0 {
			t.Logf("%d stored and indexed after %s", n+1000, time.Since(began).Round(time.Second))
		}
	}
	check(t, s.Close())
	t.Logf("stored and indexed in %s, %d MiB on disk", time.Since(began).Round(time.Second), dirSize(t, o.Dir)>>20)

	began = time.Now()
	s = mustOpen(t, o)
	opened := time.Since(began)
	pages := spread(1000, func() {
		from := Position{Time: uint64(50+rand.IntN(records-50)) << 16}
		n := 0
		for r, err := range s.Scan(t.Context(), st, Range{Before: from, Reverse: true, Limit: 50}) {
			check(t, err)
			if !strings.HasPrefix(string(r.Value), "message ") {
				t.Fatalf("record %q", r.Value)
			}
			n++
		}
		if n != 50 {
			t.Fatalf("a page of %d", n)
		}
	})
	searches := spread(1000, func() { millionSearch(t.Context(), t, s, st, rand.IntN(records)) })
	debug.FreeOSMemory()
	private, mapped := residentMemory(t)
	t.Logf("open %s; page of 50: p50 %s, p99 %s, max %s; search: p50 %s, p99 %s, max %s; memory %d MiB and %d MiB of mapped files",
		opened, pages[500], pages[990], pages[999], searches[500], searches[990], searches[999], private>>20, mapped>>20)
	for what, over := range map[string]bool{
		"opening took over 2 s":       opened > 2*time.Second,
		"a page took over 5 ms":       pages[990] > 5*time.Millisecond,
		"a search took over 50 ms":    searches[990] > 50*time.Millisecond,
		"memory went over 100 MiB":    private > 100<<20,
		"opening was no clean reopen": s.State().Recovery != Recovery{},
	} {
		if over {
			t.Error(what)
		}
	}
}

// spread returns the times of so many calls, ascending.
func spread(calls int, fn func()) []time.Duration {
	took := make([]time.Duration, calls)
	for i := range took {
		began := time.Now()
		fn()
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	return took
}

// millionText is the text of a message: its number, a word of every thousandth
// message, and common words.
func millionText(i int) string {
	r := rand.New(rand.NewPCG(uint64(i), 1))
	var b strings.Builder
	fmt.Fprintf(&b, "message n%d topic%d", i, i%1000)
	for range 6 {
		f := r.Float64()
		fmt.Fprintf(&b, " word%d", int(f*f*f*3000))
	}
	return b.String()
}

// millionSearch looks for a message by its number, by a rare word, or by a
// common and a rare one.
func millionSearch(ctx context.Context, t *testing.T, s *Store, st StreamID, i int) {
	t.Helper()
	query := [...]string{
		fmt.Sprintf("n%d", i), fmt.Sprintf("topic%d", i%1000), fmt.Sprintf("word0 topic%d", i%1000), "message",
	}[i%4]
	found, err := s.Search(ctx, query, []StreamID{st}, 50, func(r Record) bool { return TextMatches(query, string(r.Value)) })
	check(t, err)
	if len(found) == 0 && i%4 != 2 {
		t.Fatalf("nothing found for %q", query)
	}
}

// residentMemory returns the process's private memory and what it has mapped of
// files, which the system may take back.
func residentMemory(t *testing.T) (private, mapped uint64) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	check(t, err)
	for line := range bytes.Lines(b) {
		var n uint64
		if _, err := fmt.Sscanf(string(line), "RssAnon: %d kB", &n); err == nil {
			private = n << 10
		}
		if _, err := fmt.Sscanf(string(line), "RssFile: %d kB", &n); err == nil {
			mapped = n << 10
		}
	}
	return private, mapped
}

func dirSize(t *testing.T, dir string) (size int64) {
	t.Helper()
	check(t, walkFiles(dir, func(info os.FileInfo) { size += info.Size() }))
	return size
}

func walkFiles(dir string, fn func(info os.FileInfo)) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			err = walkFiles(dir+"/"+e.Name(), fn)
		} else if info, ierr := e.Info(); ierr == nil {
			fn(info)
		}
		if err != nil {
			return err
		}
	}
	return err
}
