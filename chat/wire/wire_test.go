package wire

import (
	"crypto/ed25519"
	"crypto/rand"
	"testing"
	"time"
)

func TestSealOpenRoundTrip(t *testing.T) {
	account := ed25519.NewKeyFromSeed(make([]byte, 32))
	_, device, _ := ed25519.GenerateKey(rand.Reader)
	cert, err := IssueCertificate(account, DeviceID(device.Public().(ed25519.PublicKey)), time.Time{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := DeriveRoomKeys(RoomSecret{1})
	if err != nil {
		t.Fatal(err)
	}
	content, err := EncodeBody(&MessageBody{Text: "hello"})
	if err != nil {
		t.Fatal(err)
	}
	ev, err := NewEvent(Header{
		Kind: KindMessage, Room: PublicRoomID(keys.Topic), Certificate: cert,
		HLC: HLCFromTime(time.Now()), DeviceSeq: 1,
	}, content, device, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := keys.Seal(ev)
	if err != nil {
		t.Fatal(err)
	}
	v := NewVerifier(DefaultVerifierLimits())
	for _, s := range []*Sealed{sealed, sealed.Redacted()} {
		got, err := v.CheckSealed(keys.Topic, s.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if got.ID != sealed.ID {
			t.Fatal("the stub has another id")
		}
		e, err := keys.Open(got)
		if err != nil {
			t.Fatal(err)
		}
		if err := v.VerifyEvent(e); err != nil {
			t.Fatal(err)
		}
		if err := e.Verify(); err != nil {
			t.Fatal(err)
		}
		if e.ID != ev.ID {
			t.Fatal("another event id")
		}
	}
}
