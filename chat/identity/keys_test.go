package identity

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// cheap is a cost for tests only; production bounds refuse it.
var cheap = Cost{Passes: 1, MemoryKiB: 64, Lanes: 1}

var testBounds = costBounds{low: cheap, high: productionBounds.high}

func passphrase(t testing.TB, text string) Passphrase {
	t.Helper()
	p, err := NewPassphrase(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// newKeys makes a keys file with the cheap cost.
func newKeys(t testing.TB, pass Passphrase) (*Keys, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys")
	k, err := createKeys(path, newAccount(t, "ada"), pass, random("keys"), cheap, testBounds)
	if err != nil {
		t.Fatal(err)
	}
	return k, path
}

func reopen(path string, pass Passphrase) (*Keys, error) {
	return openKeys(path, pass, random("reopened"), testBounds)
}

func sameKeys(a, b *Keys) bool {
	return a.Account().ID() == b.Account().ID() && a.Device().ID() == b.Device().ID() &&
		a.Device().Agreement().Equal(b.Device().Agreement()) && a.SubKey("s") == b.SubKey("s") &&
		a.Account().Phrase() == b.Account().Phrase()
}

func TestKeysFile(t *testing.T) {
	for name, pass := range map[string]Passphrase{"passphrase": passphrase(t, "correct horse"), "none": NoPassphrase()} {
		t.Run(name, func(t *testing.T) {
			k, path := newKeys(t, pass)
			got, err := reopen(path, pass)
			if err != nil {
				t.Fatal(err)
			}
			if !sameKeys(k, got) {
				t.Error("other keys came back")
			}
			if got.Protected() != !pass.none || k.Protected() != got.Protected() {
				t.Errorf("protected: %v", got.Protected())
			}
			info, err := os.Stat(path)
			if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
				t.Errorf("mode %v: %v", info.Mode(), err)
			}
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for what, secret := range map[string][]byte{
				"entropy": k.account.entropy[:], "device": k.device.key.Seed(), "agreement": k.device.agreement.Bytes(), "master": k.master[:],
			} {
				if bytes.Contains(raw, secret) {
					t.Errorf("the file holds the %s in clear", what)
				}
			}
		})
	}
}

// TestProductionCost uses the real cost once, through the exported functions.
func TestProductionCost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	pass := passphrase(t, "correct horse")
	k, err := CreateKeys(path, newAccount(t, "ada"), pass, random("keys"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := OpenKeys(path, pass, random("x"))
	if err != nil || !sameKeys(k, got) {
		t.Fatalf("reopening: %v", err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	h, err := parseKeysHeader(raw, productionBounds)
	if err != nil || h.cost != (Cost{Passes: 3, MemoryKiB: 65536, Lanes: 4}) {
		t.Errorf("cost %+v: %v", h.cost, err)
	}
	if protected, err := KeysProtected(path); err != nil || !protected {
		t.Errorf("protected %v: %v", protected, err)
	}
	// What tests write cheaply is refused by production.
	if err := k.changePassphrase(pass, cheap); !errors.Is(err, ErrKeysCost) {
		t.Errorf("changing to a cheap cost: %v", err)
	}
}

func TestOpenKeysErrors(t *testing.T) {
	pass := passphrase(t, "correct horse")
	_, protected := newKeys(t, pass)
	_, open := newKeys(t, NoPassphrase())
	dir := t.TempDir()
	write := func(name string, raw []byte, mode fs.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, raw, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	raw, err := os.ReadFile(protected)
	if err != nil {
		t.Fatal(err)
	}
	// resum makes a changed file whole again, as another version would.
	resum := func(change func(b []byte) []byte) []byte {
		b := change(append([]byte{}, raw[:len(raw)-sha256.Size]...))
		sum := sha256.Sum256(b)
		return append(b, sum[:]...)
	}
	at := func(i int, v byte) func([]byte) []byte {
		return func(b []byte) []byte { b[i] = v; return b }
	}
	for name, v := range map[string]struct {
		path string
		pass Passphrase
		want error
	}{
		"missing":               {filepath.Join(dir, "none"), pass, fs.ErrNotExist},
		"wrong passphrase":      {protected, passphrase(t, "correct horse "), ErrWrongPassphrase},
		"no passphrase given":   {protected, NoPassphrase(), ErrPassphraseNeeded},
		"zero passphrase":       {protected, Passphrase{}, ErrPassphraseNeeded},
		"passphrase for none":   {open, pass, ErrNotProtected},
		"group may read":        {write("group", raw, 0o640), pass, ErrKeysPermissions},
		"all may read":          {write("all", raw, 0o604), pass, ErrKeysPermissions},
		"empty":                 {write("empty", nil, 0o600), pass, ErrKeysDamaged},
		"another file":          {write("other", bytes.Repeat([]byte("x"), 275), 0o600), pass, ErrKeysDamaged},
		"cut short":             {write("short", raw[:len(raw)-1], 0o600), pass, ErrKeysDamaged},
		"longer":                {write("long", append(raw[:len(raw):len(raw)], 0), 0o600), pass, ErrKeysDamaged},
		"huge":                  {write("huge", make([]byte, maxKeysFile+1), 0o600), pass, ErrKeysDamaged},
		"longer, sum right":     {write("longsum", resum(func(b []byte) []byte { return append(b, 0) }), 0o600), pass, ErrKeysDamaged},
		"version 2":             {write("v2", resum(at(8, 2)), 0o600), pass, ErrKeysVersion},
		"version 2, longer":     {write("v2long", resum(func(b []byte) []byte { b[8] = 2; return append(b, 1, 2, 3) }), 0o600), pass, ErrKeysVersion},
		"unknown wrap":          {write("wrap", resum(at(9, 2)), 0o600), pass, ErrKeysVersion},
		"wrap stripped":         {write("strip", resum(at(9, 0)), 0o600), NoPassphrase(), ErrKeysDamaged},
		"no passes":             {write("t0", resum(at(13, 0)), 0o600), pass, ErrKeysCost},
		"hours of passes":       {write("t9", resum(at(10, 9)), 0o600), pass, ErrKeysCost},
		"gigabytes of memory":   {write("m9", resum(at(14, 9)), 0o600), pass, ErrKeysCost},
		"no lanes":              {write("p0", resum(at(18, 0)), 0o600), pass, ErrKeysCost},
		"other salt":            {write("salt", resum(at(20, raw[20]^1)), 0o600), pass, ErrWrongPassphrase},
		"payload changed":       {write("payload", resum(at(200, raw[200]^1)), 0o600), pass, ErrKeysDamaged},
		"payload nonce changed": {write("pnonce", resum(at(110, raw[110]^1)), 0o600), pass, ErrKeysDamaged},
	} {
		if runtime.GOOS == "windows" && errors.Is(v.want, ErrKeysPermissions) {
			continue
		}
		_, err := reopen(v.path, v.pass)
		if !errors.Is(err, v.want) {
			t.Errorf("%s: %v, want %v", name, err, v.want)
		}
		if err != nil && !strings.Contains(err.Error(), v.path) {
			t.Errorf("%s: %q does not name the file", name, err)
		}
	}
	if _, err := KeysProtected(filepath.Join(dir, "v2")); !errors.Is(err, ErrKeysVersion) {
		t.Errorf("KeysProtected of version 2: %v", err)
	}
}

// TestEveryFlippedBitShows flips each bit of a keys file.
func TestEveryFlippedBitShows(t *testing.T) {
	pass := passphrase(t, "correct horse")
	_, path := newKeys(t, pass)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(raw) * 8 {
		bad := append([]byte{}, raw...)
		bad[i/8] ^= 1 << (i % 8)
		var k Keys
		k.bounds = testBounds
		if err := k.unseal(bad, pass); !errors.Is(err, ErrKeysDamaged) {
			t.Fatalf("bit %d flipped: %v", i, err)
		}
	}
}

func TestCreateNeverOverwrites(t *testing.T) {
	_, path := newKeys(t, NoPassphrase())
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := CreateKeys(path, newAccount(t, "eve"), NoPassphrase(), random("eve")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("creating over a file: %v", err)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file changed: %v", err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// TestCreateAtOnce lets many create the same file: exactly one may.
func TestCreateAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	const n = 8
	results := make([]error, n)
	made := make([]*Keys, n)
	var wg sync.WaitGroup
	for i := range n {
		account, source := newAccount(t, string(rune('a'+i))), random(string(rune('a'+i)))
		wg.Go(func() { made[i], results[i] = CreateKeys(path, account, NoPassphrase(), source) })
	}
	wg.Wait()
	got, err := OpenKeys(path, NoPassphrase(), random("x"))
	if err != nil {
		t.Fatal(err)
	}
	won := 0
	for i := range n {
		if results[i] == nil {
			won++
			if !sameKeys(made[i], got) {
				t.Error("somebody was told to hold the keys and does not")
			}
		}
	}
	if won != 1 {
		t.Errorf("%d created the file", won)
	}
}

func TestChangePassphrase(t *testing.T) {
	first, second := passphrase(t, "first"), passphrase(t, "second")
	k, path := newKeys(t, first)
	for _, next := range []Passphrase{second, NoPassphrase(), first} {
		old, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := k.changePassphrase(next, cheap); err != nil {
			t.Fatal(err)
		}
		got, err := reopen(path, next)
		if err != nil || !sameKeys(k, got) {
			t.Fatalf("after the change: %v", err)
		}
		if k.Protected() == next.none {
			t.Error("protected is wrong")
		}
		now, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(old[19:35], now[19:35]) || bytes.Equal(old[35:59], now[35:59]) {
			t.Error("salt or nonce used again")
		}
	}
	if _, err := reopen(path, second); !errors.Is(err, ErrWrongPassphrase) {
		t.Errorf("the former passphrase: %v", err)
	}
	if err := k.changePassphrase(Passphrase{}, cheap); !errors.Is(err, ErrPassphrase) {
		t.Errorf("the zero passphrase: %v", err)
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v: %v", info.Mode(), err)
	}
}

// TestFailedChangeKeepsTheFile makes the directory unwritable by taking it away.
func TestFailedChangeKeepsTheFile(t *testing.T) {
	k, path := newKeys(t, NoPassphrase())
	moved := filepath.Dir(path) + ".moved"
	if err := os.Rename(filepath.Dir(path), moved); err != nil {
		t.Fatal(err)
	}
	if err := k.changePassphrase(passphrase(t, "x"), cheap); err == nil {
		t.Error("a change without a directory succeeded")
	}
	if k.Protected() {
		t.Error("says it is protected and is not")
	}
	if _, err := reopen(filepath.Join(moved, "keys"), NoPassphrase()); err != nil {
		t.Errorf("the old file: %v", err)
	}
}

// TestStaleTemporary survives what a crash between writing and renaming leaves.
func TestStaleTemporary(t *testing.T) {
	k, path := newKeys(t, NoPassphrase())
	if err := os.WriteFile(path+".1234.new", []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := k.changePassphrase(passphrase(t, "x"), cheap); err != nil {
		t.Fatal(err)
	}
	if _, err := reopen(path, passphrase(t, "x")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path + ".1234.new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the temporary file is still there: %v", err)
	}
}

func TestPassphrase(t *testing.T) {
	for _, bad := range []string{"", "\xff", strings.Repeat("x", maxPassphrase+1)} {
		if _, err := NewPassphrase(bad); !errors.Is(err, ErrPassphrase) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	// Two ways to type the same letters.
	_, path := newKeys(t, passphrase(t, "caf\u00e9"))
	if _, err := reopen(path, passphrase(t, "cafe\u0301")); err != nil {
		t.Errorf("composed differently: %v", err)
	}
}

// keysFileVectors are whole files for a second implementation.
func keysFileVectors(t testing.TB) []map[string]any {
	out := []map[string]any{}
	for _, text := range []string{"", "correct horse"} {
		pass := NoPassphrase()
		if text != "" {
			pass = passphrase(t, text)
		}
		path := filepath.Join(t.TempDir(), "keys")
		k, err := createKeys(path, newAccount(t, "ada"), pass, random("keys"), DefaultCost(), productionBounds)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		h, err := parseKeysHeader(raw, productionBounds)
		if err != nil {
			t.Fatal(err)
		}
		sub := k.SubKey("log")
		out = append(out, map[string]any{
			"passphrase": text, "file": hex.EncodeToString(raw), "wrapping_key": hex.EncodeToString(wrappingKey(pass, h.salt, h.cost)),
			"master_key": hex.EncodeToString(k.master[:]), "entropy": hex.EncodeToString(k.account.entropy[:]),
			"device_seed": hex.EncodeToString(k.device.key.Seed()), "agreement": hex.EncodeToString(k.device.agreement.Bytes()),
			"log_key": hex.EncodeToString(sub[:]),
		})
	}
	return out
}

// TestReadKeysFileVectors opens files that an earlier version wrote.
func TestReadKeysFileVectors(t *testing.T) {
	raw, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		KeysFiles []struct {
			Passphrase, File, Entropy string
		} `json:"keys_files"`
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	for i, x := range v.KeysFiles {
		file, err := hex.DecodeString(x.File)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "keys")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		pass := NoPassphrase()
		if x.Passphrase != "" {
			pass = passphrase(t, x.Passphrase)
		}
		k, err := OpenKeys(path, pass, random("x"))
		if err != nil {
			t.Fatalf("file %d: %v", i, err)
		}
		if hex.EncodeToString(k.account.entropy[:]) != x.Entropy {
			t.Errorf("file %d holds other keys", i)
		}
	}
	if len(v.KeysFiles) != 2 {
		t.Errorf("%d files", len(v.KeysFiles))
	}
}

func BenchmarkOpenKeys(b *testing.B) {
	path := filepath.Join(b.TempDir(), "keys")
	pass := passphrase(b, "correct horse")
	if _, err := CreateKeys(path, newAccount(b, "ada"), pass, random("keys")); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := OpenKeys(path, pass, random("x")); err != nil {
			b.Fatal(err)
		}
	}
}
