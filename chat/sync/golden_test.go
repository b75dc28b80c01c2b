package sync

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the vectors of testdata anew: only for a new version of the protocol")

type namedFrame struct {
	name    string
	message message
}

func goldenBytes(n int, first byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}

// goldenFrames has every kind of frame with every field present and absent.
func goldenFrames() []namedFrame {
	id := ID(goldenBytes(32, 0x40))
	return []namedFrame{
		{"hello of an initiator", &hello{topic: Topic(goldenBytes(32, 1)), hasTopic: true, nonce: Nonce(goldenBytes(16, 2)), floor: 1_749_945_600_000, cut: 1_750_000_000_123}},
		{"hello of a responder", &hello{nonce: Nonce(goldenBytes(16, 3)), cut: 1_750_000_000_999, proof: goldenBytes(64, 4)}},
		{"hello of a mirror", &hello{nonce: Nonce(goldenBytes(16, 5)), floor: maxMilli, cut: maxMilli}},
		{"prove", &prove{goldenBytes(64, 6)}},
		{"summary", &summary{10_000, Digest(goldenBytes(32, 7))}},
		{"summary of nothing", &summary{0, Digest(goldenBytes(32, 8))}},
		{"round, empty", &round{}},
		{"round, all kinds of ranges", &round{
			spans: []span{
				{back: 960_000, says: saysList, list: goldenBytes(24, 9)},
				{back: 1, says: saysList, list: []byte{}},
				{back: 1_920_000, says: saysSum, sum: fingerprintOf([16]byte(goldenBytes(16, 10)))},
				{counter: 7},
				{back: 5, counter: 65_535, id: ID{0xaa, 0, 0xbb}, says: saysSum},
				{id: id, says: saysList, list: goldenBytes(8, 11)},
			},
			claims: goldenBytes(16, 12), more: true,
		}},
		{"round, claims only", &round{claims: goldenBytes(8, 13)}},
		{"get, one run", &get{[]run{{0, 256}}}},
		{"get, three runs", &get{[]run{{0, 3}, {1, 1}, {300, 5}}}},
		{"page, from the cut", &page{Item{Time: timeOf(1_750_000_000_123, 0)}, 200}},
		{"page, from an item", &page{Item{timeOf(1_750_000_000_123, 9), id}, 1}},
		{"records, whole batch", &records{answered: 2, size: 12, chunk: goldenBytes(12, 14)}},
		{"records, packed, begun", &records{answered: 256, size: MaxBatch, packed: 40_000, chunk: goldenBytes(40, 15)}},
		{"records, continued", &records{chunk: goldenBytes(20, 16)}},
		{"records, page with more below", &records{answered: 1, size: 4, chunk: []byte{0x0a, 2, 1, 2}, next: Item{timeOf(1_750_000_000_000, 1), id}}},
		{"records, last page", &records{answered: 1, size: 2, chunk: []byte{0x0a, 0}, end: true}},
		{"records, empty page", &records{end: true}},
		{"done, finished", &done{ReasonFinished}},
		{"done, partial", &done{ReasonPartial}},
		{"done, refused", &done{ReasonRefused}},
		{"done, busy", &done{ReasonBusy}},
		{"done, violation", &done{ReasonViolation}},
	}
}

// checkGolden compares text with a file of testdata.
func checkGolden(t *testing.T, file, got string) {
	t.Helper()
	path := "testdata/" + file
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	for i := range max(len(gotLines), len(wantLines)) {
		if i >= len(gotLines) || i >= len(wantLines) || gotLines[i] != wantLines[i] {
			t.Fatalf("%s differs from line %d on: the protocol changed", path, i+1)
		}
	}
}

func TestGoldenFrames(t *testing.T) {
	var text strings.Builder
	text.WriteString("# whole frames: length, kind, body\n")
	for _, v := range goldenFrames() {
		frame := appendFrame(nil, v.message)
		fmt.Fprintf(&text, "%s: %x\n", v.name, frame)
		var f frameBuffer
		if n, err := f.fill(frame); err != nil || n != len(frame) {
			t.Fatalf("%s: %v", v.name, err)
		}
		m, err := decodeFrame(f.whole())
		if err != nil || !reflect.DeepEqual(m, v.message) {
			t.Errorf("%s: decodes to %+v, %v", v.name, m, err)
		}
	}
	checkGolden(t, "frames.txt", text.String())
}

func TestWhatIsNotCanonicalIsMalformed(t *testing.T) {
	for _, c := range []struct{ name, body string }{
		{"hello, nothing", "01"},
		{"hello, version 2", "01" + "0802" + "1a10" + strings.Repeat("00", 16)},
		{"hello, no version", "01" + "1a10" + strings.Repeat("00", 16)},
		{"hello, no nonce", "01" + "0801"},
		{"hello, short nonce", "01" + "0801" + "1a0f" + strings.Repeat("00", 15)},
		{"hello, cut of 49 bits", "01" + "0801" + "1a10" + strings.Repeat("00", 16) + "2880808080808040"},
		{"summary, explicit zero", "03" + "0800" + "1220" + strings.Repeat("00", 32)},
		{"summary, long varint", "03" + "088100" + "1220" + strings.Repeat("00", 32)},
		{"summary, long tag", "03" + "888000" + "01" + "1220" + strings.Repeat("00", 32)},
		{"summary, long length", "03" + "12a000" + strings.Repeat("00", 32)},
		{"summary, cut short", "03" + "1220" + strings.Repeat("00", 31)},
		{"summary, descending", "03" + "1220" + strings.Repeat("00", 32) + "0801"},
		{"summary, twice", "03" + "08010801" + "1220" + strings.Repeat("00", 32)},
		{"summary, fixed64", "03" + "090000000000000001" + "1220" + strings.Repeat("00", 32)},
		{"summary, unknown field", "03" + "1220" + strings.Repeat("00", 32) + "1801"},
		{"round, claims of 7 bytes", "04" + "1207" + strings.Repeat("00", 7)},
		{"round, empty claims", "04" + "1200"},
		{"round, more = 2", "04" + "1802"},
		{"round, range with both", "04" + "0a1c" + "2210" + strings.Repeat("00", 16) + "2a08" + strings.Repeat("00", 8)},
		{"round, prefix ending in zero", "04" + "0a04" + "1a02aa00"},
		{"round, empty prefix", "04" + "0a02" + "1a00"},
		{"round, counter of 17 bits", "04" + "0a04" + "10808004"},
		{"get, nothing", "05"},
		{"get, empty", "05" + "0a00"},
		{"get, take 0", "05" + "0a020100"},
		{"get, 257", "05" + "0a03" + "008102"},
		{"get, half a pair", "05" + "0a03" + "000101"},
		{"page, no limit", "06" + "0801"},
		{"page, limit 201", "06" + "18c901"},
		{"records, 257 answers", "07" + "088102"},
		{"records, size over the limit", "07" + "10818010"},
		{"records, empty chunk", "07" + "2200"},
		{"done, reason 5", "08" + "0805"},
		{"kind 0", "00"},
		{"kind 9", "09"},
	} {
		b, err := hex.DecodeString(c.body)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if m, err := decodeFrame(b); err == nil {
			t.Errorf("%s: decodes to %+v", c.name, m)
		}
	}
	var many []byte
	for range maxRanges + 1 {
		many = append(many, 0x0a, 2, 8, 1)
	}
	if err := new(round).decode(many); err == nil {
		t.Error("more ranges than allowed decode")
	}
	if err := new(round).decode(many[4:]); err != nil {
		t.Errorf("as many ranges as allowed: %v", err)
	}
}

func TestGoldenHashes(t *testing.T) {
	var text strings.Builder
	say := func(name string, format string, args ...any) {
		fmt.Fprintf(&text, "%s: %s\n", name, fmt.Sprintf(format, args...))
	}
	ni, nr := Nonce(goldenBytes(16, 0)), Nonce(goldenBytes(16, 16))
	say("nonce I", "%x", ni)
	say("nonce R", "%x", nr)
	h := newHasher(ni, nr, fullMask)
	key := fingerprint{h.k0, h.k1}.bytes()
	say("K", "%x", key)
	items := []Item{
		{timeOf(1_750_000_000_000, 0), ID(goldenBytes(32, 32))}, // later ids may be smaller
		{timeOf(1_750_000_000_000, 1), ID(goldenBytes(32, 0))},
		{timeOf(1_750_000_100_000, 0), ID(goldenBytes(32, 64))},
		{timeOf(1_750_100_000_000, 0), ID(goldenBytes(32, 96))},
	}
	for i, item := range items {
		sum := h.id(&item.ID).bytes()
		say(fmt.Sprintf("item %d", i), "time %d id %x H %x short id %x", item.Time, item.ID, sum, sum[:shortSize])
	}
	for n := range len(items) + 1 {
		sum := h.sum(items[:n]).bytes()
		say(fmt.Sprintf("fingerprint of the first %d", n), "%x", sum)
	}
	v := NewView(items)
	for _, w := range []Interval{{0, 1<<64 - 1}, {items[1].Time, items[3].Time}, {items[1].Time, items[3].Time + 1}, {0, 0}} {
		digest, n := v.Digest(w.From, w.To)
		say(fmt.Sprintf("digest from %d to %d", w.From, w.To), "%d items %x", n, digest)
	}
	say("proof of I", "%x", proofMessage(roleInitiator, Topic(goldenBytes(32, 128)), "alice", "bob", ni, nr))
	say("proof of R", "%x", proofMessage(roleResponder, Topic(goldenBytes(32, 128)), "alice", "bob", ni, nr))
	checkGolden(t, "hash.txt", text.String())
}

// goldenRecords are few enough not to be worth packing, so that no version of a compressor changes a transcript.
func goldenRecords(who string, n int) [][]byte { return history(who, n, 24) }

// transcript is one whole session of testdata/session.txt.
type transcript struct {
	name  string
	lines []string // "I> hex" from the initiator, "R> hex" from the responder
}

// bytes returns everything that one side says.
func (s *transcript) bytes(side string) []byte {
	var b []byte
	for _, l := range s.lines {
		if text, ok := strings.CutPrefix(l, side+"> "); ok {
			frame, err := hex.DecodeString(text)
			if err != nil {
				panic(err)
			}
			b = append(b, frame...)
		}
	}
	return b
}

func parseTranscripts(t testing.TB, text []byte) []transcript {
	t.Helper()
	var all []transcript
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "session "):
			all = append(all, transcript{name: line})
		case line == "" || strings.HasPrefix(line, "#"):
		default:
			last := &all[len(all)-1]
			last.lines = append(last.lines, line)
		}
	}
	return all
}

func TestGoldenSessions(t *testing.T) {
	var text strings.Builder
	text.WriteString("# Items of a set and records, then every frame of a session. I is \"alice\", R is \"bob\"; nonces are 01 and 02, each\n" +
		"# followed by 15 zero bytes. The tests' proof is SHA-512(\"topic key\" || message) in place of a signature.\n")
	shared := goldenRecords("both", 120)
	for _, c := range []struct {
		name  string
		a, b  [][]byte
		pages *Pages
	}{
		{"equal", shared, shared, nil},
		{"both miss something", append(shared[:70:70], shared[72:]...), append(shared[:117:117], goldenRecords("bob", 3)...), nil},
		{"two pages", nil, history("bob", 203, 170), &Pages{Events: 300}},
	} {
		a, b := newNode("alice"), newNode("bob")
		a.addAll(c.a)
		b.addAll(c.b)
		k := &link{
			a:        &endpoint{node: a, session: NewInitiator(Link{"alice", "bob", Nonce{1}}, a.room(), c.pages)},
			b:        &endpoint{node: b, session: NewResponder(Link{"bob", "alice", Nonce{2}})},
			cutAfter: -1,
		}
		fmt.Fprintf(&text, "\nsession %s\n", c.name)
		for _, side := range []struct {
			name string
			set  *Snapshot
		}{{"I", a.set}, {"R", b.set}} {
			for _, item := range side.set.items {
				fmt.Fprintf(&text, "# %s has %d %x\n", side.name, item.Time, item.ID)
			}
		}
		k.tap = func(fromInitiator bool, frame []byte) [][]byte {
			if m, err := decodeFrame(cutLength(frame)); err != nil {
				t.Fatal(err)
			} else if r, ok := m.(*records); ok && r.packed > 0 {
				t.Fatal("a transcript with a packed batch depends on the compressor")
			}
			fmt.Fprintf(&text, "%s> %x\n", map[bool]string{true: "I", false: "R"}[fromInitiator], frame)
			return [][]byte{frame}
		}
		if err := k.run(); err != nil {
			t.Fatal(err)
		}
		mustFinish(t, k.a.session.Report(), k.b.session.Report())
	}
	checkGolden(t, "session.txt", text.String())
}

// A batch that another version of a compressor packed must still unpack.
func TestGoldenPackedBatch(t *testing.T) {
	b, err := os.ReadFile("testdata/packed.txt")
	if *update {
		batch, p := packBatch([][]byte{bytes.Repeat([]byte("ab"), 250), nil, []byte("abc")})
		b, err = fmt.Appendf(nil, "%d %x\n", len(batch), p), nil
		if err := os.WriteFile("testdata/packed.txt", b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	var size int
	var data []byte
	if _, err := fmt.Sscanf(string(b), "%d %x", &size, &data); err != nil {
		t.Fatal(err)
	}
	entries, err := unpackBatch(data, size, true, 3)
	if err != nil || !bytes.Equal(entries[0], bytes.Repeat([]byte("ab"), 250)) || len(entries[1]) != 0 || string(entries[2]) != "abc" {
		t.Errorf("%q, %v", entries, err)
	}
}
