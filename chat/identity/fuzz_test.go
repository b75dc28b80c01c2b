package identity

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"strings"
	"testing"
)

// FuzzKeysFile opens any bytes, as they are and with the checksum put right. A
// file that opens must hold what seal would put at the same places; whatever
// does not open is one of the documented errors.
func FuzzKeysFile(f *testing.F) {
	for _, pass := range []Passphrase{passphrase(f, "correct horse"), NoPassphrase()} {
		_, path := newKeys(f, pass)
		raw, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, !pass.none)
		f.Add(raw[:headerSize], !pass.none)
	}
	f.Fuzz(func(t *testing.T, raw []byte, protected bool) {
		pass := NoPassphrase()
		if protected {
			pass = passphrase(t, "correct horse")
		}
		if len(raw) > sha256.Size {
			sum := sha256.Sum256(raw[:len(raw)-sha256.Size])
			tryKeys(t, append(raw[:len(raw)-sha256.Size:len(raw)-sha256.Size], sum[:]...), pass)
		}
		tryKeys(t, raw, pass)
	})
}

func tryKeys(t *testing.T, raw []byte, pass Passphrase) {
	t.Helper()
	// Only the cheap cost, or the fuzzer would find the most expensive one.
	k := Keys{bounds: costBounds{low: cheap, high: cheap}, random: bytes.NewReader(bytes.Repeat([]byte{1}, 64))}
	err := k.unseal(raw, pass)
	if err != nil {
		for _, known := range []error{ErrKeysDamaged, ErrKeysVersion, ErrKeysCost, ErrPassphraseNeeded, ErrNotProtected, ErrWrongPassphrase} {
			if errors.Is(err, known) {
				return
			}
		}
		t.Fatalf("an error that nobody documented: %v", err)
	}
	// Sealing again with the same randomness gives the same file.
	const master = headerSize + 24 + masterSize + 16
	k.random = bytes.NewReader(bytes.Join([][]byte{raw[19:headerSize], raw[headerSize : headerSize+24], raw[master : master+24]}, nil))
	again, err := k.seal(pass, cheap)
	if err != nil || !bytes.Equal(again, raw) {
		t.Fatalf("seals again as %x, %v; was %x", again, err, raw)
	}
}

func FuzzPhrase(f *testing.F) {
	for _, v := range officialBIP39 {
		f.Add(v.phrase)
	}
	f.Add("abandon  ABANDON\n")
	f.Fuzz(func(t *testing.T, phrase string) {
		a, err := AccountFromPhrase(phrase)
		if err != nil {
			if !errors.Is(err, ErrPhrase) {
				t.Fatal(err)
			}
			return
		}
		if want := strings.Join(strings.Fields(strings.ToLower(phrase)), " "); a.Phrase() != want {
			t.Fatalf("%q became %q", want, a.Phrase())
		}
	})
}

func FuzzSafetyCheck(f *testing.F) {
	n := NewSafetyNumber(newAccount(f, "ada").ID(), newAccount(f, "bob").ID())
	f.Add(string(n))
	f.Add(n.String())
	f.Add(n.QRText())
	f.Fuzz(func(t *testing.T, input string) {
		digits := strings.Map(func(r rune) rune {
			if r >= '0' && r <= '9' {
				return r
			}
			return -1
		}, input)
		if n.Check(input) == nil && !strings.HasSuffix(digits, string(n)) {
			t.Fatalf("%q passes for %s", input, n)
		}
	})
}
