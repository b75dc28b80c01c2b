package bench

import (
	"crypto/ed25519"
	"crypto/rand"
	"time"

	"github.com/starling-chat/starling/chat/identity"
	"github.com/starling-chat/starling/chat/wire"
)

// sealedCost makes a room's event as a member does, and returns its size on the wire in bytes and what
// the standard library takes to verify two signatures of it: that of the room and that of the author.
func sealedCost() (size int, verify time.Duration, err error) {
	account, err := identity.NewAccount(rand.Reader)
	if err != nil {
		return 0, 0, err
	}
	device, err := identity.NewDevice(rand.Reader)
	if err != nil {
		return 0, 0, err
	}
	now := time.Now()
	cert, err := account.CertificateAt(device.ID(), now)
	if err != nil {
		return 0, 0, err
	}
	var secret wire.RoomSecret
	rand.Read(secret[:])
	keys, err := wire.DeriveRoomKeys(secret)
	if err != nil {
		return 0, 0, err
	}
	content, err := wire.EncodeBody(&wire.MessageBody{Text: payload(1)})
	if err != nil {
		return 0, 0, err
	}
	var earlier wire.EventID
	rand.Read(earlier[:])
	event, err := wire.NewEvent(wire.Header{
		Kind: wire.KindMessage, Room: wire.PublicRoomID(keys.Topic), Certificate: cert, HLC: wire.Next(now, 0),
		DeviceSeq: 1000, Previous: earlier, Parents: []wire.EventID{earlier},
	}, content, device.PrivateKey(), rand.Reader)
	if err != nil {
		return 0, 0, err
	}
	sealed, err := keys.Seal(event)
	if err != nil {
		return 0, 0, err
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return 0, 0, err
	}
	const turns = 500
	message := sealed.Bytes()[:64]
	signature := ed25519.Sign(private, message)
	began := time.Now()
	for range 2 * turns {
		ed25519.Verify(public, message, signature)
	}
	return len(sealed.Bytes()), time.Since(began) / turns, nil
}
