package storage

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// TestVirtualTime: a store in memory lives in a synctest bubble, with its
// upkeep, takes no time and need not be closed.
func TestVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s, err := OpenMemory(Options{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }() // ended by cancel below
		st, err := s.Stream(ctx, "room")
		if err != nil {
			t.Fatal(err)
		}
		for i := range 1000 {
			var b Batch
			b.Append(Record{Stream: st, Time: uint64(i), ID: testID(i), Expires: time.Now().Add(time.Hour)})
			b.PutEphemeral("secret", []byte("k"), []byte{byte(i)})
			if _, err := s.Commit(ctx, &b, Durability(i%2)); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(start); d != 0 {
			t.Fatalf("writing took %v of virtual time", d)
		}
		key, _ := s.seal.ring.peek()
		time.Sleep(61 * time.Minute)
		synctest.Wait()
		if now, _ := s.seal.ring.peek(); now == key {
			t.Fatal("the epoch key was not rotated after an hour")
		}
		if n, err := s.Sweep(ctx, nil); n != 1000 || err != nil {
			t.Fatalf("swept %d, %v", n, err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

// TestTreap compares the ordered map in memory, its snapshots and its scans
// with a sorted list.
func TestTreap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := newMemoryEngine()
		model := map[string]string{}
		type frozen struct {
			snap  snapshot
			model map[string]string
		}
		var snaps []frozen
		key := rapid.StringMatching("[abc]{1,3}")
		for range rapid.IntRange(0, 80).Draw(t, "steps") {
			k := key.Draw(t, "key")
			switch rapid.IntRange(0, 3).Draw(t, "op") {
			case 0:
				e.apply([]write{{[]byte(k), nil}})
				delete(model, k)
			case 1:
				c := map[string]string{}
				for k, v := range model {
					c[k] = v
				}
				snaps = append(snaps, frozen{e.snapshot(), c})
			default:
				v := rapid.StringMatching("[xy]{0,2}").Draw(t, "value")
				e.apply([]write{{[]byte(k), []byte(v)}})
				model[k] = v
			}
		}
		snaps = append(snaps, frozen{e.snapshot(), model})
		from, to := key.Draw(t, "from"), key.Draw(t, "to")
		for _, f := range snaps {
			for _, reverse := range []bool{false, true} {
				checkScan(t, f.snap, f.model, span{from: []byte(from), to: []byte(to), reverse: reverse})
			}
		}
	})
}

func checkScan(t *rapid.T, snap snapshot, model map[string]string, sp span) {
	var want, got []string
	for k, v := range model {
		b, err := snap.get([]byte(k))
		if err != nil || string(b) != v || b == nil {
			t.Fatalf("get %q: %q, %v", k, b, err)
		}
		if k >= string(sp.from) && k < string(sp.to) {
			want = append(want, k+"="+v)
		}
	}
	slices.Sort(want)
	if sp.reverse {
		slices.Reverse(want)
	}
	snap.scan(sp, func(k []byte, value func() ([]byte, error)) bool {
		v, _ := value()
		got = append(got, string(k)+"="+string(v))
		return true
	})
	if !slices.Equal(got, want) {
		t.Fatalf("scan of %+v: %q, want %q", sp, got, want)
	}
	if len(want) > 1 {
		n := 0
		snap.scan(sp, func([]byte, func() ([]byte, error)) bool {
			n++
			return false
		})
		if n != 1 {
			t.Fatalf("a stopped scan went on for %d keys", n)
		}
	}
}

// TestEngines gives both engines the same writes and spans.
func TestEngines(t *testing.T) {
	s := mustOpen(t, testOptions(memoryDir(t)))
	mem, disk := newMemoryEngine(), s.eng
	var writes []write
	for i := range 500 {
		writes = append(writes, write{fmt.Appendf(nil, "b%03d", i*7%500), fmt.Appendf(nil, "%d", i)})
	}
	for _, e := range []engine{mem, disk} {
		if err := e.apply(slices.Clone(writes)); err != nil {
			t.Fatal(err)
		}
		if err := e.apply([]write{{[]byte("b250"), nil}, {[]byte("missing"), nil}}); err != nil {
			t.Fatal(err)
		}
	}
	a, b := mem.snapshot(), disk.snapshot()
	defer b.release()
	for _, sp := range []span{
		prefixSpan([]byte("b")),
		prefixSpan([]byte("b2")),
		{from: []byte("b1"), to: []byte("b205")},
		{from: []byte("b1"), to: []byte("b205"), prefix: []byte("b")},
		prefixSpan([]byte("b\xff")),
		prefixSpan([]byte("b499")),
	} {
		for _, reverse := range []bool{false, true} {
			sp.reverse = reverse
			list := func(s snapshot) (out []byte) {
				err := s.scan(sp, func(k []byte, value func() ([]byte, error)) bool {
					v, err := value()
					if err != nil {
						t.Error(err)
					}
					out = append(append(append(out, k...), v...), ' ')
					return true
				})
				if err != nil {
					t.Error(err)
				}
				return out
			}
			if x, y := list(a), list(b); !bytes.Equal(x, y) {
				t.Errorf("%q to %q, reverse %v: memory %q, disk %q", sp.from, sp.to, reverse, x, y)
			}
		}
	}
}
