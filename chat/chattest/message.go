package chattest

import (
	"crypto/ed25519"
	"crypto/rand"
	"testing"
	"time"

	"github.com/starling-chat/starling/chat/wire"
)

// SealText makes a sealed message in a public room, by somebody whom nobody knows.
func SealText(t testing.TB, room *wire.RoomKeys, at time.Time, text string) *wire.Sealed {
	t.Helper()
	_, account, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pub, device, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := wire.IssueCertificate(account, wire.DeviceID(pub), at.Add(-time.Hour), at.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	body, err := wire.EncodeBody(&wire.MessageBody{Text: text})
	if err != nil {
		t.Fatal(err)
	}
	e, err := wire.NewEvent(wire.Header{
		Kind: wire.KindMessage, Room: wire.PublicRoomID(room.Topic), Certificate: cert, HLC: wire.HLCFromTime(at), DeviceSeq: 1,
	}, body, device, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := room.Seal(e)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
