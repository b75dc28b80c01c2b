package sync

import "encoding/binary"

// role says whose proof it is.
type role byte

const (
	roleInitiator role = iota
	roleResponder
)

// proofMessage is what the topic key signs: it binds the proof to its maker's role, to both peers and
// to both nonces, so that it can be neither reflected, nor passed on, nor replayed.
func proofMessage(r role, topic Topic, initiator, responder PeerID, ni, nr Nonce) []byte {
	b := []byte("starling/sync/proof/1")
	b = append(b, byte(r))
	b = append(b, topic[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(initiator)))
	b = append(b, initiator...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(responder)))
	b = append(b, responder...)
	b = append(b, ni[:]...)
	return append(b, nr[:]...)
}
