package storage

import (
	"bytes"
	"cmp"
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

	log   *os.File // lastLog, kept open to be synced; nil if it is not yet
	gate  *roomGate
	spare bool // the next log has its blocks

	compactors *compactors
}

const logExt = ".mem"

// valueThreshold is above MaxValueSize: no value ever goes to the value log.
const valueThreshold = 2 * MaxValueSize

// minMemTable is the smallest write buffer that takes the largest batch
// (Badger allows a transaction 15 % of it).
const minMemTable = 16 << 20

// engineOptions is the options table; docs/spec/storage.md gives the reasons.
func engineOptions(dir string, key []byte, sizes Sizes, gate *roomGate) badger.Options {
	o := badger.DefaultOptions(dir).
		WithLogger(badgerLogger{gate.log, gate}).
		WithMemTableSize(sizes.MemTable).
		WithNumMemtables(2).
		WithBaseTableSize(4 << 20).
		WithBlockCacheSize(sizes.BlockCache).
		WithIndexCacheSize(sizes.IndexCache).
		WithValueThreshold(valueThreshold).
		WithValueLogFileSize(1 << 20).
		WithNumCompactors(2).
		WithCompression(options.None).
		WithSyncWrites(false).
		WithDetectConflicts(false). // there is one writer
		WithChecksumVerificationMode(options.OnBlockRead).
		WithMetricsEnabled(false).
		WithEncryptionKey(key).
		WithEncryptionKeyRotationDuration(10 * 24 * time.Hour)
	o.TableSizeMultiplier = 1
	return o
}

func openBadger(o badger.Options, gate *roomGate) (e *badgerEngine, err error) {
	// Damaged files make Badger panic as often as return an error.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("opening the database failed: %.200v: %w", r, ErrCorrupt)
		}
		if err != nil {
			gate.unregister()
		}
	}()
	if gate.dir, err = realPath(o.Dir); err != nil {
		return nil, err
	}
	if err := removeSpares(o.Dir); err != nil {
		return nil, notWritable(err)
	}
	gate.memSize = o.MemTableSize
	if n, err := lastLog(o.Dir); err == nil {
		gate.found = int64(n)
	}
	gate.register()
	db, err := badger.Open(o)
	if err != nil {
		return nil, classifyOpen(err)
	}
	last, err := lastLog(o.Dir)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &badgerEngine{db: db, dir: o.Dir, firstLog: last, lastLog: last, gate: gate, compactors: startCompactors(db, gate)}, nil
}

// realPath is the absolute path of a directory without symbolic links.
func realPath(dir string) (string, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", err
	}
	return filepath.Abs(dir)
}

// makeSpare gives the next log its blocks before Badger makes it: an empty file
// of its name with room behind the end. Badger holds a lock that readers need
// while it makes a log, so this one cannot wait for room. The same goes for
// what Badger appends to its MANIFEST, which a write cut short would spoil.
func (e *badgerEngine) makeSpare() error {
	if e.spare || !reserves {
		return nil
	}
	err := reserveFile(e.logPath(e.lastLog+1), os.O_CREATE, e.gate.logRoom())
	if err == nil {
		err = reserveFile(filepath.Join(e.dir, manifestName), 0, manifestRoom)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("reserving room for the next log: %w", notWritable(err)), removeSpares(e.dir))
	}
	e.spare = true
	return nil
}

// manifestRoom is what the MANIFEST may grow by while one log is filled: a
// change takes some 20 bytes.
const manifestRoom = 64 << 10

// reserveFile gives a file blocks for so many bytes behind its end.
func reserveFile(path string, flags int, bytes int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|flags, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		err = reserve(f, info.Size()+bytes)
	}
	return errors.Join(err, f.Close())
}

// removeSpares removes logs that Badger has not made yet: it would take them
// for damaged ones.
func removeSpares(dir string) error {
	logs, err := filepath.Glob(filepath.Join(dir, "*"+logExt))
	for _, name := range logs {
		if info, serr := os.Stat(name); serr == nil && info.Size() == 0 {
			err = errors.Join(err, os.Remove(name))
		}
	}
	return err
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
	case fullError(err):
		return fmt.Errorf("%w: %w", err, ErrNoSpace)
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
	for n := e.firstLog; n < newest; n++ {
		if err := syncFile(e.logPath(n)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err // a log that is gone was written out as a table, and synced
		}
	}
	if newest != e.lastLog {
		if err := errors.Join(syncDir(e.dir), e.closeLog()); err != nil {
			return err
		}
		e.spare = false
		e.compactors.rouse() // the write buffer of the log before becomes a table
	}
	e.firstLog, e.lastLog = newest, newest
	if e.log == nil {
		if e.log, err = os.OpenFile(e.logPath(newest), os.O_RDWR, 0); err != nil {
			return err
		}
	}
	return syncData(e.log)
}

func (e *badgerEngine) closeLog() error {
	f := e.log
	if e.log = nil; f == nil {
		return nil
	}
	return f.Close()
}

// newestLog returns the number of the log that Badger writes now. Who stands
// between Badger and its mapped files knows; elsewhere it mostly is the one
// known, and when that is gone, or has a successor, the directory tells.
func (e *badgerEngine) newestLog() (int, error) {
	if n := e.gate.newest.Load(); n > 0 {
		return int(n), nil
	}
	_, now := os.Stat(e.logPath(e.lastLog))
	next, err := os.Stat(e.logPath(e.lastLog + 1))
	if now == nil && (errors.Is(err, os.ErrNotExist) || err == nil && next.Size() == 0) {
		return e.lastLog, nil
	}
	return lastLog(e.dir)
}

// lastLog returns the highest number of a write-ahead log in a directory.
func lastLog(dir string) (last int, err error) {
	logs, err := filepath.Glob(filepath.Join(dir, "*"+logExt))
	for _, name := range logs {
		var n int
		info, serr := os.Stat(name)
		if serr != nil || info.Size() == 0 {
			continue // written out meanwhile, or a spare
		}
		if _, serr := fmt.Sscanf(filepath.Base(name), "%d"+logExt, &n); serr == nil {
			last = max(last, n)
		}
	}
	if err == nil && last == 0 {
		err = errors.New("the database has no write-ahead log")
	}
	return last, err
}

// closePatience is how long close waits for tables that cannot be written.
const closePatience = 2 * time.Second

// errUnclosed: the engine could not be closed, and keeps its directory.
var errUnclosed = errors.New("the last tables could not be written; the next start does it")

func (e *badgerEngine) close() error {
	spares := errors.Join(removeSpares(e.dir), e.closeLog())
	done := make(chan error, 1)
	go func() { // waited for below, unless the disk is full
		e.compactors.stop()
		done <- e.db.Close()
	}()
	tick := time.NewTicker(roomTick)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			e.gate.unregister()
			return errors.Join(spares, err)
		case <-tick.C:
			if e.gate.full() > closePatience && e.gate.abandon() {
				return fmt.Errorf("%w: %w", errUnclosed, cmp.Or(e.gate.intact(), ErrNoSpace))
			}
		}
	}
}

// compact rewrites the tables so that what was replaced or removed leaves the
// files. Dropping a prefix flushes the write buffer and compacts level 0, if
// there is a key to drop; flattening does the rest. What an open snapshot
// could still see is kept.
func (e *badgerEngine) compact() error {
	e.compactors.hold()
	defer e.compactors.release()
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

// badgerLogger passes Badger's warnings on. Its other lines may hold keys, but
// one of them comes at the right moment to wait for room, and another one to
// let the compactors rest.
type badgerLogger struct {
	log  *slog.Logger
	gate *roomGate
}

func (l badgerLogger) Errorf(f string, a ...any)   { l.log.Error("badger", "message", line(f, a)) }
func (l badgerLogger) Warningf(f string, a ...any) { l.log.Warn("badger", "message", line(f, a)) }

func (l badgerLogger) Infof(format string, _ ...any) {
	if format == flattenLine {
		l.gate.linger()
	}
}

func (l badgerLogger) Debugf(format string, _ ...any) {
	if aboutToBuild(format) {
		l.gate.awaitName()
	}
}

func line(f string, a []any) string { return strings.TrimSpace(fmt.Sprintf(f, a...)) }

// verify checks the block checksums of all tables.
func (e *badgerEngine) verify() (err error) {
	defer recoverCorrupt(&err)
	if err := e.db.VerifyChecksum(); err != nil {
		return fmt.Errorf("%w: %w", err, ErrCorrupt)
	}
	return nil
}
