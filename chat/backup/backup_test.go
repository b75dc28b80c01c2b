package backup

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
)

// cheap is a passphrase without the cost of one.
func cheap(t testing.TB, text string) (age.Recipient, age.Identity) {
	t.Helper()
	r, err := age.NewScryptRecipient(text)
	if err != nil {
		t.Fatal(err)
	}
	r.SetWorkFactor(2)
	id, err := PassphraseIdentity(text)
	if err != nil {
		t.Fatal(err)
	}
	return r, id
}

func sample(t testing.TB) *Backup {
	t.Helper()
	one, err := Make("account", 1, map[string]string{"phrase": "zoo zoo"})
	if err != nil {
		t.Fatal(err)
	}
	big, err := Make("history", 1, strings.Repeat("many words ", 20_000)) // several chunks of age
	if err != nil {
		t.Fatal(err)
	}
	return &Backup{Created: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), Program: "1.0", Sections: []Section{one, big}}
}

func written(t testing.TB, b *Backup, to ...age.Recipient) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := Write(&buf, b, to...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestRoundTrip(t *testing.T) {
	pass, open := cheap(t, "correct horse")
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		to   age.Recipient
		with age.Identity
	}{"passphrase": {pass, open}, "key": {key.Recipient(), key}} {
		want := sample(t)
		got, err := Read(bytes.NewReader(written(t, want, c.to)), c.with)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		a, _ := json.Marshal(want)
		b, _ := json.Marshal(got)
		if !bytes.Equal(a, b) {
			t.Errorf("%s: came back different", name)
		}
	}
}

// What is wrong with a file is said, and it is never taken for a backup.
func TestBadBackups(t *testing.T) {
	pass, open := cheap(t, "correct horse")
	_, wrong := cheap(t, "battery staple")
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	good := written(t, sample(t), pass)
	plain := func(text string) []byte {
		var buf bytes.Buffer
		w, err := age.Encrypt(&buf, pass)
		if err == nil {
			_, err = io.WriteString(w, text)
		}
		if err != nil || w.Close() != nil {
			t.Fatal(err)
		}
		return buf.Bytes()
	}
	flip := func(i int) []byte {
		b := bytes.Clone(good)
		b[i] ^= 0x40
		return b
	}
	top := func(c byte) []byte { // a character of the salt, which is base64
		b := bytes.Clone(good)
		b[len("age-encryption.org/v1\n-> scrypt ")] = c
		return b
	}
	other := byte('A')
	if bytes.Equal(top(other), good) {
		other = 'B'
	}
	const head = `{"starling_backup":1,"created":"2026-01-01T00:00:00Z","program":"x"}` + "\n"
	for name, c := range map[string]struct {
		file []byte
		with age.Identity
		want error
	}{
		"wrong passphrase":         {good, wrong, ErrWrongKey},
		"a key for a passphrase":   {good, key, ErrWrongKey},
		"empty":                    {nil, open, ErrNotBackup},
		"a text":                   {[]byte("hello, this is not a backup at all\n"), open, ErrNotBackup},
		"a flipped bit in a body":  {flip(len(good) - 5000), open, ErrDamaged},
		"a flipped bit at the end": {flip(len(good) - 1), open, ErrDamaged},
		"without its last byte":    {good[:len(good)-1], open, ErrDamaged},
		"half":                     {good[:len(good)/2], open, ErrDamaged},
		"cut in the header":        {good[:60], open, ErrTruncated},
		"no salt on top":           {top('!'), open, ErrDamaged},
		"another salt on top":      {top(other), open, ErrWrongKey},
		"another file inside":      {plain("PNG and so on"), open, ErrNotBackup},
		"another JSON inside":      {plain(`{"a":1}`), open, ErrNotBackup},
		"a newer version":          {plain(`{"starling_backup":2}` + "\n"), open, ErrNewer},
		"no last line":             {plain(head + `{"section":"a","v":1,"data":1}` + "\n"), open, ErrTruncated},
		"cut in a line":            {plain(head + `{"section":"a","v":1,"da`), open, ErrTruncated},
		"a wrong count":            {plain(head + `{"end":1}`), open, ErrDamaged},
		"more after the end":       {plain(head + `{"end":0}{}`), open, ErrDamaged},
		"a section without a name": {plain(head + `{"v":1}` + "\n" + `{"end":1}`), open, ErrDamaged},
		"a line that is no JSON":   {plain(head + "nonsense\n"), open, ErrDamaged},
	} {
		b, err := Read(bytes.NewReader(c.file), c.with)
		if b != nil || err == nil {
			t.Errorf("%s: it was read", name)
			continue
		}
		// Where a cut falls decides whether age sees damage or an end: either is said clearly.
		if !errors.Is(err, c.want) && !(c.want == ErrDamaged && errors.Is(err, ErrTruncated)) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	var v string
	newer := Section{Name: "rooms", Version: 3, Data: json.RawMessage(`"x"`)}
	if err := newer.Decode(2, &v); !errors.Is(err, ErrNewer) {
		t.Errorf("a newer section: %v", err)
	}
	if err := newer.Decode(3, &v); err != nil || v != "x" {
		t.Errorf("a known section: %q, %v", v, err)
	}
}

// FuzzRead opens anything, and anything that is encrypted rightly.
func FuzzRead(f *testing.F) {
	pass, open := cheap(f, "x")
	f.Add(written(f, &Backup{Program: "a"}, pass), []byte(`{"starling_backup":1}{"end":0}`))
	f.Add([]byte("age-encryption.org/v1\n"), []byte(`{"starling_backup":1}{"section":"a","v":1,"data":[]}{"end":1}`))
	key, err := age.GenerateX25519Identity()
	if err != nil {
		f.Fatal(err)
	}
	known := []error{ErrWrongKey, ErrNotBackup, ErrDamaged, ErrTruncated, ErrNewer}
	f.Fuzz(func(t *testing.T, file, plain []byte) {
		_, ferr := Read(bytes.NewReader(file), open)
		var buf bytes.Buffer
		w, err := age.Encrypt(&buf, key.Recipient())
		if err == nil {
			_, err = w.Write(plain)
		}
		if err != nil || w.Close() != nil {
			t.Fatal(err)
		}
		b, perr := Read(&buf, key)
		for _, err := range []error{ferr, perr} {
			ok := err == nil
			for _, k := range known {
				ok = ok || errors.Is(err, k)
			}
			if !ok {
				t.Fatalf("an error without a class: %v", err)
			}
		}
		if perr != nil {
			return
		}
		again, err := Read(bytes.NewReader(written(t, b, key.Recipient())), key)
		if err != nil || len(again.Sections) != len(b.Sections) {
			t.Fatalf("written again: %v", err)
		}
	})
}
