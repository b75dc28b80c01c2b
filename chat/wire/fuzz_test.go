package wire

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"
)

// Each decoder has a target. What it accepts must come back byte for byte when
// encoded again, so that nothing has two encodings; what it refuses must be
// classed.

func classed(t *testing.T, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnsupported) {
		t.Fatalf("error without a class: %v", err)
	}
}

func sameBytes(t *testing.T, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Fatalf("encodes again as\n%x, was\n%x", got, want)
	}
}

func FuzzSealed(f *testing.F) {
	keys := testRoomKeys(f)
	for _, e := range testEvents(f, keys) {
		s, err := keys.Seal(e)
		must(f, err)
		f.Add(s.Bytes())
		f.Add(s.Redacted().Bytes())
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := parseSealed(keys.Topic, raw)
		classed(t, err)
		if _, peek := PeekSealedID(keys.Topic, raw); (peek == nil) != (err == nil) {
			t.Fatalf("peeking says %v, parsing %v", peek, err)
		}
		if err != nil {
			return
		}
		sameBytes(t, s.encode(), raw)
		if len(raw) > MaxSealed {
			t.Fatal("over the limit")
		}
		if _, err := CheckSealed(keys.Topic, raw); err != nil {
			classed(t, err)
			return
		}
		_, err = keys.Open(s)
		classed(t, err)
	})
}

func FuzzEvent(f *testing.F) {
	for _, e := range testEvents(f, testRoomKeys(f)) {
		f.Add(e.Bytes())
		f.Add(e.head)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := ParseEvent(raw)
		classed(t, err)
		if err != nil {
			return
		}
		var enc encoder
		enc.bytes(1, e.Header.encode())
		enc.bytes(2, e.Signature[:])
		enc.bytes(3, e.body)
		sameBytes(t, enc.b, raw)
		sameBytes(t, joinEvent(e.head, e.body), raw)
		classed(t, e.Verify())
		if _, err := e.Body(); err != nil && !errors.Is(err, ErrRedacted) {
			classed(t, err)
		}
	})
}

func FuzzHeader(f *testing.F) {
	for _, e := range testEvents(f, testRoomKeys(f)) {
		f.Add(e.Header.encode())
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		h, err := parseHeader(raw)
		classed(t, err)
		if err == nil {
			sameBytes(t, h.encode(), raw)
		}
	})
}

func FuzzCertificate(f *testing.F) {
	c := testCertificate(f)
	f.Add(c.Encode())
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := ParseCertificate(raw)
		classed(t, err)
		if err == nil {
			sameBytes(t, c.Encode(), raw)
			classed(t, c.Verify())
		}
	})
}

func FuzzBody(f *testing.F) {
	for _, b := range testBodies() {
		content, err := EncodeBody(b)
		must(f, err)
		f.Add(uint8(b.EventKind()), content)
	}
	f.Fuzz(func(t *testing.T, kind uint8, content []byte) {
		b, err := ParseBody(Kind(kind), content)
		classed(t, err)
		if err != nil {
			return
		}
		again, err := EncodeBody(b)
		must(t, err)
		sameBytes(t, again, content)
	})
}

func FuzzReadMarker(f *testing.F) {
	b, err := SealReadMarker(fill("k"), RoomID{1}, ReadMarker{Event: EventID{1}, HLC: 1}, random("n"))
	must(f, err)
	f.Add(b.Box)
	f.Fuzz(func(t *testing.T, box []byte) {
		_, err := OpenReadMarker(fill("k"), RoomID{1}, &ReadMarkerBody{Box: box})
		classed(t, err)
	})
}

func FuzzDMContent(f *testing.F) {
	for _, c := range testContents(f) {
		raw, err := c.Encode()
		must(f, err)
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := ParseDMContent(raw)
		classed(t, err)
		if err != nil {
			return
		}
		again, err := c.Encode()
		must(t, err)
		sameBytes(t, again, raw)
	})
}

func FuzzDMBody(f *testing.F) {
	for _, b := range testDMBodies(f) {
		raw, err := EncodeDMBody(b)
		must(f, err)
		f.Add(uint8(b.DMKind()), raw)
	}
	f.Fuzz(func(t *testing.T, kind uint8, raw []byte) {
		b, err := ParseDMBody(DMKind(kind), raw)
		classed(t, err)
		if err != nil {
			return
		}
		again, err := EncodeDMBody(b)
		must(t, err)
		sameBytes(t, again, raw)
	})
}

func fuzzFrames(f *testing.F, protocol string) {
	for _, frame := range testFrames(f)[protocol] {
		raw, err := EncodeFrame(frame)
		must(f, err)
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		frame, err := frameParsers[protocol](payload)
		classed(t, err)
		if err != nil {
			return
		}
		again, err := EncodeFrame(frame)
		must(t, err)
		sameBytes(t, again, payload)
	})
}

func FuzzDMFrame(f *testing.F)      { fuzzFrames(f, "dm") }
func FuzzRelayFrame(f *testing.F)   { fuzzFrames(f, "relay") }
func FuzzMailboxFrame(f *testing.F) { fuzzFrames(f, "mailbox") }

func FuzzReadFrame(f *testing.F) {
	for _, frames := range testFrames(f) {
		var all []byte
		for _, frame := range frames {
			var err error
			all, err = AppendFrame(all, frame)
			must(f, err)
		}
		f.Add(all)
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := bytes.NewReader(stream)
		for {
			before := r.Len()
			payload, err := ReadFrame(r, MaxFrame)
			if err != nil {
				if (err == io.EOF) != (before == 0) {
					t.Fatalf("with %d bytes left: %v", before, err)
				}
				return
			}
			if len(payload) == 0 || len(payload) > MaxFrame || before-r.Len() != len(payload)+frameHeader {
				t.Fatalf("frame of %d bytes took %d", len(payload), before-r.Len())
			}
		}
	})
}

func FuzzDeviceList(f *testing.F) {
	_, raw := testDeviceList(f)
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		l, err := ParseDeviceList(raw)
		classed(t, err)
		if err != nil {
			return
		}
		sameBytes(t, l.signedPart(), l.signed)
		sameBytes(t, appendRecordSignature(l.signed, l.Signature), raw)
		classed(t, l.Verify())
	})
}

func FuzzPrekeyRecord(f *testing.F) {
	_, raw := testPrekeyRecord(f)
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := ParsePrekeyRecord(raw)
		classed(t, err)
		if err != nil {
			return
		}
		sameBytes(t, r.signedPart(), r.signed)
		sameBytes(t, appendRecordSignature(r.signed, r.Signature), raw)
		classed(t, r.Verify())
	})
}

func FuzzLookup(f *testing.F) {
	_, list := testDeviceList(f)
	_, prekeys := testPrekeyRecord(f)
	f.Add(append([]byte{lookupDeviceList}, list...))
	f.Add(append([]byte{lookupPrekeys}, prekeys...))
	f.Fuzz(func(t *testing.T, value []byte) {
		r, err := ParseLookup(value)
		classed(t, err)
		if err != nil {
			return
		}
		key, again := EncodeLookup(r)
		sameBytes(t, again, value)
		_, err = CheckLookup(key, value, time.Unix(1_700_000_000, 0))
		classed(t, err)
		if NewerLookup(value, value) {
			t.Fatal("a record is newer than itself")
		}
	})
}

func FuzzInvite(f *testing.F) {
	for _, l := range testLinks(f) {
		if invite, ok := l.(*InviteLink); ok {
			raw, err := invite.Payload()
			must(f, err)
			f.Add(raw)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		l, err := ParseInvite(raw)
		classed(t, err)
		if err != nil {
			return
		}
		again, err := l.Payload()
		must(t, err)
		sameBytes(t, again, raw)
		classed(t, l.Verify())
	})
}

func FuzzLink(f *testing.F) {
	for _, l := range testLinks(f) {
		text, err := l.Text()
		must(f, err)
		f.Add(text)
	}
	for _, r := range refusedLinks(f) {
		f.Add(r.Raw)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ParseLink(text)
		classed(t, err)
		if err != nil {
			return
		}
		again, err := l.Text()
		must(t, err)
		sameBytes(t, []byte(again), []byte(text))
	})
}

func FuzzRoomName(f *testing.F) {
	for _, v := range nameVectors() {
		f.Add(v.Input)
	}
	f.Fuzz(func(t *testing.T, name string) {
		canonical, err := CanonicalRoomName(name)
		classed(t, err)
		if err != nil {
			return
		}
		if again, err := CanonicalRoomName(canonical); err != nil || again != canonical {
			t.Fatalf("%q is canonical for %q and becomes %q, %v", canonical, name, again, err)
		}
		if again, err := CanonicalRoomName("#" + canonical); err != nil || again != canonical {
			t.Fatalf("#%s is another room: %q, %v", canonical, again, err)
		}
	})
}

func FuzzIDs(f *testing.F) {
	f.Add(AccountID(fill("a")).String())
	f.Add(Topic(TopicKey(fill("t"))))
	f.Add(EventID(fill("e")).String())
	f.Add(MsgID{1}.String())
	f.Fuzz(func(t *testing.T, s string) {
		check := func(again string, err error) {
			classed(t, err)
			if err == nil && again != s {
				t.Fatalf("%q comes back as %q", s, again)
			}
		}
		account, err := ParseAccountID(s)
		check(account.String(), err)
		device, err := ParseDeviceID(s)
		check(device.String(), err)
		topic, err := ParseTopic(s)
		check(Topic(topic), err)
		event, err := ParseEventID(s)
		check(event.String(), err)
		box, err := ParseMailboxID(s)
		check(box.String(), err)
		msg, err := ParseMsgID(s)
		check(msg.String(), err)
		room, err := ParseRoomID(s)
		check(room.String(), err)
		sealed, err := ParseSealedID(s)
		check(sealed.String(), err)
		deposit, err := ParseDepositID(s)
		check(deposit.String(), err)
		conversation, err := ParseConversationID(s)
		check(conversation.String(), err)
		hash, err := ParseHash(s)
		check(hash.String(), err)
		peer, err := DeviceFromPeerID([]byte(s))
		check(string(peer.PeerID()), err)
	})
}
