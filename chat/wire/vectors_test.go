package wire

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"google.golang.org/protobuf/encoding/protowire"
)

// The vectors lie beside the specification, where a second implementation finds
// them; docs/spec/vectors/check-rooms.mjs verifies them without this package.
const vectorsDir = "../../docs/spec/vectors"

var update = flag.Bool("update", false, "rewrite the golden vectors")

// obj is one JSON object of a vector file.
type obj map[string]any

// checkVectors compares what the code makes with the golden file.
func checkVectors(t *testing.T, name string, made any) {
	t.Helper()
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(made); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(vectorsDir, name)
	if *update {
		if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, out.Bytes()) {
		t.Errorf("%s: the code no longer makes the golden vectors. A frozen format must not change; "+
			"if the change is meant and unreleased, run go test -run Vectors -update", name)
	}
}

// readVectors decodes a golden file.
func readVectors(t testing.TB, name string, into any) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(vectorsDir, name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// plain turns a struct of this package into JSON that names fields as the
// specification does: snake case, bytes in hexadecimal, 64-bit numbers as
// decimal text, times in Unix milliseconds, durations in seconds, and nothing
// for zero.
func plain(v any) any {
	return plainValue(reflect.ValueOf(v))
}

func plainValue(v reflect.Value) any {
	switch x := v.Interface().(type) {
	case time.Time:
		return x.UnixMilli()
	case time.Duration:
		return int64(x / time.Second)
	}
	switch v.Kind() {
	case reflect.Pointer:
		return plainValue(v.Elem())
	case reflect.Struct:
		out := obj{}
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && !v.Field(i).IsZero() {
				out[snake(f.Name)] = plainValue(v.Field(i))
			}
		}
		return out
	case reflect.Array, reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			b := make([]byte, v.Len())
			reflect.Copy(reflect.ValueOf(b), v)
			return hex.EncodeToString(b)
		}
		out := make([]any, v.Len())
		for i := range out {
			out[i] = plainValue(v.Index(i))
		}
		return out
	case reflect.Uint64:
		return strconv.FormatUint(v.Uint(), 10)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return v.Uint()
	default:
		return v.Interface()
	}
}

// snake turns "PrekeyID" into "prekey_id".
func snake(name string) string {
	var out strings.Builder
	for i, r := range name {
		if unicode.IsUpper(r) && i > 0 && !unicode.IsUpper(rune(name[i-1])) {
			out.WriteByte('_')
		}
		out.WriteRune(unicode.ToLower(r))
	}
	return out.String()
}

// testRandom is an endless, repeatable stream of bytes.
type testRandom struct {
	seed    string
	counter uint64
	left    []byte
}

func random(seed string) io.Reader { return &testRandom{seed: seed} }

func (r *testRandom) Read(p []byte) (int, error) {
	for n := 0; n < len(p); {
		if len(r.left) == 0 {
			sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(r.seed), r.counter))
			r.counter++
			r.left = sum[:]
		}
		k := copy(p[n:], r.left)
		r.left = r.left[k:]
		n += k
	}
	return len(p), nil
}

// fill returns 32 bytes that depend on a label.
func fill(label string) [32]byte { return sha256.Sum256([]byte("test/" + label)) }

func testKey(label string) ed25519.PrivateKey {
	seed := fill(label)
	return ed25519.NewKeyFromSeed(seed[:])
}

func publicKey(k ed25519.PrivateKey) [32]byte { return [32]byte(k.Public().(ed25519.PublicKey)) }

// testTime is when everything in the tests happens.
var testTime = time.Date(2027, 3, 14, 15, 9, 26, 535e6, time.UTC)

// testCertificate is ada's for her laptop.
func testCertificate(t testing.TB) Certificate {
	t.Helper()
	c, err := IssueCertificate(testKey("ada"), publicKey(testKey("ada/laptop")),
		testTime.Add(-24*time.Hour), testTime.Add(365*24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func testRoomKeys(t testing.TB) *RoomKeys {
	t.Helper()
	k, err := DeriveRoomKeys(fill("room"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// testEvent is a valid first event by ada of the body's kind.
func testEvent(t testing.TB, keys *RoomKeys, body Body, change func(*Header)) *Event {
	t.Helper()
	content, err := EncodeBody(body)
	if err != nil {
		t.Fatal(err)
	}
	h := Header{
		Kind: body.EventKind(), Certificate: testCertificate(t),
		HLC: HLCFromTime(testTime), DeviceSeq: 1,
	}
	if h.Kind != KindCreate {
		h.Room = PublicRoomID(keys.Topic)
	}
	if h.Kind.needsRef() {
		h.Ref = EventID(fill("ref"))
	}
	if change != nil {
		change(&h)
	}
	e, err := NewEvent(h, content, testKey("ada/laptop"), random("salt"))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// fullHeader sets every field of a header.
func fullHeader(h *Header) {
	h.DeviceSeq = 300
	h.Previous = EventID(fill("previous"))
	h.Parents = []EventID{{1}, {2}, {3}, EventID(fill("parent"))}
	h.Ref = EventID(fill("ref"))
	h.Epoch = 7
	h.HLC = HLCFromTime(testTime) + 5
	h.Expires = testTime.Add(time.Hour)
	h.Attachments = []Attachment{{Hash: Hash(fill("file")), Size: 123_456}, {Hash: Hash(fill("file 2")), Size: 1}}
	h.Extensions = extension(100, "later").and(127, "much later")
}

// extension encodes an extension field.
func extension(num int, data string) Extensions {
	var e encoder
	e.string(protowire.Number(num), data)
	return e.b
}

func (x Extensions) and(num int, data string) Extensions { return append(x, extension(num, data)...) }

// TestSecondImplementation runs the vectors through the implementation in
// JavaScript.
func TestSecondImplementation(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed: the second implementation cannot run")
	}
	out, err := exec.CommandContext(t.Context(), node, filepath.Join(vectorsDir, "check-rooms.mjs")).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
