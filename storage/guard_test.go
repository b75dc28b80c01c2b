package storage

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// cleanWorld makes a store with known content and closes it. The records fill
// several tables.
func cleanWorld(t *testing.T) (dir string, w *world) {
	t.Helper()
	dir = memoryDir(t)
	s := mustOpen(t, testOptions(dir))
	w = fillWorld(t, s, 200)
	mustClose(t, s)
	s = mustOpen(t, testOptions(dir)) // a second table
	w = fillWorldMore(t, s, w)
	mustClose(t, s)
	return dir, w
}

func fillWorldMore(t *testing.T, s *Store, w *world) *world {
	t.Helper()
	for i := 1000; i < 1050; i++ {
		var b Batch
		b.Append(Record{Stream: w.Stream, Time: uint64(i) << 16, ID: testID(i), Value: []byte("later")})
		w.Records[testID(i)] = "later"
		if _, err := s.Commit(t.Context(), &b, Durable); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// uncleanWorld returns a copy of a store's directory taken while it was open.
func uncleanWorld(t *testing.T, n int) (dir string, w *world) {
	t.Helper()
	live := memoryDir(t)
	s := mustOpen(t, testOptions(live))
	w = fillWorld(t, s, n)
	dir = filepath.Join(memoryDir(t), "copy")
	copyDir(t, live, dir)
	mustClose(t, s)
	if err := removeSpares(filepath.Join(dir, engineDirName)); err != nil { // opening does it too
		t.Fatal(err)
	}
	return dir, w
}

func tablesIn(t *testing.T, dir string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, engineDirName, "*"+tableExt))
	if err != nil || len(list) == 0 {
		t.Fatalf("no tables: %v", err)
	}
	return list
}

// refuses wants Open to fail with the error and to change nothing: a second
// try must fail in the same way.
func refuses(t *testing.T, o Options, want error) {
	t.Helper()
	for range 2 {
		s, err := Open(t.Context(), o)
		if err == nil {
			s.Close()
		}
		if !errors.Is(err, want) {
			t.Fatalf("open: got %v, want %v", err, want)
		}
	}
}

func TestReopen(t *testing.T) {
	dir, w := cleanWorld(t)
	s := mustOpen(t, testOptions(dir))
	if r := s.State().Recovery; r != (Recovery{}) {
		t.Fatalf("recovery after a clean stop: %+v", r)
	}
	w.whole(t, s)
}

func TestUncleanStop(t *testing.T) {
	dir, w := uncleanWorld(t, 300)
	s := mustOpen(t, testOptions(dir))
	s.background.Wait()
	if r := s.State().Recovery; r != (Recovery{Unclean: true}) {
		t.Fatalf("recovery %+v", r)
	}
	w.whole(t, s)
}

func TestLocked(t *testing.T) {
	dir := memoryDir(t)
	s := mustOpen(t, testOptions(dir))
	refuses(t, testOptions(dir), ErrLocked)
	if _, err := Repair(t.Context(), testOptions(dir)); !errors.Is(err, ErrLocked) {
		t.Fatalf("repair of an open store: %v", err)
	}
	mustClose(t, s)
	mustClose(t, mustOpen(t, testOptions(dir)))
}

func TestWrongKey(t *testing.T) {
	dir, w := cleanWorld(t)
	o := testOptions(dir)
	o.Key = append([]byte{1}, testKey[1:]...)
	refuses(t, o, ErrWrongKey)
	if _, err := Repair(t.Context(), o); !errors.Is(err, ErrWrongKey) {
		t.Fatalf("repair with a wrong key: %v", err)
	}
	w.whole(t, mustOpen(t, testOptions(dir)))
}

func TestBadOptions(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"no directory": func(o *Options) { o.Dir = "" },
		"short key":    func(o *Options) { o.Key = o.Key[:31] },
		"small buffer": func(o *Options) { o.Sizes.MemTable = 1 << 20 },
		"no cache":     func(o *Options) { o.Sizes.IndexCache = 0 },
	} {
		o := testOptions(memoryDir(t))
		change(&o)
		if s, err := Open(t.Context(), o); err == nil {
			s.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestLostManifest(t *testing.T) {
	dir, w := cleanWorld(t)
	manifest := filepath.Join(dir, engineDirName, manifestName)
	if err := os.Remove(manifest); err != nil {
		t.Fatal(err)
	}
	refuses(t, testOptions(dir), ErrManifest)
	rep, err := Repair(t.Context(), testOptions(dir))
	if err != nil || len(rep.Damaged) != 1 || len(rep.Repaired) != 0 {
		t.Fatalf("repair: %+v, %v", rep, err)
	}
	s := mustOpen(t, testOptions(dir))
	w.whole(t, s)
	mustClose(t, s)

	// After an unclean stop the last MANIFEST is not known: no guessing.
	if err := os.Remove(manifest); err != nil {
		t.Fatal(err)
	}
	st, err := readDiskState(dir)
	if err != nil {
		t.Fatal(err)
	}
	st.Clean = false
	if err := st.write(dir); err != nil {
		t.Fatal(err)
	}
	refuses(t, testOptions(dir), ErrManifest)
	if _, err := Repair(t.Context(), testOptions(dir)); !errors.Is(err, ErrManifest) {
		t.Fatalf("repair: %v", err)
	}
	if len(tablesIn(t, dir)) < 2 {
		t.Fatal("tables were deleted")
	}
}

// TestDamagedCopies: the copies of Badger's files are not needed by a sound
// store, and one that is damaged is not taken for the file itself.
func TestDamagedCopies(t *testing.T) {
	dir, w := cleanWorld(t)
	for _, name := range []string{manifestCopy, registryCopy} {
		flip(t, filepath.Join(dir, name), 20)
	}
	s := mustOpen(t, testOptions(dir))
	w.whole(t, s)
	mustClose(t, s) // makes new ones
	whole, err := os.ReadFile(filepath.Join(dir, manifestCopy))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{filepath.Join(engineDirName, manifestName), manifestCopy} {
		flip(t, filepath.Join(dir, name), 20)
	}
	refuses(t, testOptions(dir), ErrManifest)
	if _, err := Repair(t.Context(), testOptions(dir)); !errors.Is(err, ErrManifest) {
		t.Fatalf("repair from a damaged copy: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, manifestCopy), whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Repair(t.Context(), testOptions(dir)); err != nil {
		t.Fatal(err)
	}
	w.whole(t, mustOpen(t, testOptions(dir)))
}

func TestDamagedTables(t *testing.T) {
	dir, w := cleanWorld(t)
	for _, table := range tablesIn(t, dir) {
		info, err := os.Stat(table)
		if err != nil {
			t.Fatal(err)
		}
		for i := range int64(12) {
			offset := info.Size() * i / 12
			flip(t, table, offset)
			refuses(t, testOptions(dir), ErrCorrupt)
			flip(t, table, offset)
		}
	}
	w.whole(t, mustOpen(t, testOptions(dir)))
}

func TestMissingTable(t *testing.T) {
	dir, _ := cleanWorld(t)
	if err := os.Remove(tablesIn(t, dir)[0]); err != nil {
		t.Fatal(err)
	}
	refuses(t, testOptions(dir), ErrCorrupt)
}

func TestRepairTables(t *testing.T) {
	dir, w := cleanWorld(t)
	tables := tablesIn(t, dir)
	flip(t, tables[len(tables)-1], 1000)
	refuses(t, testOptions(dir), ErrCorrupt)
	rep, err := Repair(t.Context(), testOptions(dir))
	if err != nil || len(rep.Damaged) == 0 || !strings.Contains(rep.Damaged[0], "set aside") {
		t.Fatalf("repair: %+v, %v", rep, err)
	}
	s := mustOpen(t, testOptions(dir))
	missing, told := w.compare(t, s)
	if told > 0 || missing == 0 {
		t.Fatalf("%d missing, %d damaged", missing, told)
	}
	if rep, err = s.Check(t.Context()); err != nil || !rep.OK() {
		t.Fatalf("check after repair: %+v, %v", rep, err)
	}
	mustClose(t, s)
	if rep, err = Repair(t.Context(), testOptions(dir)); err != nil || !rep.OK() {
		t.Fatalf("repair of a sound store: %+v, %v", rep, err)
	}
}

func TestStateFile(t *testing.T) {
	dir, w := cleanWorld(t)
	path := filepath.Join(dir, stateName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(whole); i += 11 {
		flip(t, path, int64(i))
		if _, err := readDiskState(dir); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewer) {
			t.Fatalf("flip at %d: %v", i, err)
		}
		flip(t, path, int64(i))
	}
	flip(t, path, int64(len(whole)-10))
	refuses(t, testOptions(dir), ErrCorrupt)
	if rep, err := Repair(t.Context(), testOptions(dir)); err != nil || len(rep.Damaged) != 1 {
		t.Fatalf("repair: %+v, %v", rep, err)
	}
	s := mustOpen(t, testOptions(dir))
	w.whole(t, s)
	mustClose(t, s)
	newer := strings.Replace(string(whole), "starling-store 1", "starling-store 2", 1)
	if err := os.WriteFile(path, []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	refuses(t, testOptions(dir), ErrNewer)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, testOptions(dir))
	if r := s.State().Recovery; !r.Unclean {
		t.Fatalf("recovery without a state file: %+v", r)
	}
	w.whole(t, s)
}

func TestEpochFile(t *testing.T) {
	dir, w := cleanWorld(t)
	path := filepath.Join(dir, epochName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(whole); i += 9 {
		flip(t, path, int64(i))
		refuses(t, testOptions(dir), ErrCorrupt)
		flip(t, path, int64(i))
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	refuses(t, testOptions(dir), ErrCorrupt)
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	w.whole(t, mustOpen(t, testOptions(dir)))
}

// TestDamagedLog flips bits in the write-ahead log of a store that was not
// closed. Badger drops everything after the damage without a word; the head
// file must tell, and own records must come back from the guard journal.
func TestDamagedLog(t *testing.T) {
	source, w := uncleanWorld(t, 120)
	logs, err := filepath.Glob(filepath.Join(source, engineDirName, "*.mem"))
	if err != nil || len(logs) != 1 {
		t.Fatalf("logs %v, %v", logs, err)
	}
	var lost, replayed int
	for i := range int64(12) {
		dir := filepath.Join(memoryDir(t), "copy")
		copyDir(t, source, dir)
		flip(t, filepath.Join(dir, engineDirName, filepath.Base(logs[0])), 25+i*8009)
		s, err := Open(t.Context(), testOptions(dir))
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("flip %d: %v", i, err)
			}
			continue
		}
		s.background.Wait()
		missing, told := w.compare(t, s)
		r := s.State().Recovery
		if missing > 0 && r.Lost == 0 {
			t.Fatalf("flip %d: %d missing and nothing said: %+v", i, missing, r)
		}
		if told > 0 {
			t.Fatalf("flip %d: %d damaged", i, told)
		}
		for n := 9; n < 120; n += 10 { // the guarded ones
			if got, err := s.Get(t.Context(), testID(n)); err != nil || string(got.Value) != w.Records[testID(n)] {
				t.Fatalf("flip %d: own record %d is lost: %v", i, n, err)
			}
			if _, err := s.QueueItem(t.Context(), "queue", testID(n)); err != nil {
				t.Fatalf("flip %d: own queue item %d is lost: %v", i, n, err)
			}
		}
		if rep, err := s.Check(t.Context()); err != nil || !rep.OK() {
			t.Fatalf("flip %d: check %+v, %v", i, rep, err)
		}
		lost += int(r.Lost)
		replayed += r.Replayed
		mustClose(t, s)
		s = mustOpen(t, testOptions(dir)) // the loss is reported once
		if r := s.State().Recovery; r != (Recovery{}) {
			t.Fatalf("flip %d: second open: %+v", i, r)
		}
		mustClose(t, s)
	}
	if lost == 0 || replayed == 0 {
		t.Fatalf("lost %d, replayed %d: the test damaged nothing", lost, replayed)
	}
}

func TestHeadFile(t *testing.T) {
	source, w := uncleanWorld(t, 20)
	open := func(change func(path string)) Recovery {
		dir := filepath.Join(memoryDir(t), "copy")
		copyDir(t, source, dir)
		change(filepath.Join(dir, headFileName))
		s := mustOpen(t, testOptions(dir))
		s.background.Wait()
		w.whole(t, s)
		return s.State().Recovery
	}
	if r := open(func(p string) { flip(t, p, 3) }); r.Lost != 0 || r.Unproved {
		t.Fatalf("one damaged slot: %+v", r)
	}
	if r := open(func(p string) { flip(t, p, 3); flip(t, p, 20) }); r.Lost != 0 || !r.Unproved {
		t.Fatalf("two damaged slots: %+v", r)
	}
	if r := open(func(p string) { os.Remove(p) }); r.Lost != 0 || !r.Unproved {
		t.Fatalf("no head file: %+v", r)
	}
}

func TestGuardJournal(t *testing.T) {
	source, w := uncleanWorld(t, 40)
	for i := range int64(10) {
		dir := filepath.Join(memoryDir(t), "copy")
		copyDir(t, source, dir)
		path := filepath.Join(dir, guardName)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		flip(t, path, info.Size()*i/10)
		s := mustOpen(t, testOptions(dir))
		s.background.Wait()
		// Everything is in the database; the damage itself must not hurt. The
		// last entry could as well have been cut short by the crash.
		if r := s.State().Recovery; !r.JournalDamaged && i < 7 || r.Replayed > 0 {
			t.Fatalf("flip %d: %+v", i, r)
		}
		w.whole(t, s)
		mustClose(t, s)
	}
}

// TestGuardRelease: a record that was removed on purpose does not come back,
// and the journal keeps no more than its share.
func TestGuardRelease(t *testing.T) {
	live := memoryDir(t)
	s := mustOpen(t, testOptions(live))
	st, err := s.Stream(t.Context(), "room")
	if err != nil {
		t.Fatal(err)
	}
	commit := func(fill func(b *Batch)) {
		t.Helper()
		var b Batch
		fill(&b)
		if _, err := s.Commit(t.Context(), &b, Durable); err != nil {
			t.Fatal(err)
		}
	}
	log := s.disk.engine.lastLog
	big := make([]byte, 10<<10) // enough for a rewrite of the journal
	for i := range 3 * guardEntries {
		commit(func(b *Batch) {
			b.Guard()
			b.Append(Record{Stream: st, Time: uint64(i + 1), ID: testID(i), Value: big})
		})
	}
	last := 3*guardEntries - 1
	commit(func(b *Batch) { b.Remove(testID(last)) })
	commit(func(b *Batch) { b.Replace(testID(last-1), 0, []byte("redacted")) })
	commit(func(b *Batch) { b.Acknowledge(testID(last - 2)) })
	if n := len(s.disk.guard.live); n != guardEntries-3 {
		t.Fatalf("journal keeps %d entries", n)
	}
	info, err := os.Stat(filepath.Join(live, guardName))
	if err != nil || info.Size() > maxGuardFile/4 {
		t.Fatalf("journal of %d bytes, %v", info.Size(), err)
	}
	// A copy is of one moment only while no table is being written: with a log
	// gone and the MANIFEST read before, it would be a damaged store.
	if s.disk.engine.lastLog != log {
		t.Fatal("the test writes more than one log")
	}
	dir := filepath.Join(memoryDir(t), "copy")
	copyDir(t, live, dir)
	s2 := mustOpen(t, testOptions(dir))
	if r := s2.State().Recovery; r.Replayed != 0 || r.JournalDamaged {
		t.Fatalf("recovery %+v", r)
	}
	if _, err := s2.Get(t.Context(), testID(last)); !errors.Is(err, ErrNotFound) {
		t.Fatalf("a removed record is back: %v", err)
	}
	if r, err := s2.Get(t.Context(), testID(last-1)); err != nil || string(r.Value) != "redacted" {
		t.Fatalf("a redacted record is back: %v", err)
	}
}

// TestOlderOptions: logs written with a larger write buffer are replayed with
// one of that size. (A smaller one ends the process: "Arena too small".)
func TestOlderOptions(t *testing.T) {
	live := memoryDir(t)
	o := testOptions(live)
	o.Sizes = RelaySizes
	s := mustOpen(t, o)
	st, err := s.Stream(t.Context(), "room")
	if err != nil {
		t.Fatal(err)
	}
	const records = 400
	for i := range records {
		var b Batch
		b.Append(Record{Stream: st, Time: uint64(i + 1), ID: testID(i), Value: make([]byte, MaxValueSize-1000)})
		if _, err := s.Commit(t.Context(), &b, Relaxed); err != nil {
			t.Fatal(err)
		}
	}
	for _, lose := range []string{"", stateName} {
		dir := filepath.Join(memoryDir(t), "copy")
		copyDir(t, live, dir)
		if lose != "" {
			if err := os.Remove(filepath.Join(dir, lose)); err != nil {
				t.Fatal(err)
			}
		}
		s := mustOpen(t, testOptions(dir))
		if n, err := s.Count(t.Context(), st); err != nil || n != records {
			t.Fatalf("without %q: %d records, %v", lose, n, err)
		}
		if s.disk.state.MemTable != DefaultSizes.MemTable {
			t.Fatalf("write buffer %d", s.disk.state.MemTable)
		}
		mustClose(t, s)
	}
}

// TestDamagedEngineFiles flips bits in the small files of the database: Open
// refuses, or everything is there, or the loss is told.
func TestDamagedEngineFiles(t *testing.T) {
	clean, w := cleanWorld(t)
	unclean, uw := uncleanWorld(t, 50)
	for _, tt := range []struct {
		name   string
		source string
		w      *world
	}{{"clean", clean, w}, {"unclean", unclean, uw}} {
		for _, pattern := range []string{"KEYREGISTRY", "*.vlog", "DISCARD", manifestName, "*.mem"} {
			files, err := filepath.Glob(filepath.Join(tt.source, engineDirName, pattern))
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				// A log is cut at the damage, and after an unclean stop nobody
				// knows what the last MANIFEST was.
				repairable := pattern != "*.mem" && (tt.name == "clean" || pattern != manifestName)
				t.Run(tt.name+"/"+filepath.Base(file), func(t *testing.T) { damageFile(t, tt.source, file, tt.w, repairable) })
			}
		}
	}
}

// damageFile opens damaged copies in a child process, because Badger panics
// over some damage, in goroutines of its own.
func damageFile(t *testing.T, source, file string, w *world, repairable bool) {
	t.Parallel()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	refused, died, missing := 0, 0, 0
	for _, offset := range []int64{0, 5, 12, 19, 22, 50, info.Size() - 1} {
		if offset >= info.Size() {
			continue
		}
		dir := filepath.Join(memoryDir(t), "copy")
		copyDir(t, source, dir)
		flip(t, filepath.Join(dir, engineDirName, filepath.Base(file)), offset)
		out, err := runChild(t, "examine", dir, w)
		switch {
		case err != nil:
			died++
			if len(out.stderr) == 0 {
				t.Errorf("offset %d: the process died without a word: %v", offset, err)
			}
		case out.Refused != "":
			refused++
			if repairable {
				repairChild(t, dir, offset, w)
			}
		case out.Bad != "":
			t.Errorf("offset %d: %s", offset, out.Bad)
		case out.Missing+out.Told > 0 && out.Silent:
			t.Errorf("offset %d: %d missing, %d damaged, and nothing said", offset, out.Missing, out.Told)
		}
		missing += out.Missing
	}
	t.Logf("%d refused, %d died, %d values missing", refused, died, missing)
}

// repairChild wants a refused store to be whole again after a repair.
func repairChild(t *testing.T, dir string, offset int64, w *world) {
	t.Helper()
	if out, err := runChild(t, "repair", dir, w); err != nil || out.Refused != "" {
		t.Errorf("offset %d: repair: %s%v%s", offset, out.Refused, err, out.stderr)
		return
	}
	out, err := runChild(t, "examine", dir, w)
	if err != nil || out.Refused != "" || out.Bad != "" || out.Missing+out.Told > 0 {
		t.Errorf("offset %d: after repair: %+v, %v", offset, out, err)
	}
}

// TestGuardWhole: a guarded batch that the database lost comes back whole, and
// one that it has leaves only the user's words in the journal.
func TestGuardWhole(t *testing.T) {
	live := memoryDir(t)
	s := mustOpen(t, testOptions(live))
	w := fillWorld(t, s, 9) // nothing guarded
	before := filepath.Join(memoryDir(t), "copy")
	copyDir(t, live, before)
	var b Batch
	b.Append(Record{Stream: w.Stream, Time: 1 << 40, ID: testID(500), Value: []byte("own words")})
	b.Replace(testID(1), 2, []byte("edited"))
	b.Remove(testID(2))
	b.Put("bucket", []byte("new"), []byte("value"))
	b.Delete("bucket", []byte("3"))
	b.PutEphemeral("secret", []byte("0"), []byte("next state"))
	b.Schedule("queue", fromMillis(77), testID(500), []byte("to send"))
	b.Unschedule("queue", testID(4))
	b.Guard()
	if _, err := s.Commit(t.Context(), &b, Durable); err != nil {
		t.Fatal(err)
	}
	// The directory before the batch, with the side files after it.
	for _, name := range []string{guardName, headFileName} {
		if err := copySparse(filepath.Join(live, name), filepath.Join(before, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{live, before} {
		lost := dir == before
		if !lost {
			mustClose(t, s)
		}
		s := mustOpen(t, testOptions(dir))
		s.background.Wait()
		if r := s.State().Recovery; lost && (r.Lost != 1 || r.Replayed != 1) || !lost && r != (Recovery{}) {
			t.Fatalf("lost %v: recovery %+v", lost, r)
		}
		own, err := s.Get(t.Context(), testID(500))
		if err != nil || string(own.Value) != "own words" {
			t.Fatalf("lost %v: own record %q, %v", lost, own.Value, err)
		}
		edited, err := s.Get(t.Context(), testID(1))
		if err != nil || string(edited.Value) != "edited" || edited.Flags != 2 {
			t.Fatalf("lost %v: replaced record %+v, %v", lost, edited, err)
		}
		state, err := s.GetEphemeral(t.Context(), "secret", []byte("0"))
		if err != nil || string(state) != "next state" {
			t.Fatalf("lost %v: state %q, %v", lost, state, err)
		}
		value, err := s.GetBucket(t.Context(), "bucket", []byte("new"))
		if err != nil || string(value) != "value" {
			t.Fatalf("lost %v: value %q, %v", lost, value, err)
		}
		item, err := s.QueueItem(t.Context(), "queue", testID(500))
		if err != nil || item.Due != fromMillis(77) {
			t.Fatalf("lost %v: item %+v, %v", lost, item, err)
		}
		_, e1 := s.Get(t.Context(), testID(2))
		_, e2 := s.GetBucket(t.Context(), "bucket", []byte("3"))
		_, e3 := s.QueueItem(t.Context(), "queue", testID(4))
		if !errors.Is(e1, ErrNotFound) || !errors.Is(e2, ErrNotFound) || !errors.Is(e3, ErrNotFound) {
			t.Fatalf("lost %v: what was removed is there: %v, %v, %v", lost, e1, e2, e3)
		}
		mustClose(t, s)
		s = mustOpen(t, testOptions(dir))
		if n := len(s.disk.guard.live); n != 1 {
			t.Fatalf("lost %v: %d entries in the journal", lost, n)
		}
		ops, err := parseGuardOps(s.disk.guard.live[0].ops)
		if err != nil || len(ops) != 2 {
			t.Fatalf("lost %v: the journal keeps %d operations, %v", lost, len(ops), err)
		}
		mustClose(t, s)
	}
}
