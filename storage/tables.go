package storage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	tableExt     = ".sst"
	manifestName = "MANIFEST"
	// maxManifest bounds the MANIFEST in bytes; Badger rewrites it long before.
	maxManifest = 64 << 20
	// registryName is Badger's file of data keys; it grows by some 60 bytes
	// every ten days.
	registryName = "KEYREGISTRY"
	maxRegistry  = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crcBuffers are what tables are read through.
var crcBuffers = sync.Pool{New: func() any { b := make([]byte, 128<<10); return &b }}

// tableCRC returns the CRC-32C of a file.
func tableCRC(path string) (uint32, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	buf := crcBuffers.Get().(*[]byte)
	defer crcBuffers.Put(buf)
	h := crc32.New(castagnoli)
	if _, err := io.CopyBuffer(h, struct{ io.Reader }{f}, *buf); err != nil {
		return 0, err
	}
	return h.Sum32(), nil
}

// listTables returns the table files of a directory, by name, without CRCs.
func listTables(dir string) ([]tableInfo, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []tableInfo
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), tableExt) {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue // compacted away meanwhile
		}
		if err != nil {
			return nil, err
		}
		out = append(out, tableInfo{Name: e.Name(), Size: info.Size(), Changed: info.ModTime().UnixNano()})
	}
	return out, nil
}

// describeTables is listTables with CRCs, taking those that are known already
// as they are. Tables younger than minAge are left out: one that Badger is
// writing has its full length before its content.
func describeTables(dir string, known []tableInfo, minAge time.Duration) ([]tableInfo, error) {
	list, err := listTables(dir)
	if err != nil {
		return nil, err
	}
	have := make(map[string]tableInfo, len(known))
	for _, t := range known {
		have[t.Name] = t
	}
	young := time.Now().Add(-minAge).UnixNano()
	out := list[:0]
	for _, t := range list {
		k, ok := have[t.Name]
		switch {
		case ok && k.Size == t.Size:
			t = k
		case minAge > 0 && t.Changed > young:
			continue
		default:
			if t.CRC, err = tableCRC(filepath.Join(dir, t.Name)); errors.Is(err, os.ErrNotExist) {
				continue // compacted away meanwhile
			} else if err != nil {
				return nil, err
			}
		}
		out = append(out, t)
	}
	return out, nil
}

// guardTables compares the tables and the MANIFEST with what the state file
// says, before Badger opens them: Badger makes an empty MANIFEST where there
// is none and then deletes every table, and takes keys in a damaged block for
// absent. st is nil when there is no state file. It returns the tables whose
// CRC is still to be compared, see tableCheck.
func guardTables(ctx context.Context, dir string, st *diskState) (later []tableInfo, err error) {
	tables, err := listTables(dir)
	if err != nil {
		return nil, err
	}
	manifest, err := readLimited(filepath.Join(dir, manifestName), maxManifest)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if len(tables) > 0 || st != nil && st.Clean && st.Manifest != "" {
			return nil, fmt.Errorf("%d tables in %s but no MANIFEST: %w", len(tables), dir, ErrManifest)
		}
		return nil, nil
	case err != nil:
		return nil, err
	}
	if st == nil {
		return nil, nil
	}
	if st.Clean && st.Manifest != manifestSum(manifest) {
		return nil, fmt.Errorf("the MANIFEST in %s is not the one the store was closed with: %w", dir, ErrManifest)
	}
	return verifyTables(ctx, dir, tables, st)
}

func manifestSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// verifyTables checks the CRC of the tables that the state file lists, but for
// those that nobody has written to since a clean stop: these it returns. After
// a clean stop, all of them must be there and no others. It notes in st when
// the tables it has read were last changed.
func verifyTables(ctx context.Context, dir string, tables []tableInfo, st *diskState) (later []tableInfo, err error) {
	want := make(map[string]*tableInfo, len(st.Tables))
	for i := range st.Tables {
		want[st.Tables[i].Name] = &st.Tables[i]
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(2)
	for _, t := range tables {
		w := want[t.Name]
		if w == nil {
			if st.Clean {
				return nil, fmt.Errorf("table %s appeared after the store was closed: %w", t.Name, ErrCorrupt)
			}
			continue
		}
		delete(want, t.Name)
		if st.Clean && t.Size == w.Size && w.Changed != 0 && t.Changed == w.Changed {
			later = append(later, *w)
			continue
		}
		group.Go(func() error { // ended by the Wait below
			if err := ctx.Err(); err != nil {
				return err
			}
			if t.Size != w.Size {
				return tableDamaged(t)
			}
			w.Changed = t.Changed
			return compareCRC(dir, *w)
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if st.Clean && len(want) > 0 {
		return nil, fmt.Errorf("%d of %d tables are missing: %w", len(want), len(st.Tables), ErrCorrupt)
	}
	return later, nil
}

func compareCRC(dir string, want tableInfo) error {
	crc, err := tableCRC(filepath.Join(dir, want.Name))
	if err == nil && crc != want.CRC {
		err = tableDamaged(want)
	}
	return err
}

func tableDamaged(t tableInfo) error {
	return fmt.Errorf("table %s is damaged: %w", t.Name, ErrCorrupt)
}

// tableCheck compares the CRCs of tables after the database was opened. Until
// it has, no table may be merged (see roomGate): what cannot be read in one
// would be missing from what it is merged into.
type tableCheck struct {
	dir string

	mu   sync.Mutex // held while a table is read; guards what follows
	rest []tableInfo
	err  error
}

// run compares what is left to compare. An error of ctx leaves the rest to the
// next call, any other is that of all calls from then on. A nil check is done.
func (c *tableCheck) run(ctx context.Context) error {
	for c != nil {
		c.mu.Lock()
		done := c.err != nil || len(c.rest) == 0
		if err := ctx.Err(); err != nil && !done {
			c.mu.Unlock()
			return err
		}
		if !done {
			c.err = compareCRC(c.dir, c.rest[0])
			c.rest = c.rest[1:]
		}
		err := c.err
		c.mu.Unlock()
		if done {
			return err
		}
	}
	return nil
}

// largestLog returns the size of the largest write-ahead log, which is twice
// the write buffer it was written with.
func largestLog(dir string) (int64, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	var sizes []int64
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".mem") {
			info, ierr := e.Info()
			if ierr != nil {
				return 0, ierr
			}
			sizes = append(sizes, info.Size())
		}
	}
	if len(sizes) == 0 {
		return 0, err
	}
	return slices.Max(sizes), err
}
