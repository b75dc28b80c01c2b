package chat

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	roomsync "github.com/starling-chat/starling/chat/sync"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// This file is how chat's state lies in the store's buckets. Rows that change with every message are
// binary, the others JSON; every row begins with its version.

// Buckets and what their keys are.
const (
	bucketRooms    = "rooms"    // room: roomRow
	bucketState    = "state"    // room: stateRow
	bucketMembers  = "members"  // room, account: memberRow
	bucketDevices  = "devices"  // room, device: deviceRow
	bucketWaiting  = "waiting"  // room, event: waitingRow
	bucketEvents   = "events"   // stream, event: indexRow
	bucketModifier = "modifier" // stream, event, class, clock, sealed id: modifierRow
	bucketClients  = "clients"  // conversation, SHA-256 of the client id: message id
	bucketProfile  = "profile"  // name: text
	bucketSettings = "settings" // front-end's key: text
	bucketContacts = "contacts" // account: contactRow
	bucketDialogs  = "dialogs"  // account: dialogRow
	bucketOutState = "outstate" // message id: how far an own direct message came
)

const rowVersion = 1

// roomRow is what makes a room joinable again. It is kept after leaving, so that the device's
// sequence goes on where it ended.
type roomRow struct {
	Version  int             `json:"v"`
	Name     string          `json:"name"`
	Access   string          `json:"access"`
	Secret   wire.RoomSecret `json:"secret"`
	Joined   bool            `json:"joined"`
	JoinedAt time.Time       `json:"joined_at"`
	Muted    bool            `json:"muted,omitempty"`
	Keep     *Retention      `json:"keep,omitempty"` // nil: what holds for all rooms
}

// stateRow is a room's state that changes with every message.
type stateRow struct {
	Version   int          `json:"v"`
	Seq       uint64       `json:"seq"`       // own last sequence number
	Previous  wire.EventID `json:"previous"`  // own last event
	Clock     wire.HLC     `json:"clock"`     // own last clock reading
	Arrival   uint64       `json:"arrival"`   // the last arrival that this state includes
	Read      uint64       `json:"read"`      // read up to this arrival
	Unread    int          `json:"unread"`    // since
	Mentions  int          `json:"mentions"`  // since
	LastAt    time.Time    `json:"last_at"`   // when the newest message arrived
	Published uint64       `json:"published"` // own records up to this arrival were handed to the network
	Profile   time.Time    `json:"profile"`   // when the own profile was last said
	Topic     string       `json:"topic"`
	TopicAt   stamp        `json:"topic_at"`
	Heads     []head       `json:"heads"`
	Floor     uint64       `json:"floor"`          // start of the history that is held, a clock reading
	Paged     bool         `json:"paged"`          // the recent history was fetched once
	Kept      uint64       `json:"kept,omitempty"` // what is older was removed for good, a clock reading

	// How far own messages came; see standing.go. Sequence numbers, clock readings and arrivals, as
	// intervals.
	Held   []roomsync.Interval `json:"held,omitempty"` // own numbers a member signed for
	Left   []roomsync.Interval `json:"left,omitempty"` // arrivals that were left to sync
	Synced []syncedRow         `json:"synced,omitempty"`
}

// syncedRow is what sync showed about the own events of one topic, as intervals of clock readings.
type syncedRow struct {
	Topic    wire.TopicKey       `json:"topic"`
	Mirrored []roomsync.Interval `json:"mirrored,omitempty"` // a mirror has everything of
	Handed   []roomsync.Interval `json:"handed,omitempty"`   // went out by sync
}

// memberRow is one account of a room.
type memberRow struct {
	Version int             `json:"v"`
	Nick    string          `json:"nick,omitempty"`
	NickAt  stamp           `json:"nick_at"`
	Present bool            `json:"present"`
	At      stamp           `json:"at"`
	Seen    wire.HLC        `json:"seen"`
	Devices []wire.DeviceID `json:"devices"`
}

// deviceRow is what is known of one device's sequence in a room.
type deviceRow struct {
	Version int            `json:"v"`
	Account wire.AccountID `json:"account"`
	Spans   []span         `json:"spans"`
	Gone    uint64         `json:"gone,omitempty"` // numbers up to this one may be here as ids only
	Read    uint64         `json:"read,omitempty"` // this device has read own numbers up to this one
}

// waitingRow is an unknown event that known ones name.
type waitingRow struct {
	Version  int            `json:"v"`
	Account  wire.AccountID `json:"account"`
	Counted  bool           `json:"counted"`
	Children []child        `json:"children"`
}

// encodeRow writes a row as JSON. The row types have no value that cannot be encoded.
func encodeRow(row any) []byte {
	b, err := json.Marshal(row)
	if err != nil {
		panic(fmt.Sprintf("encoding %T: %v", row, err)) // a defect of this package, not of its input
	}
	return b
}

// decodeRow reads a row of version 1.
func decodeRow[T any](what string, b []byte) (T, error) {
	var row T
	var head struct {
		Version int `json:"v"`
	}
	err := json.Unmarshal(b, &head)
	if err == nil && head.Version != rowVersion {
		err = fmt.Errorf("version %d, want %d: %w", head.Version, rowVersion, storage.ErrNewer)
	}
	if err == nil {
		err = json.Unmarshal(b, &row)
	}
	if err != nil {
		return row, fmt.Errorf("reading stored %s: %w", what, err)
	}
	return row, nil
}

// Flags of a record in a room's stream; see [storage.Record].
const (
	recordShown  uint8 = 1 << iota // it is a line of the conversation
	recordText                     // and a message, which counts as unread and in the digest
	recordOwn                      // this account made it
	recordBodily                   // its body is not here
	recordHidden                   // it is in the set and means nothing: it does not open or verify
)

// Flags of an indexRow.
const (
	indexBackDated uint8 = 1 << iota
	indexRefused
	indexVoid // its author was no member: see room.judge
)

// indexRow finds an event's record. Encoding: version, kind, record flags, index flags, clock 8,
// received 8 (Unix ms), sealed id 32, client id.
type indexRow struct {
	Kind     wire.Kind
	Record   uint8
	Flags    uint8
	Clock    wire.HLC
	Received time.Time
	Sealed   wire.SealedID
	ClientID string
}

const indexRowSize = 4 + 8 + 8 + 32

func (r indexRow) encode() []byte {
	b := make([]byte, 0, indexRowSize+len(r.ClientID))
	b = append(b, rowVersion, byte(r.Kind), r.Record, r.Flags)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Clock))
	b = binary.BigEndian.AppendUint64(b, uint64(r.Received.UnixMilli()))
	b = append(b, r.Sealed[:]...)
	return append(b, r.ClientID...)
}

func decodeIndexRow(b []byte) (indexRow, error) {
	if len(b) < indexRowSize || b[0] != rowVersion {
		return indexRow{}, fmt.Errorf("reading stored event index of %d bytes: %w", len(b), storage.ErrCorrupt)
	}
	r := indexRow{
		Kind: wire.Kind(b[1]), Record: b[2], Flags: b[3],
		Clock: wire.HLC(binary.BigEndian.Uint64(b[4:])), ClientID: string(b[indexRowSize:]),
		Received: time.UnixMilli(int64(binary.BigEndian.Uint64(b[12:]))).UTC(),
	}
	copy(r.Sealed[:], b[20:])
	return r, nil
}

// position returns where the event's record lies.
func (r indexRow) position() storage.Position {
	return storage.Position{Time: uint64(r.Clock), ID: storage.ID(r.Sealed)}
}

// modifierRow is a modifier under the event it is about. Encoding: version, kind, flags, account 32,
// event 32, text; the stamp is in the key.
const modifierRowSize = 3 + 32 + 32

const (
	modifierRemove uint8 = 1 << iota
	modifierNames
)

const modifierKeySize = 8 + 32 + 1 + 8 + 32

// key returns where the modifier of an event lies. Redactions come first, so that no flood of others
// keeps them from being read.
func (m *modifier) key(stream storage.StreamID, target wire.EventID) []byte {
	k := make([]byte, 0, modifierKeySize)
	k = append(append(k, stream[:]...), target[:]...)
	class := byte(1)
	if m.Kind == wire.KindRedact {
		class = 0
	}
	k = binary.BigEndian.AppendUint64(append(k, class), uint64(m.At.HLC))
	return append(k, m.At.Sealed[:]...)
}

func (m *modifier) encode() []byte {
	b := make([]byte, 0, modifierRowSize+len(m.Text))
	var flags uint8
	if m.Remove {
		flags |= modifierRemove
	}
	if m.Names {
		flags |= modifierNames
	}
	b = append(b, rowVersion, byte(m.Kind), flags)
	b = append(append(b, m.Account[:]...), m.ID[:]...)
	return append(b, m.Text...)
}

// decodeModifier reads a modifier and the event it is about from its key and row.
func decodeModifier(key, b []byte) (target wire.EventID, m modifier, err error) {
	if len(key) != modifierKeySize || len(b) < modifierRowSize || b[0] != rowVersion {
		return target, m, fmt.Errorf("reading stored modifier of %d bytes: %w", len(b), storage.ErrCorrupt)
	}
	copy(target[:], key[8:])
	m.At.HLC = wire.HLC(binary.BigEndian.Uint64(key[41:]))
	copy(m.At.Sealed[:], key[49:])
	m.Kind, m.Remove, m.Names = wire.Kind(b[1]), b[2]&modifierRemove != 0, b[2]&modifierNames != 0
	copy(m.Account[:], b[3:])
	copy(m.ID[:], b[35:])
	m.Text = string(b[modifierRowSize:])
	return target, m, nil
}

// joinKey returns a bucket key made of fixed-size parts.
func joinKey(parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	k := make([]byte, 0, n)
	for _, p := range parts {
		k = append(k, p...)
	}
	return k
}
