package plumtree

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// Sizes of what is on the wire, in bytes. They are part of the protocol.
const (
	// Prefix is the size of a frame's length prefix.
	Prefix = 4
	// TopicSize is the size of a topic's key, IDSize that of a message's id.
	TopicSize = 32
	IDSize    = 16
	// MaxMessage bounds a message.
	MaxMessage = 64 << 10
	// MaxHave and MaxGraft bound the ids of one frame, MaxCover the marks of a message.
	MaxHave  = 128
	MaxGraft = 64
	MaxCover = 16

	head      = 1 + TopicSize
	markSize  = 2
	coverHead = 2 // wave, and the number of marks
	// MaxFrame bounds a frame, without its prefix.
	MaxFrame = head + coverHead + MaxCover*markSize + MaxMessage
)

// Kind is the type of a frame.
type Kind uint8

// The kinds of frames. A receiver skips those that it does not know.
const (
	KindMessage Kind = 1 // a message
	KindHave    Kind = 2 // ids of messages that the sender holds
	KindGraft   Kind = 3 // push to me from now on, and give me these
	KindPrune   Kind = 4 // do not push to me any more
	KindShape   Kind = 5 // the eager links are laid anew, along the ways this frame takes
)

// ErrFrame says that a frame is not of the protocol's form.
var ErrFrame = errors.New("malformed tree frame")

// ID names a message of a topic: the first half of wire.GossipID.
type ID [IDSize]byte

// Mark stands for a neighbour to whom the author of a message hands it itself; see MarkOf.
type Mark uint16

// Frame is one decoded frame.
type Frame struct {
	Kind  Kind
	Topic [TopicSize]byte
	// Wave, Cover and Data are those of a KindMessage. Data shares the memory of what was parsed.
	Wave  uint8
	Cover []Mark
	Data  []byte
	// IDs are those of a KindHave or KindGraft, or the one number of a KindShape.
	IDs []ID
}

// CheckSize says whether a frame's announced size, without the prefix, may be read at all.
func CheckSize(size uint32) error {
	if size < head || size > MaxFrame {
		return fmt.Errorf("%w: %d bytes, want %d to %d", ErrFrame, size, head, MaxFrame)
	}
	return nil
}

// ParseFrame decodes a frame without its prefix. An error matches ErrFrame; a frame of an unknown kind is no
// error and has neither Data nor IDs.
func ParseFrame(b []byte) (Frame, error) {
	if err := CheckSize(uint32(min(len(b), MaxFrame+1))); err != nil {
		return Frame{}, err
	}
	f := Frame{Kind: Kind(b[0])}
	copy(f.Topic[:], b[1:])
	rest := b[head:]
	least, most := 0, 0
	switch f.Kind {
	case KindMessage:
		return parseMessage(f, rest)
	case KindHave:
		least, most = 1, MaxHave
	case KindGraft:
		most = MaxGraft
	case KindPrune:
	case KindShape:
		least, most = 1, 1
	default:
		return f, nil
	}
	if n := len(rest) / IDSize; len(rest)%IDSize != 0 || n < least || n > most {
		return Frame{}, fmt.Errorf("%w: %d bytes of ids in a frame of kind %d", ErrFrame, len(rest), f.Kind)
	}
	for len(rest) > 0 {
		f.IDs = append(f.IDs, ID(rest))
		rest = rest[IDSize:]
	}
	return f, nil
}

func parseMessage(f Frame, rest []byte) (Frame, error) {
	if len(rest) < coverHead || rest[1] > MaxCover {
		return Frame{}, fmt.Errorf("%w: a message with no or too many marks", ErrFrame)
	}
	f.Wave = rest[0]
	marks := int(rest[1]) * markSize
	rest = rest[coverHead:]
	if len(rest) <= marks || len(rest)-marks > MaxMessage {
		return Frame{}, fmt.Errorf("%w: a message of %d bytes, want 1 to %d", ErrFrame, len(rest)-marks, MaxMessage)
	}
	for i := 0; i < marks; i += markSize {
		f.Cover = append(f.Cover, Mark(binary.BigEndian.Uint16(rest[i:])))
	}
	f.Data = rest[marks:]
	return f, nil
}

// MessageFrame returns the frame of a message of at most MaxMessage bytes, with its prefix. There are at most
// MaxCover marks.
func MessageFrame(topic [TopicSize]byte, wave uint8, cover []Mark, data []byte) []byte {
	b := begin(KindMessage, topic, coverHead+len(cover)*markSize+len(data))
	b = append(b, wave, byte(len(cover)))
	for _, m := range cover {
		b = binary.BigEndian.AppendUint16(b, uint16(m))
	}
	return append(b, data...)
}

// Uncovered makes the frame of a message, as it was received with its prefix, the one that is passed on: it
// has no marks. The memory is the same, so raw is no use any more.
func Uncovered(raw []byte) []byte {
	cut := int(raw[Prefix+head+1]) * markSize
	copy(raw[cut:], raw[:Prefix+head+1])
	raw = raw[cut:]
	binary.BigEndian.PutUint32(raw, uint32(len(raw)-Prefix))
	raw[Prefix+head+1] = 0
	return raw
}

// MarkOf returns the mark of a peer in a message. That of another message has nothing to do with it, so two
// peers that look the same once do so for that message only.
func MarkOf(p Peer, id ID) Mark { return mark(peerHash(p), id) }

func peerHash(p Peer) uint64 {
	sum := sha256.Sum256([]byte(p))
	return binary.BigEndian.Uint64(sum[:])
}

func mark(peer uint64, id ID) Mark {
	const golden = 0x9e3779b97f4a7c15
	return Mark((peer ^ binary.BigEndian.Uint64(id[:])) * golden >> 48)
}

// ControlFrame returns the frame of another kind, with its prefix. The ids are within the kind's bound.
func ControlFrame(kind Kind, topic [TopicSize]byte, ids []ID) []byte {
	b := begin(kind, topic, len(ids)*IDSize)
	for i := range ids {
		b = append(b, ids[i][:]...)
	}
	return b
}

func begin(kind Kind, topic [TopicSize]byte, rest int) []byte {
	b := make([]byte, 0, Prefix+head+rest)
	b = binary.BigEndian.AppendUint32(b, uint32(head+rest))
	return append(append(b, byte(kind)), topic[:]...)
}
