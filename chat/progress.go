package chat

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/starling-chat/starling/chat/wire"
)

// progress is a frame by which a receiver tells the author of a room's events, over the stream of
// direct messages, how far it has taken in what came straight from the author. It lets the author
// publish as fast as its neighbours follow. It proves nothing and is never stored.
//
// Encoding: the type 64, then {1 topic 32, 2 device sequence varint}; see docs/spec/chat.md.
type progress struct {
	Topic wire.TopicKey
	Seq   uint64
}

// progressType is the frame's first byte. A receiver that does not know it skips the frame.
const progressType = 64

// maxProgress bounds the frame in bytes.
const maxProgress = 64

var errProgress = errors.New("malformed progress frame")

func (p progress) encode() []byte {
	b := append(make([]byte, 0, maxProgress), progressType)
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendBytes(b, p.Topic[:])
	b = protowire.AppendTag(b, 2, protowire.VarintType)
	return protowire.AppendVarint(b, p.Seq)
}

// parseProgress accepts exactly what encode writes.
func parseProgress(b []byte) (progress, error) {
	var p progress
	const fixed = 1 + 2 + 32 + 1 // type, tag and length of the topic, topic, tag of the number
	if len(b) <= fixed || len(b) > maxProgress || b[0] != progressType {
		return p, errProgress
	}
	copy(p.Topic[:], b[3:])
	seq, n := protowire.ConsumeVarint(b[fixed:])
	if n < 0 || seq == 0 || string(progress{p.Topic, seq}.encode()) != string(b) {
		return p, errProgress
	}
	p.Seq = seq
	return p, nil
}
