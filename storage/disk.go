package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// disk is what a store on disk has besides the database. Owned by Open, then
// by the committer, then by close.
type disk struct {
	dir    string
	lock   *os.File
	state  *diskState
	head   *headFile
	guard  *guardFile
	engine *badgerEngine

	openSeq  uint64 // the last commit number when the database was opened
	replayed bool   // logs were replayed then
	settled  bool   // the database has all that the guard journal holds

	tables *tableCheck // what was not read before the database was opened; nil without any

	stateMu sync.Mutex // guards state and the state file
}

// maxRingFile bounds the epoch key file in bytes.
const maxRingFile = ringHeaderSize + maxRingKeys*ringKeySize + sealOverhead

// ringSealKey is what the epoch key file is sealed under, in place of a
// database key.
var ringSealKey = []byte("epoch keys")

// Open opens the store in o.Dir, making it if needed. It checks the directory
// before it touches the database, finishes what a crash interrupted, and puts
// back own records that the database lost; State says what it found. Errors:
// ErrLocked, ErrNotWritable, ErrWrongKey, ErrManifest, ErrCorrupt, ErrNewer,
// ErrNoSpace. ctx bounds the opening only.
func Open(ctx context.Context, o Options) (*Store, error) {
	o.fill()
	s, err := open(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("opening store %s: %w", o.Dir, err)
	}
	return s, nil
}

func (o *Options) validate() error {
	switch {
	case o.Dir == "":
		return errors.New("no directory given")
	case len(o.Key) != KeySize:
		return fmt.Errorf("master key has %d bytes, want %d", len(o.Key), KeySize)
	case o.Sizes.MemTable < minMemTable:
		return fmt.Errorf("write buffer of %d bytes, want at least %d", o.Sizes.MemTable, minMemTable)
	case o.Sizes.BlockCache <= 0 || o.Sizes.IndexCache <= 0:
		return errors.New("block and index cache need a size")
	}
	return nil
}

func open(ctx context.Context, o Options) (*Store, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	if o.FreeSpace == nil {
		o.FreeSpace = freeSpace
	}
	lock, err := lockDir(o.Dir)
	if err != nil {
		return nil, err
	}
	d := &disk{dir: o.Dir, lock: lock}
	s := newStore(o, nil)
	s.disk = d
	if err := s.openDisk(ctx); err != nil {
		return nil, errors.Join(err, d.release())
	}
	return s, nil
}

// lockDir makes the directory and takes its lock, until the file is closed.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, notWritable(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, notWritable(err)
	}
	if err := lockFile(f); err != nil {
		return nil, errors.Join(fmt.Errorf("a node seems to be running here already; stop it or use another directory: %w", err), f.Close())
	}
	return f, nil
}

func notWritable(err error) error {
	switch {
	case readOnlyError(err):
		return fmt.Errorf("%w: %w", ErrNotWritable, err)
	case fullError(err):
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

// release closes what openDisk opened, after an error or at the end of close.
func (d *disk) release() error {
	var errs []error
	if d.engine != nil {
		errs = append(errs, d.engine.close())
	}
	if d.guard != nil {
		errs = append(errs, d.guard.close())
	}
	if d.head != nil {
		errs = append(errs, d.head.close())
	}
	return errors.Join(append(errs, d.lock.Close())...)
}

// openDisk does the steps of opening, in an order in which each protects the
// next.
func (s *Store) openDisk(ctx context.Context) error {
	d := s.disk
	old, err := s.readState()
	if err != nil {
		return err
	}
	if err := s.openSpace(old); err != nil {
		return err
	}
	if err := s.loadRing(old != nil); err != nil {
		return err
	}
	later, err := guardTables(ctx, filepath.Join(d.dir, engineDirName), old)
	if err != nil {
		return hint(err)
	}
	if len(later) > 0 {
		d.tables = &tableCheck{dir: filepath.Join(d.dir, engineDirName), rest: later}
	}
	if err := s.markOpen(old); err != nil {
		return notWritable(err)
	}
	if err := s.openEngine(old); err != nil {
		return err
	}
	if err := s.openSideFiles(old); err != nil {
		return err
	}
	s.requests = make(chan *request, requestQueue)
	go s.commitLoop() // ended by close, which waits for it
	if err := s.recover(ctx); err != nil {
		s.stopCommitter()
		return err
	}
	ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if s.recovery.Unclean {
		s.background.Go(func() { s.verifyCounts(ctx) }) // ended by close, which waits for it
	}
	if d.tables != nil {
		s.background.Go(func() { s.checkLater(ctx) }) // likewise
	}
	return nil
}

// hint says what to do about damage found before the database was opened.
func hint(err error) error {
	if errors.Is(err, ErrManifest) {
		return fmt.Errorf("%w; nothing was changed: run the check command to put the last good MANIFEST back", err)
	}
	return fmt.Errorf("%w; nothing was changed: run the check command to set the damaged table aside "+
		"(sync fetches the lost history again), or restore the directory from a copy", err)
}

// damagedTable says what to do about damage found when the database was open.
func damagedTable(err error) error {
	return fmt.Errorf("%w; stop, and run the check command to set the damaged table aside "+
		"(sync fetches the lost history again), or restore the directory from a copy", err)
}

// readState reads the state file and checks the key against it. The result is
// nil for a new store.
func (s *Store) readState() (*diskState, error) {
	old, err := readDiskState(s.disk.dir)
	if err != nil {
		return nil, err
	}
	if old != nil && !old.keyMatches(s.opts.Key) {
		return nil, ErrWrongKey
	}
	if old == nil {
		entries, err := os.ReadDir(filepath.Join(s.disk.dir, engineDirName))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, notWritable(err)
		}
		if len(entries) > 0 {
			s.log.Warn("store has a database but no state file; treating it as not closed properly")
			size, err := largestLog(filepath.Join(s.disk.dir, engineDirName))
			if err != nil {
				return nil, err
			}
			return &diskState{Version: stateVersion, KeyCheck: keyCheck(s.opts.Key), MemTable: size / 2}, nil
		}
	}
	return old, nil
}

// markOpen writes the state file anew: from now on a stop is unclean.
func (s *Store) markOpen(old *diskState) error {
	d := s.disk
	d.state = &diskState{Version: stateVersion, KeyCheck: keyCheck(s.opts.Key), MemTable: s.opts.Sizes.MemTable}
	if old != nil {
		s.recovery.Unclean = !old.Clean
		d.state.Tables = old.Tables
		// Until the logs are replayed, the old write buffer counts.
		d.state.MemTable = max(old.MemTable, s.opts.Sizes.MemTable)
	}
	return d.state.write(d.dir)
}

// openEngine opens Badger. Logs written with a larger write buffer must be
// replayed with one of that size: a smaller one kills the process.
func (s *Store) openEngine(old *diskState) error {
	d := s.disk
	dir := filepath.Join(d.dir, engineDirName)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return notWritable(err)
	}
	key := subKey(s.opts.Key, "engine")
	if old != nil && !old.Clean && old.MemTable > s.opts.Sizes.MemTable {
		sizes := s.opts.Sizes
		sizes.MemTable = old.MemTable
		gate := s.newGate()
		e, err := openBadger(engineOptions(dir, key, sizes, gate), gate)
		if err != nil {
			return err
		}
		if err := e.close(); err != nil {
			return fmt.Errorf("replaying logs with the larger write buffer: %w", err)
		}
	}
	gate := s.newGate()
	e, err := openBadger(engineOptions(dir, key, s.opts.Sizes, gate), gate)
	if err != nil {
		if damage := d.tables.run(context.Background()); damage != nil {
			return damagedTable(damage) // which says more
		}
		return err
	}
	d.engine, s.eng = e, e
	if err := d.copyRegistry(); err != nil || d.state.MemTable == s.opts.Sizes.MemTable {
		return err
	}
	d.state.MemTable = s.opts.Sizes.MemTable // the larger logs are gone
	return d.state.write(d.dir)
}

func (s *Store) newGate() *roomGate {
	return &roomGate{free: s.free, log: s.log, restAfter: s.opts.restAfter, atRest: func() { _ = s.opts.hook("compactors-rest") }, intact: func() error {
		return s.disk.tables.run(context.Background()) // bounded: it reads the tables once
	}}
}

// copyRegistry keeps a copy of Badger's key registry: without that small file
// all tables are noise.
func (d *disk) copyRegistry() error {
	now, err := readLimited(filepath.Join(d.dir, engineDirName, registryName), maxRegistry)
	if err != nil {
		return fmt.Errorf("copying the key registry: %w", err)
	}
	path := filepath.Join(d.dir, registryCopy)
	if old, err := readLimited(path, maxRegistry); err == nil && bytes.Equal(old, now) {
		return nil
	}
	if err := writeFile(path, now); err != nil {
		return fmt.Errorf("copying the key registry: %w", err)
	}
	return nil
}

// loadRing reads the epoch key file, or makes it for a new store.
func (s *Store) loadRing(exists bool) error {
	ring := s.seal.ring
	path := filepath.Join(s.disk.dir, epochName)
	fileAEAD := newAEAD(subKey(s.opts.Key, "epoch file"))
	ring.now = s.opts.Now
	ring.save = func(plain []byte) error {
		return writeSecretFile(path, sealWith(fileAEAD, 0, ringSealKey, plain))
	}
	b, err := readLimited(path, maxRingFile)
	switch {
	case !exists:
		return ring.start() // what may be there is left from a first start that was cut off
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("the epoch key file %s is missing; put it back, or delete the whole store and "+
			"let sync fetch the history again: %w", epochName, ErrCorrupt)
	case err != nil:
		return err
	}
	if len(b) < sealOverhead || b[0] != sealVersion {
		return fmt.Errorf("the epoch key file %s has no known format: %w", epochName, ErrCorrupt)
	}
	plain, err := fileAEAD.Open(nil, b[5:sealHeaderSize], b[sealHeaderSize:], associated(b, ringSealKey))
	if err != nil {
		return fmt.Errorf("the epoch key file %s does not open: %w", epochName, ErrCorrupt)
	}
	return ring.decode(plain)
}

// openSideFiles opens the head file and the guard journal and finds out
// whether the database lost commits that were acknowledged.
func (s *Store) openSideFiles(old *diskState) error {
	d := s.disk
	head, acknowledged, known, err := openHead(d.dir, s.seal)
	if err != nil {
		return notWritable(err)
	}
	d.head = head
	unclean := old == nil || !old.Clean
	guard, damaged, err := openGuard(d.dir, s.seal, unclean)
	if err != nil {
		return notWritable(err)
	}
	d.guard = guard
	s.ids.Store(new(idFilter)) // empty until it is needed
	snap := s.eng.snapshot()
	defer snap.release()
	if s.seq, err = readHead(s.seal, snap); err != nil {
		return err
	}
	d.openSeq, d.replayed = s.seq, unclean
	if s.seq == 0 { // a new store: nothing has to be read
		f := newIDFilter(firstFilter)
		f.ready.Store(true)
		s.ids.Store(f)
	}
	if !unclean {
		known, acknowledged = true, max(acknowledged, old.Seq)
	}
	if acknowledged > s.seq {
		s.recovery.Lost = acknowledged - s.seq
	}
	// What a clean stop left is there as it was, so nothing has to be looked up.
	d.settled = !unclean && old.Journal && old.Seq == s.seq
	s.recovery.JournalDamaged = damaged
	s.recovery.Unproved = old != nil && !known
	return d.head.reset(s.seq)
}

// recover finishes what a crash interrupted.
func (s *Store) recover(ctx context.Context) error {
	seq := s.seq // the committer is idle
	if err := s.migrate(ctx); err != nil {
		return err
	}
	if s.seal.ring.stale() {
		if err := s.finishRotation(ctx); err != nil && !errors.Is(err, ErrNoSpace) {
			return fmt.Errorf("finishing an interrupted key rotation: %w", err)
		}
	}
	if err := s.replayGuard(ctx, seq); err != nil {
		return fmt.Errorf("putting back own messages from the guard journal: %w", err)
	}
	if err := s.resumeDrops(ctx); err != nil {
		return err
	}
	if s.recovery.Lost > 0 {
		s.log.Error("the database lost acknowledged commits: the disk or a damaged file; sync will fetch what others have",
			"lost", s.recovery.Lost, "replayed", s.recovery.Replayed)
	}
	return nil
}

// replayGuard puts back guarded batches that the database does not have: those
// after its last commit whole, of the others the records that are missing
// though nobody removed them.
func (s *Store) replayGuard(ctx context.Context, seq uint64) error {
	if s.disk.settled {
		return nil
	}
	entries := s.disk.guard.live
	s.disk.guard.live = nil
	var rest []guardEntry
	for _, e := range entries {
		missing := e.seq > seq
		if !missing {
			if e = e.lasting(); len(e.ops) == 0 {
				continue
			}
			have, err := s.Has(ctx, e.ids)
			if err != nil {
				return err
			}
			missing = slices.Contains(have, false)
		}
		if !missing {
			rest = append(rest, e)
			continue
		}
		err := s.replay(ctx, e.ops)
		if errors.Is(err, ErrNoSpace) {
			s.log.Warn("no room to put back own messages; they stay in the guard journal")
			s.disk.guard.live = entries // nobody writes while there is no room
			return nil
		}
		if err != nil {
			return err
		}
		s.recovery.Replayed++
	}
	// The committer owns the journal; replay has answered, so it is idle.
	s.disk.guard.live = append(rest, s.disk.guard.live...)
	s.disk.settled = true
	err := s.update(ctx, Relaxed, func(*tx) error { return s.disk.guard.tidy() })
	if errors.Is(err, ErrNoSpace) {
		return nil // it is tidied when it has grown, at the latest
	}
	return err
}

// resumeDrops goes on with DropStream calls that were interrupted.
func (s *Store) resumeDrops(ctx context.Context) error {
	var dropping []StreamID
	err := s.opened(ctx, prefixSpan([]byte{kindStream}), func(key, plain []byte) bool {
		if len(plain) > 0 && plain[0] == streamDropping {
			dropping = append(dropping, StreamID(key[1:]))
		}
		return true
	})
	for i := 0; err == nil && i < len(dropping); i++ {
		err = s.finishDrop(ctx, dropping[i])
	}
	if err != nil && !errors.Is(err, ErrNoSpace) {
		return fmt.Errorf("finishing an interrupted drop: %w", err)
	}
	return nil
}

// writeGuard appends the guarded batches of a transaction to the journal.
func (s *Store) writeGuard(t *tx) error {
	if s.disk == nil || s.disk.guard == nil || len(t.guard)+len(t.release) == 0 {
		return nil
	}
	g := s.disk.guard
	if g.grown() {
		// What the rewrite leaves out must be in the database for certain.
		if err := errors.Join(s.eng.sync(), g.rewrite()); err != nil {
			return err
		}
	}
	return g.write(s.seq+1, t.guard, t.release, t.removed)
}

// rewriteGuard seals the journal under the present epoch key.
func (s *Store) rewriteGuard() error {
	if s.disk == nil || s.disk.guard == nil {
		return nil
	}
	return s.disk.guard.rewrite()
}

// syncFiles syncs the database and, at the same time, the guard journal.
func (s *Store) syncFiles() error {
	if s.disk == nil {
		return s.eng.sync()
	}
	g := s.disk.guard
	journal := make(chan error, 1)
	if g != nil && g.dirty {
		go func() { journal <- g.sync() }() // waited for below
	} else {
		journal <- nil
	}
	err := s.eng.sync()
	if err = errors.Join(err, <-journal); err != nil || s.disk.head == nil {
		return err
	}
	return s.disk.head.write(s.seq)
}

// closeDisk closes a store on disk after the committer has ended.
func (s *Store) closeDisk() error {
	d := s.disk
	if d.replayed || s.seq != d.openSeq { // closing writes tables
		need := flushRoom(uint64(s.opts.Sizes.MemTable))
		if free, ok := s.makeRoom(need, need); !ok && !reserves {
			// Badger would write a table and be killed. What was acknowledged is
			// in its log; the process's end releases the rest.
			return fmt.Errorf("closing without writing the last tables; the next start does it: %w", noSpace(free, need))
		}
	}
	err := d.engine.close()
	d.engine = nil
	if errors.Is(err, errUnclosed) {
		// Badger still lives, so the lock stays until the process ends.
		return errors.Join(err, d.guard.close(), d.head.close())
	}
	if err == nil && s.failed.Load() == nil {
		err = errors.Join(d.guard.tidy(), s.markClosed())
	}
	return errors.Join(err, d.release())
}

// markClosed copies the MANIFEST and writes the state file of a clean stop.
func (s *Store) markClosed() error {
	d := s.disk
	engine := filepath.Join(d.dir, engineDirName)
	manifest, err := readLimited(filepath.Join(engine, manifestName), maxManifest)
	if err != nil {
		return fmt.Errorf("copying the MANIFEST: %w", err)
	}
	if err := writeFile(filepath.Join(d.dir, manifestCopy), manifest); err != nil {
		return fmt.Errorf("copying the MANIFEST: %w", err)
	}
	if err := d.copyRegistry(); err != nil {
		return err
	}
	tables, err := describeTables(engine, d.state.Tables, 0)
	if err != nil {
		return fmt.Errorf("listing tables: %w", err)
	}
	d.state.Tables, d.state.Manifest = tables, manifestSum(manifest)
	d.state.Clean, d.state.Seq, d.state.Journal = true, s.seq, d.settled
	return d.state.write(d.dir)
}

// tableAge is how old a table must be to be listed while the database is open.
const tableAge = time.Minute

// noteTables brings the table list of the state file up to date, so that also
// after an unclean stop most tables can be verified before they are used.
func (s *Store) noteTables() error {
	if s.disk == nil {
		return nil
	}
	d := s.disk
	d.stateMu.Lock()
	defer d.stateMu.Unlock()
	tables, err := describeTables(filepath.Join(d.dir, engineDirName), d.state.Tables, tableAge)
	if err != nil {
		return err
	}
	d.state.Tables = tables
	return d.state.write(d.dir)
}
