package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// guardFile is the guard journal: a file that is only appended to, holding the
// last guarded batches. When it has grown, it is rewritten. Each entry is four
// bytes of length and a sealed value, under the epoch key. Owned by the
// committer.
type guardFile struct {
	path  string
	f     *os.File
	s     *sealer
	live  []guardEntry // what a rewrite keeps, oldest first
	size  int64
	dirty bool // appended to since the last sync
	torn  bool // the file does not end where its last whole entry does, or has no beginning
}

const (
	guardMagic = "STGUARD1"
	// guardSlack is how much the file may grow beyond its live entries.
	guardSlack = 1 << 20
	// maxGuardFile bounds what is read: 64 batches of the largest size and slack.
	maxGuardFile = guardEntries*(2*MaxBatchBytes) + 2*guardSlack
	// maxGuardEntry bounds one entry.
	maxGuardEntry = 2 * MaxBatchBytes
)

// Entry types, the first byte of an entry's plain text.
const (
	guardBatchEntry   = 'B' // seq8, operations
	guardReleaseEntry = 'R' // ids: their records were removed or replaced
)

// guardEntryHeader is what stands before the operations of a batch: type, commit number.
const guardEntryHeader = 1 + 8

// guardSealKey is what entries are sealed under, in place of a database key.
var guardSealKey = []byte("guard")

// openGuard reads the journal. damaged tells that an entry in it cannot be
// read; a last entry cut short by a crash is not damage when torn is allowed.
func openGuard(dir string, s *sealer, torn bool) (g *guardFile, damaged bool, err error) {
	g = &guardFile{path: filepath.Join(dir, guardName), s: s}
	b, err := readLimited(g.path, maxGuardFile)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return g, false, g.rewrite()
	case errors.Is(err, ErrCorrupt): // far too long: not ours
		return g, true, g.rewrite()
	case err != nil:
		return nil, false, err
	}
	damaged = g.load(b, torn)
	g.f, err = os.OpenFile(g.path, os.O_WRONLY, 0o600)
	return g, damaged, err
}

// load fills live from the content of the file, and size with where its last
// whole entry ends.
func (g *guardFile) load(b []byte, torn bool) (damaged bool) {
	if len(b) < len(guardMagic) || string(b[:len(guardMagic)]) != guardMagic {
		g.torn = true
		return true
	}
	g.size = int64(len(guardMagic))
	defer func() { g.torn = g.size != int64(len(b)) }()
	for rest := b[g.size:]; len(rest) > 0; rest = b[g.size:] {
		if len(rest) < 4 || uint64(binary.BigEndian.Uint32(rest)) > uint64(len(rest)-4) {
			return damaged || !torn
		}
		n := 4 + int64(binary.BigEndian.Uint32(rest))
		plain, err := g.s.openGuard(rest[4:n])
		if err == nil {
			err = g.take(plain)
		}
		last := n == int64(len(rest))
		if err != nil && torn && last {
			return damaged
		}
		damaged = damaged || err != nil
		g.size += n
	}
	return damaged
}

// take applies one entry to live.
func (g *guardFile) take(plain []byte) error {
	switch {
	case len(plain) > guardEntryHeader && plain[0] == guardBatchEntry:
		e := guardEntry{seq: binary.BigEndian.Uint64(plain[1:]), ops: plain[guardEntryHeader:]}
		ids, err := guardIDs(e.ops)
		if err != nil {
			return err
		}
		e.ids = ids
		g.keep(e)
	case len(plain) > 1 && plain[0] == guardReleaseEntry && (len(plain)-1)%32 == 0:
		for b := plain[1:]; len(b) > 0; b = b[32:] {
			g.forget(ID(b))
		}
	default:
		return fmt.Errorf("guard entry has no known form: %w", ErrCorrupt)
	}
	return nil
}

// keep adds an entry to live; of many or large ones the oldest go.
func (g *guardFile) keep(e guardEntry) {
	g.live = append(g.live, e)
	first, size := len(g.live), 0
	for first > 0 && len(g.live)-first < guardEntries {
		if size += len(g.live[first-1].ops); size > guardBytes && first < len(g.live) {
			break
		}
		first--
	}
	g.live = slices.Delete(g.live, 0, first)
}

// forget drops the append of a record, and its entry if that was the last one.
// It tells whether there was one.
func (g *guardFile) forget(id ID) (found bool) {
	for i, e := range g.live {
		if slices.Contains(e.ids, id) {
			g.live[i], found = e.without(func(o guardOp) bool { return o.id == id }), true
		}
	}
	if found {
		g.live = slices.DeleteFunc(g.live, func(e guardEntry) bool { return len(e.ops) == 0 })
	}
	return found
}

// write appends the entries and releases of a transaction, without a sync.
// removed tells which records the transaction itself removes again.
func (g *guardFile) write(seq uint64, entries []guardEntry, release []ID, removed func(ID) bool) error {
	var out []byte
	var gone []byte
	for _, id := range release {
		if g.forget(id) {
			gone = append(gone, id[:]...)
		}
	}
	if len(gone) > 0 {
		out = g.frame(out, append([]byte{guardReleaseEntry}, gone...))
	}
	for _, e := range entries {
		e.seq = seq
		out = g.frame(out, e.plain())
		// A rewrite comes after the commit at the earliest.
		if e = e.without(func(o guardOp) bool { return removed(o.id) }); len(e.ops) > 0 {
			g.keep(e)
		}
	}
	if len(out) == 0 {
		return nil
	}
	if _, err := g.f.WriteAt(out, g.size); err != nil {
		return fmt.Errorf("writing the guard journal: %w", err)
	}
	g.size += int64(len(out))
	g.dirty = true
	return nil
}

func (e guardEntry) plain() []byte {
	b := append(make([]byte, 0, guardEntryHeader+len(e.ops)), guardBatchEntry)
	return append(binary.BigEndian.AppendUint64(b, e.seq), e.ops...)
}

func (g *guardFile) frame(out, plain []byte) []byte {
	sealed := g.s.sealGuard(plain)
	out = binary.BigEndian.AppendUint32(out, uint32(len(sealed)))
	return append(out, sealed...)
}

func (s *sealer) sealGuard(plain []byte) []byte {
	n, aead := s.ring.peek()
	return sealWith(aead, n, guardSealKey, plain)
}

func (s *sealer) openGuard(sealed []byte) ([]byte, error) {
	if len(sealed) < sealOverhead || len(sealed) > maxGuardEntry+sealOverhead || sealed[0] != sealVersion {
		return nil, fmt.Errorf("guard entry of %d bytes: %w", len(sealed), ErrCorrupt)
	}
	aead := s.ring.lookup(binary.BigEndian.Uint32(sealed[1:]))
	if aead == nil {
		return nil, errErased
	}
	return aead.Open(nil, sealed[5:sealHeaderSize], sealed[sealHeaderSize:], associated(sealed, guardSealKey))
}

// grown tells whether the file has become much longer than its live entries.
func (g *guardFile) grown() bool { return g.size > 2*g.needed()+guardSlack }

// needed is how long the file is that has the live entries and nothing else.
func (g *guardFile) needed() int64 {
	n := int64(len(guardMagic))
	for _, e := range g.live {
		n += int64(4 + sealOverhead + guardEntryHeader + len(e.ops))
	}
	return n
}

// sync makes what was appended durable.
func (g *guardFile) sync() error {
	if !g.dirty {
		return nil
	}
	if err := syncData(g.f); err != nil {
		return fmt.Errorf("syncing the guard journal: %w", err)
	}
	g.dirty = false
	return nil
}

// rewrite replaces the file by its live entries, sealed under the present
// epoch key, and overwrites the old one.
func (g *guardFile) rewrite() error {
	out := []byte(guardMagic)
	for _, e := range g.live {
		out = g.frame(out, e.plain())
	}
	if g.f != nil {
		if err := g.f.Close(); err != nil {
			return err
		}
		g.f = nil
	}
	if err := writeSecretFile(g.path, out); err != nil {
		return fmt.Errorf("rewriting the guard journal: %w", err)
	}
	f, err := os.OpenFile(g.path, os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	g.f, g.size, g.dirty, g.torn = f, int64(len(out)), false, false
	return nil
}

// tidy rewrites the file if it holds anything that live does not: batches whole,
// where only the user's words last.
func (g *guardFile) tidy() error {
	if !g.torn && g.size == g.needed() {
		return nil // live is a part of what is there, so it is all of it
	}
	return g.rewrite()
}

func (g *guardFile) close() error {
	if g.f == nil {
		return nil
	}
	return errors.Join(g.sync(), g.f.Close())
}
