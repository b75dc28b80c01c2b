package wire

// The bodies of direct messages about private rooms, besides RoomSecretBody and
// JoinRequestBody.

// RoomLogBody hands over membership events, whole: each proves its author, so
// the receiver needs no secret of the epochs under which they were said.
//
// Encoding: {1 room 32, 2 events (repeated): as Event.Bytes}.
type RoomLogBody struct {
	Room   RoomID
	Events [][]byte
}

// RoomWantedBody asks a member for what the sender lacks: membership events by
// id, with all before them, and the secrets of epochs.
//
// Encoding: {1 room 32, 2 ids 32 (repeated), 3 secrets flag}.
type RoomWantedBody struct {
	Room    RoomID
	IDs     []EventID
	Secrets bool // the newest epoch's, and those before that the sender may have
}

// RefusalCode says why an invite was not taken. Unknown codes count as
// RefusedDenied.
type RefusalCode uint8

// The codes of version 1.
const (
	RefusedDenied  RefusalCode = 1 // the account is banned, or may not be let in
	RefusedExpired RefusalCode = 2
	RefusedUsed    RefusalCode = 3
	RefusedRevoked RefusalCode = 4
	RefusedInviter RefusalCode = 5 // the inviter is no member with the right any more
	RefusedForged  RefusalCode = 6 // its signature does not hold
)

// RoomRefusedBody answers a join request that was not taken.
//
// Encoding: {1 room 32, 2 token 16, 3 code varint}.
type RoomRefusedBody struct {
	Room  RoomID
	Token InviteToken
	Code  RefusalCode
}

// DMKind implements DMBody.
func (*RoomLogBody) DMKind() DMKind { return DMRoomLog }

// DMKind implements DMBody.
func (*RoomWantedBody) DMKind() DMKind { return DMRoomWanted }

// DMKind implements DMBody.
func (*RoomRefusedBody) DMKind() DMKind { return DMRoomRefused }

func (b *RoomLogBody) encodeBody(e *encoder) {
	e.id(1, b.Room[:])
	for _, ev := range b.Events {
		e.bytes(2, ev)
	}
}

func (b *RoomLogBody) decodeBody(d *decoder) {
	switch d.num {
	case 1:
		d.id(b.Room[:])
	case 2:
		b.Events = append(b.Events, d.item(MaxDMBody, len(b.Events), MaxRoomLogEvents))
	default:
		d.unknown()
	}
}

func (b *RoomLogBody) checkBody() error {
	if b.Room.IsZero() || len(b.Events) == 0 || len(b.Events) > MaxRoomLogEvents {
		return invalidf("room log without a room, or of %d events", len(b.Events))
	}
	for _, ev := range b.Events {
		if len(ev) == 0 {
			return invalidf("empty event")
		}
	}
	return nil
}

func (b *RoomWantedBody) encodeBody(e *encoder) {
	e.id(1, b.Room[:])
	for i := range b.IDs {
		e.bytes(2, b.IDs[i][:])
	}
	e.flag(3, b.Secrets)
}

func (b *RoomWantedBody) decodeBody(d *decoder) {
	switch d.num {
	case 1:
		d.id(b.Room[:])
	case 2:
		var id EventID
		v := d.item(len(id), len(b.IDs), MaxRoomLogEvents)
		d.copyID(id[:], v)
		b.IDs = append(b.IDs, id)
	case 3:
		b.Secrets = d.flag()
	default:
		d.unknown()
	}
}

func (b *RoomWantedBody) checkBody() error {
	if b.Room.IsZero() || len(b.IDs) == 0 && !b.Secrets || len(b.IDs) > MaxRoomLogEvents {
		return invalidf("nothing wanted, or %d events", len(b.IDs))
	}
	for i := range b.IDs {
		if b.IDs[i].IsZero() {
			return invalidf("zero event id")
		}
	}
	return nil
}

func (b *RoomRefusedBody) encodeBody(e *encoder) {
	e.id(1, b.Room[:])
	e.id(2, b.Token[:])
	e.uint(3, uint64(b.Code))
}

func (b *RoomRefusedBody) decodeBody(d *decoder) {
	switch d.num {
	case 1:
		d.id(b.Room[:])
	case 2:
		d.id(b.Token[:])
	case 3:
		b.Code = RefusalCode(d.uint(255))
	default:
		d.unknown()
	}
}

func (b *RoomRefusedBody) checkBody() error {
	if b.Room.IsZero() || b.Token == (InviteToken{}) || b.Code == 0 {
		return invalidf("refusal without a room, token or code")
	}
	return nil
}
