package chat

import (
	"bytes"
	"encoding/hex"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// golden reads the frozen encodings: lines of a name and hexadecimal.
func golden(t testing.TB) map[string][]byte {
	t.Helper()
	raw, err := os.ReadFile("testdata/encodings.txt")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string][]byte)
	for line := range strings.Lines(string(raw)) {
		name, text, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		if all[name], err = hex.DecodeString(text); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return all
}

// id32 returns 32 bytes that count up from a value.
func id32(from byte) (id [32]byte) {
	for i := range id {
		id[i] = from + byte(i)
	}
	return id
}

// sample is one value of each encoding, by its name in the file.
func sample() map[string][]byte {
	row := indexRow{
		Kind: wire.KindMessage, Record: recordShown | recordText, Flags: indexBackDated, Clock: 0x0123456789abcdef,
		Received: time.UnixMilli(1700000000123), Sealed: wire.SealedID(id32(1)), ClientID: "c1",
	}
	m := modifier{
		At: stamp{HLC: 0x0123456789abcdef, Sealed: wire.SealedID(id32(1))}, ID: wire.EventID(id32(2)), Kind: wire.KindEdit,
		Account: wire.AccountID(id32(3)), Text: "new text", Names: true,
	}
	notice, err := (&dmRecord{Notice: "a line", Device: wire.DeviceID(id32(4)), Received: time.UnixMilli(1700000000123)}).encode()
	if err != nil {
		panic(err)
	}
	content, err := (&dmRecord{
		Own: true, Device: wire.DeviceID(id32(4)), Path: PathDirect, Received: time.UnixMilli(1700000000123), ClientID: "c2",
		Content: &wire.DMContent{
			ID: wire.MsgID{1}, Conversation: wire.ConversationID(id32(5)), Kind: wire.DMMessage,
			SentAt: time.UnixMilli(1700000000000).UTC(), DeviceSeq: 7, Body: []byte("\x0a\x02hi"),
		},
	}).encode()
	if err != nil {
		panic(err)
	}
	return map[string][]byte{
		"progress":     progress{Topic: wire.TopicKey(id32(1)), Seq: 300}.encode(),
		"prekeys":      prekeysFrame([]byte("record")),
		"wanted":       prekeysWanted,
		"standing":     (&standingFrame{Topic: wire.TopicKey(id32(1)), Kind: standingHeld, From: 7, To: 300, Proof: wire.Signature{1, 2, 3}}).encode(),
		"event":        eventFrame(wire.TopicKey(id32(1)), []byte("sealed")),
		"index-row":    row.encode(),
		"modifier-key": m.key(storage.StreamID{1, 2, 3, 4, 5, 6, 7, 8}, wire.EventID(id32(6))),
		"modifier-row": m.encode(),
		"dm-notice":    notice,
		"dm-content":   content,
		"out-state":    outStateRow{State: StateDelivered, Path: PathLAN}.encode(),
		"out-run-key":  outRunKey(storage.StreamID{1, 2, 3, 4, 5, 6, 7, 8}, 300),
		"out-run":      outRun{300, 555, StateRead, PathDirect}.encode(),
		"out-failed":   outStateRow{State: StateFailed, Reason: "cancelled"}.encode(),
	}
}

func TestEncodingsAreFrozen(t *testing.T) {
	want, got := golden(t), sample()
	for name, b := range got {
		if !bytes.Equal(b, want[name]) {
			t.Errorf("%s is encoded as\n%s %x\nwhich is not what the file says; what is stored or sent must stay readable", name, name, b)
		}
	}
	if len(want) != len(got) {
		t.Errorf("the file has %d encodings, want %d", len(want), len(got))
	}
}

func TestDerivedIDsAreFrozen(t *testing.T) {
	c := wire.ConversationID(id32(1))
	if got := directID(c, wire.MsgID{9}).String(); got != "9348e26828545a393214a5db5385f11f7731185969a3a737e6774af5ca14ca2b" {
		t.Errorf("direct message id %s", got)
	}
	if got := hex.EncodeToString(func() []byte { k := accountRendezvous(wire.AccountID(id32(1)), 20000); return k[:] }()); got != "e6e59e9a6fc2df45166bc3086503855e9f10fcf6357a9b7ea81e343d82221aa2" {
		t.Errorf("account rendezvous key %s", got)
	}
}

func TestStoredRowsReadBack(t *testing.T) {
	all := golden(t)
	row, err := decodeIndexRow(all["index-row"])
	if err != nil || !bytes.Equal(row.encode(), all["index-row"]) || row.ClientID != "c1" || row.Kind != wire.KindMessage {
		t.Errorf("index row: %+v, %v", row, err)
	}
	target, m, err := decodeModifier(all["modifier-key"], all["modifier-row"])
	if err != nil || target != wire.EventID(id32(6)) || m.Text != "new text" || !m.Names || m.At.HLC != 0x0123456789abcdef {
		t.Errorf("modifier: %+v, %v", m, err)
	}
	for _, name := range []string{"dm-notice", "dm-content"} {
		r, err := decodeDMRecord(all[name])
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if b, err := r.encode(); err != nil || !bytes.Equal(b, all[name]) {
			t.Errorf("%s is encoded again as %x, %v", name, b, err)
		}
	}
	for _, name := range []string{"out-state", "out-failed"} {
		r, err := decodeOutState(all[name])
		if err != nil || !bytes.Equal(r.encode(), all[name]) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	// Every cut-off form is an error, not a panic.
	for name, b := range all {
		for n := range b {
			cut := b[:n]
			_, _ = decodeIndexRow(cut)
			_, _, _ = decodeModifier(all["modifier-key"], cut)
			_, _, _ = decodeModifier(cut, all["modifier-row"])
			_, _ = decodeDMRecord(cut)
			_, _ = decodeOutState(cut)
		}
		if _, err := decodeIndexRow(b[:min(len(b), 3)]); err == nil {
			t.Errorf("%s cut to three bytes is taken for an index row", name)
		}
	}
}

func FuzzProgress(f *testing.F) {
	f.Add(golden(f)["progress"])
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := parseProgress(b); err == nil && !bytes.Equal(p.encode(), b) {
			t.Errorf("%x is encoded again as %x", b, p.encode())
		}
	})
}

func FuzzStanding(f *testing.F) {
	f.Add(golden(f)["standing"])
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseStanding(b); err == nil && !bytes.Equal(s.encode(), b) {
			t.Errorf("%x is encoded again as %x", b, s.encode())
		}
	})
}

func FuzzPrekeys(f *testing.F) {
	f.Add(golden(f)["prekeys"])
	f.Fuzz(func(t *testing.T, b []byte) {
		if record, err := parsePrekeys(b); err == nil && !bytes.Equal(prekeysFrame(record), b) {
			t.Errorf("%x is encoded again as %x", b, prekeysFrame(record))
		}
	})
}

func FuzzEventFrame(f *testing.F) {
	f.Add(golden(f)["event"])
	f.Fuzz(func(t *testing.T, b []byte) {
		if topic, sealed, err := parseEventFrame(b); err == nil && !bytes.Equal(eventFrame(topic, sealed), b) {
			t.Errorf("%x is encoded again as %x", b, eventFrame(topic, sealed))
		}
	})
}

func FuzzOutRun(f *testing.F) {
	all := golden(f)
	f.Add(all["out-run-key"], all["out-run"])
	f.Fuzz(func(t *testing.T, key, b []byte) {
		r, err := decodeOutRun(key, b)
		if err == nil && (!bytes.Equal(r.encode(), b) || !bytes.Equal(outRunKey(storage.StreamID(key), r.first), key)) {
			t.Errorf("%x %x is read as %+v", key, b, r)
		}
	})
}

func FuzzRows(f *testing.F) {
	all := golden(f)
	f.Add([]byte{}, all["index-row"])
	f.Add(all["modifier-key"], all["modifier-row"])
	f.Add([]byte{}, all["out-state"])
	f.Add([]byte{}, all["out-failed"])
	f.Fuzz(func(t *testing.T, key, b []byte) {
		if r, err := decodeIndexRow(b); err == nil && !bytes.Equal(r.encode(), b) {
			t.Errorf("index row %x is encoded again as %x", b, r.encode())
		}
		if r, err := decodeOutState(b); err == nil && !bytes.Equal(r.encode(), b) {
			t.Errorf("state %x is encoded again as %x", b, r.encode())
		}
		target, m, err := decodeModifier(key, b)
		if err != nil || b[2] > modifierRemove|modifierNames {
			return // flags of later versions are not kept
		}
		if again := m.key(storage.StreamID(key[:8]), target); !bytes.Equal(m.encode(), b) || !bytes.Equal(again[:40], key[:40]) || !bytes.Equal(again[41:], key[41:]) {
			t.Errorf("modifier %x %x is read as %+v", key, b, m)
		}
	})
}

func FuzzMessageID(f *testing.F) {
	f.Add(MessageID(id32(1)).String())
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := ParseMessageID(text); err == nil && !strings.EqualFold(id.String(), text) && !id.IsZero() {
			t.Errorf("%q is read as %s", text, id)
		}
	})
}

func FuzzDMRecord(f *testing.F) {
	f.Add(golden(f)["dm-content"])
	f.Add(golden(f)["dm-notice"])
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeDMRecord(b)
		if err != nil || r.Content != nil && len(r.Content.Acks) > 0 || b[2] > 1 {
			return // what encode never writes
		}
		if again, err := r.encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x is encoded again as %x, %v", b, again, err)
		}
	})
}
