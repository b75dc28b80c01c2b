package wire

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"testing"
	"time"
)

// testBodies holds every kind of body with every field set, and the empty forms
// where there are any.
func testBodies() []Body {
	bob, eve := AccountID(publicKey(testKey("bob"))), AccountID(publicKey(testKey("eve")))
	mentions := []AccountID{bob, eve}
	if string(bob[:]) > string(eve[:]) {
		mentions = []AccountID{eve, bob}
	}
	policy := PolicyBody{
		RatePerMinute: 300, Burst: 30, HistoryDays: 7, HistoryEvents: 2000, ShareHistory: true,
		PostRole: RoleMember, InviteRole: RoleAdmin, ExpirySeconds: 86400, Extensions: extension(101, "p"),
	}
	topic := TopicKey(publicKey(testKey("next epoch")))
	return []Body{
		&MessageBody{Text: "hello"},
		&MessageBody{
			Text: "waves at everyone \u2600\ufe0f", Mentions: mentions, Style: StyleAction,
			Files:      []File{{Name: "cat.jpg", MediaType: "image/jpeg", Key: fill("file key")}, {Name: "notes", Key: fill("k2")}},
			Extensions: extension(127, "x"),
		},
		&EditBody{Text: "hello, world", Mentions: mentions[:1]},
		&RedactBody{},
		&RedactBody{Reason: "wrong room"},
		&ReactBody{Symbol: "\U0001f44d", Remove: true},
		&ProfileBody{Nick: "ada", About: "counts on it", Extensions: extension(100, "e")},
		&JoinBody{},
		&LeaveBody{Reason: "good night"},
		&TopicBody{},
		&TopicBody{Text: "release on friday"},
		&BanBody{Account: eve, Until: testTime, Reason: "spam", Lift: true},
		&ReadMarkerBody{Box: []byte("opaque to others")},
		&CreateBody{Name: "The Kitchen", Topic: topic, Policy: policy, Network: "main"},
		&AddBody{Account: bob, Role: RoleModerator, Invite: InviteToken{9, 9}},
		&RemoveBody{Account: eve, Reason: "spam", Epoch: 2, Topic: topic},
		&RoleBody{Account: bob, Role: RoleAdmin},
		&policy,
		&PolicyBody{},
		&EpochBody{Epoch: 3, Topic: topic},
		&RemoveBody{Account: eve, Epoch: 4, Topic: topic, Marks: []Mark{
			{Device: DeviceID(fill("device")), Seq: 300, Last: EventID(fill("last"))},
		}},
		&RevokeBody{Invite: InviteToken{9, 9}},
		&TypingBody{},
		&TypingBody{Stopped: true},
		&PresenceBody{State: PresenceAway},
	}
}

type nameVector struct {
	Input     string `json:"input"`
	Canonical string `json:"canonical,omitempty"`
	Refused   string `json:"refused,omitempty"`
}

func nameVectors() []nameVector {
	out := []nameVector{}
	for _, in := range []string{
		"#lobby", "lobby", "LOBBY", "##lobby", "#", "", " lobby", "a b", "stra\u00dfe", "STRASSE", "\uff2c\uff4f\uff42\uff42\uff59",
		"\uff03lobby", "e\u0301t\u00e9", "\u00e9t\u00e9", "\u65e5\u672c\u8a9e", "\u0928\u092e\u0938\u094d\u0924\u0947", "\u0301a",
		"a/b", "a\x00b", "..", "go1.26", "snake_case-dash.dot", "\u200bzero", "\u202eevil", "\U0001f44d", "\ufb01ne",
		"0123456789012345678901234567890123456789012345678901234567890123",
		"01234567890123456789012345678901234567890123456789012345678901234",
	} {
		v := nameVector{Input: in}
		name, err := CanonicalRoomName(in)
		if err != nil {
			v.Refused = err.Error()
		} else {
			v.Canonical = name
		}
		out = append(out, v)
	}
	return out
}

func secretVectors(t *testing.T) []obj {
	out := []obj{}
	for _, v := range []struct{ network, name, password string }{
		{"main", "lobby", ""},
		{"test", "lobby", ""},
		{"main", "lobby", "correct horse"},
		{"main", "\u65e5\u672c\u8a9e", "caf\u00e9"},
	} {
		secret, err := PublicRoomSecret(v.network, v.name, v.password)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, obj{"network": v.network, "name": v.name, "password": v.password, "secret": hex.EncodeToString(secret[:])})
	}
	return out
}

func keyVectors(t *testing.T) []obj {
	out := []obj{}
	for _, label := range []string{"room", "room 2"} {
		secret := RoomSecret(fill(label))
		k, err := DeriveRoomKeys(secret)
		if err != nil {
			t.Fatal(err)
		}
		rendezvous := []obj{}
		for _, day := range []int64{0, UTCDay(testTime)} {
			key := k.RendezvousKey(day)
			rendezvous = append(rendezvous, obj{"day": day, "key": hex.EncodeToString(key[:])})
		}
		proof := k.ProveSync([]byte("transcript"))
		relay, client, nonce := DeviceID(fill("relay")), DeviceID(fill("client")), fill("nonce")
		attach := k.ProveAttach(relay, client, nonce)
		out = append(out, obj{
			"secret": hex.EncodeToString(secret[:]), "topic_key": hex.EncodeToString(k.Topic[:]), "topic": Topic(k.Topic),
			"room_id": PublicRoomID(k.Topic).String(), "rendezvous": rendezvous,
			"sync_transcript": hex.EncodeToString([]byte("transcript")), "sync_proof": hex.EncodeToString(proof[:]),
			"relay": hex.EncodeToString(relay[:]), "client": hex.EncodeToString(client[:]), "nonce": hex.EncodeToString(nonce[:]),
			"attach_proof": hex.EncodeToString(attach[:]),
		})
	}
	return out
}

func hlcVectors() []obj {
	wall := testTime
	now := HLCFromTime(wall)
	limit := HLCFromTime(wall.Add(MaxAhead))
	out := []obj{}
	for _, v := range []struct {
		last    HLC
		parents []HLC
	}{
		{0, nil},
		{now, nil},
		{now - 1, []HLC{now + 3, now + 1}},
		{now | 0xffff, nil},
		{0, []HLC{limit}},
		{0, []HLC{limit | 0xfffe}},
		{0, []HLC{limit | 0xffff}},
		{0, []HLC{limit + 0x10000}},
		{limit + 0x20000, []HLC{now}},
	} {
		parents := []string{}
		for _, p := range v.parents {
			parents = append(parents, plain(p).(string))
		}
		out = append(out, obj{
			"wall": wall.UnixMilli(), "last": plain(v.last), "parents": parents, "next": plain(Next(wall, v.last, v.parents...)),
		})
	}
	return out
}

func bodyVectors(t *testing.T) []obj {
	out := []obj{}
	for _, b := range testBodies() {
		content, err := EncodeBody(b)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, obj{
			"kind": uint8(b.EventKind()), "name": b.EventKind().String(), "value": plain(b), "encoded": hex.EncodeToString(content),
		})
	}
	return out
}

// testEvents holds an event of each body, one with every header field, and one
// of a kind that version 1 does not know.
func testEvents(t testing.TB, keys *RoomKeys) []*Event {
	events := []*Event{testEvent(t, keys, &MessageBody{Text: "all fields"}, fullHeader)}
	for _, b := range testBodies() {
		events = append(events, testEvent(t, keys, b, nil))
	}
	unknown := testEvent(t, keys, &JoinBody{}, nil).Header
	unknown.Kind = 99
	e, err := NewEvent(unknown, []byte("from a later version"), testKey("ada/laptop"), random("salt"))
	if err != nil {
		t.Fatal(err)
	}
	return append(events, e)
}

func eventVectors(t *testing.T, keys *RoomKeys) []obj {
	out := []obj{}
	for _, e := range testEvents(t, keys) {
		s, err := keys.Seal(e)
		if err != nil {
			t.Fatal(err)
		}
		gossip := GossipID([]byte(Topic(s.Topic)), s.Bytes())
		out = append(out, obj{
			"header": plain(e.Header), "salt": hex.EncodeToString(e.body[:BodySaltSize]), "content": hex.EncodeToString(e.Content()),
			"event_id": e.ID.String(), "event": hex.EncodeToString(e.Bytes()),
			"sealed_id": s.ID.String(), "sealed": hex.EncodeToString(s.Bytes()), "gossip_id": gossip.String(),
			"stub": hex.EncodeToString(s.Redacted().Bytes()),
		})
	}
	return out
}

// refusal is a byte string that must not be accepted, and how it is to be judged.
type refusal struct {
	What    string `json:"what"`
	Why     string `json:"why"`
	Raw     string `json:"raw"`
	Verdict string `json:"verdict"` // "invalid" or "unsupported"
}

func verdictOf(err error) string {
	switch {
	case errors.Is(err, ErrInvalid):
		return "invalid"
	case errors.Is(err, ErrUnsupported):
		return "unsupported"
	default:
		return "accepted"
	}
}

// refusals are sealed events and events that break one rule each.
func refusals(t *testing.T, keys *RoomKeys) []refusal {
	out := []refusal{}
	e := testEvent(t, keys, &MessageBody{Text: "hello"}, nil)
	s, err := keys.Seal(e)
	if err != nil {
		t.Fatal(err)
	}
	sealed := func(why string, change func(s *Sealed, e *encoder)) {
		c := *s
		var enc encoder
		change(&c, &enc)
		_, err := CheckSealed(keys.Topic, enc.b)
		out = append(out, refusal{What: "sealed", Why: why, Raw: hex.EncodeToString(enc.b), Verdict: verdictOf(err)})
	}
	event := func(why string, change func(h *Header) []byte) {
		h := e.Header
		header := change(&h)
		id := eventID(header)
		sig := Sign(DomainEvent, testKey("ada/laptop"), id[:])
		var enc encoder
		enc.bytes(1, header)
		enc.bytes(2, sig[:])
		enc.bytes(3, e.body)
		got, err := ParseEvent(enc.b)
		if err == nil {
			err = got.Verify()
		}
		out = append(out, refusal{What: "event", Why: why, Raw: hex.EncodeToString(enc.b), Verdict: verdictOf(err)})
	}
	refusedSealed(s, sealed)
	resign := func(change func(s *Sealed)) func(*Sealed, *encoder) {
		return func(s *Sealed, e *encoder) {
			change(s)
			s.BodyHash = sha256.Sum256(s.Body)
			s.ID = s.id()
			s.Signature = Sign(DomainSealed, keys.signer, s.ID[:])
			e.raw(s.encode())
		}
	}
	sealed("body shorter than a salt and a tag", resign(func(s *Sealed) { s.Body = s.Body[:BodySaltSize+tagSize-1] }))
	sealed("head no longer than a tag", resign(func(s *Sealed) { s.Head = s.Head[:tagSize] }))
	sealed("head over its limit", resign(func(s *Sealed) { s.Head = make([]byte, MaxHead+tagSize+1) }))
	sealed("clock reading zero", resign(func(s *Sealed) { s.HLC = 0 }))
	refusedEvents(t, event)
	return out
}

func refusedSealed(s *Sealed, add func(string, func(*Sealed, *encoder))) {
	raw := s.Bytes()
	add("version 2", func(s *Sealed, e *encoder) {
		e.uint(1, 2)
		e.raw(raw[2:])
	})
	add("unknown flag", func(s *Sealed, e *encoder) {
		e.uint(1, 1)
		e.uint(2, 2)
		e.raw(raw[2:])
	})
	add("version in two bytes", func(s *Sealed, e *encoder) {
		e.raw([]byte{0x08, 0x81, 0x00})
		e.raw(raw[2:])
	})
	add("version twice", func(s *Sealed, e *encoder) {
		e.raw(raw[:2])
		e.raw(raw)
	})
	add("version missing", func(s *Sealed, e *encoder) { e.raw(raw[2:]) })
	add("flags zero but present", func(s *Sealed, e *encoder) {
		e.raw(raw[:2])
		e.raw([]byte{0x10, 0x00})
		e.raw(raw[2:])
	})
	add("trailing byte", func(s *Sealed, e *encoder) {
		e.raw(raw)
		e.raw([]byte{0})
	})
	add("cut short", func(s *Sealed, e *encoder) { e.raw(raw[:len(raw)-1]) })
	add("unknown field 9", func(s *Sealed, e *encoder) {
		e.raw(raw)
		e.uint(9, 1)
	})
	add("body and hash of it", func(s *Sealed, e *encoder) {
		full := s.encode()
		e.raw(full[:len(full)-66])
		e.bytes(7, s.BodyHash[:])
		e.bytes(8, s.Signature[:])
	})
	add("neither body nor hash", func(s *Sealed, e *encoder) {
		s.Body = nil
		stub := s.encode()
		e.raw(stub[:len(stub)-66-34])
		e.bytes(8, s.Signature[:])
	})
	add("another clock reading", func(s *Sealed, e *encoder) {
		s.HLC++
		e.raw(s.encode())
	})
	add("made ephemeral", func(s *Sealed, e *encoder) {
		s.Ephemeral = true
		e.raw(s.encode())
	})
	add("signature of another key", func(s *Sealed, e *encoder) {
		s.Signature = Sign(DomainSealed, testKey("eve"), s.ID[:])
		e.raw(s.encode())
	})
	add("empty", func(*Sealed, *encoder) {})
}

func refusedEvents(t *testing.T, add func(string, func(*Header) []byte)) {
	add("parents not ascending", func(h *Header) []byte {
		h.Parents = []EventID{{2}, {1}}
		return h.encode()
	})
	add("parent twice", func(h *Header) []byte {
		h.Parents = []EventID{{1}, {1}}
		return h.encode()
	})
	add("five parents", func(h *Header) []byte {
		h.Parents = []EventID{{1}, {2}, {3}, {4}, {5}}
		return h.encode()
	})
	add("no room", func(h *Header) []byte {
		h.Room = RoomID{}
		return h.encode()
	})
	add("edit of nothing", func(h *Header) []byte {
		h.Kind = KindEdit
		return h.encode()
	})
	add("first event with a predecessor", func(h *Header) []byte {
		h.Previous = EventID{1}
		return h.encode()
	})
	add("other body length", func(h *Header) []byte {
		h.BodyLength++
		return h.encode()
	})
	add("other body hash", func(h *Header) []byte {
		h.BodyHash[0]++
		return h.encode()
	})
	add("before its certificate", func(h *Header) []byte {
		h.HLC = HLCFromTime(h.Certificate.NotBefore.Add(-time.Millisecond))
		return h.encode()
	})
	add("after its certificate", func(h *Header) []byte {
		h.HLC = HLCFromTime(h.Certificate.NotAfter)
		return h.encode()
	})
	add("certificate by another account", func(h *Header) []byte {
		c, err := IssueCertificate(testKey("eve"), h.Certificate.Device, time.Time{}, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		c.Account = h.Certificate.Account
		h.Certificate = c
		return h.encode()
	})
	add("version 2", func(h *Header) []byte {
		raw := h.encode()
		raw[1] = 2
		return raw
	})
	add("unknown field 15", func(h *Header) []byte {
		e := encoder{b: h.encode()}
		e.uint(15, 1)
		return e.b
	})
	add("extension of the varint type", func(h *Header) []byte {
		e := encoder{b: h.encode()}
		e.uint(100, 1)
		return e.b
	})
}

func TestRoomVectors(t *testing.T) {
	keys := testRoomKeys(t)
	ada, laptop := fill("ada"), fill("ada/laptop")
	secret := fill("room")
	checkVectors(t, "rooms.json", obj{
		"names": nameVectors(), "secrets": secretVectors(t), "keys": keyVectors(t), "hlc": hlcVectors(), "bodies": bodyVectors(t),
		"events_of": obj{
			"account_seed": hex.EncodeToString(ada[:]), "device_seed": hex.EncodeToString(laptop[:]),
			"room_secret": hex.EncodeToString(secret[:]),
		},
		"events": eventVectors(t, keys), "refused": refusals(t, keys),
	})
}

// roomVectors is what tests read back from the golden file.
type roomVectors struct {
	Names  []nameVector
	Bodies []struct {
		Kind    Kind
		Encoded string
	}
	Events []struct {
		Event, Sealed, Stub string
		EventID             string `json:"event_id"`
		SealedID            string `json:"sealed_id"`
	}
	Refused []refusal
}

// TestReadRoomVectors goes the other way: from the file's bytes to values.
func TestReadRoomVectors(t *testing.T) {
	var v roomVectors
	readVectors(t, "rooms.json", &v)
	keys := testRoomKeys(t)
	verifier := NewVerifier(DefaultVerifierLimits())
	for i, x := range v.Events {
		full, err := verifier.CheckSealed(keys.Topic, unhex(t, x.Sealed))
		if err != nil {
			t.Fatalf("event %d: %v", i, err)
		}
		stub, err := verifier.CheckSealed(keys.Topic, unhex(t, x.Stub))
		if err != nil {
			t.Fatalf("stub %d: %v", i, err)
		}
		for _, s := range []*Sealed{full, stub} {
			e, err := keys.Open(s)
			if err != nil {
				t.Fatalf("event %d: %v", i, err)
			}
			if err := verifier.VerifyEvent(e); err != nil {
				t.Fatalf("event %d: %v", i, err)
			}
			if s.ID.String() != x.SealedID || e.ID.String() != x.EventID {
				t.Fatalf("event %d: ids %s, %s", i, s.ID, e.ID)
			}
			if e.Redacted() != (s == stub) {
				t.Fatalf("event %d: redacted %v", i, e.Redacted())
			}
		}
	}
	for _, x := range v.Refused {
		var err error
		if x.What == "sealed" {
			_, err = CheckSealed(keys.Topic, unhex(t, x.Raw))
		} else {
			var e *Event
			if e, err = ParseEvent(unhex(t, x.Raw)); err == nil {
				err = e.Verify()
			}
		}
		if x.Verdict == "accepted" || verdictOf(err) != x.Verdict {
			t.Errorf("%s %s: %v, want %s", x.What, x.Why, err, x.Verdict)
		}
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
