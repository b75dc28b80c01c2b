package wire

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// sampleBundle is a small bundle of two records that are no events, and of one topic.
func sampleBundle(t testing.TB) []byte {
	t.Helper()
	keys, err := DeriveRoomKeys(RoomSecret(fill("bundle")))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := NewBundleWriter(&out)
	for _, err := range []error{w.Section(keys), w.Record([]byte("one")), w.Record([]byte("two"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if n, err := w.End(); err != nil || n != 2 {
		t.Fatal(n, err)
	}
	return out.Bytes()
}

// readBundle reads all of a bundle.
func readBundle(b []byte) (list []string, err error) {
	r, err := NewBundleReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	for {
		_, raw, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		list = append(list, string(raw))
	}
}

func TestBundleIsReadAsWritten(t *testing.T) {
	b := sampleBundle(t)
	if list, err := readBundle(b); err != nil || len(list) != 2 || list[0] != "one" || list[1] != "two" {
		t.Fatalf("%q, %v", list, err)
	}
	for n := range b { // cut off anywhere
		if _, err := readBundle(b[:n]); err == nil {
			t.Fatalf("a bundle cut to %d of %d bytes is taken for whole", n, len(b))
		}
	}
	for n := range b { // a bit of every byte
		bad := bytes.Clone(b)
		bad[n] ^= 4
		if _, err := readBundle(bad); err == nil {
			t.Fatalf("a bundle with another byte %d is taken for whole", n)
		}
	}
	if _, err := readBundle(append(bytes.Clone(b), 'x')); err == nil {
		t.Error("what follows the end is not noticed")
	}
	newer := bytes.Clone(b)
	newer[len(bundleMagic)-1] = '2'
	if _, err := readBundle(newer); !errors.Is(err, ErrUnsupported) {
		t.Errorf("a bundle of a later version: %v", err)
	}
}

func FuzzBundle(f *testing.F) {
	f.Add(sampleBundle(f))
	f.Add([]byte(bundleMagic + "\x00\x00\x00\x21\x01"))
	f.Add([]byte(bundleMagic + "\xff\xff\xff\xff\x02"))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := readBundle(b)
		size := 0
		for _, raw := range list {
			size += len(raw)
		}
		if size > len(b) {
			t.Errorf("%d bytes of events in a bundle of %d, %v", size, len(b), err)
		}
	})
}
