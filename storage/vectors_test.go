package storage

import (
	"archive/zip"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// update rewrites the vectors; the stored old store is never rewritten.
var update = flag.Bool("update", false, "rewrite testdata/vectors.json")

// vectors are what a second implementation checks itself against; see
// docs/spec/storage.md. All values are hexadecimal.
type vectors struct {
	MasterKey string            `json:"master_key"`
	SubKeys   map[string]string `json:"sub_keys"`
	// Keys and plain values of database entries.
	Entries map[string]entryVector `json:"entries"`
	// Terms of texts.
	Terms map[string][]string `json:"terms"`
	// TermHashes are the search index's names for terms.
	TermHashes map[string]string `json:"term_hashes"`
}

type entryVector struct {
	Key    string `json:"key"`
	Plain  string `json:"plain"`
	Stored string `json:"stored"`
}

const vectorsFile = "testdata/vectors.json"

func vectorEntries() map[string]plainWrite {
	st, id := StreamID{0, 0, 0, 0, 0, 0, 0, 1}, testID(1)
	p := Position{1_700_000_000_000<<16 | 7, id}
	return map[string]plainWrite{
		"record":    {key: positionKey(kindRecord, st, p), plain: encodeRecord(3, 9, 0, []byte("hello"))},
		"stub":      {key: positionKey(kindStub, st, p), plain: []byte{}},
		"id":        {key: idKey(id), plain: location{st, p.Time, 3, 9, 5, 0}.encode()},
		"arrival":   {key: arrivalKey(st, 9), plain: encodeRun([]Position{p, {p.Time + 1, testID(2)}})},
		"digest":    {key: digestKey(st, Day(p.Time)), plain: append([]byte{0, 0, 0, 2}, bytes.Repeat([]byte{5}, 32)...)},
		"complete":  {key: streamKey(kindComplete, st), plain: encodeIntervals([]Interval{{1, 5}, {7, 9}})},
		"expiry":    {key: expiryKey(1_800_000_000_000, id), plain: []byte{}},
		"due":       {key: dueKey("outbox", 1_800_000_000_000, id), plain: []byte("item")},
		"queued":    {key: queuedKey("outbox", id), plain: be64(1_800_000_000_000)},
		"bucket":    {key: namedKey(kindBucket, "rooms", []byte("k")), plain: []byte("v")},
		"ephemeral": {key: namedKey(kindEphemeral, "ratchet", []byte("k")), plain: []byte("v")},
		"stream":    {key: streamKey(kindStream, st), plain: append([]byte{streamLive}, "room"...)},
		"name":      {key: namedKey(kindName, "room", nil), plain: st[:]},
		"counters":  {key: streamKey(kindCounters, st), plain: counters{1, 2, 3, 4, 5, 6}.encode()},
		"posting":   {key: postingKey(st, 0x0102030405060708, 3), plain: encodePosting([]uint16{0, 1, 300, 2047})},
		"indexed":   {key: streamKey(kindIndexed, st), plain: be64(9)},
		"held":      {key: dueKey("outbox", neverDue, testID(1)), plain: []byte("item")},
		"head":      {key: storeKey(headName), plain: be64(77)},
		"schema":    {key: storeKey(schemaName), plain: be64(schemaVersion)},
	}
}

// vectorSealer has the epoch key 00 01 02 ... under number 1.
func vectorSealer() *sealer {
	s := newSealer(testKey)
	k := ringKey{}
	for i := range k.key {
		k.key[i] = byte(i)
	}
	k.aead = newAEAD(k.key[:])
	s.ring.keys[1], s.ring.epoch, s.ring.next = k, 1, 2
	return s
}

func TestVectors(t *testing.T) {
	s := vectorSealer()
	store := &Store{seal: s}
	if *update {
		writeVectors(t, store)
	}
	b, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	for purpose, want := range v.SubKeys {
		if got := hex.EncodeToString(subKey(testKey, purpose)); got != want {
			t.Errorf("sub-key %q is %s, want %s", purpose, got, want)
		}
	}
	entries := vectorEntries()
	if len(entries) != len(v.Entries) {
		t.Errorf("%d entries, want %d", len(v.Entries), len(entries))
	}
	for name, e := range v.Entries {
		w := entries[name]
		if got := hex.EncodeToString(w.key); got != e.Key {
			t.Errorf("%s: key %s, want %s", name, got, e.Key)
		}
		if got := hex.EncodeToString(w.plain); got != e.Plain {
			t.Errorf("%s: plain %s, want %s", name, got, e.Plain)
		}
		stored, err := hex.DecodeString(e.Stored)
		if err != nil {
			t.Fatal(err)
		}
		if plain, err := s.open(w.key, stored); err != nil || !bytes.Equal(plain, w.plain) {
			t.Errorf("%s: opened to %x, %v", name, plain, err)
		}
	}
	for text, want := range v.Terms {
		if got := Terms(text); strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("terms of %q: %q, want %q", text, got, want)
		}
	}
	for term, want := range v.TermHashes {
		if got := fmt.Sprintf("%016x", store.termHash(term)); got != want {
			t.Errorf("hash of %q: %s, want %s", term, got, want)
		}
	}
}

func writeVectors(t *testing.T, s *Store) {
	t.Helper()
	v := vectors{
		MasterKey: hex.EncodeToString(testKey), SubKeys: map[string]string{}, Entries: map[string]entryVector{},
		Terms: map[string][]string{}, TermHashes: map[string]string{},
	}
	for _, p := range []string{"values", "tags", "engine", "epoch file", "check"} {
		v.SubKeys[p] = hex.EncodeToString(subKey(testKey, p))
	}
	for name, w := range vectorEntries() {
		stored, err := s.seal.seal(w)
		if err != nil {
			t.Fatal(err)
		}
		v.Entries[name] = entryVector{hex.EncodeToString(w.key), hex.EncodeToString(w.plain), hex.EncodeToString(stored)}
	}
	for _, text := range []string{"Deploy FAILED, again!", "今天天气", "ｆｕｌｌ　ｗｉｄｔｈ", "東京タワーへ行く x1", "한국어", ""} {
		v.Terms[text] = Terms(text)
		for _, term := range v.Terms[text] {
			v.TermHashes[term] = fmt.Sprintf("%016x", s.termHash(term))
		}
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(vectorsFile, append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

// oldStore is a directory as the first version wrote it. It stays for ever:
// every later version must open it.
const oldStore = "testdata/store-v1.zip"

// fillOld is what the old store holds.
func fillOld(t *testing.T, s *Store) {
	t.Helper()
	st, err := s.Stream(t.Context(), "room")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		var b Batch
		b.Append(Record{Stream: st, Time: uint64(1_700_000_000_000+i) << 16, ID: testID(i), Flags: 1, Value: fmt.Appendf(nil, "message %d", i)})
		b.Schedule("outbox", time.UnixMilli(int64(i)), testID(i), []byte("item"))
		b.Put("bucket", []byte{byte(i)}, []byte("value"))
		b.PutEphemeral("secret", []byte{byte(i)}, []byte("state"))
		if _, err := s.Commit(t.Context(), &b, Durable); err != nil {
			t.Fatal(err)
		}
		if err := s.Index(t.Context(), st, uint64(i+1), fmt.Sprintf("message %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	var b Batch
	b.Append(Record{Stream: st, Time: 5, ID: testID(100), Flags: FlagStub})
	b.Append(Record{Stream: st, Time: 6, ID: testID(101), Value: []byte("expiring"), Expires: time.UnixMilli(4_000_000_000_000)})
	b.MarkComplete(st, Interval{1, 9})
	if _, err := s.Commit(t.Context(), &b, Durable); err != nil {
		t.Fatal(err)
	}
}

func TestOldStore(t *testing.T) {
	if _, err := os.Stat(oldStore); err != nil && *update {
		dir := memoryDir(t)
		s := mustOpen(t, testOptions(dir))
		fillOld(t, s)
		mustClose(t, s)
		zipDir(t, dir, oldStore)
	}
	dir := filepath.Join(memoryDir(t), "store")
	unzip(t, oldStore, dir)
	s := mustOpen(t, testOptions(dir))
	if r := s.State().Recovery; r.Unclean || r.Lost > 0 || r.Damage != nil {
		t.Fatalf("recovery %+v", r)
	}
	st, err := s.LookupStream(t.Context(), "room")
	if err != nil {
		t.Fatal(err)
	}
	info, err := s.Info(t.Context(), st)
	if err != nil || info.Count != 21 || info.Stubs != 1 {
		t.Fatalf("info %+v, %v", info, err)
	}
	r, err := s.Get(t.Context(), testID(7))
	if err != nil || string(r.Value) != "message 7" || r.Arrival != 8 || r.Flags != 1 {
		t.Fatalf("record %+v, %v", r, err)
	}
	if r, err = s.Get(t.Context(), testID(101)); err != nil || string(r.Value) != "expiring" {
		t.Fatalf("expiring record %+v, %v", r, err)
	}
	for i := range 20 {
		v, err := s.GetEphemeral(t.Context(), "secret", []byte{byte(i)})
		if err != nil || string(v) != "state" {
			t.Fatalf("ephemeral %q, %v", v, err)
		}
		if it, err := s.QueueItem(t.Context(), "outbox", testID(i)); err != nil || it.Due.UnixMilli() != int64(i) {
			t.Fatalf("item %+v, %v", it, err)
		}
	}
	hits, err := s.Search(t.Context(), "MESSAGE 12", []StreamID{st}, 5, func(r Record) bool { return TextMatches("message 12", string(r.Value)) })
	if err != nil || len(hits) != 1 {
		t.Fatalf("%d hits, %v", len(hits), err)
	}
	if rep, err := s.Check(t.Context()); err != nil || !rep.OK() {
		t.Fatalf("check: %+v, %v", rep, err)
	}
}

func zipDir(t *testing.T, dir, target string) {
	t.Helper()
	f, err := os.Create(target)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z := zip.NewWriter(f)
	if err := z.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
}

func unzip(t *testing.T, source, dir string) {
	t.Helper()
	z, err := zip.OpenReader(source)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for _, f := range z.File {
		path := filepath.Join(dir, filepath.FromSlash(f.Name))
		if f.FileInfo().IsDir() {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		r.Close()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
