package storage

import (
	"sync/atomic"

	"github.com/dchest/siphash"
)

// idFilter knows which IDs are certainly not in the database: a Bloom filter
// in blocks of one cache line (Putze, Sanders, Singler 2007). Asking Badger
// for an ID that is not there costs as much as writing a record.
//
// The committer adds to it before what it adds is visible; anybody may ask. A filter for a database that has records is filled by
// a goroutine while the committer adds what is new; until it is ready, Badger
// is asked.
type idFilter struct {
	blocks []idBlock
	added  int // by the committer, or counted when it was built
	limit  int // ids it is made for
	ready  atomic.Bool
}

type idBlock [8]atomic.Uint64

const (
	// idsPerBlock gives 16 bits to an ID: one in 1,000 absent ones is looked up.
	idsPerBlock = 32
	idProbes    = 7
	// firstFilter is the number of IDs a new store's filter is made for.
	firstFilter = 1 << 15
	// filterAfter is how many lookups it takes until a store that had records
	// when it was opened gets a filter: an idle node needs none.
	filterAfter = 4096
)

func newIDFilter(ids int) *idFilter {
	return &idFilter{blocks: make([]idBlock, ids/idsPerBlock+1), limit: ids}
}

// each calls fn for the words and bits of an ID until it returns false.
func (f *idFilter) each(s *sealer, id ID, fn func(w *atomic.Uint64, bit uint64) bool) bool {
	h, g := siphash.Hash128(s.tag0, s.tag1, id[:])
	b := &f.blocks[h%uint64(len(f.blocks))]
	for range idProbes {
		if !fn(&b[g>>6&7], 1<<(g&63)) {
			return false
		}
		g >>= 9
	}
	return true
}

func (f *idFilter) add(s *sealer, id ID) {
	f.each(s, id, func(w *atomic.Uint64, bit uint64) bool {
		w.Or(bit)
		return true
	})
}

// lacks tells whether the ID is certainly absent.
func (f *idFilter) lacks(s *sealer, id ID) bool {
	return f.ready.Load() && !f.each(s, id, func(w *atomic.Uint64, bit uint64) bool { return w.Load()&bit != 0 })
}

// absent tells whether an ID is certainly not in the database.
func (s *Store) absent(id ID) bool {
	f := s.ids.Load()
	if f == nil {
		return false
	}
	s.idLookups.Add(1)
	return f.lacks(s.seal, id)
}

// noteID adds an ID that was appended.
func (s *Store) noteID(id ID) {
	if f := s.ids.Load(); f != nil && len(f.blocks) > 0 {
		f.add(s.seal, id)
		f.added++
	}
}

// growFilter replaces a filter that is full, or makes the first one of a store
// that is written to a lot. It is called between transactions, so that the
// snapshot has everything that was not added to the new filter.
func (s *Store) growFilter() {
	f := s.ids.Load()
	building := f != nil && len(f.blocks) > 0 && !f.ready.Load()
	if f == nil || building || f.added <= f.limit && (f.ready.Load() || s.idLookups.Load() < filterAfter) {
		return
	}
	snap := s.eng.snapshot()
	total, err := s.totalRecords(snap)
	if err != nil || !s.users.enter() {
		snap.release()
		return
	}
	next := newIDFilter(max(firstFilter, 2*total))
	next.added = total
	s.ids.Store(next)
	s.background.Go(func() { // ends with its scan, or when the store closes
		defer s.users.leave()
		defer snap.release()
		done := true
		err := snap.scan(prefixSpan([]byte{kindID}), func(key []byte, _ func() ([]byte, error)) bool {
			if len(key) == 33 {
				next.add(s.seal, ID(key[1:]))
			}
			done = !s.users.isClosed()
			return done
		})
		next.ready.Store(err == nil && done)
	})
}

// totalRecords adds up the books of all streams.
func (s *Store) totalRecords(snap snapshot) (total int, err error) {
	ids, err := streamIDs(snap)
	for i := 0; err == nil && i < len(ids); i++ {
		if c, cerr := s.counters(snap, ids[i]); cerr == nil {
			total += int(c.count + c.stubs)
		}
	}
	return total, err
}
