package storage

// engine is an ordered key-value store with atomic writes and snapshots. All
// record, bucket and queue logic is written once on top of it. apply and sync
// are called by one goroutine at a time; snapshot by any.
type engine interface {
	// snapshot returns a frozen view; the caller must release it.
	snapshot() snapshot
	// apply makes all writes visible at once, or none. It keeps the slices.
	apply(writes []write) error
	// sync returns once everything applied so far survives a power cut.
	sync() error
	// close releases everything. Not called while snapshots are open.
	close() error
}

// snapshot is a frozen view of an engine, for one goroutine.
type snapshot interface {
	// get returns a copy of the value, or nil if the key is absent.
	get(key []byte) ([]byte, error)
	// scan calls fn for the keys of sp in order until fn returns false. key,
	// and what value returns, are valid during the call only.
	scan(sp span, fn func(key []byte, value func() ([]byte, error)) bool) error
	release()
}

// write sets a key, or deletes it when value is nil.
type write struct{ key, value []byte }

// span is the key interval [from, to). Both are non-empty, of equal first byte.
type span struct {
	from, to []byte
	prefix   []byte // of every key in the span; may be empty
	reverse  bool
}

// prefixSpan covers every key that starts with prefix.
func prefixSpan(prefix []byte) span {
	return span{from: prefix, to: after(prefix), prefix: prefix}
}

// after returns the smallest key greater than every key that starts with
// prefix. The prefix must not be all 0xff; ours start with a letter.
func after(prefix []byte) []byte {
	to := append([]byte(nil), prefix...)
	for i := len(to) - 1; i >= 0; i-- {
		if to[i]++; to[i] != 0 {
			return to[:i+1]
		}
	}
	return to
}
