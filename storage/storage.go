// Package storage keeps sealed, idempotent record logs, key-value buckets and
// due-ordered queues in one directory (or in memory, for simulations).
//
// What it is for: anything that has to survive a crash. A record log (a
// "stream") holds records ordered by (time, id) and counts their arrival; a
// bucket maps keys to values; a queue orders items by the time they fall due.
// All of them can be changed together in one atomic [Batch].
//
// What it is not: it knows no chat, opens no connection, and interprets no
// value. Values are opaque bytes; times are the 64-bit readings described at
// [Record].
//
// Guarantees:
//   - A batch is atomic, also across kill -9 and power cuts.
//   - When [Store.Commit] with [Durable] returns nil, the batch is on disk.
//   - Batches take effect in one total order; a reader sees a prefix of it.
//   - Values are sealed with XChaCha20-Poly1305 under their full key: a value
//     that was damaged or moved is an error ([ErrCorrupt]), never other data.
//
// All methods of Store may be called from several goroutines. A Batch belongs
// to one goroutine until it is committed.
package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// What callers branch on. Every error of this package wraps at most one.
var (
	// ErrNotFound: the record, stream, key or queue item does not exist.
	ErrNotFound = errors.New("not found")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store is closed")
	// ErrTooBig: a key, value or batch exceeds a documented limit.
	ErrTooBig = errors.New("over the size limit")
	// ErrNoSpace: the disk is so full that the write was refused (see [State]).
	// Nothing of it was written. Writes work again once space was freed.
	ErrNoSpace = errors.New("not enough free disk space")
	// ErrCorrupt: data on disk is damaged or was moved; nothing was returned.
	ErrCorrupt = errors.New("stored data is damaged")
	// ErrLocked: another process has the directory open.
	ErrLocked = errors.New("directory is in use by another process")
	// ErrNotWritable: the directory cannot be written.
	ErrNotWritable = errors.New("directory is not writable")
	// ErrWrongKey: the master key is not the one the store was made with.
	ErrWrongKey = errors.New("wrong key for this store")
	// ErrManifest: tables are there but their MANIFEST is missing or not the
	// one they were closed with. See [Repair].
	ErrManifest = errors.New("MANIFEST is missing or damaged")
	// ErrNewer: the directory was written by a newer version of the program.
	ErrNewer = errors.New("store was written by a newer version")
)

// Limits of one batch, checked while it is built; [Batch] reports the first
// violation when it is committed and nothing of it is written.
const (
	// MaxBatchOps is the most operations a batch may hold.
	MaxBatchOps = 4096
	// MaxBatchBytes is the most bytes of keys and values in one batch.
	MaxBatchBytes = 1 << 20
	// MaxValueSize is the largest value of a record, bucket or queue item. It
	// keeps every value inside the tables: Badger's value log never shrank in
	// a database of this shape.
	MaxValueSize = 128 << 10
	// MaxKeySize is the longest bucket key, in bytes.
	MaxKeySize = 512
	// MaxNameSize is the longest name of a stream, bucket or queue, in bytes.
	MaxNameSize = 64
)

// KeySize is the length of the master key in bytes.
const KeySize = 32

// Mode says what a store accepts at the moment.
type Mode uint8

// Modes, from everything to nothing.
const (
	// ModeOK: everything is accepted.
	ModeOK Mode = iota
	// ModeNoHistory: relaxed appends (records that others still hold) are
	// refused with ErrNoSpace, everything else is accepted.
	ModeNoHistory
	// ModeReadOnly: every write is refused with ErrNoSpace.
	ModeReadOnly
	// ModeFailed: a sync failed, so what is on disk is unknown. Reads go on,
	// writes return the error; close the store and open it again.
	ModeFailed
)

// String returns the word shown to people: ok, no-history, read-only, failed.
func (m Mode) String() string {
	switch m {
	case ModeOK:
		return "ok"
	case ModeNoHistory:
		return "no-history"
	case ModeReadOnly:
		return "read-only"
	default:
		return "failed"
	}
}

// State is what [Store.State] reports.
type State struct {
	// Mode is what the store accepts now.
	Mode Mode
	// Free is the number of bytes free on the file system for this user; 0
	// with FreeKnown false when there is no way to know.
	Free      uint64
	FreeKnown bool
	// Err is the failure behind ModeFailed.
	Err error
	// Epoch is the number of the present epoch key: it goes up when what was
	// deleted or overwritten in ephemeral buckets was made unreadable.
	Epoch uint32
	// Recovery says what the last Open found and repaired.
	Recovery Recovery
}

// Recovery is what Open found on disk.
type Recovery struct {
	// Unclean: the last process did not close the store.
	Unclean bool
	// Lost is the number of acknowledged commits that are missing; anything
	// but 0 means that the disk or somebody damaged files. Records that
	// others hold come back by sync.
	Lost uint64
	// Unproved: the file that proves Lost == 0 was missing or damaged.
	Unproved bool
	// Replayed is the number of own records put back from the guard journal.
	Replayed int
	// JournalDamaged: part of the guard journal could not be read.
	JournalDamaged bool
	// Migrated is the schema version the store had before, if older.
	Migrated int
	// Check is the result of the check that runs in the background after an
	// unclean stop when counts do not agree with records; nil if they did, or
	// while it has not finished.
	Check *Report
	// Damage is what that check could not read, if anything.
	Damage error
}

// SpaceLimits are the free-space thresholds in bytes. A full disk kills the
// process (SIGBUS in mapped files), so the store stops writing long before.
type SpaceLimits struct {
	// NoHistory: below it, relaxed appends are refused. 0 = 512 MiB, or twice
	// ReadOnly if that is more.
	NoHistory uint64
	// ReadOnly: below it, every write is refused. It must leave room for the
	// tables that are being written when it is reached. 0 = 256 MiB, or six
	// times Sizes.MemTable if that is more.
	ReadOnly uint64
	// Ballast is the size of a file kept only to be deleted when the disk is
	// full, so that the store can close and open (both write). 0 = 64 MiB, or
	// what two such flushes need if that is more.
	Ballast uint64
	// Off switches the guard off. Only for file systems without quota calls
	// and for throw-away stores.
	Off bool
}

// Options of a store. Only Dir (for Open) and Key are needed.
type Options struct {
	// Dir is created with mode 0700 if missing. Unused by OpenMemory.
	Dir string
	// Key is the 32-byte master key; sub-keys are derived by HKDF-SHA256. Nil
	// is allowed for OpenMemory only, which then makes one up.
	Key []byte
	// Logger gets warnings about damage and repair; nil discards them.
	Logger *slog.Logger
	// Now is the clock for retention and queues; nil means time.Now.
	Now func() time.Time
	// Space holds the free-space thresholds.
	Space SpaceLimits
	// FreeSpace returns the bytes free for dir; nil asks the operating system.
	FreeSpace func(dir string) (uint64, error)
	// Sizes are the engine's buffers; the zero value means DefaultSizes.
	Sizes Sizes

	// hook is called by tests at named points of the write path; an error
	// makes the write fail there.
	hook func(point string) error
	// restAfter is replaced by tests of the compactors' rest.
	restAfter time.Duration
	// schema and migrations are replaced by tests of migrations.
	schema     uint64
	migrations map[uint64]migration
}

// Sizes are the engine's buffers, in bytes.
type Sizes struct {
	// MemTable is the write buffer. Raising it costs twice as much memory and
	// write-ahead log. It may be lowered only after a clean stop; Open sees to
	// that by itself.
	MemTable int64
	// BlockCache holds uncompressed table blocks; IndexCache table indexes.
	BlockCache, IndexCache int64
}

// DefaultSizes fit a laptop: about 50 MB of memory with a million records, 75 MB once they were searched all
// over (docs/bench/storage.md). A block cache of twice the size made no page and no search faster.
var DefaultSizes = Sizes{MemTable: 16 << 20, BlockCache: 16 << 20, IndexCache: 16 << 20}

// RelaySizes fit a public relay, which serves many streams at once.
var RelaySizes = Sizes{MemTable: 64 << 20, BlockCache: 128 << 20, IndexCache: 32 << 20}

// DefaultOptions returns the options for a laptop.
func DefaultOptions(dir string, key []byte) Options {
	return Options{Dir: dir, Key: key, Sizes: DefaultSizes}
}

// RelayOptions returns the options for a public relay.
func RelayOptions(dir string, key []byte) Options {
	return Options{Dir: dir, Key: key, Sizes: RelaySizes}
}

func (o *Options) fill() {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Sizes == (Sizes{}) {
		o.Sizes = DefaultSizes
	}
	buffer := uint64(o.Sizes.MemTable)
	if o.Space.ReadOnly == 0 {
		o.Space.ReadOnly = max(256<<20, 6*buffer)
	}
	if o.Space.NoHistory == 0 {
		o.Space.NoHistory = max(512<<20, 2*o.Space.ReadOnly)
	}
	if o.Space.Ballast == 0 {
		o.Space.Ballast = max(64<<20, 2*flushRoom(buffer))
	}
	if o.schema == 0 {
		o.schema, o.migrations = schemaVersion, migrations
	}
	if o.restAfter == 0 {
		o.restAfter = restAfter
	}
	if o.hook == nil {
		o.hook = func(string) error { return nil }
	}
}

// Store is an open store. Close it to release the directory.
type Store struct {
	opts Options
	log  *slog.Logger
	eng  engine
	seal *sealer

	// On disk, one goroutine owns all writes and receives them here. In memory
	// there is none: callers run the same code under writeMu.
	requests chan *request
	quit     chan struct{} // closed by Close
	done     chan struct{} // closed when the committer has ended
	writeMu  sync.Mutex    // in memory: held while a group is committed

	// Owned by the committer: the last commit number, the time of the last sync,
	// days known to have no cached digest, and the filter of IDs.
	seq        uint64
	synced     time.Time
	undigested map[streamDay]bool
	ids        atomic.Pointer[idFilter] // nil in memory
	idLookups  atomic.Int64
	unsynced   atomic.Bool // something that was committed is not on the disk; anybody may ask

	failed atomic.Pointer[error]
	users  gate  // readers and callers in progress
	disk   *disk // nil in memory

	background sync.WaitGroup     // the check after an unclean stop, filling ids
	cancel     context.CancelFunc // ends the check; nil if none was started

	closeOnce sync.Once
	closeErr  error
	rotateMu  sync.Mutex // serializes RotateEpoch

	recoveryMu sync.Mutex // guards recovery once the store is open
	recovery   Recovery
	search     searchIndex
}

// OpenMemory returns a store that lives in memory and obeys the same contract,
// except that nothing survives Close. It starts no goroutine and no timer, so
// it may live inside a testing/synctest bubble and need not be closed.
func OpenMemory(o Options) (*Store, error) {
	o.fill()
	o.Space.Off = o.Space.Off || o.FreeSpace == nil
	if o.Key == nil {
		o.Key = randomKey()
	}
	if len(o.Key) != KeySize {
		return nil, fmt.Errorf("opening store: master key has %d bytes, want %d", len(o.Key), KeySize)
	}
	s := newStore(o, newMemoryEngine())
	if err := s.seal.ring.start(); err != nil {
		return nil, fmt.Errorf("opening store: %w", err)
	}
	return s, nil
}

func newStore(o Options, eng engine) *Store {
	return &Store{
		opts: o, log: o.Logger, eng: eng, seal: newSealer(o.Key),
		quit: make(chan struct{}), done: make(chan struct{}),
		undigested: make(map[streamDay]bool),
	}
}

// Close writes out what is pending, erases spent epoch keys, and releases the
// directory. It is idempotent and returns after the store's goroutines ended.
// Calls in progress finish or return ErrClosed; a loop over an iterator ends
// with ErrClosed at its next step, and Close waits for that: it must not be
// called from inside such a loop.
func (s *Store) Close() error {
	s.closeOnce.Do(func() { s.closeErr = s.close() })
	return s.closeErr
}

func (s *Store) close() error {
	var errs []error
	if s.cancel != nil {
		s.cancel()
	}
	if s.failed.Load() == nil {
		ctx := context.Background() // nobody to cancel it; bounded by its own work
		if err := s.FlushSearch(ctx); err != nil && !errors.Is(err, ErrNoSpace) {
			errs = append(errs, err)
		}
		if s.seal.ring.used() {
			if err := s.RotateEpoch(ctx); err != nil && !errors.Is(err, ErrNoSpace) {
				errs = append(errs, err)
			}
		}
	}
	s.users.close()
	s.background.Wait()
	if s.disk == nil {
		return errors.Join(append(errs, s.eng.close())...)
	}
	s.stopCommitter()
	return errors.Join(append(errs, s.closeDisk())...)
}

// stopCommitter ends the committer and waits for it.
func (s *Store) stopCommitter() {
	close(s.quit)
	<-s.done
}

// gate counts who is inside the store, so that Close can wait for them.
type gate struct {
	mu     sync.Mutex // guards inside, closed, empty
	inside int
	closed bool
	empty  chan struct{} // closed when closed and nobody is inside
}

// enter admits a caller, who must leave, unless the gate is closed.
func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.inside++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside--; g.closed && g.inside == 0 {
		close(g.empty)
	}
}

// close lets nobody in any more and waits until all have left.
func (g *gate) close() {
	g.mu.Lock()
	g.closed = true
	if g.empty == nil {
		g.empty = make(chan struct{})
		if g.inside == 0 {
			close(g.empty)
		}
	}
	g.mu.Unlock()
	<-g.empty
}

func (g *gate) isClosed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}

// check returns why a loop inside the store must end, if so.
func (s *Store) check(ctx context.Context) error {
	if s.users.isClosed() {
		return ErrClosed
	}
	return ctx.Err()
}
