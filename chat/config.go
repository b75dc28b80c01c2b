package chat

import (
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/starling-chat/starling/chat/identity"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// Config is what a [Service] is made of. Network, Device, Certificate, Store, Gossip, Direct and
// Directory are required.
type Config struct {
	// Network is the network's name; public rooms of the same name on other networks are others.
	Network string
	// Device holds the device's keys: the signing key behind its peer id, and the agreement key.
	Device *identity.Device
	// Certificate returns the proof, valid at a time, that Device speaks for its account; the account
	// must always be the same. See identity.Keys.Certificate.
	Certificate func(now time.Time) (wire.Certificate, error)
	// SignDeviceList signs the account's device list and returns its encoding; nil publishes none. See
	// identity.Account.SignDeviceList.
	SignDeviceList func(*wire.DeviceList) ([]byte, error)
	// Store holds everything; the service does not close it.
	Store *storage.Store
	// Gossip, Direct and Directory are the network.
	Gossip    Gossip
	Direct    Direct
	Directory Directory
	// Relays are the relays that keep things for those who are away; nil when there are none.
	Relays Relays
	// Clock is the wall clock; nil is the system's.
	Clock Clock
	// Rand yields keys, ids and salts; nil is crypto/rand. Anything else is for tests.
	Rand io.Reader
	// Logger gets what an operator may want to know; nil discards it.
	Logger *slog.Logger
	// Limits bound what peers and callers can make this node do; zero fields take their default.
	Limits Limits
	// AcceptStrangers takes direct messages of people the user does not know as if they had been
	// accepted: for bots. Otherwise they wait in the requests inbox, bounded, until the user answers.
	AcceptStrangers bool
	// RoomSecret derives the secret of a public room; nil is wire.PublicRoomSecret, which takes a tenth
	// of a second. Anything else is for tests.
	RoomSecret func(network, name, password string) (wire.RoomSecret, error)
	// Addrs returns this node's own addresses (multiaddr texts) for links; nil means none.
	Addrs func() []string
}

// Limits bound a [Service]. The zero value of a field is its default.
type Limits struct {
	// Rooms is the most rooms joined at once (256). Each costs a goroutine, about 64 KiB and its share
	// of gossip.
	Rooms int
	// IncomingQueue is how many events of a room may wait for its owner (4096). When it is full, events
	// are dropped and counted, and sync fetches them. Raising it costs up to 64 KiB an entry.
	IncomingQueue int
	// SubmitQueue is how many messages may wait to be accepted in a conversation (1024); callers wait
	// when it is full.
	SubmitQueue int
	// PublishWindow is how many own events may be on their way to the neighbours of a room without
	// their acknowledgement (512). It must stay well below the neighbours' queues.
	PublishWindow int
	// PublishRate is how many own events a second are handed to neighbours that do not acknowledge
	// (200), such as a relay; what a relay drops beyond it comes by sync.
	PublishRate int
	// AuthorRate and AuthorBurst bound what is taken from one author in one room: events a second
	// (50) and events at once (30,000).
	AuthorRate  float64
	AuthorBurst float64
	// AuthorBytes bounds the bytes at once of one author in one room (64 MiB); they come back at a
	// thousandth of it a second.
	AuthorBytes float64
	// Deferred is the most events of one room that wait because their clock is ahead (1024).
	Deferred int
	// Outbox bounds the unacknowledged direct messages to one account: how many (20,000) and their
	// bytes (64 MiB).
	Outbox      int
	OutboxBytes int
	// OutboxLife is when an undelivered direct message is given up (14 days).
	OutboxLife time.Duration
	// RequestMessages and RequestBytes bound what a stranger may write before being accepted (5, 4 KiB).
	RequestMessages int
	RequestBytes    int
	// Strangers is how many new strangers an hour may write (20).
	Strangers int
	// EventLog and EventLogBytes bound the events kept for subscribers that fall behind (16,384, 8 MiB).
	EventLog      int
	EventLogBytes int
	// History is how far back a newcomer is offered a room's history: age (7 days) and events (2,000).
	HistoryAge    time.Duration
	HistoryEvents int
}

// DefaultLimits fit a laptop.
func DefaultLimits() Limits {
	return Limits{
		Rooms: 256, IncomingQueue: 4096, SubmitQueue: 1024, PublishWindow: 512, PublishRate: 200,
		AuthorRate: 50, AuthorBurst: 30_000, AuthorBytes: 64 << 20, Deferred: 1024,
		Outbox: 20_000, OutboxBytes: 64 << 20, OutboxLife: 14 * 24 * time.Hour,
		RequestMessages: 5, RequestBytes: 4 << 10, Strangers: 20,
		EventLog: 16_384, EventLogBytes: 8 << 20,
		HistoryAge: 7 * 24 * time.Hour, HistoryEvents: 2000,
	}
}

func setDefault[T int | float64 | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// fill puts the defaults where nothing was set.
func (l *Limits) fill() {
	d := DefaultLimits()
	setDefault(&l.Rooms, d.Rooms)
	setDefault(&l.IncomingQueue, d.IncomingQueue)
	setDefault(&l.SubmitQueue, d.SubmitQueue)
	setDefault(&l.PublishWindow, d.PublishWindow)
	setDefault(&l.PublishRate, d.PublishRate)
	setDefault(&l.AuthorRate, d.AuthorRate)
	setDefault(&l.AuthorBurst, d.AuthorBurst)
	setDefault(&l.AuthorBytes, d.AuthorBytes)
	setDefault(&l.Deferred, d.Deferred)
	setDefault(&l.Outbox, d.Outbox)
	setDefault(&l.OutboxBytes, d.OutboxBytes)
	setDefault(&l.OutboxLife, d.OutboxLife)
	setDefault(&l.RequestMessages, d.RequestMessages)
	setDefault(&l.RequestBytes, d.RequestBytes)
	setDefault(&l.Strangers, d.Strangers)
	setDefault(&l.EventLog, d.EventLog)
	setDefault(&l.EventLogBytes, d.EventLogBytes)
	setDefault(&l.HistoryAge, d.HistoryAge)
	setDefault(&l.HistoryEvents, d.HistoryEvents)
}

// systemClock is the machine's wall clock.
type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

// fill checks the configuration and puts the defaults in.
func (c *Config) fill() error {
	switch {
	case c.Store == nil || c.Gossip == nil || c.Direct == nil || c.Directory == nil:
		return errors.New("store, gossip, direct and directory are required")
	case c.Device == nil || c.Certificate == nil:
		return errors.New("device and certificate are required")
	}
	if err := wire.CheckNetworkName(c.Network); err != nil {
		return err
	}
	if c.Clock == nil {
		c.Clock = systemClock{}
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.RoomSecret == nil {
		c.RoomSecret = publicRoomSecret
	}
	if c.Addrs == nil {
		c.Addrs = func() []string { return nil }
	}
	c.Limits.fill()
	return nil
}

// publicRoomSecret is wire.PublicRoomSecret, and gives the 64 MiB that it took back to the system at
// once: a program that stays small otherwise would keep them for minutes.
func publicRoomSecret(network, name, password string) (wire.RoomSecret, error) {
	secret, err := wire.PublicRoomSecret(network, name, password)
	debug.FreeOSMemory()
	return secret, err
}
