package storage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"
)

const millionRecords = 1_000_000

// TestMillion keeps a million messages and measures, in a process of its own that opens them again: the time
// to open, pages of 50 anywhere, searches, and memory. The bounds are the product's, so the test runs on
// demand only:
//
//	STARLING_FULL=1 go test -run TestMillion -v -timeout 60m ./storage
func TestMillion(t *testing.T) {
	if os.Getenv("STARLING_FULL") == "" {
		t.Skip("a million messages take minutes: set STARLING_FULL")
	}
	o := DefaultOptions(t.TempDir(), testKey)
	s := mustOpen(t, o)
	st, err := s.Stream(t.Context(), "room")
	check(t, err)
	began := time.Now()
	for n := 0; n < millionRecords; n += 1000 {
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

	out, err := childCommand(t, "million", o.Dir).Output()
	check(t, err)
	var m millionMeasured
	check(t, json.Unmarshal(out, &m))
	t.Logf("open %s; page of 50: p50 %s, p99 %s, max %s; search: p50 %s, p99 %s, max %s; memory %d MiB after %s, %d MiB at the most, and %d MiB of mapped files",
		m.Open, m.Pages[0], m.Pages[1], m.Pages[2], m.Searches[0], m.Searches[1], m.Searches[2], m.Private>>20, m.Settled.Round(time.Second), m.Peak>>20, m.Mapped>>20)
	for what, over := range map[string]bool{
		"opening took over 2 s":       m.Open > 2*time.Second,
		"a page took over 5 ms":       m.Pages[1] > 5*time.Millisecond,
		"a search took over 50 ms":    m.Searches[1] > 50*time.Millisecond,
		"memory stays over 100 MiB":   m.Private > millionMemory,
		"opening was no clean reopen": m.Unclean,
	} {
		if over {
			t.Error(what)
		}
	}
}

// millionMemory is the most that a store of a million may keep resident, in bytes.
const millionMemory = 100 << 20

// millionMeasured is what a process found that opened the store of a million.
type millionMeasured struct {
	Open                  time.Duration
	Pages, Searches       [3]time.Duration // half of them took less, 99 of a hundred, all
	Private, Peak, Mapped uint64           // bytes
	Settled               time.Duration    // until Private was what it is
	Unclean               bool
}

// childMillion opens the store and uses it as a node does, in a process of its own: what writing a million
// left behind in the heap is not what a node keeps that was started today.
func childMillion(ctx context.Context, dir string) error {
	debug.SetMemoryLimit(256 << 20) // as the program does
	var m millionMeasured
	began := time.Now()
	s, err := Open(ctx, DefaultOptions(dir, testKey))
	if err != nil {
		return err
	}
	m.Open = time.Since(began)
	m.Unclean = s.State().Recovery != Recovery{}
	st, err := s.LookupStream(ctx, "room")
	if err != nil {
		return err
	}
	look := func(fn func() error) (spread [3]time.Duration) {
		took := make([]time.Duration, 1000)
		for i := range took {
			began := time.Now()
			err = errors.Join(err, fn())
			took[i] = time.Since(began)
			if private, _, rerr := residentMemory(); i%10 == 0 {
				m.Peak, err = max(m.Peak, private), errors.Join(err, rerr)
			}
		}
		slices.Sort(took)
		return [3]time.Duration{took[500], took[990], took[999]}
	}
	m.Pages = look(func() error { return millionPage(ctx, s, st) })
	m.Searches = look(func() error { return millionSearch(ctx, s, st, rand.IntN(millionRecords)) })
	settled, rerr := m.settle(ctx)
	m.Settled = settled
	return errors.Join(err, rerr, s.Close(), json.NewEncoder(os.Stdout).Encode(m))
}

// settle waits until memory is given back, at most a minute, and says how long that took. Merging what a million
// left takes more for seconds, and Badger keeps the buffers of it for a quarter of a minute.
func (m *millionMeasured) settle(ctx context.Context) (took time.Duration, err error) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for began := time.Now(); ; {
		runtime.GC() // pools give up what they hold in the second collection
		debug.FreeOSMemory()
		m.Private, m.Mapped, err = residentMemory()
		if took = time.Since(began); err != nil || m.Private <= millionMemory || took > time.Minute {
			return took, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return took, ctx.Err()
		}
	}
}

// millionPage reads a page of 50 anywhere.
func millionPage(ctx context.Context, s *Store, st StreamID) error {
	from := Position{Time: uint64(50+rand.IntN(millionRecords-50)) << 16}
	n := 0
	for r, err := range s.Scan(ctx, st, Range{Before: from, Reverse: true, Limit: 50}) {
		if err != nil {
			return err
		}
		if !strings.HasPrefix(string(r.Value), "message ") {
			return fmt.Errorf("record %q", r.Value)
		}
		n++
	}
	if n != 50 {
		return fmt.Errorf("a page of %d", n)
	}
	return nil
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
func millionSearch(ctx context.Context, s *Store, st StreamID, i int) error {
	query := [...]string{
		fmt.Sprintf("n%d", i), fmt.Sprintf("topic%d", i%1000), fmt.Sprintf("word0 topic%d", i%1000), "message",
	}[i%4]
	found, err := s.Search(ctx, query, []StreamID{st}, 50, func(r Record) bool { return TextMatches(query, string(r.Value)) })
	if err == nil && len(found) == 0 && i%4 != 2 {
		err = fmt.Errorf("nothing found for %q", query)
	}
	return err
}

// residentMemory returns the process's private memory and what it has mapped of
// files, which the system may take back.
func residentMemory() (private, mapped uint64, err error) {
	b, err := os.ReadFile("/proc/self/status")
	for line := range bytes.Lines(b) {
		var n uint64
		if _, err := fmt.Sscanf(string(line), "RssAnon: %d kB", &n); err == nil {
			private = n << 10
		}
		if _, err := fmt.Sscanf(string(line), "RssFile: %d kB", &n); err == nil {
			mapped = n << 10
		}
	}
	return private, mapped, err
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
