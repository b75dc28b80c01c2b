package storage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"google.golang.org/protobuf/proto"
)

// damagedDirName is where Repair puts what it takes out of use.
const damagedDirName = "damaged"

// Repair makes a store usable again that Open refuses with ErrManifest or
// ErrCorrupt: it puts the last good MANIFEST and key registry back, sets
// damaged tables and other damaged files aside (into the directory "damaged"),
// then opens the store and runs Check. What was in damaged tables is lost here, and older
// versions of its records may show again; sync brings back what others have.
// It changes nothing in a sound store. The directory must not be open.
func Repair(ctx context.Context, o Options) (Report, error) {
	o.fill()
	var aside []string
	err := o.validate()
	if err == nil {
		aside, err = setAside(ctx, &o)
	}
	var rep Report
	if err == nil {
		rep, err = openAndCheck(ctx, o)
	}
	if errors.Is(err, ErrCorrupt) {
		var logs []string
		if logs, err = dropValueLog(o.Dir); err == nil {
			aside = append(aside, logs...)
			rep, err = openAndCheck(ctx, o)
		}
	}
	rep.Damaged = append(aside, rep.Damaged...)
	if err != nil {
		return rep, fmt.Errorf("repairing store %s: %w", o.Dir, err)
	}
	return rep, nil
}

func openAndCheck(ctx context.Context, o Options) (Report, error) {
	s, err := open(ctx, o)
	if err != nil {
		return Report{}, err
	}
	rep, err := s.Check(ctx)
	return rep, errors.Join(err, s.Close())
}

// setAside does the part of a repair before the database can be opened.
func setAside(ctx context.Context, o *Options) (aside []string, err error) {
	lock, err := lockDir(o.Dir)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	st, err := readDiskState(o.Dir)
	if errors.Is(err, ErrCorrupt) {
		aside = append(aside, "state file is damaged; set aside")
		if err := moveAside(o.Dir, stateName); err != nil {
			return nil, err
		}
		return aside, nil // Open takes it from here, as after an unclean stop
	}
	if err != nil || st == nil {
		return nil, err
	}
	if !st.keyMatches(o.Key) {
		return nil, ErrWrongKey
	}
	keys, err := restoreRegistry(o)
	if err != nil {
		return nil, err
	}
	if keys {
		aside = append(aside, "key registry was missing or damaged; put back from its copy")
	}
	restored, err := restoreManifest(o.Dir, st)
	if err != nil {
		return nil, err
	}
	if restored {
		aside = append(aside, "MANIFEST was missing or damaged; put back from the copy of the last clean stop")
	}
	tables, err := dropTables(ctx, o.Dir, st)
	if err != nil || len(tables) == 0 {
		return aside, err
	}
	st.Clean = false
	return append(aside, tables...), st.write(o.Dir)
}

// moveAside moves a file of the store into the directory for damaged files.
func moveAside(dir, name string) error {
	target := filepath.Join(dir, damagedDirName)
	if err := os.MkdirAll(target, 0o700); err != nil {
		return err
	}
	return os.Rename(filepath.Join(dir, name), filepath.Join(target, filepath.Base(name)))
}

// restoreManifest puts the copied MANIFEST back if the present one is not that
// of the clean stop; it refuses where the last MANIFEST is not known.
func restoreManifest(dir string, st *diskState) (restored bool, err error) {
	path := filepath.Join(dir, engineDirName, manifestName)
	now, err := readLimited(path, maxManifest)
	missing := errors.Is(err, os.ErrNotExist)
	if err != nil && !missing && !errors.Is(err, ErrCorrupt) {
		return false, err
	}
	if !st.Clean {
		tables, err := listTables(filepath.Join(dir, engineDirName))
		if err != nil || !missing || len(tables) == 0 {
			return false, err // a present one is checked by Badger
		}
		return false, fmt.Errorf("the store was not closed properly, so its last MANIFEST is not known; "+
			"restore the directory from a copy, or move it away and let sync fetch the history again: %w", ErrManifest)
	}
	if st.Manifest == manifestSum(now) {
		return false, nil
	}
	manifest, err := readLimited(filepath.Join(dir, manifestCopy), maxManifest)
	if err != nil {
		return false, err
	}
	if manifestSum(manifest) != st.Manifest {
		return false, fmt.Errorf("the copy of the MANIFEST is damaged too: %w", ErrManifest)
	}
	return true, writeFile(path, manifest)
}

// restoreRegistry puts the copy of Badger's key registry back if the present
// one cannot be read and the copy can.
func restoreRegistry(o *Options) (restored bool, err error) {
	engine := filepath.Join(o.Dir, engineDirName)
	if readableRegistry(engine, o) == nil {
		return false, nil
	}
	b, err := readLimited(filepath.Join(o.Dir, registryCopy), maxRegistry)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // Open will say what is wrong
	}
	if err != nil {
		return false, err
	}
	if _, err := os.Stat(filepath.Join(engine, registryName)); err == nil {
		if err := moveAside(o.Dir, filepath.Join(engineDirName, registryName)); err != nil {
			return false, err
		}
	}
	return true, writeFile(filepath.Join(engine, registryName), b)
}

func readableRegistry(engine string, o *Options) error {
	if _, err := os.Stat(filepath.Join(engine, registryName)); err != nil {
		return err
	}
	_, err := badger.OpenKeyRegistry(badger.KeyRegistryOptions{
		Dir: engine, ReadOnly: true, EncryptionKey: subKey(o.Key, "engine"),
	})
	return err
}

// dropValueLog sets Badger's value log and its statistics aside. No value of
// ours is in there, but damage to it keeps Badger from opening.
func dropValueLog(dir string) (dropped []string, err error) {
	for _, pattern := range []string{"*.vlog", "DISCARD"} {
		files, err := filepath.Glob(filepath.Join(dir, engineDirName, pattern))
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			name := filepath.Base(f)
			if err := moveAside(dir, filepath.Join(engineDirName, name)); err != nil {
				return nil, err
			}
			dropped = append(dropped, name+" set aside; it holds nothing of ours")
		}
	}
	return dropped, nil
}

// dropTables takes damaged and missing tables out of the MANIFEST, and the
// damaged ones out of the database's directory.
func dropTables(ctx context.Context, dir string, st *diskState) (dropped []string, err error) {
	engine := filepath.Join(dir, engineDirName)
	live, end, err := manifestTables(engine)
	if err != nil {
		return nil, err
	}
	var changes []*pb.ManifestChange
	kept := st.Tables[:0]
	for _, t := range st.Tables {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		id, err := strconv.ParseUint(strings.TrimSuffix(t.Name, tableExt), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("table name %q: %w", t.Name, ErrCorrupt)
		}
		if _, ok := live[id]; !ok {
			continue // compacted away since the list was written
		}
		crc, err := tableCRC(filepath.Join(engine, t.Name))
		switch {
		case errors.Is(err, os.ErrNotExist):
			dropped = append(dropped, fmt.Sprintf("table %s is missing; taken out", t.Name))
		case err != nil:
			return nil, err
		case crc == t.CRC:
			kept = append(kept, t)
			continue
		default:
			if err := moveAside(dir, filepath.Join(engineDirName, t.Name)); err != nil {
				return nil, err
			}
			dropped = append(dropped, fmt.Sprintf("table %s is damaged; set aside", t.Name))
		}
		changes = append(changes, &pb.ManifestChange{Id: id, Op: pb.ManifestChange_DELETE})
	}
	st.Tables = kept
	if len(changes) == 0 {
		return nil, nil
	}
	return dropped, appendManifest(engine, end, changes)
}

// manifestTables returns the tables that the MANIFEST lists, and where its last
// whole change set ends.
func manifestTables(engine string) (tables map[uint64]badger.TableManifest, end int64, err error) {
	f, err := os.Open(filepath.Join(engine, manifestName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	m, end, err := badger.ReplayManifestFile(f, 0, badger.DefaultOptions(engine).WithLogger(nil))
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", err, ErrManifest)
	}
	return m.Tables, end, nil
}

// appendManifest adds a change set to the MANIFEST in Badger's framing: length,
// CRC-32C, protobuf.
func appendManifest(engine string, end int64, changes []*pb.ManifestChange) error {
	body, err := proto.Marshal(&pb.ManifestChangeSet{Changes: changes})
	if err != nil {
		return err
	}
	frame := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	frame = binary.BigEndian.AppendUint32(frame, crc32.Checksum(body, castagnoli))
	f, err := os.OpenFile(filepath.Join(engine, manifestName), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(append(frame, body...), end)
	return errors.Join(err, f.Sync(), f.Close())
}
