package chat

import (
	"crypto/sha256"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// parseStored reads a sealed event that was checked before it was stored. It is wire.CheckSealed
// without the signature, whose verification costs ten times the rest; the store's own seal vouches
// for the bytes. The encoding is that of [wire.Sealed].
func parseStored(topic wire.TopicKey, id wire.SealedID, raw []byte) (*wire.Sealed, error) {
	s := &wire.Sealed{Topic: topic, ID: id}
	for b := raw; len(b) > 0; {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, storedError(id)
		}
		b = b[n:]
		var v []byte
		var u uint64
		switch typ {
		case protowire.VarintType:
			u, n = protowire.ConsumeVarint(b)
		case protowire.Fixed64Type:
			u, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			v, n = protowire.ConsumeBytes(b)
		default:
			n = -1
		}
		if n < 0 {
			return nil, storedError(id)
		}
		b = b[n:]
		switch num {
		case 2:
			s.Ephemeral = u != 0
		case 3:
			s.HLC = wire.HLC(u)
		case 4:
			copy(s.Nonce[:], v)
		case 5:
			s.Head = v
		case 6:
			s.Body = v
			s.BodyHash = sha256.Sum256(v)
		case 7:
			copy(s.BodyHash[:], v)
		case 8:
			copy(s.Signature[:], v)
		}
	}
	return s, nil
}

func storedError(id wire.SealedID) error {
	return fmt.Errorf("reading stored event %s: %w", id, storage.ErrCorrupt)
}
