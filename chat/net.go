package chat

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/starling-chat/starling/chat/wire"
)

// This file is everything chat needs from the world outside it. node implements these
// interfaces on libp2p, chattest in memory; chat itself never sees a host, a stream of a
// particular transport, or a system clock.

// ErrUnreachable says that no path to a device was found in the time allowed.
var ErrUnreachable = errors.New("device is unreachable")

// Incoming is one sealed event as a topic's subscription delivered it. Sealed has passed
// [wire.CheckSealed] for its topic: its form and topic signature hold, nothing more is known.
type Incoming struct {
	Sealed *wire.Sealed
	From   wire.DeviceID // the neighbour that forwarded it, not its author
}

// Gossip is the fast, lossy way to everybody in a room. A message may be lost, duplicated or
// late without any error: what must arrive is the business of sync.
type Gossip interface {
	// Join subscribes to the topic of keys and makes the room findable. deliver is called for one
	// event of a topic at a time, in order of arrival, without duplicates within the
	// implementation's memory; it must not block. Own publishes are not delivered.
	// Joining a joined topic replaces deliver.
	Join(ctx context.Context, keys *wire.RoomKeys, deliver func(Incoming)) error
	// Leave undoes Join. It is idempotent; after it returns deliver is not called again.
	Leave(topic wire.TopicKey)
	// Publish offers sealed bytes to the neighbours of a joined topic, relays among them. A nil error
	// says that they were handed to at least one, not that anybody has them; ErrUnreachable that
	// nobody else takes part at the moment.
	Publish(ctx context.Context, topic wire.TopicKey, sealed []byte) error
	// Peers lists the devices known to take part in the topic and connected now, relays excluded.
	Peers(topic wire.TopicKey) []wire.DeviceID
}

// Direct is the ordered way to one device: one persistent authenticated stream per peer with
// coalesced writes.
type Direct interface {
	// Send hands frames (at most [wire.MaxFrame] bytes each) to the stream to a device, opening
	// it over the best path first if need be: a direct one within a short deadline, then a relayed one.
	// nil says that the bytes left this process, not that they arrived. ErrUnreachable: no path
	// before ctx ended; some frames may have left all the same. Frames of one sender arrive in order or
	// not at all; a broken stream loses a suffix.
	Send(ctx context.Context, to wire.DeviceID, frames ...[]byte) error
	// Open opens a stream of its own for a bulk protocol such as /starling/sync/1.
	Open(ctx context.Context, to wire.DeviceID, protocol string) (Stream, error)
	// Path says how a device is reached now; PathNone when it is not connected.
	Path(to wire.DeviceID) Path
	// Hint remembers addresses (multiaddr texts) at which a device may be found.
	Hint(to wire.DeviceID, addrs []string)
}

// Prober is what a [Direct] may be besides: it can find out whether the connections to a device still work,
// and end those that do not.
type Prober interface {
	// Probe begins to ask, and returns at once. It is called when something that was sent is not answered.
	Probe(to wire.DeviceID)
}

// Directory finds devices by a 32-byte rendezvous key in whatever lookup the node has (a DHT).
type Directory interface {
	// Announce keeps this device findable under key until ctx ends.
	Announce(ctx context.Context, key [32]byte)
	// Find asks once; an empty answer with a nil error means that nobody announced, or nobody answered.
	Find(ctx context.Context, key [32]byte) ([]wire.DeviceID, error)
}

// Records is what a [Directory] may be besides: a table of signed records that outlives who left them.
type Records interface {
	// PutRecord leaves a record under its key, once, with whoever keeps that part of the table. A nil
	// error says that they were asked, not that any of them kept it.
	PutRecord(ctx context.Context, key wire.RecordKey, value []byte) error
	// GetRecord returns the newest record found under key, unverified, or ErrNotFound.
	GetRecord(ctx context.Context, key wire.RecordKey) ([]byte, error)
}

// Relays lists the public relays that keep things for those who are away. A relay speaks the sync
// protocol as a mirror, which shows no proof of membership, and [wire.MailboxProtocol]; both over
// [Direct].Open.
type Relays interface {
	// Relays lists the relays that the user trusts and that are connected now. Whoever implements it SHOULD call
	// [Service.RelaysChanged] when the list changes; it is looked at every second besides.
	Relays() []wire.DeviceID
	// Mirrors lists those of them that keep a joined topic's events now.
	Mirrors(topic wire.TopicKey) []wire.DeviceID
	// Address returns an address (a multiaddr text) at which others can reach a relay, or "".
	Address(relay wire.DeviceID) string
}

// Stream is a reliable byte stream to one device. Close ends both directions; deadlines as in net.Conn.
type Stream interface {
	io.ReadWriteCloser
	SetDeadline(t time.Time) error
	// Reset abandons the stream at once and makes the other side's reads fail.
	Reset() error
}

// Clock is the wall clock. Durations and tickers come from package time, which is virtual under
// testing/synctest; only wall-clock readings differ from node to node.
type Clock interface {
	Now() time.Time
}

// Path is how the traffic to a device travels.
type Path string

// The paths, from best to worst. Punched is a direct connection that hole punching made.
const (
	PathNone    Path = ""
	PathLAN     Path = "lan"
	PathDirect  Path = "direct"
	PathPunched Path = "punched"
	PathRelayed Path = "relayed"
)
