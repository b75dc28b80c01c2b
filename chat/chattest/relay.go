package chattest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/starling-chat/starling/chat"
	roomsync "github.com/starling-chat/starling/chat/sync"
	"github.com/starling-chat/starling/chat/sync/drive"
	"github.com/starling-chat/starling/chat/wire"
)

// Relay is a relay that mirrors every room of its network and keeps mailboxes, as node/relay does. It
// can be reached by every node while it is up.
type Relay struct {
	net *Network
	id  wire.DeviceID
	key ed25519.PrivateKey

	mu     sync.Mutex // guards everything below
	up     bool
	quota  int  // deposits in one mailbox
	forge  bool // receipts carry no valid signature
	rooms  map[wire.TopicKey]*mirrored
	boxes  map[wire.MailboxID]*box
	counts RelayStats
}

// RelayStats counts what a relay was asked for.
type RelayStats struct {
	Sessions  int // of sync
	Deposits  int // taken, repeated ones included
	Refused   int // deposits refused
	Collected int // deposits handed out
	Deleted   int
}

// mirrored is the set of one topic.
type mirrored struct {
	set    *roomsync.Snapshot
	sealed map[roomsync.ID][]byte
}

// box is one mailbox.
type box struct {
	order []wire.DepositID
	mail  map[wire.DepositID][]byte
}

// Relay adds a relay, which is up.
func (n *Network) Relay() *Relay {
	n.t.Helper()
	_, key, err := ed25519.GenerateKey(n.reader())
	if err != nil {
		n.t.Fatal(err)
	}
	r := &Relay{
		net: n, key: key, id: wire.DeviceID(key.Public().(ed25519.PublicKey)), up: true, quota: 20_000,
		rooms: make(map[wire.TopicKey]*mirrored), boxes: make(map[wire.MailboxID]*box),
	}
	n.mu.Lock()
	n.relays = append(n.relays, r)
	n.mu.Unlock()
	n.relaysChanged()
	return r
}

// relaysChanged tells the nodes that are up.
func (n *Network) relaysChanged() {
	n.mu.Lock()
	list := slices.DeleteFunc(slices.Clone(n.order), func(nd *Node) bool { return !nd.running })
	n.mu.Unlock()
	for _, nd := range list {
		nd.svc.RelaysChanged()
	}
}

// ID returns the relay's device.
func (r *Relay) ID() wire.DeviceID { return r.id }

// Set brings the relay up or down. What it keeps stays.
func (r *Relay) Set(up bool) {
	r.mu.Lock()
	r.up = up
	r.mu.Unlock()
	r.net.relaysChanged()
}

// Quota bounds the deposits of one mailbox from now on.
func (r *Relay) Quota(deposits int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.quota = deposits
}

// Forge makes the relay sign receipts with a key that is not its own.
func (r *Relay) Forge() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forge = true
}

// Count returns what the relay was asked for.
func (r *Relay) Count() RelayStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts
}

// Mail returns how many deposits lie in the relay's mailboxes.
func (r *Relay) Mail() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, b := range r.boxes {
		n += len(b.order)
	}
	return n
}

// Kept returns how many events of a topic the relay keeps.
func (r *Relay) Kept(topic wire.TopicKey) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.room(topic).set.Len()
}

func (r *Relay) isUp() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.up
}

// room returns a topic's set; mu is held.
func (r *Relay) room(topic wire.TopicKey) *mirrored {
	m := r.rooms[topic]
	if m == nil {
		m = &mirrored{set: roomsync.NewSnapshot(nil), sealed: make(map[roomsync.ID][]byte)}
		r.rooms[topic] = m
	}
	return m
}

// keep stores a checked event.
func (r *Relay) keep(s *wire.Sealed) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.up || s.Ephemeral {
		return
	}
	m := r.room(s.Topic)
	id := roomsync.ID(s.ID)
	if m.set.Add(roomsync.Item{Time: roomsync.Time(s.HLC), ID: id}) {
		m.sealed[id] = s.Bytes()
	}
}

// serve answers a stream.
func (r *Relay) serve(from wire.DeviceID, protocol string, st chat.Stream) {
	var err error
	switch protocol {
	case roomsync.Protocol:
		err = r.serveSync(from, st)
	case wire.MailboxProtocol:
		err = r.serveMailbox(st)
	default:
		err = fmt.Errorf("unknown protocol %s", protocol)
	}
	if err != nil {
		_ = st.Reset()
		return
	}
	_ = st.Close()
}

func (r *Relay) serveSync(from wire.DeviceID, st chat.Stream) error {
	var nonce roomsync.Nonce
	if _, err := rand.Read(nonce[:]); err != nil {
		return err
	}
	r.mu.Lock()
	r.counts.Sessions++
	r.mu.Unlock()
	var topic wire.TopicKey
	check := wire.NewVerifier(wire.DefaultVerifierLimits())
	session := roomsync.NewResponder(roomsync.Link{
		Self: roomsync.PeerID(r.id.PeerID()), Peer: roomsync.PeerID(from.PeerID()), Nonce: nonce,
	})
	_, err := drive.Run(context.Background(), st, session, func(_ context.Context, effect roomsync.Effect) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		switch e := effect.(type) {
		case roomsync.OpenRoom:
			topic = wire.TopicKey(e.Topic)
			return session.Opened(roomsync.Room{
				Topic: e.Topic, Set: r.room(topic).set.View(), Cut: roomsync.TimeAt(time.Now().Add(-roomsync.CutDelay)),
				Proven: func(message, proof []byte) bool {
					return len(proof) == len(wire.Signature{}) && wire.VerifySync(topic, message, wire.Signature(proof))
				},
				Check: func(records []roomsync.Record) {
					for i := range records {
						s, err := check.CheckSealed(topic, records[i].Bytes)
						if records[i].Err = err; err == nil {
							records[i].Item = roomsync.Item{Time: roomsync.Time(s.HLC), ID: roomsync.ID(s.ID)}
						}
					}
				},
			})
		case roomsync.ReadRecords:
			list := make([][]byte, len(e.Items))
			for i, it := range e.Items {
				list[i] = r.room(topic).sealed[it.ID]
			}
			return session.Read(list)
		case roomsync.CommitRecords:
			m := r.room(topic)
			for _, rec := range e.Records {
				if m.set.Add(rec.Item) {
					m.sealed[rec.Item.ID] = slices.Clone(rec.Bytes)
				}
			}
			return session.Committed(make([]roomsync.Outcome, len(e.Records)))
		default:
			return fmt.Errorf("unknown effect %T", effect)
		}
	})
	return err
}

// relayIdle is how long a mailbox stream may say nothing.
const relayIdle = time.Minute

func (r *Relay) serveMailbox(st chat.Stream) error {
	for {
		if err := st.SetDeadline(time.Now().Add(relayIdle)); err != nil {
			return err
		}
		payload, err := wire.ReadFrame(st, wire.MaxFrame)
		if err != nil {
			return err
		}
		f, err := wire.ParseMailboxFrame(payload)
		if err != nil {
			return err
		}
		answer, err := wire.AppendFrame(nil, r.mailbox(f))
		if err != nil {
			return err
		}
		if _, err := st.Write(answer); err != nil {
			return err
		}
	}
}

func (r *Relay) mailbox(f wire.Frame) wire.Frame {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.up {
		return &wire.MailboxReceipt{Code: wire.RelayShuttingDown}
	}
	switch f := f.(type) {
	case *wire.MailboxDeposit:
		return r.deposit(f)
	case *wire.MailboxCollect:
		return r.collect(f)
	case *wire.MailboxDelete:
		if !wire.VerifyMailbox(f.Mailbox, r.id, f.Nonce, f.Proof) {
			return &wire.MailboxReceipt{Code: wire.RelayBadProof}
		}
		b := r.box(f.Mailbox)
		for _, id := range f.Deposits {
			if b.mail[id] != nil {
				r.counts.Deleted++
				delete(b.mail, id)
			}
		}
		b.order = slices.DeleteFunc(b.order, func(id wire.DepositID) bool { return b.mail[id] == nil })
		return &wire.MailboxReceipt{Code: wire.RelayOK}
	}
	return &wire.MailboxReceipt{Code: wire.RelayNotOffered}
}

// box returns a mailbox; mu is held.
func (r *Relay) box(id wire.MailboxID) *box {
	b := r.boxes[id]
	if b == nil {
		b = &box{mail: make(map[wire.DepositID][]byte)}
		r.boxes[id] = b
	}
	return b
}

func (r *Relay) deposit(f *wire.MailboxDeposit) wire.Frame {
	b, id := r.box(f.Mailbox), f.Deposit()
	if b.mail[id] == nil {
		if len(b.order) >= r.quota {
			r.counts.Refused++
			return &wire.MailboxReceipt{Code: wire.RelayQuota, Detail: "the mailbox is full"}
		}
		b.order, b.mail[id] = append(b.order, id), bytes.Clone(f.Envelope)
	}
	r.counts.Deposits++
	receipt := &wire.MailboxReceipt{Code: wire.RelayOK, Deposit: id, Expires: time.Now().Add(f.Keep).Truncate(time.Millisecond)}
	receipt.Sign(r.key, f.Mailbox)
	if r.forge {
		receipt.Signature[0] ^= 1
	}
	return receipt
}

func (r *Relay) collect(f *wire.MailboxCollect) wire.Frame {
	if !wire.VerifyMailbox(f.Mailbox, r.id, f.Nonce, f.Proof) {
		return &wire.MailboxItems{Code: wire.RelayBadProof}
	}
	b := r.box(f.Mailbox)
	out := &wire.MailboxItems{Code: wire.RelayOK}
	from := slices.Index(b.order, f.After) + 1
	size := 0
	for _, id := range b.order[from:] {
		if size += len(b.mail[id]) + 64; len(out.Items) == int(f.Limit) || len(out.Items) > 0 && size > wire.MaxFrame-64 {
			out.More = true
			break
		}
		out.Items = append(out.Items, wire.MailboxItem{Deposit: id, Envelope: b.mail[id]})
	}
	r.counts.Collected += len(out.Items)
	return out
}

// relay returns the relay of a device that is up, or nil.
func (n *Network) relay(id wire.DeviceID) *Relay {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.relays {
		if r.id == id && r.isUp() {
			return r
		}
	}
	return nil
}

// Relays implements chat.Relays: every relay that is up.
func (nd *Node) Relays() []wire.DeviceID {
	nd.net.mu.Lock()
	defer nd.net.mu.Unlock()
	var list []wire.DeviceID
	for _, r := range nd.net.relays {
		if nd.running && r.isUp() {
			list = append(list, r.id)
		}
	}
	return list
}

// Address implements chat.Relays: everybody finds a relay anyway.
func (nd *Node) Address(wire.DeviceID) string { return "" }

// Mirrors implements chat.Relays: every relay mirrors every room.
func (nd *Node) Mirrors(topic wire.TopicKey) []wire.DeviceID {
	nd.net.mu.Lock()
	joined := nd.topics[topic] != nil
	nd.net.mu.Unlock()
	if !joined {
		return nil
	}
	return nd.Relays()
}
