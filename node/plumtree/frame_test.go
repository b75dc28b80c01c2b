package plumtree

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// The vectors lie beside the specification, where a second implementation finds them.
const vectors = "../../docs/spec/vectors/tree.json"

var update = flag.Bool("update", false, "rewrite the golden vectors")

type frameVector struct {
	Name  string   `json:"name"`
	Kind  Kind     `json:"kind"`
	Topic string   `json:"topic"`
	Wave  uint8    `json:"wave,omitempty"`
	Cover []Mark   `json:"cover,omitempty"`
	Data  string   `json:"data,omitempty"`
	IDs   []string `json:"ids,omitempty"`
	Frame string   `json:"frame"` // with its prefix
}

type markVector struct {
	Peer string `json:"peer"`
	ID   string `json:"id"`
	Mark Mark   `json:"mark"`
}

type vectorFile struct {
	Frames  []frameVector `json:"frames"`
	Marks   []markVector  `json:"marks"`
	Invalid []string      `json:"invalid"` // frames with a prefix that is right, and nothing else
}

func topicOf(b byte) (t [TopicSize]byte) {
	for i := range t {
		t[i] = b + byte(i)
	}
	return t
}

func idOf(b byte) (id ID) {
	for i := range id {
		id[i] = b ^ byte(17*i)
	}
	return id
}

// makeVectors holds each kind of frame, at its bounds and in between.
func makeVectors() vectorFile {
	var out vectorFile
	topic := topicOf(3)
	message := func(name string, wave uint8, cover []Mark, data []byte) {
		out.Frames = append(out.Frames, frameVector{
			Name: name, Kind: KindMessage, Topic: hex.EncodeToString(topic[:]), Wave: wave, Cover: cover,
			Data: hex.EncodeToString(data), Frame: hex.EncodeToString(MessageFrame(topic, wave, cover, data)),
		})
	}
	control := func(name string, kind Kind, ids ...ID) {
		v := frameVector{Name: name, Kind: kind, Topic: hex.EncodeToString(topic[:]), Frame: hex.EncodeToString(ControlFrame(kind, topic, ids))}
		for _, id := range ids {
			v.IDs = append(v.IDs, hex.EncodeToString(id[:]))
		}
		out.Frames = append(out.Frames, v)
	}
	message("passed on", 0, nil, []byte("sealed"))
	message("passed on in a wave", 3, nil, []byte("sealed"))
	message("from its author, by an eager link", 0, []Mark{1, 0xffff}, []byte("sealed"))
	message("from its author, by a lazy link", 1, []Mark{0x1234}, []byte("s"))
	control("announcement", KindHave, idOf(1), idOf(2))
	control("graft", KindGraft)
	control("graft with wants", KindGraft, idOf(1))
	control("prune", KindPrune)
	control("shape", KindShape, idOf(9))
	for _, p := range []Peer{"a", "\x00\x24\x08\x01\x12\x20" + Peer(strings.Repeat("k", 32))} {
		for _, id := range []ID{idOf(1), idOf(200)} {
			out.Marks = append(out.Marks, markVector{hex.EncodeToString([]byte(p)), hex.EncodeToString(id[:]), MarkOf(p, id)})
		}
	}
	bad := func(kind Kind, rest ...byte) {
		out.Invalid = append(out.Invalid, hex.EncodeToString(append(begin(kind, topic, len(rest)), rest...)))
	}
	bad(KindMessage)
	bad(KindMessage, 0)
	bad(KindMessage, 0, 0)                                          // empty
	bad(KindMessage, 0, 1, 0, 1)                                    // empty after a mark
	bad(KindMessage, append([]byte{0, 17}, make([]byte, 40)...)...) // too many marks
	bad(KindHave)
	bad(KindHave, make([]byte, 15)...)
	bad(KindGraft, make([]byte, 17)...)
	bad(KindPrune, make([]byte, 16)...)
	bad(KindShape)
	bad(KindShape, make([]byte, 32)...)
	return out
}

func TestFrameVectors(t *testing.T) {
	made, err := json.MarshalIndent(makeVectors(), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	made = append(made, '\n')
	if *update {
		if err := os.WriteFile(vectors, made, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(vectors)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(raw, made) {
		t.Error("the code no longer makes the golden vectors; if the change is meant and unreleased, run go test -run Vectors -update")
	}
	var v vectorFile
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	for _, want := range v.Frames {
		b, err := hex.DecodeString(want.Frame)
		if err != nil {
			t.Fatal(err)
		}
		f, err := ParseFrame(b[Prefix:])
		if err != nil {
			t.Errorf("%s: %v", want.Name, err)
			continue
		}
		if f.Kind != want.Kind || f.Wave != want.Wave || hex.EncodeToString(f.Data) != want.Data || len(f.Cover) != len(want.Cover) || len(f.IDs) != len(want.IDs) {
			t.Errorf("%s: read as %+v", want.Name, f)
		}
	}
	for _, text := range v.Invalid {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if f, err := ParseFrame(b[Prefix:]); !errors.Is(err, ErrFrame) {
			t.Errorf("%s was read as %+v, %v", text, f, err)
		}
	}
}

func TestFrameBounds(t *testing.T) {
	topic := topicOf(1)
	for _, size := range []int{1, MaxMessage} {
		b := MessageFrame(topic, 0, make([]Mark, MaxCover), make([]byte, size))
		if f, err := ParseFrame(b[Prefix:]); err != nil || len(f.Data) != size || len(f.Cover) != MaxCover {
			t.Errorf("a message of %d bytes: %v", size, err)
		}
	}
	for name, b := range map[string][]byte{
		"too large a message": MessageFrame(topic, 0, nil, make([]byte, MaxMessage+1)),
		"too many ids":        ControlFrame(KindHave, topic, make([]ID, MaxHave+1)),
		"too many wants":      ControlFrame(KindGraft, topic, make([]ID, MaxGraft+1)),
		"no topic":            make([]byte, Prefix+head-1),
	} {
		if _, err := ParseFrame(b[Prefix:]); !errors.Is(err, ErrFrame) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if CheckSize(MaxFrame+1) == nil || CheckSize(head-1) == nil || CheckSize(MaxFrame) != nil {
		t.Error("sizes are not bounded as they should be")
	}
	// A later kind of frame is skipped.
	if f, err := ParseFrame(begin(200, topic, 0)[Prefix:]); err != nil || f.Kind != 200 || f.IDs != nil || f.Data != nil {
		t.Errorf("an unknown kind: %+v, %v", f, err)
	}
}

// FuzzFrame: what is accepted comes back byte for byte when it is encoded again, and is passed on as it is but
// for the marks.
func FuzzFrame(f *testing.F) {
	v := makeVectors()
	for _, frame := range v.Frames {
		b, _ := hex.DecodeString(frame.Frame)
		f.Add(b[Prefix:])
	}
	for _, text := range v.Invalid {
		b, _ := hex.DecodeString(text)
		f.Add(b[Prefix:])
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		frame, err := ParseFrame(raw)
		if err != nil {
			if !errors.Is(err, ErrFrame) {
				t.Fatalf("error without a class: %v", err)
			}
			return
		}
		switch frame.Kind {
		case KindMessage:
			again := MessageFrame(frame.Topic, frame.Wave, frame.Cover, frame.Data)
			if !bytes.Equal(again[Prefix:], raw) {
				t.Fatalf("encodes again as %x, was %x", again[Prefix:], raw)
			}
			want := MessageFrame(frame.Topic, frame.Wave, nil, frame.Data)
			if got := Uncovered(again); !bytes.Equal(got, want) {
				t.Fatalf("is passed on as %x, want %x", got, want)
			}
		case KindHave, KindGraft, KindPrune, KindShape:
			if again := ControlFrame(frame.Kind, frame.Topic, frame.IDs); !bytes.Equal(again[Prefix:], raw) {
				t.Fatalf("encodes again as %x, was %x", again[Prefix:], raw)
			}
		}
	})
}

// TestSecondImplementation runs the vectors through the implementation in JavaScript.
func TestSecondImplementation(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed: the second implementation cannot run")
	}
	out, err := exec.CommandContext(t.Context(), node, "../../docs/spec/vectors/check-tree.mjs").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
