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

// tableCRC returns the CRC-32C of a file.
func tableCRC(path string) (uint32, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	h := crc32.New(castagnoli)
	if _, err := io.CopyBuffer(h, struct{ io.Reader }{f}, make([]byte, 256<<10)); err != nil {
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
		out = append(out, tableInfo{Name: e.Name(), Size: info.Size()})
	}
	return out, nil
}

// describeTables is listTables with CRCs, taking those that are known already.
func describeTables(dir string, known []tableInfo) ([]tableInfo, error) {
	list, err := listTables(dir)
	if err != nil {
		return nil, err
	}
	crcs := make(map[tableInfo]uint32, len(known))
	for _, t := range known {
		crcs[tableInfo{Name: t.Name, Size: t.Size}] = t.CRC
	}
	for i, t := range list {
		crc, ok := crcs[t]
		if !ok {
			if crc, err = tableCRC(filepath.Join(dir, t.Name)); errors.Is(err, os.ErrNotExist) {
				continue
			} else if err != nil {
				return nil, err
			}
		}
		list[i].CRC = crc
	}
	return list, nil
}

// guardTables compares the tables and the MANIFEST with what the state file
// says, before Badger opens them: Badger makes an empty MANIFEST where there
// is none and then deletes every table, and takes keys in a damaged block for
// absent. st is nil when there is no state file.
func guardTables(ctx context.Context, dir string, st *diskState) error {
	tables, err := listTables(dir)
	if err != nil {
		return err
	}
	manifest, err := readLimited(filepath.Join(dir, manifestName), maxManifest)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if len(tables) > 0 || st != nil && st.Clean && st.Manifest != "" {
			return fmt.Errorf("%d tables in %s but no MANIFEST: %w", len(tables), dir, ErrManifest)
		}
		return nil
	case err != nil:
		return err
	}
	if st == nil {
		return nil
	}
	if st.Clean && st.Manifest != manifestSum(manifest) {
		return fmt.Errorf("the MANIFEST in %s is not the one the store was closed with: %w", dir, ErrManifest)
	}
	return verifyTables(ctx, dir, tables, st)
}

func manifestSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// verifyTables checks the CRC of every table that the state file lists. After
// a clean stop, all of them must be there and no others.
func verifyTables(ctx context.Context, dir string, tables []tableInfo, st *diskState) error {
	want := make(map[string]tableInfo, len(st.Tables))
	for _, t := range st.Tables {
		want[t.Name] = t
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(2)
	for _, t := range tables {
		w, listed := want[t.Name]
		if !listed {
			if st.Clean {
				return fmt.Errorf("table %s appeared after the store was closed: %w", t.Name, ErrCorrupt)
			}
			continue
		}
		delete(want, t.Name)
		group.Go(func() error { // ended by the Wait below
			if err := ctx.Err(); err != nil {
				return err
			}
			if t.Size == w.Size {
				crc, err := tableCRC(filepath.Join(dir, t.Name))
				if err != nil || crc == w.CRC {
					return err
				}
			}
			return fmt.Errorf("table %s is damaged: %w", t.Name, ErrCorrupt)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if st.Clean && len(want) > 0 {
		return fmt.Errorf("%d of %d tables are missing: %w", len(want), len(st.Tables), ErrCorrupt)
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
