package storage

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// badgerEngine is the engine on disk. Badger reports a damaged block by
// pretending that its keys do not exist, so Open verifies whole tables before
// Badger sees them (tables.go), and values carry their own seals.
type badgerEngine struct {
	db  *badger.DB
	dir string

	// Badger's Sync covers the present write-ahead log only, not one that was
	// full and replaced since. So the engine syncs the log files by itself:
	// all from firstLog to lastLog may hold what is not on disk. Owned by the
	// caller of apply and sync.
	firstLog, lastLog int

	// lean engines have no compactors: they were opened with so little room
	// that a compaction could have filled the disk. Once there is room again,
	// compaction is done by hand after every few logs, until the next start.
	lean    bool
	overdue int // logs since the last compaction
}

// leanLogs is how many logs a lean engine writes between compactions.
const leanLogs = 8

// valueThreshold is above MaxValueSize: no value ever goes to the value log.
const valueThreshold = 2 * MaxValueSize

// minMemTable is the smallest write buffer that takes the largest batch
// (Badger allows a transaction 15 % of it).
const minMemTable = 16 << 20

// engineOptions is the options table; docs/spec/storage.md gives the reasons.
func engineOptions(dir string, key []byte, sizes Sizes, log *slog.Logger) badger.Options {
	return badger.DefaultOptions(dir).
		WithLogger(badgerLogger{log}).
		WithMemTableSize(sizes.MemTable).
		WithNumMemtables(2).
		WithBaseTableSize(4 << 20).
		WithBlockCacheSize(sizes.BlockCache).
		WithIndexCacheSize(sizes.IndexCache).
		WithValueThreshold(valueThreshold).
		WithValueLogFileSize(1 << 20).
		WithNumCompactors(2).
		WithCompression(options.Snappy).
		WithSyncWrites(false).
		WithDetectConflicts(false). // there is one writer
		WithChecksumVerificationMode(options.OnBlockRead).
		WithMetricsEnabled(false).
		WithEncryptionKey(key).
		WithEncryptionKeyRotationDuration(10 * 24 * time.Hour)
}

// leanOptions changes the options for opening on a nearly full disk.
func leanOptions(o badger.Options) badger.Options {
	return o.WithNumCompactors(0).WithNumLevelZeroTables(1000).WithNumLevelZeroTablesStall(2000)
}

func openBadger(o badger.Options) (e *badgerEngine, err error) {
	// Damaged files make Badger panic as often as return an error.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("opening the database failed: %.200v: %w", r, ErrCorrupt)
		}
	}()
	db, err := badger.Open(o)
	if err != nil {
		return nil, classifyOpen(err)
	}
	last, err := lastLog(o.Dir)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &badgerEngine{
		db: db, dir: o.Dir, firstLog: last, lastLog: last,
		lean: o.NumCompactors == 0, overdue: leanLogs,
	}, nil
}

// relieve compacts a lean engine if it is time. The caller knows that there is
// room.
func (e *badgerEngine) relieve() error {
	if !e.lean || e.overdue < leanLogs {
		return nil
	}
	e.overdue = 0
	return e.db.Flatten(2)
}

// classifyOpen gives Badger's errors our names.
func classifyOpen(err error) error {
	switch {
	case errors.Is(err, badger.ErrEncryptionKeyMismatch):
		return fmt.Errorf("%w: %w", err, ErrWrongKey)
	case strings.Contains(err.Error(), "Cannot acquire directory lock"):
		return fmt.Errorf("%w: %w", err, ErrLocked)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: %w", err, ErrNotWritable)
	}
	return fmt.Errorf("opening the database: %w: %w", err, ErrCorrupt)
}

func (e *badgerEngine) snapshot() snapshot {
	return &badgerSnapshot{txn: e.db.NewTransaction(false)}
}

func (e *badgerEngine) apply(writes []write) error {
	txn := e.db.NewTransaction(true)
	defer txn.Discard()
	for _, w := range writes {
		var err error
		if w.value == nil {
			err = txn.Delete(w.key)
		} else {
			err = txn.Set(w.key, w.value)
		}
		if err != nil {
			return err
		}
	}
	return txn.Commit()
}

func (e *badgerEngine) logPath(n int) string {
	return filepath.Join(e.dir, fmt.Sprintf("%05d.mem", n))
}

func (e *badgerEngine) sync() error {
	newest, err := e.newestLog()
	if err != nil {
		return err
	}
	for n := e.firstLog; n <= newest; n++ {
		if err := syncFile(e.logPath(n)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err // a log that is gone was written out as a table, and synced
		}
	}
	if newest != e.lastLog {
		e.overdue += newest - e.lastLog
		if err := syncDir(e.dir); err != nil {
			return err
		}
	}
	e.firstLog, e.lastLog = newest, newest
	return nil
}

// newestLog returns the number of the log that Badger writes now. Mostly that
// is the one known; when it is gone, or has a successor, the directory tells.
func (e *badgerEngine) newestLog() (int, error) {
	_, now := os.Stat(e.logPath(e.lastLog))
	_, next := os.Stat(e.logPath(e.lastLog + 1))
	if now == nil && errors.Is(next, os.ErrNotExist) {
		return e.lastLog, nil
	}
	return lastLog(e.dir)
}

// lastLog returns the highest number of a write-ahead log in a directory.
func lastLog(dir string) (last int, err error) {
	logs, err := filepath.Glob(filepath.Join(dir, "*.mem"))
	if err == nil && len(logs) == 0 {
		err = errors.New("the database has no write-ahead log")
	}
	for _, name := range logs {
		var n int
		if _, serr := fmt.Sscanf(filepath.Base(name), "%d.mem", &n); serr == nil {
			last = max(last, n)
		}
	}
	return last, err
}

func (e *badgerEngine) close() error { return e.db.Close() }

// compact rewrites the tables so that what was replaced or removed leaves the
// files. Dropping a prefix flushes the write buffer and compacts level 0, if
// there is a key to drop; flattening does the rest. What an open snapshot
// could still see is kept.
func (e *badgerEngine) compact() error {
	if err := e.apply([]write{{key: compactKey, value: []byte{0}}}); err != nil {
		return err
	}
	if err := e.db.DropPrefix(compactKey); err != nil {
		return err
	}
	return e.db.Flatten(1)
}

// compactKey has a prefix that no kind uses.
var compactKey = []byte{0xfe}

type badgerSnapshot struct{ txn *badger.Txn }

func (s *badgerSnapshot) release() { s.txn.Discard() }

func (s *badgerSnapshot) get(key []byte) (value []byte, err error) {
	defer recoverCorrupt(&err)
	item, err := s.txn.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return copyValue(item)
}

// copyValue returns a value that is never nil: an empty one, which Badger
// makes of some damage, must not pass for an absent key.
func copyValue(item *badger.Item) ([]byte, error) {
	b, err := item.ValueCopy(nil)
	if b == nil && err == nil {
		b = []byte{}
	}
	return b, err
}

// recoverCorrupt turns a panic over damaged data into an error.
func recoverCorrupt(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("reading the database: %.200v: %w", r, ErrCorrupt)
	}
}

func (s *badgerSnapshot) scan(sp span, fn func(key []byte, value func() ([]byte, error)) bool) (err error) {
	o := badger.DefaultIteratorOptions
	o.PrefetchValues = false
	o.Reverse = sp.reverse
	o.Prefix = sp.prefix
	it := s.txn.NewIterator(o)
	defer it.Close()
	first := sp.from
	if sp.reverse {
		first = sp.to
		if len(sp.prefix) > 0 && !bytes.HasPrefix(first, sp.prefix) {
			// A start outside the prefix would end the walk at once.
			first = append(bytes.Clone(sp.prefix), maxKeyTail...)
		}
	}
	item, err := s.step(it, func() { it.Seek(first) })
	for ; item != nil && err == nil; item, err = s.step(it, it.Next) {
		key := item.Key()
		switch {
		case sp.reverse && bytes.Compare(key, sp.to) >= 0:
			continue
		case sp.reverse && bytes.Compare(key, sp.from) < 0, !sp.reverse && bytes.Compare(key, sp.to) >= 0:
			return nil
		}
		if !fn(key, func() (v []byte, err error) {
			defer recoverCorrupt(&err)
			err = item.Value(func(b []byte) error {
				v = b // in the table's block, which the iterator holds
				return nil
			})
			return v, err
		}) {
			return nil
		}
	}
	return err
}

// maxKeyTail is longer than what can follow a prefix, and sorts after it.
var maxKeyTail = bytes.Repeat([]byte{0xff}, MaxKeySize+1)

// step moves the iterator and returns where it stands, nil at the end.
func (s *badgerSnapshot) step(it *badger.Iterator, move func()) (item *badger.Item, err error) {
	defer recoverCorrupt(&err)
	move()
	if !it.Valid() {
		return nil, nil
	}
	return it.Item(), nil
}

// badgerLogger passes Badger's warnings on. Its other lines may hold keys.
type badgerLogger struct{ log *slog.Logger }

func (l badgerLogger) Errorf(f string, a ...any)   { l.log.Error("badger", "message", line(f, a)) }
func (l badgerLogger) Warningf(f string, a ...any) { l.log.Warn("badger", "message", line(f, a)) }
func (badgerLogger) Infof(string, ...any)          {}
func (badgerLogger) Debugf(string, ...any)         {}

func line(f string, a []any) string { return strings.TrimSpace(fmt.Sprintf(f, a...)) }

// verify checks the block checksums of all tables.
func (e *badgerEngine) verify() (err error) {
	defer recoverCorrupt(&err)
	if err := e.db.VerifyChecksum(); err != nil {
		return fmt.Errorf("%w: %w", err, ErrCorrupt)
	}
	return nil
}
