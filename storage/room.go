package storage

import (
	"errors"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// roomGate keeps a full disk from killing the process or costing data while
// Badger writes on its own, in goroutines nobody else controls.
//
// Badger writes through mapped files, which it makes sparse: a page that finds
// no block is a SIGBUS, and that ends the process. So the blocks of every file
// are allocated before it is mapped (mapped_linux.go). A table that finds no
// room must wait for some: Badger takes no notice of an error there and deletes
// the tables it has merged all the same. A table that waits holds up nothing
// but its own compaction or flush, and reading goes on.
type roomGate struct {
	dir     string
	free    func() (free uint64, known bool)
	memSize int64 // Badger's MemTableSize
	found   int64 // number of the last log that was there before Badger was opened; 0 without any
	log     *slog.Logger
	intact  func() error // checks the tables that nobody has read since they were closed, and says whether they are damaged

	hold   sync.Mutex // held while no merge may begin to write; guards passed
	passed uint64     // how often one did

	restAfter time.Duration // how long nothing has to be done until the compactors rest
	atRest    func()        // is called when they do

	newest  atomic.Int64           // number of the last log that was mapped; 0 if nobody saw it
	resting atomic.Pointer[func()] // what Flatten's goroutine is to do while the compactors rest; see compactors

	mu        sync.Mutex // guards what follows
	waiting   int        // tables that wait for room
	since     time.Time  // when the first of them began to
	abandoned bool       // nobody waits for the engine any more
}

// Room a table must find before it is made, and how often a waiting one looks.
// It is room for the name of the file, which some file systems need blocks for;
// the table itself has its blocks allocated.
const (
	tableRoom = 8 << 20
	roomTick  = 100 * time.Millisecond
)

// logRoom returns how much of a write-ahead log is ever written: Badger starts
// the next one when it holds MemTableSize, and a transaction is 15 % of that at
// most.
func (g *roomGate) logRoom() int64 { return g.memSize + g.memSize/4 }

// want returns how many bytes of a file that is about to be mapped must have
// blocks, and whether it must wait for them.
func (g *roomGate) want(path string, size int64) (bytes int64, wait bool) {
	switch filepath.Ext(path) {
	case logExt:
		if n, ok := logNumber(path); ok {
			g.newest.Store(max(n, g.newest.Load())) // one is made at a time
		}
		return min(size, g.logRoom()), false // Badger holds a lock that readers need
	case tableExt:
		return size, true
	}
	return size, false
}

// fresh tells whether a file is a log that was not there when the engine was opened.
func (g *roomGate) fresh(path string) bool {
	n, ok := logNumber(path)
	return ok && n > g.found
}

func logNumber(path string) (n int64, ok bool) {
	name, ok := strings.CutSuffix(filepath.Base(path), logExt)
	n, err := strconv.ParseInt(name, 10, 64)
	return n, ok && err == nil
}

// await returns once try succeeds. An engine that nobody waits for any more
// never goes on: its directory may be somebody else's by then.
func (g *roomGate) await(try func() error) {
	err := try()
	if err == nil {
		return
	}
	g.mu.Lock()
	if g.waiting++; g.waiting == 1 {
		g.since = time.Now()
		g.log.Warn("tables wait to be written", "error", err)
	}
	g.mu.Unlock()
	for err != nil {
		time.Sleep(roomTick)
		if g.isAbandoned() {
			select {} // ends with the process
		}
		err = try()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting--
}

var errNoTableRoom = errors.New("no room for another table")

// pass returns once merges may begin to write.
func (g *roomGate) pass() {
	g.hold.Lock()
	defer g.hold.Unlock()
	g.passed++
}

// merges tells how often a merge has passed.
func (g *roomGate) merges() uint64 {
	g.hold.Lock()
	defer g.hold.Unlock()
	return g.passed
}

// awaitName waits until there is room for the name of another table, and for
// ever if one of those that are merged is damaged.
func (g *roomGate) awaitName() {
	g.pass()
	g.await(func() error {
		if err := g.intact(); err != nil {
			return err
		}
		if free, known := g.free(); known && free < tableRoom {
			return errNoTableRoom
		}
		return nil
	})
}

// full tells for how long a table has been waiting; 0 if none is.
func (g *roomGate) full() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiting == 0 {
		return 0
	}
	return max(1, time.Since(g.since))
}

func (g *roomGate) isAbandoned() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.abandoned
}

// abandon stops whatever waits, for good, and tells whether anything does.
func (g *roomGate) abandon() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.abandoned = g.waiting > 0
	return g.abandoned
}

// aboutToBuild tells from a line of Badger's log that a compaction makes its
// next table now. The line is written before the file is made, by a goroutine
// that may wait.
func aboutToBuild(format string) bool { return strings.HasPrefix(format, "[%d] LOG Compact. Added") }
