package wire

import "crypto/mlkem"

// DMBody is the content of a direct message of one of the kinds that rooms do
// not have: *RoomSecretBody, *RecordsBody, *JoinRequestBody, *ContactBody,
// *RoomLogBody, *RoomWantedBody, *RoomRefusedBody. For the kinds that
// rooms share, see DMKind.EventKind, EncodeBody and ParseBody.
type DMBody interface {
	// DMKind returns the kind whose content this is.
	DMKind() DMKind
	encodeBody(e *encoder)
	decodeBody(d *decoder)
	checkBody() error
}

// RoomSecretBody hands over the secret of one epoch of a private room. It is
// accepted only if the membership log lists the sender with the right to give
// it and the log's topic key for the epoch is the one the secret yields.
//
// Encoding: {1 room 32, 2 epoch varint, 3 secret 32}.
type RoomSecretBody struct {
	Room   RoomID
	Epoch  uint32
	Secret RoomSecret
}

// RecordsBody carries the sender's newest records, each as encoded and signed.
//
// Encoding: {1 device list, 2 prekey record, 3 restart prekey}.
type RecordsBody struct {
	DeviceList   []byte // may be empty
	PrekeyRecord []byte // may be empty
	// Restart is made for the recipient alone, so that it can begin a new
	// session when this one is lost and no record can be had. Nil if none.
	Restart *RestartPrekey
}

// RestartPrekey is a prekey that its owner's session hands to one contact; the
// session vouches for it, so it is not signed.
//
// Encoding: {1 prekey id varint, 2 prekey 32, 3 kem key 1184}.
type RestartPrekey struct {
	PrekeyID uint32 // from the same numbers as PrekeyRecord's; never used twice
	Prekey   [32]byte
	KEM      []byte
}

// maxRestartPrekey bounds an encoded RestartPrekey, in bytes.
const maxRestartPrekey = mlkem.EncapsulationKeySize768 + 64

// JoinRequestBody redeems an invite with a member.
//
// Encoding: {1 invite as InviteLink.Payload}.
type JoinRequestBody struct{ Invite []byte }

// ContactBody asks a stranger to become a contact; it is the first message to
// them.
//
// Encoding: {1 nick, 2 token 16, 3 text}.
type ContactBody struct {
	Nick  string      // a claim; may be empty
	Token InviteToken // of their ContactLink; zero if none
	Text  string      // what the request says, at most MaxAbout bytes
}

// DMKind implements DMBody.
func (*ContactBody) DMKind() DMKind { return DMContact }

// DMKind implements DMBody.
func (*RoomSecretBody) DMKind() DMKind { return DMRoomSecret }

// DMKind implements DMBody.
func (*RecordsBody) DMKind() DMKind { return DMRecords }

// DMKind implements DMBody.
func (*JoinRequestBody) DMKind() DMKind { return DMJoinRequest }

// EncodeDMBody returns the canonical content for DMContent.Body.
func EncodeDMBody(b DMBody) ([]byte, error) {
	if err := b.checkBody(); err != nil {
		return nil, err
	}
	var e encoder
	b.encodeBody(&e)
	return e.b, nil
}

// ParseDMBody decodes DMContent.Body for the kinds of DMBody. Other kinds give
// ErrUnsupported.
func ParseDMBody(k DMKind, content []byte) (DMBody, error) {
	var b DMBody
	switch k {
	case DMRoomSecret:
		b = &RoomSecretBody{}
	case DMRecords:
		b = &RecordsBody{}
	case DMJoinRequest:
		b = &JoinRequestBody{}
	case DMContact:
		b = &ContactBody{}
	case DMRoomLog:
		b = &RoomLogBody{}
	case DMRoomWanted:
		b = &RoomWantedBody{}
	case DMRoomRefused:
		b = &RoomRefusedBody{}
	default:
		return nil, unsupportedf("direct message of kind %d", k)
	}
	d := newDecoder("direct message body", content, MaxDMBody)
	for d.next() {
		b.decodeBody(d)
	}
	if d.err == nil {
		d.check(b.checkBody())
	}
	if err := d.finish(); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *RoomSecretBody) encodeBody(e *encoder) {
	e.id(1, b.Room[:])
	e.uint(2, uint64(b.Epoch))
	e.id(3, b.Secret[:])
}

func (b *RoomSecretBody) decodeBody(d *decoder) {
	switch d.num {
	case 1:
		d.id(b.Room[:])
	case 2:
		b.Epoch = uint32(d.uint(1<<32 - 1))
	case 3:
		d.id(b.Secret[:])
	default:
		d.unknown()
	}
}

func (b *RoomSecretBody) checkBody() error {
	if b.Room.IsZero() || b.Secret == (RoomSecret{}) {
		return invalidf("room secret without a room or secret")
	}
	return nil
}

func (b *RecordsBody) encodeBody(e *encoder) {
	e.bytes(1, b.DeviceList)
	e.bytes(2, b.PrekeyRecord)
	if b.Restart != nil {
		var in encoder
		in.uint(1, uint64(b.Restart.PrekeyID))
		in.id(2, b.Restart.Prekey[:])
		in.bytes(3, b.Restart.KEM)
		e.bytes(3, in.b)
	}
}

func (b *RecordsBody) decodeBody(d *decoder) {
	switch d.num {
	case 1:
		b.DeviceList = d.bytes(MaxRecord)
	case 2:
		b.PrekeyRecord = d.bytes(MaxRecord)
	case 3:
		b.Restart = d.restartPrekey()
	default:
		d.unknown()
	}
}

func (b *RecordsBody) checkBody() error {
	switch {
	case len(b.DeviceList)+len(b.PrekeyRecord) == 0 && b.Restart == nil:
		return invalidf("no records")
	case len(b.DeviceList) > MaxRecord, len(b.PrekeyRecord) > MaxRecord:
		return invalidf("record over %d bytes", MaxRecord)
	case b.Restart != nil && (b.Restart.PrekeyID == 0 || allZero(b.Restart.Prekey[:]) || len(b.Restart.KEM) != mlkem.EncapsulationKeySize768):
		return invalidf("restart prekey without one of its keys")
	}
	return nil
}

func (d *decoder) restartPrekey() *RestartPrekey {
	in := newDecoder("restart prekey", d.bytes(maxRestartPrekey), maxRestartPrekey)
	r := &RestartPrekey{}
	for d.err == nil && in.next() {
		switch in.num {
		case 1:
			r.PrekeyID = uint32(in.uint(1<<32 - 1))
		case 2:
			in.id(r.Prekey[:])
		case 3:
			r.KEM = in.bytes(mlkem.EncapsulationKeySize768)
		default:
			in.unknown()
		}
	}
	d.check(in.finish())
	return r
}

func (b *JoinRequestBody) encodeBody(e *encoder) { e.bytes(1, b.Invite) }

func (b *JoinRequestBody) decodeBody(d *decoder) {
	if d.num != 1 {
		d.unknown()
		return
	}
	b.Invite = d.bytes(MaxLink)
}

func (b *JoinRequestBody) checkBody() error {
	if len(b.Invite) == 0 || len(b.Invite) > MaxLink {
		return invalidf("invite of %d bytes, want 1 to %d", len(b.Invite), MaxLink)
	}
	return nil
}

func (b *ContactBody) encodeBody(e *encoder) {
	e.string(1, b.Nick)
	e.id(2, b.Token[:])
	e.string(3, b.Text)
}

func (b *ContactBody) decodeBody(d *decoder) {
	switch d.num {
	case 1:
		b.Nick = d.string(MaxNick)
	case 2:
		d.id(b.Token[:])
	case 3:
		b.Text = d.string(MaxAbout)
	default:
		d.unknown()
	}
}

func (b *ContactBody) checkBody() error {
	if b.Nick != "" {
		if err := CheckNick(b.Nick); err != nil {
			return err
		}
	}
	return checkText("request", b.Text, MaxAbout)
}
