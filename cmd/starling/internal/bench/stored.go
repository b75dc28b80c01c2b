package bench

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/starling-chat/starling/storage"
)

// rawStore is the anchor of what is stored: Badger with the store's sizes and nothing around it.
func rawStore(dir string) (*badger.DB, error) {
	sizes := storage.DefaultSizes
	return badger.Open(badger.DefaultOptions(dir).WithLogger(nil).WithMemTableSize(sizes.MemTable).
		WithNumMemtables(2).WithBaseTableSize(4 << 20).WithBlockCacheSize(sizes.BlockCache).
		WithIndexCacheSize(sizes.IndexCache).WithNumCompactors(2).WithSyncWrites(false).
		WithDetectConflicts(false).WithMetricsEnabled(false))
}

// shelf is a store and its anchor, with a stream to write to.
type shelf struct {
	store  *storage.Store
	stream storage.StreamID
	raw    *badger.DB
	file   *os.File
	next   int
}

func (s *Suite) openShelf(ctx context.Context, name string) (sh *shelf, err error) {
	sh = &shelf{}
	defer func() {
		if err != nil {
			sh.close()
			sh = nil
		}
	}()
	key := make([]byte, storage.KeySize)
	rand.Read(key)
	if sh.store, err = storage.Open(ctx, storage.DefaultOptions(filepath.Join(s.Dir, name, "store"), key)); err != nil {
		return sh, err
	}
	if sh.stream, err = sh.store.Stream(ctx, "room"); err != nil {
		return sh, err
	}
	if sh.raw, err = rawStore(filepath.Join(s.Dir, name, "raw")); err != nil {
		return sh, err
	}
	sh.file, err = os.Create(filepath.Join(s.Dir, name, "file"))
	return sh, err
}

func (sh *shelf) close() {
	if sh.file != nil {
		sh.file.Close()
	}
	if sh.raw != nil {
		sh.raw.Close()
	}
	if sh.store != nil {
		sh.store.Close()
	}
}

// record makes the next record; text is its value.
func (sh *shelf) record(text string) storage.Record {
	sh.next++
	r := storage.Record{Stream: sh.stream, Time: uint64(sh.next) << 16, Value: []byte(text)}
	rand.Read(r.ID[:])
	return r
}

// rawKey is the anchor's key of a record: as long as the store's, and in the same order.
func rawKey(r storage.Record) []byte {
	k := append([]byte{'m'}, r.Stream[:]...)
	k = binary.BigEndian.AppendUint64(k, r.Time)
	return append(k, r.ID[:]...)
}

// both commits records to the anchor and to the store, one transaction each, and times them.
func (sh *shelf) both(ctx context.Context, records []storage.Record, d storage.Durability) (ours, anchor time.Duration, err error) {
	began := time.Now()
	err = sh.raw.Update(func(txn *badger.Txn) error {
		for _, r := range records {
			if err := txn.Set(rawKey(r), r.Value); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && d == storage.Durable {
		err = sh.raw.Sync()
	}
	if err != nil {
		return 0, 0, err
	}
	middle := time.Now()
	var b storage.Batch
	for _, r := range records {
		b.Append(r)
	}
	_, err = sh.store.Commit(ctx, &b, d)
	return time.Since(middle), middle.Sub(began), err
}

func storeExperiment() experiment {
	return experiment{
		name: "store",
		targets: []target{
			{id: "ingest", what: "durable records a second, 100 a transaction; anchor: raw Badger", unit: "1/s", limit: 0.6, atLeast: true, clock: true, says: ">= 0.6"},
			{id: "durable-send", what: "one durable record; anchor: raw write and fsync", unit: "us", limit: 1.3, clock: true, says: "<= 1.3"},
		},
		note: "store: package storage in this process (sealed), 300 bytes a record, one writer",
		begin: func(ctx context.Context, s *Suite) (func(context.Context) ([]sample, error), func(), error) {
			sh, err := s.openShelf(ctx, "store")
			if err != nil {
				return nil, nil, err
			}
			return func(ctx context.Context) ([]sample, error) { return sh.writes(ctx, s) }, sh.close, nil
		},
	}
}

func (sh *shelf) writes(ctx context.Context, s *Suite) ([]sample, error) {
	const each = 100
	var ours, anchor time.Duration
	batches := s.some(50, 2)
	for range batches {
		records := make([]storage.Record, each)
		for i := range records {
			records[i] = sh.record(payload(sh.next))
		}
		o, a, err := sh.both(ctx, records, storage.Durable)
		if err != nil {
			return nil, err
		}
		ours, anchor = ours+o, anchor+a
	}
	total := float64(batches * each)
	ingest := sample{total / ours.Seconds(), total / anchor.Seconds()}
	ours, anchor = 0, 0
	singles := s.some(200, 3)
	for range singles {
		r := sh.record(payload(sh.next))
		began := time.Now()
		if _, err := sh.file.Write(r.Value); err != nil {
			return nil, err
		}
		if err := sh.file.Sync(); err != nil {
			return nil, err
		}
		middle := time.Now()
		var b storage.Batch
		b.Append(r)
		if _, err := sh.store.Commit(ctx, &b, storage.Durable); err != nil {
			return nil, err
		}
		ours, anchor = ours+time.Since(middle), anchor+middle.Sub(began)
	}
	micro := func(d time.Duration) float64 { return d.Seconds() * 1e6 / float64(singles) }
	return []sample{ingest, {micro(ours), micro(anchor)}}, nil
}

// words make texts to search in; the rare ones come up about once in ten thousand.
func sentence(n int) string {
	return fmt.Sprintf("message %d says word%d and word%d about topic%d", n, n%997, n%7919, n%10007)
}

func millionExperiment() experiment {
	return experiment{
		name: "million",
		targets: []target{
			{id: "page", what: "a page of 50 of 1 M; anchor: raw Badger", unit: "us", limit: 2, clock: true, says: "<= 2"},
			{id: "search", what: "newest 50 hits of one word in 1 M; anchor: ours, a page of 50", unit: "us", limit: 60, clock: true, says: "<= 60"},
		},
		note: "million: package storage in this process, once both databases have merged what was written; a hit's text is opened and checked; the target of search is our own (about 5 ms on the machine of docs/performance.md)",
		begin: func(ctx context.Context, s *Suite) (func(context.Context) ([]sample, error), func(), error) {
			sh, err := s.openShelf(ctx, "million")
			if err != nil {
				return nil, nil, err
			}
			if err := sh.fill(ctx, s, s.some(1_000_000, 2_000)); err != nil {
				return nil, sh.close, err
			}
			if err := s.settled(ctx); err != nil {
				return nil, sh.close, err
			}
			return func(ctx context.Context) ([]sample, error) { return sh.reads(ctx, s) }, sh.close, nil
		},
	}
}

const (
	// restShare is the part of one core below which this process counts as at rest, and restMost how long that
	// is waited for.
	restShare = 0.05
	restMost  = time.Minute
)

// settled waits until both databases have merged what was just written. That takes seconds of both cores, and
// whoever reads a long history has seldom written all of it in this minute.
func (s *Suite) settled(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	began, used := time.Now(), processUsage().CPU
	for time.Since(began) < restMost {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		now := processUsage().CPU
		if (now - used).Seconds() < restShare {
			return nil
		}
		used = now
	}
	s.say("million: still merging after %s", restMost)
	return nil
}

// fill writes and indexes records.
func (sh *shelf) fill(ctx context.Context, s *Suite, total int) error {
	for done := 0; done < total; done += 1000 {
		records, texts := make([]storage.Record, 1000), make([]string, 1000)
		for i := range records {
			texts[i] = sentence(done + i + 1)
			records[i] = sh.record(texts[i] + " " + payload(0)[len(texts[i])+1:])
		}
		if _, _, err := sh.both(ctx, records, storage.Relaxed); err != nil {
			return err
		}
		for i, text := range texts {
			if err := sh.store.Index(ctx, sh.stream, uint64(done+i+1), text); err != nil {
				return err
			}
		}
		if (done+1000)%250_000 == 0 {
			s.say("million: %d of %d written", done+1000, total)
		}
	}
	return sh.store.FlushSearch(ctx)
}

const pageSize = 50

func (sh *shelf) reads(ctx context.Context, s *Suite) ([]sample, error) {
	var ours, anchor, search time.Duration
	pages := s.some(200, 5)
	for range pages {
		before := storage.Position{Time: uint64(pageSize+1+mathrand.IntN(sh.next-pageSize)) << 16}
		began := time.Now()
		if err := sh.rawPage(before); err != nil {
			return nil, err
		}
		middle := time.Now()
		n := 0
		for _, err := range sh.store.Scan(ctx, sh.stream, storage.Range{Before: before, Reverse: true, Limit: pageSize}) {
			if err != nil {
				return nil, err
			}
			n++
		}
		if n != pageSize {
			return nil, fmt.Errorf("a page of %d", n)
		}
		ours, anchor = ours+time.Since(middle), anchor+middle.Sub(began)
	}
	searches := s.some(50, 2)
	for range searches {
		query := fmt.Sprintf("topic%d", mathrand.IntN(min(sh.next, 10007)))
		began := time.Now()
		hits, err := sh.store.Search(ctx, query, []storage.StreamID{sh.stream}, pageSize, func(r storage.Record) bool {
			return storage.TextMatches(query, string(r.Value))
		})
		if err != nil {
			return nil, err
		}
		if len(hits) == 0 && !s.Quick {
			return nil, fmt.Errorf("nothing found for %s", query)
		}
		search += time.Since(began)
	}
	micro := func(d time.Duration, n int) float64 { return d.Seconds() * 1e6 / float64(n) }
	page := sample{micro(ours, pages), micro(anchor, pages)}
	return []sample{page, {micro(search, searches), page.ours}}, nil
}

// rawPage reads a page from the anchor.
func (sh *shelf) rawPage(before storage.Position) error {
	return sh.raw.View(func(txn *badger.Txn) error {
		prefix := rawKey(storage.Record{Stream: sh.stream})[:1+len(sh.stream)]
		o := badger.DefaultIteratorOptions
		o.Reverse, o.PrefetchValues, o.Prefix = true, false, prefix
		it := txn.NewIterator(o)
		defer it.Close()
		n := 0
		for it.Seek(rawKey(storage.Record{Stream: sh.stream, Time: before.Time})); it.Valid() && n < pageSize; it.Next() {
			if _, err := it.Item().ValueCopy(nil); err != nil {
				return err
			}
			n++
		}
		if n != pageSize {
			return fmt.Errorf("a raw page of %d", n)
		}
		return nil
	})
}
