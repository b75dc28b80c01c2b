package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

var testKey = bytes.Repeat([]byte{7}, KeySize)

func testOptions(dir string) Options {
	o := DefaultOptions(dir, testKey)
	o.Space.Off = true
	return o
}

func mustOpen(t *testing.T, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func mustClose(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// A process that another test is just starting holds a copy of the lock until
	// it runs its program.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
}

// world is a known content: what the tests of damage fill a store with.
type world struct {
	Stream  StreamID
	Records map[ID]string
	Bucket  map[string]string
	Secret  map[string]string // ephemeral
	Queue   map[ID]string
}

func testID(n int) ID {
	var id ID
	copy(id[:], fmt.Sprintf("%032d", n))
	return id
}

// fillWorld writes n records and as many other values, some guarded, in
// durable batches.
func fillWorld(t *testing.T, s *Store, n int) *world {
	t.Helper()
	st, err := s.Stream(t.Context(), "room")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{st, map[ID]string{}, map[string]string{}, map[string]string{}, map[ID]string{}}
	for i := range n {
		var b Batch
		v := fmt.Sprintf("value %d %s", i, bytes.Repeat([]byte{byte(i)}, 100))
		b.Append(Record{Stream: st, Time: uint64(i+1) << 16, ID: testID(i), Value: []byte(v)})
		b.Put("bucket", []byte(fmt.Sprint(i)), []byte(v))
		b.PutEphemeral("secret", []byte(fmt.Sprint(i)), []byte(v))
		b.Schedule("queue", fromMillis(uint64(i)), testID(i), []byte(v))
		w.Records[testID(i)], w.Queue[testID(i)] = v, v
		w.Bucket[fmt.Sprint(i)], w.Secret[fmt.Sprint(i)] = v, v
		if i%10 == 9 {
			b.Guard()
		}
		if _, err := s.Commit(t.Context(), &b, Durable); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// check reads everything. Wrong data is an error; what is missing is counted,
// and errors that say so are counted as told.
func (w *world) check(ctx context.Context, s *Store) (missing, told int, bad error) {
	look := func(what, want string, got []byte, err error) {
		switch {
		case err == nil && string(got) == want:
		case err == nil:
			bad = errors.Join(bad, fmt.Errorf("%s: silently wrong: %q, want %q", what, got, want))
		case errors.Is(err, ErrNotFound):
			missing++
		case errors.Is(err, ErrCorrupt):
			told++
		default:
			bad = errors.Join(bad, fmt.Errorf("%s: %w", what, err))
		}
	}
	for id, want := range w.Records {
		r, err := s.Get(ctx, id)
		look("record", want, r.Value, err)
	}
	for k, want := range w.Bucket {
		v, err := s.GetBucket(ctx, "bucket", []byte(k))
		look("bucket", want, v, err)
	}
	for k, want := range w.Secret {
		v, err := s.GetEphemeral(ctx, "secret", []byte(k))
		look("ephemeral", want, v, err)
	}
	for id, want := range w.Queue {
		it, err := s.QueueItem(ctx, "queue", id)
		look("queue", want, it.Value, err)
	}
	n := 0
	for r, err := range s.Scan(ctx, w.Stream, Range{}) {
		if err != nil {
			told++
			break
		}
		if string(r.Value) != w.Records[r.ID] {
			bad = errors.Join(bad, fmt.Errorf("scan: silently wrong: %q", r.Value))
		}
		n++
	}
	missing += max(0, len(w.Records)-n-told)
	return missing, told, bad
}

func (w *world) compare(t *testing.T, s *Store) (missing, told int) {
	t.Helper()
	missing, told, bad := w.check(t.Context(), s)
	if bad != nil {
		t.Fatal(bad)
	}
	return missing, told
}

// whole fails the test unless everything is there and nothing is damaged.
func (w *world) whole(t *testing.T, s *Store) {
	t.Helper()
	if missing, told := w.compare(t, s); missing+told > 0 {
		t.Fatalf("%d missing, %d damaged", missing, told)
	}
	rep, err := s.Check(t.Context())
	if err != nil || !rep.OK() {
		t.Fatalf("check: %+v, %v", rep, err)
	}
}

// copyDir copies a directory with its holes, as it is at this moment.
func copyDir(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		return copySparse(path, target)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func copySparse(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	buf := make([]byte, 64<<10)
	zero := make([]byte, len(buf))
	for off := int64(0); ; {
		n, err := in.ReadAt(buf, off)
		if !bytes.Equal(buf[:n], zero[:n]) {
			if _, werr := out.WriteAt(buf[:n], off); werr != nil {
				return werr
			}
		}
		off += int64(n)
		if errors.Is(err, io.EOF) {
			return out.Truncate(off)
		}
		if err != nil {
			return err
		}
	}
}

// flip changes one bit of a file.
func flip(t *testing.T, path string, offset int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, offset); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << (offset % 8)
	if _, err := f.WriteAt(b, offset); err != nil {
		t.Fatal(err)
	}
}

// memoryDir returns a directory in memory where there is one. Only a power cut
// needs a disk, and these tests sync thousands of times.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "storage")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
