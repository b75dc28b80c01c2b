package wire

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func bytes32() *rapid.Generator[[32]byte] {
	return rapid.Custom(func(t *rapid.T) [32]byte {
		return [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "bytes"))
	})
}

// TestHeaderRoundTrip draws headers that keep the rules: each encodes, and the
// encoding decodes to the same.
func TestHeaderRoundTrip(t *testing.T) {
	keys := testRoomKeys(t)
	base := testEvent(t, keys, &JoinBody{}, nil).Header
	rapid.Check(t, func(t *rapid.T) {
		h := base
		h.Kind = Kind(rapid.IntRange(1, 255).Filter(func(k int) bool { return k != int(KindCreate) }).Draw(t, "kind"))
		h.Room = RoomID(bytes32().Draw(t, "room"))
		h.Room[0] |= 1
		h.HLC = HLC(rapid.Uint64Min(1).Draw(t, "hlc"))
		h.DeviceSeq = rapid.Uint64Range(1, 1<<63-1).Draw(t, "seq")
		if h.DeviceSeq > 1 {
			h.Previous = EventID(bytes32().Draw(t, "previous"))
			h.Previous[0] |= 1
		}
		for _, p := range rapid.SliceOfNDistinct(bytes32(), 0, MaxParents, rapid.ID[[32]byte]).Draw(t, "parents") {
			p[31] |= 1
			h.Parents = append(h.Parents, EventID(p))
		}
		slices.SortFunc(h.Parents, func(a, b EventID) int { return bytes.Compare(a[:], b[:]) })
		h.Parents = slices.Compact(h.Parents)
		if h.Kind.needsRef() || rapid.Bool().Draw(t, "reply") {
			h.Ref = EventID(bytes32().Draw(t, "ref"))
			h.Ref[0] |= 1
		}
		h.Epoch = rapid.Uint32().Draw(t, "epoch")
		if rapid.Bool().Draw(t, "expires") {
			h.Expires = time.UnixMilli(rapid.Int64Range(1, maxHLCMillis).Draw(t, "at")).UTC()
		}
		h.BodyHash = Hash(bytes32().Draw(t, "hash"))
		h.BodyLength = rapid.Uint32Range(BodySaltSize, MaxBody).Draw(t, "length")
		for _, size := range rapid.SliceOfN(rapid.Uint64Range(1, MaxAttachmentSize), 0, MaxAttachments).Draw(t, "sizes") {
			h.Attachments = append(h.Attachments, Attachment{Hash: h.BodyHash, Size: size})
		}
		if err := h.check(); err != nil {
			t.Fatal(err)
		}
		raw := h.encode()
		got, err := parseHeader(raw)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.encode(), raw) || got.HLC != h.HLC || got.Expires != h.Expires || !slices.Equal(got.Parents, h.Parents) {
			t.Fatalf("%+v became %+v", h, got)
		}
	})
}

// TestSealOpen draws events: sealing and opening gives the same event, whole and
// as a stub.
func TestSealOpen(t *testing.T) {
	keys := testRoomKeys(t)
	v := NewVerifier(DefaultVerifierLimits())
	rapid.Check(t, func(r *rapid.T) {
		text := rapid.StringMatching(`[\pL\pN \n]{1,200}`).Draw(r, "text")
		style := Style(rapid.IntRange(0, 2).Draw(r, "style"))
		ephemeral := rapid.Bool().Draw(r, "ephemeral")
		var body Body = &MessageBody{Text: text, Style: style}
		if ephemeral {
			body = &PresenceBody{State: PresenceHere}
		}
		e := testEvent(t, keys, body, func(h *Header) { h.HLC = HLCFromTime(testTime) + HLC(rapid.IntRange(0, 1<<30).Draw(r, "hlc")) })
		s, err := keys.Seal(e)
		must(t, err)
		for _, raw := range [][]byte{s.Bytes(), s.Redacted().Bytes()} {
			checked, err := v.CheckSealed(keys.Topic, raw)
			must(t, err)
			if checked.ID != s.ID || checked.HLC != e.Header.HLC || checked.Ephemeral != ephemeral {
				t.Fatalf("%+v", checked)
			}
			got, err := keys.Open(checked)
			must(t, err)
			must(t, v.VerifyEvent(got))
			if got.ID != e.ID || !got.Redacted() && !bytes.Equal(got.Bytes(), e.Bytes()) {
				t.Fatal("another event came back")
			}
		}
	})
}

// TestNextRespectsCausality draws clocks: the next reading is after everything
// it may follow, never ahead of the wall by more than MaxAhead and a millisecond,
// and never behind the wall.
func TestNextRespectsCausality(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		wall := time.UnixMilli(rapid.Int64Range(0, 1<<42).Draw(t, "wall"))
		near := rapid.Custom(func(t *rapid.T) HLC {
			at := wall.Add(time.Duration(rapid.Int64Range(int64(-48*time.Hour), int64(48*time.Hour)).Draw(t, "offset")))
			return HLCFromTime(at) | HLC(rapid.Uint16().Draw(t, "counter"))
		})
		last := near.Draw(t, "last")
		parents := rapid.SliceOfN(near, 0, 5).Draw(t, "parents")
		next := Next(wall, last, parents...)
		limit := HLCFromTime(wall.Add(MaxAhead)) | 0xffff
		if next < HLCFromTime(wall) || next > limit || next == 0 {
			t.Fatalf("next %d, wall %d, limit %d", next, HLCFromTime(wall), limit)
		}
		for _, h := range append(parents, last) {
			if h < limit && next <= h {
				t.Fatalf("next %d does not follow %d", next, h)
			}
		}
		if next.Timeliness(wall) != OnTime {
			t.Fatal("own event is early")
		}
	})
}

func TestTimeliness(t *testing.T) {
	for _, c := range []struct {
		ahead time.Duration
		want  Timeliness
	}{
		{-1000 * time.Hour, OnTime},
		{0, OnTime},
		{MaxAhead, OnTime},
		{MaxAhead + time.Millisecond, Early},
		{MaxDefer, Early},
		{MaxDefer + time.Millisecond, TooEarly},
	} {
		if got := HLCFromTime(testTime.Add(c.ahead)).Timeliness(testTime); got != c.want {
			t.Errorf("%s ahead: %v", c.ahead, got)
		}
	}
	if got := HLC(1<<64 - 1).Timeliness(testTime); got != TooEarly {
		t.Errorf("the last reading: %v", got)
	}
	if got := HLCFromTime(time.Unix(-5, 0)); got != 0 {
		t.Errorf("before 1970: %d", got)
	}
	if got := HLCFromTime(time.Unix(1<<50, 0)).Time(); got.Year() != 10889 {
		t.Errorf("after the end: %s", got)
	}
}

func TestUTCDay(t *testing.T) {
	for _, c := range []struct {
		at   time.Time
		want int64
	}{
		{time.Unix(0, 0), 0},
		{time.Unix(86399, 0), 0},
		{time.Unix(86400, 0), 1},
		{time.Unix(-1, 0), -1},
		{time.Unix(-86400, 0), -1},
		{time.Unix(-86401, 0), -2},
		{time.Date(2027, 3, 15, 1, 0, 0, 0, time.FixedZone("", 2*3600)), UTCDay(time.Date(2027, 3, 14, 23, 0, 0, 0, time.UTC))},
	} {
		if got := UTCDay(c.at); got != c.want {
			t.Errorf("%s: %d, want %d", c.at, got, c.want)
		}
	}
}

// TestIDForms checks known forms: a peer id that libp2p prints for a known key,
// and that near misses do not parse.
func TestIDForms(t *testing.T) {
	// What libp2p v0.51 prints for the keys of these seeds.
	for first, want := range map[byte]string{
		0:   "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN",
		1:   "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X",
		255: "12D3KooWQffhprphvV7VmsvFP2qriiZdQeyEVskSTEgYZ5yg3Rvu",
	} {
		key := ed25519.NewKeyFromSeed(append([]byte{first}, make([]byte, 31)...))
		if got := DeviceID(publicKey(key)); got.String() != want {
			t.Errorf("%s, want %s", got, want)
		} else if back, err := ParseDeviceID(want); err != nil || back != got {
			t.Errorf("%s comes back as %s, %v", want, back, err)
		}
	}
	id := AccountID(fill("ada"))
	text := id.String()
	for _, bad := range []string{"", text[:51], text + "1", "2" + text[1:], text[:20] + "0" + text[21:], text[:20] + "l" + text[21:]} {
		if _, err := ParseAccountID(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := ParseAccountID("1" + string(bytes.Repeat([]byte("z"), 51))); !errors.Is(err, ErrInvalid) {
		t.Errorf("not the prefix of an Ed25519 key: %v", err)
	}
	topic := Topic(TopicKey(fill("t")))
	for _, bad := range []string{"", "/starling/t/2/" + topic[len(TopicPrefix):], topic[:len(topic)-1], topic + "a", topic[:len(topic)-1] + "b"} {
		if _, err := ParseTopic(bad); err == nil && bad != topic {
			t.Errorf("%q parses", bad)
		}
	}
	if f := Fingerprint(id); len(f) != 8 || f == Fingerprint(AccountID(fill("bob"))) {
		t.Errorf("fingerprint %s", f)
	}
	a, b := AccountID{1}, AccountID{2}
	if DirectConversation(a, b) != DirectConversation(b, a) || DirectConversation(a, b) == DirectConversation(a, a) {
		t.Error("direct conversation")
	}
}

func TestKinds(t *testing.T) {
	for _, b := range testBodies() {
		k := b.EventKind()
		if !k.Known() || k.String() == "" || newBody(k) == nil {
			t.Errorf("kind %d", k)
		}
		if k.Ephemeral() != (k == KindTyping || k == KindPresence) {
			t.Errorf("%s: ephemeral %v", k, k.Ephemeral())
		}
	}
	for k := range kindNames {
		if newBody(k) == nil {
			t.Errorf("%s has no body", k)
		}
	}
	if Kind(99).Known() || Kind(99).String() != "kind-99" {
		t.Error("kind 99 is known")
	}
	if _, err := ParseBody(99, nil); !errors.Is(err, ErrUnsupported) {
		t.Errorf("body of kind 99: %v", err)
	}
	if k, ok := DMReact.EventKind(); !ok || k != KindReact {
		t.Error("shared kinds")
	}
	if _, ok := DMReceipt.EventKind(); ok {
		t.Error("a receipt has no room kind")
	}
}
