package chat

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/starling-chat/starling/chat/wire"
)

// This file holds the frames that chat adds to the stream of direct messages besides those of package
// wire. Their types lie from 64 on, which wire does not use; who does not know one skips it.
// docs/spec/chat.md describes them.

const (
	// progressType: {1 topic 32, 2 device sequence varint}.
	progressType = 64
	// prekeysType: the sender's signed prekey record follows as it is.
	prekeysType = 65
	// prekeysWantedType: please send yours. Nothing follows.
	prekeysWantedType = 66
	// eventType: a room's topic key, then a sealed event that the sender published a moment before the
	// receiver appeared.
	eventType = 67
	// standingType: what became of the receiver's events; see standingFrame.
	standingType = 68

	// maxProgress bounds a progress frame in bytes.
	maxProgress = 64
)

var (
	errProgress = errors.New("malformed progress frame")
	errPrekeys  = errors.New("malformed prekeys frame")
	errStanding = errors.New("malformed standing frame")
)

// progress is a frame by which a receiver tells the author of a room's events how far it has taken in
// what came straight from the author, so that the author publishes as fast as its neighbours follow.
// It proves nothing and is never stored.
type progress struct {
	Topic wire.TopicKey
	Seq   uint64 // the author's greatest device sequence number so far
}

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

func prekeysFrame(record []byte) []byte { return append([]byte{prekeysType}, record...) }

// parsePrekeys returns the record in a prekeys frame, unverified.
func parsePrekeys(b []byte) ([]byte, error) {
	if len(b) < 2 || len(b) > 1+wire.MaxRecord || b[0] != prekeysType {
		return nil, errPrekeys
	}
	return b[1:], nil
}

var prekeysWanted = []byte{prekeysWantedType}

// eventFrame returns the frame that carries a sealed event, or nil if it does not fit; sync brings it then.
func eventFrame(topic wire.TopicKey, sealed []byte) []byte {
	if len(sealed) == 0 || 1+len(topic)+len(sealed) > wire.MaxFrame {
		return nil
	}
	b := append(make([]byte, 0, 1+len(topic)+len(sealed)), eventType)
	return append(append(b, topic[:]...), sealed...)
}

var errEvent = errors.New("malformed event frame")

// parseEventFrame returns the topic and the sealed event, unverified.
func parseEventFrame(b []byte) (topic wire.TopicKey, sealed []byte, err error) {
	if len(b) < 1+len(topic)+1 || len(b) > wire.MaxFrame || b[0] != eventType {
		return topic, nil, errEvent
	}
	copy(topic[:], b[1:])
	return topic, b[1+len(topic):], nil
}
