package storage

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// The benchmarks measure against an anchor in the same run: every iteration
// times the anchor and the store one after the other, and the median of the
// ratios is reported as "ratio"; "cpu-ratio" is that of the process's CPU time,
// which other load on the machine does not change. Run them with
//
//	go test -run '^$' -bench . -benchtime 9x ./storage

const benchValue = 300 // bytes

func benchStore(b *testing.B) *Store {
	b.Helper()
	s, err := Open(b.Context(), DefaultOptions(b.TempDir(), bytes.Repeat([]byte{1}, 32)))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { check(b, s.Close()) })
	return s
}

// benchBadger opens a plain Badger with the same sizes, without encryption.
func benchBadger(b *testing.B) *badger.DB {
	b.Helper()
	o := engineOptions(b.TempDir(), nil, DefaultSizes, &roomGate{log: slog.New(slog.DiscardHandler), free: func() (uint64, bool) { return 0, false }, intact: func() error { return nil }}).WithEncryptionKey(nil)
	db, err := badger.Open(o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { check(b, db.Close()) })
	return db
}

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func randomID() (id ID) {
	rand.Read(id[:])
	return id
}

func benchRecord(s StreamID, i int) Record {
	v := make([]byte, benchValue)
	rand.Read(v)
	return Record{Stream: s, Time: uint64(i) << 16, ID: randomID(), Value: v}
}

// ratios collects the pairs of a benchmark.
type ratios struct {
	anchor, ours       []time.Duration
	anchorCPU, oursCPU time.Duration // of the process, all of it
	each               int           // operations per measurement
}

func (r *ratios) add(anchor, ours func()) {
	start, cpu := time.Now(), cpuTime()
	anchor()
	middle, middleCPU := time.Now(), cpuTime()
	ours()
	r.anchor = append(r.anchor, middle.Sub(start))
	r.ours = append(r.ours, time.Since(middle))
	r.anchorCPU += middleCPU - cpu
	r.oursCPU += cpuTime() - middleCPU
}

// report gives the medians and the ratio of times (ours to the anchor's).
func (r *ratios) report(b *testing.B) {
	b.Helper()
	list := make([]float64, len(r.ours))
	for i := range list {
		list[i] = float64(r.ours[i]) / float64(r.anchor[i])
	}
	slices.Sort(list)
	slices.Sort(r.anchor)
	slices.Sort(r.ours)
	m := len(list) / 2
	b.ReportMetric(list[m], "ratio")
	if r.anchorCPU > 0 {
		b.ReportMetric(float64(r.oursCPU)/float64(r.anchorCPU), "cpu-ratio")
		b.ReportMetric(float64(r.oursCPU.Nanoseconds())/float64(len(r.ours)*r.each), "ours-cpu-ns/op")
	}
	b.ReportMetric(float64(r.anchor[m].Nanoseconds())/float64(r.each), "anchor-ns/op")
	b.ReportMetric(float64(r.ours[m].Nanoseconds())/float64(r.each), "ours-ns/op")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkIngest: durable batches of 100 records by one caller, against 100
// plain keys a transaction and a sync in raw Badger. Target: ratio <= 1/0.6.
func BenchmarkIngest(b *testing.B) {
	s, db := benchStore(b), benchBadger(b)
	st, err := s.Stream(b.Context(), "room")
	check(b, err)
	n := 0
	r := ratios{each: 5000}
	for range b.N {
		r.add(func() {
			for range 50 {
				check(b, db.Update(func(txn *badger.Txn) error {
					for range 100 {
						n++
						rec := benchRecord(st, n)
						if err := txn.Set(positionKey('m', st, rec.Position()), rec.Value); err != nil {
							return err
						}
					}
					return nil
				}))
				check(b, db.Sync())
			}
		}, func() {
			for range 50 {
				var batch Batch
				for range 100 {
					n++
					batch.Append(benchRecord(st, n))
				}
				_, err := s.Commit(b.Context(), &batch, Durable)
				check(b, err)
			}
		})
	}
	r.report(b)
}

// BenchmarkIngestConcurrent: 64 callers, one durable record at a time, against
// the same raw Badger.
func BenchmarkIngestConcurrent(b *testing.B) {
	s, db := benchStore(b), benchBadger(b)
	st, err := s.Stream(b.Context(), "room")
	check(b, err)
	n := 0
	r := ratios{each: 6400}
	for range b.N {
		r.add(func() {
			for range 64 {
				check(b, db.Update(func(txn *badger.Txn) error {
					for range 100 {
						n++
						rec := benchRecord(st, n)
						if err := txn.Set(positionKey('m', st, rec.Position()), rec.Value); err != nil {
							return err
						}
					}
					return nil
				}))
				check(b, db.Sync())
			}
		}, func() {
			var wg sync.WaitGroup
			for range 64 {
				wg.Go(func() {
					for i := range 100 {
						var batch Batch
						batch.Append(benchRecord(st, i))
						if _, err := s.Commit(b.Context(), &batch, Durable); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
		})
	}
	r.report(b)
}

// BenchmarkSend: one durable record, against appending as many bytes to a file
// and fsync. Target: ratio <= 1.3. With a guarded batch as a third figure.
func BenchmarkSend(b *testing.B) {
	for _, guarded := range []bool{false, true} {
		b.Run(fmt.Sprintf("guarded=%v", guarded), func(b *testing.B) {
			s := benchStore(b)
			st, err := s.Stream(b.Context(), "room")
			check(b, err)
			f, err := os.Create(filepath.Join(b.TempDir(), "log"))
			check(b, err)
			defer f.Close()
			n := 0
			r := ratios{each: 200}
			for range b.N {
				r.add(func() {
					for range 200 {
						rec := benchRecord(st, n)
						_, err := f.Write(rec.Value)
						check(b, err)
						check(b, f.Sync())
					}
				}, func() {
					for range 200 {
						n++
						var batch Batch
						batch.Append(benchRecord(st, n))
						if guarded {
							batch.Guard()
						}
						_, err := s.Commit(b.Context(), &batch, Durable)
						check(b, err)
					}
				})
			}
			r.report(b)
		})
	}
}

// BenchmarkPage: a page of 50 at a random place of a million records, against
// a reverse scan of 50 keys and values in raw Badger. Target: ratio <= 2.
func BenchmarkPage(b *testing.B) {
	const records = 1_000_000
	s, db := benchStore(b), benchBadger(b)
	st, err := s.Stream(b.Context(), "room")
	check(b, err)
	for n := 0; n < records; n += 1000 {
		var batch Batch
		check(b, db.Update(func(txn *badger.Txn) error {
			for i := range 1000 {
				rec := benchRecord(st, n+i)
				batch.Append(rec)
				if err := txn.Set(positionKey('m', st, rec.Position()), rec.Value); err != nil {
					return err
				}
			}
			return nil
		}))
		_, err := s.Commit(b.Context(), &batch, Relaxed)
		check(b, err)
	}
	place := func() Position {
		var x [8]byte
		rand.Read(x[:])
		return Position{Time: (50 + binary.BigEndian.Uint64(x[:])%(records-50)) << 16}
	}
	r := ratios{each: 200}
	for range b.N {
		r.add(func() {
			for range 200 {
				check(b, db.View(func(txn *badger.Txn) error {
					o := badger.DefaultIteratorOptions
					o.Reverse, o.PrefetchValues, o.Prefix = true, false, streamKey('m', st)
					it := txn.NewIterator(o)
					defer it.Close()
					i := 0
					for it.Seek(positionKey('m', st, place())); it.Valid() && i < 50; it.Next() {
						v, err := it.Item().ValueCopy(nil)
						if err != nil || len(v) != benchValue {
							return fmt.Errorf("value of %d bytes: %w", len(v), err)
						}
						i++
					}
					if i != 50 {
						return fmt.Errorf("%d records", i)
					}
					return nil
				}))
			}
		}, func() {
			for range 200 {
				i := 0
				for _, err := range s.Scan(b.Context(), st, Range{Before: place(), Reverse: true, Limit: 50}) {
					check(b, err)
					i++
				}
				if i != 50 {
					b.Fatalf("%d records", i)
				}
			}
		})
	}
	r.report(b)
}

// BenchmarkKeys: the keys of 10,000 records, as a sync takes them.
func BenchmarkKeys(b *testing.B) {
	s := benchStore(b)
	st, err := s.Stream(b.Context(), "room")
	check(b, err)
	for n := 0; n < 10_000; n += 1000 {
		var batch Batch
		for i := range 1000 {
			batch.Append(benchRecord(st, n+i))
		}
		_, err := s.Commit(b.Context(), &batch, Durable)
		check(b, err)
	}
	for b.Loop() {
		n := 0
		for _, err := range s.Keys(b.Context(), st, Range{}) {
			check(b, err)
			n++
		}
		if n != 10_000 {
			b.Fatal(n)
		}
	}
}

// BenchmarkOpen: opening a cleanly closed store of 100,000 records.
func BenchmarkOpen(b *testing.B) {
	o := DefaultOptions(b.TempDir(), bytes.Repeat([]byte{1}, 32))
	s, err := Open(b.Context(), o)
	check(b, err)
	st, err := s.Stream(b.Context(), "room")
	check(b, err)
	for n := 0; n < 100_000; n += 1000 {
		var batch Batch
		for i := range 1000 {
			batch.Append(benchRecord(st, n+i))
		}
		_, err := s.Commit(b.Context(), &batch, Relaxed)
		check(b, err)
	}
	check(b, s.Close())
	for b.Loop() {
		s, err := Open(b.Context(), o)
		check(b, err)
		b.StopTimer()
		check(b, s.Close())
		b.StartTimer()
	}
}

// BenchmarkSearch indexes 200,000 messages, 70 of 100 Chinese, and searches for
// a word or pair of characters of a random one.
func BenchmarkSearch(b *testing.B) {
	const records = 200_000
	s := benchStore(b)
	st, err := s.Stream(b.Context(), "room")
	check(b, err)
	texts := make([]string, records)
	for i := range texts {
		texts[i] = benchText()
	}
	for n := 0; n < records; n += 1000 {
		var batch Batch
		for i := n; i < n+1000; i++ {
			batch.Append(Record{Stream: st, Time: uint64(i) << 16, ID: randomID(), Value: []byte(texts[i])})
		}
		_, err := s.Commit(b.Context(), &batch, Relaxed)
		check(b, err)
	}
	start := time.Now()
	for i, text := range texts {
		check(b, s.Index(b.Context(), st, uint64(i+1), text))
	}
	check(b, s.FlushSearch(b.Context()))
	indexing := time.Since(start)
	var took []time.Duration
	for b.Loop() {
		var x [8]byte
		rand.Read(x[:])
		terms := queryTerms(texts[binary.BigEndian.Uint64(x[:])%records])
		query := terms[int(x[0])%len(terms)]
		if x[1]&1 == 0 {
			query += " " + terms[int(x[2])%len(terms)]
		}
		start := time.Now()
		_, err := s.Search(b.Context(), query, []StreamID{st}, 50, func(r Record) bool { return TextMatches(query, string(r.Value)) })
		took = append(took, time.Since(start))
		check(b, err)
	}
	slices.Sort(took)
	b.ReportMetric(records/indexing.Seconds(), "indexed/s")
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
	b.ReportMetric(0, "ns/op")
}

// benchText makes a message: Chinese of 5 to 25 characters, or English of 3 to
// 12 words, both with common and rare ones.
func benchText() string {
	var x [32]byte
	rand.Read(x[:])
	skewed := func(n int, most float64) int { // small numbers are common
		f := float64(n) / 256
		return int(f * f * f * most)
	}
	var out []rune
	if x[0] < 179 {
		for i := range 5 + int(x[1])%21 {
			out = append(out, rune(0x4e00+skewed(int(x[2+i]), 4000)))
		}
		return string(out)
	}
	text := ""
	for i := range 3 + int(x[1])%10 {
		text += fmt.Sprintf("word%d ", skewed(int(x[2+i]), 3000))
	}
	return text
}
