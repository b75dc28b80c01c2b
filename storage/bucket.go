package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

// KeyValue is one entry of a bucket.
type KeyValue struct{ Key, Value []byte }

// GetBucket returns the value of a key, or ErrNotFound.
func (s *Store) GetBucket(ctx context.Context, bucket string, key []byte) ([]byte, error) {
	return s.bucketValue(ctx, kindBucket, bucket, key)
}

// GetEphemeral returns the value of a key of an ephemeral bucket, or ErrNotFound.
func (s *Store) GetEphemeral(ctx context.Context, bucket string, key []byte) ([]byte, error) {
	return s.bucketValue(ctx, kindEphemeral, bucket, key)
}

func (s *Store) bucketValue(ctx context.Context, kind byte, bucket string, key []byte) ([]byte, error) {
	err := errors.Join(checkName("bucket", bucket), checkBucketKey(key))
	if err == nil {
		var plain []byte
		if plain, err = s.lookup(ctx, namedKey(kind, bucket, key)); err == nil {
			if plain != nil {
				return plain, nil
			}
			err = ErrNotFound
		}
	}
	return nil, fmt.Errorf("getting from bucket %q: %w", bucket, err)
}

// ScanBucket yields the entries whose key starts with prefix, ascending, from
// one snapshot. It ends after the first error.
func (s *Store) ScanBucket(ctx context.Context, bucket string, prefix []byte) iter.Seq2[KeyValue, error] {
	return s.bucketEntries(ctx, kindBucket, bucket, prefix)
}

// ScanEphemeral is ScanBucket for an ephemeral bucket. An entry overwritten
// while the scan runs may be returned in its new form.
func (s *Store) ScanEphemeral(ctx context.Context, bucket string, prefix []byte) iter.Seq2[KeyValue, error] {
	return s.bucketEntries(ctx, kindEphemeral, bucket, prefix)
}

func (s *Store) bucketEntries(ctx context.Context, kind byte, bucket string, prefix []byte) iter.Seq2[KeyValue, error] {
	return func(yield func(KeyValue, error) bool) {
		if err := errors.Join(checkName("bucket", bucket), checkBucketKey(prefix)); err != nil {
			yield(KeyValue{}, fmt.Errorf("scanning bucket %q: %w", bucket, err))
			return
		}
		sp := prefixSpan(namedKey(kind, bucket, prefix))
		stopped := false
		err := s.opened(ctx, sp, func(key, plain []byte) bool {
			stopped = !yield(KeyValue{bytes.Clone(key[2+len(bucket):]), plain}, nil)
			return !stopped
		})
		if err != nil && !stopped {
			yield(KeyValue{}, fmt.Errorf("scanning bucket %q: %w", bucket, err))
		}
	}
}

// opened scans a span and opens every value.
func (s *Store) opened(ctx context.Context, sp span, fn func(key, plain []byte) bool) error {
	return s.view(ctx, func(snap snapshot) error {
		var inner error
		err := snap.scan(sp, func(key []byte, value func() ([]byte, error)) bool {
			if inner = s.check(ctx); inner != nil {
				return false
			}
			var plain []byte
			stored, err := value()
			if err == nil {
				plain, err = s.seal.open(key, stored)
			}
			if errors.Is(err, errErased) && key[0] == kindEphemeral {
				// A rotation finished meanwhile: look at the present value.
				if plain, err = s.lookup(ctx, bytes.Clone(key)); err == nil && plain == nil {
					return true
				}
			}
			if inner = err; inner != nil {
				return false
			}
			if plain == nil {
				plain = []byte{}
			}
			return fn(key, plain)
		})
		return errors.Join(inner, err)
	})
}

// Item is one entry of a queue.
type Item struct {
	ID    ID
	Due   time.Time // UTC, to the millisecond; zero if it is held
	Value []byte
}

// Due returns up to limit items of a queue that are due at now, the earliest
// first (0 = no limit). They stay in the queue until unscheduled or moved.
func (s *Store) Due(ctx context.Context, queue string, now time.Time, limit int) ([]Item, error) {
	var out []Item
	for it, err := range s.queue(ctx, queue, millis(now)+1) {
		if err != nil {
			return nil, err
		}
		if out = append(out, it); len(out) == limit {
			break
		}
	}
	return out, nil
}

// Queue yields all items of a queue, the earliest due first and those that are
// held last.
func (s *Store) Queue(ctx context.Context, queue string) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		for it, err := range s.queue(ctx, queue, neverDue) {
			if !yield(it, err) || err != nil {
				return
			}
		}
		for it, err := range s.held(ctx, queue) {
			if !yield(it, err) {
				return
			}
		}
	}
}

// NextDue returns when the earliest item of a queue falls due; ok is false if
// none will.
func (s *Store) NextDue(ctx context.Context, queue string) (due time.Time, ok bool, err error) {
	for it, err := range s.queue(ctx, queue, neverDue) {
		return it.Due, err == nil, err
	}
	return time.Time{}, false, nil
}

// QueueItem returns one item of a queue, or ErrNotFound.
func (s *Store) QueueItem(ctx context.Context, queue string, id ID) (it Item, err error) {
	if err = checkName("queue", queue); err == nil {
		err = s.view(ctx, func(snap snapshot) error {
			ms, err := openFrom(s.seal, snap, queuedKey(queue, id))
			if err != nil {
				return err
			}
			held := ms == nil
			if held {
				ms = be64(neverDue)
			}
			key := namedKey(kindDue, queue, append(bytes.Clone(ms), id[:]...))
			plain, err := openFrom(s.seal, snap, key)
			if err != nil {
				return err
			}
			switch {
			case plain == nil && held:
				return ErrNotFound
			case plain == nil:
				return fmt.Errorf("queue index names a missing item: %w", ErrCorrupt)
			}
			it, err = parseItem(key[2+len(queue):], plain)
			return err
		})
	}
	if err != nil {
		return Item{}, fmt.Errorf("getting %s from queue %q: %w", id, queue, err)
	}
	return it, nil
}

func parseItem(rest, plain []byte) (Item, error) {
	ms, id, err := parseDueKey(rest)
	if err != nil {
		return Item{}, err
	}
	it := Item{ID: id, Value: plain}
	if ms != neverDue {
		it.Due = fromMillis(ms)
	}
	return it, nil
}

// queue yields the items due before the given millisecond.
func (s *Store) queue(ctx context.Context, queue string, before uint64) iter.Seq2[Item, error] {
	return s.items(ctx, queue, nil, be64(before))
}

// held yields the items that never fall due.
func (s *Store) held(ctx context.Context, queue string) iter.Seq2[Item, error] {
	return s.items(ctx, queue, be64(neverDue), nil)
}

// items yields the items whose encoded due time is in [from, to); nil: no bound.
func (s *Store) items(ctx context.Context, queue string, from, to []byte) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		if err := checkName("queue", queue); err != nil {
			yield(Item{}, err)
			return
		}
		sp := prefixSpan(namedKey(kindDue, queue, nil))
		if from != nil {
			sp.from = namedKey(kindDue, queue, from)
		}
		if to != nil {
			sp.to = namedKey(kindDue, queue, to)
		}
		stopped := false
		var inner error
		err := s.opened(ctx, sp, func(key, plain []byte) bool {
			it, err := parseItem(key[2+len(queue):], plain)
			if inner = err; err != nil {
				return false
			}
			stopped = !yield(it, nil)
			return !stopped
		})
		if err = errors.Join(inner, err); err != nil && !stopped {
			yield(Item{}, fmt.Errorf("reading queue %q: %w", queue, err))
		}
	}
}
