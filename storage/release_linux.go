package storage

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/sys/unix"
)

// release takes the pages of the tables out of this process: a table stays mapped as it was written, opened or
// merged, whole, and nobody asks for most of it again. What is needed comes back from the system's cache.
//
// Badger unmaps a table when it has merged it, without a word, and the runtime may use the address again, where
// the same call would clear memory. So it must be certain which tables stay: while an iterator is open, and no
// merge has passed the gate since before it was made, those are what the MANIFEST lists. A merge that passed
// earlier has taken its tables out of the MANIFEST before the iterator was made, or the iterator holds them.
// Where one has passed, nothing is done: this is for quiet times.
func (e *badgerEngine) release() error {
	passed := e.gate.merges()
	txn := e.db.NewTransaction(false)
	defer txn.Discard()
	o := badger.DefaultIteratorOptions
	o.PrefetchValues = false
	it := txn.NewIterator(o)
	defer it.Close()
	// Only now: who makes an iterator may wait for a merge.
	e.gate.hold.Lock()
	defer e.gate.hold.Unlock()
	if e.gate.passed != passed {
		return nil
	}
	live, _, err := manifestTables(e.dir)
	if err != nil {
		return err
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return err
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		m, ok := mappingOf(lines.Text())
		if !ok || filepath.Dir(m.path) != e.gate.dir {
			continue
		}
		name, table := strings.CutSuffix(filepath.Base(m.path), tableExt)
		id, err := strconv.ParseUint(name, 10, 64)
		if _, ok := live[id]; !table || err != nil || !ok {
			continue
		}
		if _, _, errno := syscall.Syscall(syscall.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("giving back the pages of a table: %w", errno)
		}
	}
	return nil
}

// mapping is a line of /proc/self/maps.
type mapping struct {
	from, to uintptr
	path     string
}

// mappingOf reads a line; not ok if it is of no file.
func mappingOf(line string) (m mapping, ok bool) {
	f := strings.Fields(line)
	if len(f) != 6 || !strings.HasPrefix(f[5], "/") {
		return m, false // also a path with a space, whose pages stay
	}
	from, to, _ := strings.Cut(f[0], "-")
	a, err := strconv.ParseUint(from, 16, 64)
	if err != nil {
		return m, false
	}
	b, err := strconv.ParseUint(to, 16, 64)
	return mapping{uintptr(a), uintptr(b), f[5]}, err == nil && a < b
}
