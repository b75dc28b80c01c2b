package storage

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The writer of the crash tests appends records 0, 1, 2 ... in batches of
// random size. Each batch also notes, in an ordinary and in an ephemeral
// bucket, how many there are. After each durable commit it prints that number.

const crashStream = "crash"

func crashValue(i int) []byte {
	return fmt.Appendf(nil, "record %d %s", i, strings.Repeat("x", i%700))
}

// childWrite runs until it is killed.
func childWrite(ctx context.Context, dir string, hook func(point string) error) error {
	o := testOptions(dir)
	o.hook = hook
	s, err := Open(ctx, o)
	if err != nil {
		return err
	}
	st, err := s.Stream(ctx, crashStream)
	if err != nil {
		return err
	}
	info, err := s.Info(ctx, st)
	if err != nil {
		return err
	}
	for n, round := int(info.Arrival), 0; ; round++ {
		var b Batch
		size := 1 + rand.IntN(12)
		for range size {
			b.Append(Record{Stream: st, Time: uint64(n+1) << 16, ID: testID(n), Value: crashValue(n)})
			n++
		}
		b.Put("bucket", []byte("count"), be64(uint64(n)))
		b.PutEphemeral("secret", []byte("count"), be64(uint64(n)))
		if round%7 == 3 {
			b.Guard()
		}
		mode := Durable
		if round%5 == 4 {
			mode = Relaxed
		}
		if _, err := s.Commit(ctx, &b, mode); err != nil {
			return err
		}
		if mode == Durable {
			fmt.Println(n)
		}
		if round%40 == 39 {
			if err := s.RotateEpoch(ctx); err != nil {
				return err
			}
		}
	}
}

// acks reads the writer's numbers and passes on the last one when asked.
type acks struct {
	last chan int // the last number, once the writer's output ended
	seen chan struct{}
}

func readAcks(r io.Reader) *acks {
	a := &acks{make(chan int, 1), make(chan struct{})}
	go func() { // ends with the writer's output; the test receives from last
		last := 0
		in := bufio.NewScanner(r)
		for in.Scan() {
			// A line cut short by the kill is a smaller number: harmless.
			if n, err := strconv.Atoi(in.Text()); err == nil {
				if last == 0 {
					close(a.seen)
				}
				last = max(last, n)
			}
		}
		a.last <- last
	}()
	return a
}

// verifyCrash opens the directory and wants every acknowledged record there
// once, and everything else to fit.
func verifyCrash(t *testing.T, dir string, acked int) {
	t.Helper()
	s := mustOpen(t, testOptions(dir))
	defer mustClose(t, s)
	s.background.Wait()
	if r := s.State().Recovery; r.Lost > 0 || r.Check != nil || r.Damage != nil || r.JournalDamaged {
		t.Fatalf("recovery %+v", r)
	}
	st, err := s.LookupStream(t.Context(), crashStream)
	if errors.Is(err, ErrNotFound) && acked == 0 {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for r, err := range s.Scan(t.Context(), st, Range{}) {
		if err != nil {
			t.Fatal(err)
		}
		if r.ID != testID(n) || string(r.Value) != string(crashValue(n)) || r.Arrival != uint64(n+1) {
			t.Fatalf("record %d is %s with %q", n, r.ID, r.Value)
		}
		n++
	}
	if n < acked {
		t.Fatalf("%d records, %d were acknowledged", n, acked)
	}
	for _, get := range []func(context.Context, string, []byte) ([]byte, error){
		func(ctx context.Context, _ string, k []byte) ([]byte, error) { return s.GetBucket(ctx, "bucket", k) },
		func(ctx context.Context, _ string, k []byte) ([]byte, error) { return s.GetEphemeral(ctx, "secret", k) },
	} {
		v, err := get(t.Context(), "", []byte("count"))
		if n > 0 && (err != nil || binary.BigEndian.Uint64(v) != uint64(n)) {
			t.Fatalf("count is %x, %v, records are %d: a batch was torn", v, err, n)
		}
	}
	if s.seal.ring.stale() {
		t.Fatal("an old epoch key is still there")
	}
	if rep, err := s.Check(t.Context()); err != nil || !rep.OK() {
		t.Fatalf("check: %+v, %v", rep, err)
	}
}

// rounds returns how often a crash test crashes: n, or STARLING_CRASH_ROUNDS.
func rounds(n int) int {
	if v, err := strconv.Atoi(os.Getenv("STARLING_CRASH_ROUNDS")); err == nil {
		return v
	}
	return n
}

func TestKill(t *testing.T) {
	dir := filepath.Join(memoryDir(t), "store")
	total := 0
	for range rounds(12) {
		cmd := childCommand(t, "write", dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		a := readAcks(out)
		select {
		case <-a.seen:
		case <-t.Context().Done():
			t.Fatal("the writer wrote nothing")
		}
		timer := time.NewTimer(time.Duration(rand.IntN(120)) * time.Millisecond)
		<-timer.C
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		acked := <-a.last
		cmd.Wait()
		verifyCrash(t, dir, acked)
		total = acked
	}
	t.Logf("%d records acknowledged", total)
}

// TestFailpoints kills the writer at each point of the write path.
func TestFailpoints(t *testing.T) {
	for _, point := range []string{
		"before-commit", "after-commit", "before-sync", "after-sync",
		"rotate-begin", "rotate-resealed", "rotate-end",
	} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(memoryDir(t), "store")
			for _, hit := range []int{1, 2, 3, 40} {
				if strings.HasPrefix(point, "rotate") && hit > 3 {
					continue
				}
				cmd := childCommand(t, "write", dir, fmt.Sprintf("%s=%s:%d", childPoint, point, hit))
				cmd.Stderr = os.Stderr
				out, err := cmd.StdoutPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				acked := <-readAcks(out).last
				if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
					t.Fatalf("hit %d: the writer ended by itself: %v", hit, err)
				}
				verifyCrash(t, dir, acked)
			}
		})
	}
}

// killAt returns a hook that kills the process at the n-th pass of a point.
func killAt(spec string) (func(string) error, error) {
	point, count, ok := strings.Cut(spec, ":")
	n, err := strconv.Atoi(count)
	if !ok || err != nil {
		return nil, fmt.Errorf("failpoint %q", spec)
	}
	return func(p string) error {
		if p == point {
			if n--; n == 0 {
				self, err := os.FindProcess(os.Getpid())
				if err == nil {
					err = self.Kill()
				}
				if err != nil {
					return err
				}
				select {} // the kill arrives
			}
		}
		return nil
	}, nil
}

// testMigrations turn the schema into the next one: every bucket value gets a prefix.
func testMigrations() map[uint64]migration {
	return map[uint64]migration{schemaVersion: func(ctx context.Context, s *Store) error {
		var b Batch
		for kv, err := range s.ScanBucket(ctx, "old", nil) {
			if err != nil {
				return err
			}
			b.Put("new", kv.Key, append([]byte("migrated "), kv.Value...))
			b.Delete("old", kv.Key)
		}
		_, err := s.Commit(ctx, &b, Durable)
		return err
	}}
}

func TestMigration(t *testing.T) {
	dir := filepath.Join(memoryDir(t), "store")
	s := mustOpen(t, testOptions(dir))
	var b Batch
	for i := range 10 {
		b.Put("old", []byte{byte(i)}, fmt.Appendf(nil, "value %d", i))
	}
	if _, err := s.Commit(t.Context(), &b, Durable); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	for _, point := range []string{"before-commit:1", "after-commit:1", "migrated:1"} {
		cmd := childCommand(t, "migrate", dir, childPoint+"="+point)
		if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != -1 {
			t.Fatalf("%s: the migration ended by itself: %v", point, err)
		}
	}
	o := testOptions(dir)
	o.schema, o.migrations = schemaVersion+1, testMigrations()
	s = mustOpen(t, o)
	if r := s.State().Recovery; r.Migrated != schemaVersion {
		t.Fatalf("recovery %+v", r)
	}
	for i := range 10 {
		v, err := s.GetBucket(t.Context(), "new", []byte{byte(i)})
		if err != nil || string(v) != fmt.Sprintf("migrated value %d", i) {
			t.Fatalf("value %d: %q, %v", i, v, err)
		}
	}
	mustClose(t, s)
	s = mustOpen(t, o)
	if r := s.State().Recovery; r.Migrated != 0 {
		t.Fatalf("second open: recovery %+v", r)
	}
	mustClose(t, s)
	if _, err := Open(t.Context(), testOptions(dir)); !errors.Is(err, ErrNewer) {
		t.Fatalf("the older program: %v", err)
	}
}
