package wire

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"sync"
	"testing"
	"time"
)

// eachBit calls check with every one-bit change of raw.
func eachBit(raw []byte, check func(bit int, changed []byte)) {
	for i := range len(raw) * 8 {
		changed := bytes.Clone(raw)
		changed[i/8] ^= 1 << (i % 8)
		check(i, changed)
	}
}

// TestEveryBitIsBound changes every bit of every signed thing: none may be
// taken for the original, or for anything else that holds.
func TestEveryBitIsBound(t *testing.T) {
	keys := testRoomKeys(t)
	sealed, err := keys.Seal(testEvent(t, keys, &MessageBody{Text: "hello"}, fullHeader))
	must(t, err)
	certificate := testCertificate(t)
	_, list := testDeviceList(t)
	_, record := testPrekeyRecord(t)
	invite, err := testLinks(t)[4].(*InviteLink).Payload()
	must(t, err)
	verifier := NewVerifier(DefaultVerifierLimits())
	verify := func(v interface{ Verify() error }, err error) error {
		if err != nil {
			return err
		}
		return v.Verify()
	}
	for name, c := range map[string]struct {
		raw   []byte
		check func([]byte) error
	}{
		"sealed": {sealed.Bytes(), func(b []byte) error { _, err := CheckSealed(keys.Topic, b); return err }},
		"stub":   {sealed.Redacted().Bytes(), func(b []byte) error { _, err := verifier.CheckSealed(keys.Topic, b); return err }},
		"batch":  {sealed.Bytes(), func(b []byte) error { _, errs := verifier.CheckSealedBatch(keys.Topic, [][]byte{b}); return errs[0] }},
		"event": {testEvent(t, keys, &MessageBody{Text: "hello"}, fullHeader).Bytes(), func(b []byte) error {
			e, err := ParseEvent(b)
			if err != nil {
				return err
			}
			return errors.Join(e.Verify(), verifier.VerifyEvent(e))
		}},
		"certificate": {certificate.Encode(), func(b []byte) error { c, err := ParseCertificate(b); return verify(&c, err) }},
		"device list": {list, func(b []byte) error { l, err := ParseDeviceList(b); return verify(l, err) }},
		"prekeys":     {record, func(b []byte) error { r, err := ParsePrekeyRecord(b); return verify(r, err) }},
		"invite":      {invite, func(b []byte) error { l, err := ParseInvite(b); return verify(l, err) }},
	} {
		t.Run(name, func(t *testing.T) {
			if err := c.check(c.raw); err != nil {
				t.Fatalf("unchanged: %v", err)
			}
			eachBit(c.raw, func(bit int, changed []byte) {
				if c.check(changed) == nil {
					t.Errorf("bit %d of %d may be changed", bit, len(c.raw)*8)
				}
			})
		})
	}
}

// resealed is a sealed event made by a member who does not keep to the rules.
type resealed struct {
	ad         func(*Sealed)
	head, body []byte
	nonce      *[nonceSize]byte
}

func (k *RoomKeys) forge(t *testing.T, e *Event, r resealed) *Sealed {
	t.Helper()
	s := &Sealed{Topic: k.Topic, HLC: e.Header.HLC, Ephemeral: e.Header.Kind.Ephemeral()}
	if r.ad != nil {
		r.ad(s)
	}
	ad := s.associatedData()
	s.Nonce = k.nonceFor(ad, r.head)
	if r.nonce != nil {
		s.Nonce = *r.nonce
	}
	s.Head = k.head.Seal(nil, s.Nonce[:], r.head, ad)
	s.Body = k.body.Seal(nil, s.Nonce[:], r.body, ad)
	s.BodyHash = sha256.Sum256(s.Body)
	s.ID = s.id()
	s.Signature = Sign(DomainSealed, k.signer, s.ID[:])
	checked, err := CheckSealed(k.Topic, s.encode())
	must(t, err) // everybody has it in the set
	return checked
}

// TestMembersCannotForge seals what an honest client never would: it is in the
// set, like everything with the topic's signature, and opens to nothing.
func TestMembersCannotForge(t *testing.T) {
	keys := testRoomKeys(t)
	e := testEvent(t, keys, &MessageBody{Text: "hello"}, nil)
	other := testEvent(t, keys, &MessageBody{Text: "hellO"}, nil)
	typing := testEvent(t, keys, &TypingBody{}, nil)
	v := NewVerifier(DefaultVerifierLimits())
	opens := func(s *Sealed) error {
		got, err := keys.Open(s)
		if err != nil {
			if !errors.Is(err, ErrOpen) || !errors.Is(err, ErrInvalid) {
				t.Errorf("error without a class: %v", err)
			}
			return err
		}
		return v.VerifyEvent(got)
	}
	if err := opens(keys.forge(t, e, resealed{head: e.head, body: e.body})); err != nil {
		t.Fatalf("the honest form: %v", err)
	}
	for name, s := range map[string]*Sealed{
		"another nonce":         keys.forge(t, e, resealed{head: e.head, body: e.body, nonce: &[nonceSize]byte{1}}),
		"another clock":         keys.forge(t, e, resealed{head: e.head, body: e.body, ad: func(s *Sealed) { s.HLC++ }}),
		"message as ephemeral":  keys.forge(t, e, resealed{head: e.head, body: e.body, ad: func(s *Sealed) { s.Ephemeral = true }}),
		"typing as stored":      keys.forge(t, typing, resealed{head: typing.head, body: typing.body, ad: func(s *Sealed) { s.Ephemeral = false }}),
		"another body":          keys.forge(t, e, resealed{head: e.head, body: other.body}),
		"body inside the head":  keys.forge(t, e, resealed{head: e.raw, body: e.body}),
		"head cut":              keys.forge(t, e, resealed{head: e.head[:len(e.head)-1], body: e.body}),
		"garbage":               keys.forge(t, e, resealed{head: []byte("garbage"), body: e.body}),
		"signature of another":  keys.forge(t, e, resealed{head: withSignature(e, other.Signature), body: e.body}),
		"stub with body inside": keys.forge(t, e, resealed{head: e.raw, body: e.body}).Redacted(),
	} {
		if err := opens(s); err == nil {
			t.Errorf("%s opens", name)
		}
	}
	strange, err := DeriveRoomKeys(fill("room 2"))
	must(t, err)
	s, err := keys.Seal(e)
	must(t, err)
	if _, err := strange.Open(s); !errors.Is(err, ErrOpen) {
		t.Errorf("opens under another room's keys: %v", err)
	}
	moved := *s
	moved.Topic = strange.Topic
	if _, err := strange.Open(&moved); !errors.Is(err, ErrOpen) {
		t.Errorf("opens under another room's keys with the topic changed: %v", err)
	}
	if _, err := CheckSealed(strange.Topic, s.Bytes()); !errors.Is(err, ErrSignature) {
		t.Errorf("is in another room's set: %v", err)
	}
}

func withSignature(e *Event, sig Signature) []byte {
	var enc encoder
	enc.bytes(1, e.Header.encode())
	enc.bytes(2, sig[:])
	return enc.b
}

func TestSealIsOneForm(t *testing.T) {
	keys := testRoomKeys(t)
	again, err := DeriveRoomKeys(fill("room"))
	must(t, err)
	e := testEvent(t, keys, &MessageBody{Text: "hello"}, nil)
	a, err := keys.Seal(e)
	must(t, err)
	parsed, err := ParseEvent(e.Bytes())
	must(t, err)
	b, err := again.Seal(parsed)
	must(t, err)
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("two members seal one event differently")
	}
	opened, err := keys.Open(a.Redacted())
	must(t, err)
	if _, err := keys.Seal(opened); !errors.Is(err, ErrRedacted) {
		t.Errorf("a redacted event was sealed: %v", err)
	}
	if opened.Content() != nil || opened.ID != e.ID {
		t.Error("the stub opens to another event or has content")
	}
	if _, err := opened.Body(); !errors.Is(err, ErrRedacted) {
		t.Errorf("body of a redacted event: %v", err)
	}
	if a.Redacted().Redacted().ID != a.ID || GossipID(a.Bytes()) == GossipID(a.Redacted().Bytes()) {
		t.Error("ids of full event and stub")
	}
}

func TestGossipIDCoversTheSignature(t *testing.T) {
	keys := testRoomKeys(t)
	s, err := keys.Seal(testEvent(t, keys, &MessageBody{Text: "hello"}, nil))
	must(t, err)
	spoilt := bytes.Clone(s.Bytes())
	spoilt[len(spoilt)-1] ^= 1
	id, err := PeekSealedID(keys.Topic, spoilt)
	must(t, err)
	if id != s.ID {
		t.Error("the sealed id depends on the signature")
	}
	gossipID := func(topic TopicKey, raw []byte) Hash { return GossipID([]byte(Topic(topic)), raw) }
	if gossipID(keys.Topic, spoilt) == gossipID(keys.Topic, s.Bytes()) {
		t.Error("the gossip id does not: a spoilt copy would hide the true one")
	}
	if gossipID(TopicKey{1}, s.Bytes()) == gossipID(keys.Topic, s.Bytes()) {
		t.Error("the gossip id is the same on another topic: a stray copy would hide the true one")
	}
}

// TestWeakKeysDoNotSpeak uses keys under which anyone can sign.
func TestWeakKeysDoNotSpeak(t *testing.T) {
	weak := [32]byte(unhex(t, smallOrder[0]))
	var forged Signature
	copy(forged[:], weak[:]) // R of small order, S = 0: holds for every payload
	if !VerifySignature(DomainCertificate, weak, []byte("anything"), forged) {
		t.Fatal("the forged signature does not hold: this tests nothing")
	}
	c := Certificate{Account: AccountID(weak), Device: DeviceID(publicKey(testKey("eve"))), Signature: forged}
	if err := c.Verify(); !errors.Is(err, ErrSignature) {
		t.Errorf("weak account: %v", err)
	}
	if err := NewVerifier(DefaultVerifierLimits()).VerifyCertificate(&c); !errors.Is(err, ErrSignature) {
		t.Errorf("weak account, verifier: %v", err)
	}
	c, err := IssueCertificate(testKey("eve"), DeviceID(weak), time.Time{}, time.Time{})
	must(t, err)
	if err := c.Verify(); !errors.Is(err, ErrSignature) {
		t.Errorf("weak device: %v", err)
	}
	l := &DeviceList{Account: AccountID(weak), signed: []byte("anything"), Signature: forged}
	if err := l.Verify(); !errors.Is(err, ErrSignature) {
		t.Errorf("weak account of a device list: %v", err)
	}
}

func TestAttachProofIsBound(t *testing.T) {
	keys, other := testRoomKeys(t), publicKey(testKey("other topic"))
	relay, client, nonce := DeviceID(publicKey(testKey("relay"))), DeviceID{2}, [32]byte{3}
	f := &RelayAttach{Nonce: nonce, Topics: []RelayTopic{
		{Topic: keys.Topic, Proof: keys.ProveAttach(relay, client, nonce)},
		{Topic: other, Proof: keys.ProveAttach(relay, client, nonce)},
		{Topic: TopicKey{2}, Proof: keys.ProveAttach(relay, client, nonce)}, // no point
		{Topic: keys.Topic, Proof: keys.ProveSync(attachTranscript(relay, client, nonce))},
		{Topic: keys.Topic, Proof: keys.ProveAttach(relay, client, nonce)},
	}}
	want := []bool{true, false, false, false, true}
	for i, got := range f.VerifyAttach(relay, client) {
		if got != want[i] {
			t.Errorf("topic %d: %v", i, got)
		}
	}
	one := &RelayAttach{Nonce: nonce, Topics: f.Topics[:1]}
	if one.VerifyAttach(client, client)[0] || one.VerifyAttach(relay, relay)[0] {
		t.Error("a proof holds at another relay or for another client")
	}
	one.Nonce[0]++
	if one.VerifyAttach(relay, client)[0] {
		t.Error("a proof holds with another nonce")
	}
	box := testKey("mailbox")
	proof := ProveMailbox(box, relay, nonce)
	if !VerifyMailbox(publicKey(box), relay, nonce, proof) {
		t.Error("a mailbox proof does not hold")
	}
	if VerifyMailbox(publicKey(box), client, nonce, proof) || VerifyMailbox(other, relay, nonce, proof) ||
		VerifyMailbox(publicKey(box), relay, one.Nonce, proof) {
		t.Error("a mailbox proof holds elsewhere")
	}
	receipt := &MailboxReceipt{Code: RelayOK, Deposit: DepositID{1}, Expires: testTime}
	receipt.Sign(testKey("relay"), publicKey(box))
	if !receipt.Verify(relay, publicKey(box), DepositID{1}) {
		t.Error("a receipt does not hold")
	}
	later := *receipt
	later.Expires = testTime.Add(time.Millisecond)
	if receipt.Verify(client, publicKey(box), DepositID{1}) || receipt.Verify(relay, other, DepositID{1}) ||
		receipt.Verify(relay, publicKey(box), DepositID{2}) || later.Verify(relay, publicKey(box), DepositID{1}) {
		t.Error("a receipt holds for something else")
	}
	if !VerifySync(keys.Topic, []byte("t"), keys.ProveSync([]byte("t"))) || VerifySync(keys.Topic, []byte("u"), keys.ProveSync([]byte("t"))) {
		t.Error("sync proof")
	}
}

// TestVerifierAgrees runs good and bad events through every way of verifying, at
// once, with caches too small to hold them.
func TestVerifierAgrees(t *testing.T) {
	keys := testRoomKeys(t)
	v := NewVerifier(VerifierLimits{Certificates: 2, Keys: 2})
	var events []*Event
	var raws [][]byte
	for i := range 12 {
		seed := sha256.Sum256([]byte{byte(i)})
		device := ed25519.NewKeyFromSeed(seed[:])
		signer := device
		if i%3 == 1 {
			signer = testKey("eve") // signs under another device's certificate
		}
		cert, err := IssueCertificate(testKey("ada"), publicKey(device), time.Time{}, time.Time{})
		must(t, err)
		switch {
		case i%6 == 2:
			cert.Signature[0] ^= 1
		case i%6 == 5:
			cert, err = IssueCertificate(testKey("ada"), publicKey(device), testTime, time.Time{}) // long after the event
			must(t, err)
		}
		h := Header{Kind: KindJoin, Room: PublicRoomID(keys.Topic), Certificate: cert, HLC: HLC(i + 1), DeviceSeq: 1}
		events = append(events, signedBy(t, h, signer))
		s, err := keys.Seal(events[i])
		must(t, err)
		raw := bytes.Clone(s.Bytes())
		if i%4 == 3 {
			raw[len(raw)-1] ^= 1
		}
		raws = append(raws, raw)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			batch := v.VerifyEvents(events)
			sealed, errs := v.CheckSealedBatch(keys.Topic, raws)
			for i, e := range events {
				if good := i%3 == 0; (e.Verify() == nil) != good || (v.VerifyEvent(e) == nil) != good || (batch[i] == nil) != good {
					t.Errorf("event %d: %v, %v, %v", i, e.Verify(), v.VerifyEvent(e), batch[i])
				}
				_, single := v.CheckSealed(keys.Topic, raws[i])
				if good := i%4 != 3; (errs[i] == nil) != good || (single == nil) != good || (sealed[i] != nil) != good {
					t.Errorf("sealed %d: %v, %v", i, errs[i], single)
				}
			}
		})
	}
	wg.Wait()
	if len(v.keys.young)+len(v.keys.old) > 2 || len(v.certs.young)+len(v.certs.old) > 2 {
		t.Error("a cache grew over its bound")
	}
	_, errs := v.CheckSealedBatch(TopicKey{2}, raws[:2])
	if !errors.Is(errs[0], ErrInvalid) || !errors.Is(errs[1], ErrInvalid) {
		t.Errorf("batch under a topic that is no point: %v", errs)
	}
}

// signedBy makes an event signed by a key that need not be the certificate's.
func signedBy(t *testing.T, h Header, key ed25519.PrivateKey) *Event {
	t.Helper()
	body := make([]byte, BodySaltSize)
	h.BodyHash, h.BodyLength = hashBody(body), BodySaltSize
	header := h.encode()
	id := eventID(header)
	sig := Sign(DomainEvent, key, id[:])
	var e encoder
	e.bytes(1, header)
	e.bytes(2, sig[:])
	e.bytes(3, body)
	ev, err := ParseEvent(e.b)
	must(t, err)
	return ev
}

func TestNewEventRefuses(t *testing.T) {
	keys := testRoomKeys(t)
	good := testEvent(t, keys, &JoinBody{}, nil).Header
	for name, change := range map[string]func(*Header){
		"no kind":        func(h *Header) { h.Kind = 0 },
		"no room":        func(h *Header) { h.Room = RoomID{} },
		"create with id": func(h *Header) { h.Kind = KindCreate },
		"no clock":       func(h *Header) { h.HLC = 0 },
		"no sequence":    func(h *Header) { h.DeviceSeq = 0 },
		"no previous":    func(h *Header) { h.DeviceSeq = 2 },
		"parents":        func(h *Header) { h.Parents = make([]EventID, 1) },
		"attachment":     func(h *Header) { h.Attachments = []Attachment{{Size: 0}} },
		"extensions":     func(h *Header) { h.Extensions = Extensions{1} },
		"other device":   func(h *Header) { h.Certificate.Device[0]++ },
		"header too big": func(h *Header) {
			fullHeader(h)
			h.Attachments = make([]Attachment, MaxAttachments)
			for i := range h.Attachments {
				h.Attachments[i].Size = MaxAttachmentSize
			}
			h.Extensions = extension(100, string(bytes.Repeat([]byte("x"), 500)))
		},
	} {
		h := good
		change(&h)
		if _, err := NewEvent(h, nil, testKey("ada/laptop"), random("s")); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewEvent(good, make([]byte, MaxBody), testKey("ada/laptop"), random("s")); !errors.Is(err, ErrInvalid) {
		t.Errorf("content over the limit: %v", err)
	}
	if _, err := NewEvent(good, nil, testKey("ada/laptop"), bytes.NewReader(nil)); err == nil {
		t.Error("an event without salt")
	}
	if _, err := NewEvent(good, nil, testKey("ada/laptop"), rand.Reader); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

func TestReadMarkerIsSealed(t *testing.T) {
	m := ReadMarker{Event: EventID(fill("e")), HLC: HLCFromTime(testTime)}
	box, err := SealReadMarker(fill("key"), RoomID{1}, m, random("n"))
	must(t, err)
	if bytes.Contains(box.Box, m.Event[:]) {
		t.Error("the event id is in clear")
	}
	got, err := OpenReadMarker(fill("key"), RoomID{1}, box)
	if err != nil || got != m {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := OpenReadMarker(fill("other"), RoomID{1}, box); err == nil {
		t.Error("opens under another key")
	}
	if _, err := OpenReadMarker(fill("key"), RoomID{2}, box); err == nil {
		t.Error("opens in another room")
	}
	if _, err := SealReadMarker(fill("key"), RoomID{1}, ReadMarker{}, random("n")); err == nil {
		t.Error("sealed an empty marker")
	}
}
