package relay

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"go.uber.org/goleak"

	"github.com/starling-chat/starling/chat/chattest"
	roomsync "github.com/starling-chat/starling/chat/sync"
	"github.com/starling-chat/starling/chat/sync/drive"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// topics is a Forwarder that remembers what it was asked.
type topics struct {
	mu     sync.Mutex // guards all below
	joined map[wire.TopicKey]bool
	passed []wire.SealedID
	late   int // so many times nobody has subscribed yet
}

func (f *topics) Subscribed(wire.TopicKey, peer.ID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.late > 0 {
		f.late--
		return false
	}
	return true
}

func (f *topics) Pass(_ context.Context, s *wire.Sealed) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.passed = append(f.passed, s.ID)
	return nil
}

func (f *topics) Forward(topic wire.TopicKey) (stop func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.joined[topic] = true
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.joined, topic)
	}, nil
}

func (f *topics) has(topic wire.TopicKey) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.joined[topic]
}

// world is a relay and one client, connected over loopback.
type world struct {
	t       *testing.T
	server  *Server
	archive *Archive
	topics  *topics
	id      peer.ID
	relay   wire.DeviceID
	client  wire.DeviceID
	clients host.Host
	stream  network.Stream
}

func newHost(t *testing.T) (host.Host, wire.DeviceID) {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	dev, err := wire.DeviceFromPeerID([]byte(h.ID()))
	if err != nil {
		t.Fatal(err)
	}
	return h, dev
}

func newWorld(t *testing.T, cfg Config) *world {
	t.Helper()
	st, err := storage.OpenMemory(storage.DefaultOptions("", bytes.Repeat([]byte{7}, storage.KeySize)))
	if err != nil {
		t.Fatal(err)
	}
	h, self := newHost(t)
	w := &world{t: t, id: h.ID(), relay: self, topics: &topics{joined: map[wire.TopicKey]bool{}}}
	key, err := h.Peerstore().PrivKey(h.ID()).Raw()
	if err != nil {
		t.Fatal(err)
	}
	w.archive = NewArchive(cfg.Archive, st, key, nil, nil)
	if w.server, err = New(cfg, Parts{Host: h, Forward: w.topics, Archive: w.archive, Sent: func() int64 { return 0 }}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.server.Run(ctx) }() // ends with cancel, waited for in the cleanup
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := st.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	w.clients, w.client = newHost(t)
	if err := w.clients.Connect(t.Context(), peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}); err != nil {
		t.Fatal(err)
	}
	return w
}

// dial opens a stream. The relay registers its protocols when Run has begun, which nothing announces,
// so it asks until they are there.
func (w *world) dial(p string) network.Stream {
	w.t.Helper()
	var err error
	for range 500 {
		var st network.Stream
		if st, err = w.clients.NewStream(w.t.Context(), w.id, protocol.ID(p)); err == nil {
			w.t.Cleanup(func() { _ = st.Reset() })
			return st
		}
	}
	w.t.Fatal(err)
	return nil
}

// ask sends one request on the open stream, opening it first.
func (w *world) ask(p string, f wire.Frame, parse func([]byte) (wire.Frame, error)) wire.Frame {
	w.t.Helper()
	if w.stream == nil || string(w.stream.Protocol()) != p {
		w.stream = w.dial(p)
	}
	out, err := wire.AppendFrame(nil, f)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.stream.Write(out); err != nil {
		w.t.Fatal(err)
	}
	payload, err := wire.ReadFrame(w.stream, wire.MaxFrame)
	if err != nil {
		w.t.Fatal(err)
	}
	reply, err := parse(payload)
	if err != nil {
		w.t.Fatal(err)
	}
	return reply
}

func room(name string) *wire.RoomKeys {
	k, err := wire.DeriveRoomKeys(sha256.Sum256([]byte(name)))
	if err != nil {
		panic(err) // of a secret of the right size
	}
	return k
}

func (w *world) attach(want wire.RelayWant, lease time.Duration, rooms ...*wire.RoomKeys) *wire.RelayAttached {
	w.t.Helper()
	f := &wire.RelayAttach{Want: want, Lease: lease, Nonce: [32]byte{1, 2, 3}}
	for _, k := range rooms {
		f.Topics = append(f.Topics, wire.RelayTopic{Topic: k.Topic, Proof: k.ProveAttach(w.relay, w.client, f.Nonce)})
	}
	return w.ask(wire.RelayProtocol, f, wire.ParseRelayFrame).(*wire.RelayAttached)
}

func TestAttachForwardsAndDetachStops(t *testing.T) {
	w := newWorld(t, Config{})
	k := room("a")
	got := w.attach(wire.WantForward, wire.MaxLease, k)
	if got.Code != wire.RelayOK || len(got.Grants) != 1 || got.Grants[0].Code != wire.RelayOK || got.Grants[0].Lease != wire.DefaultLease {
		t.Fatalf("attached: %+v", got)
	}
	if !w.topics.has(k.Topic) {
		t.Fatal("the topic is not forwarded")
	}
	if sn := w.server.Snapshot(); sn.Clients != 1 || sn.Topics != 1 {
		t.Fatalf("snapshot: %+v", sn)
	}
	w.ask(wire.RelayProtocol, &wire.RelayDetach{Topics: []wire.TopicKey{k.Topic}}, wire.ParseRelayFrame)
	if w.topics.has(k.Topic) {
		t.Fatal("the topic is forwarded after the last lease was given back")
	}
}

// A client that has its answer is handed what passes: its subscription comes on another stream, and what was
// said between the two was lost until the next sync. A client that never subscribes is answered all the same.
func TestAttachedMeansSubscribed(t *testing.T) {
	w := newWorld(t, Config{})
	w.topics.late = 3
	if got := w.attach(wire.WantForward, time.Minute, room("a"), room("b")); got.Code != wire.RelayOK {
		t.Fatalf("attached: %+v", got)
	}
	w.topics.mu.Lock()
	late := w.topics.late
	w.topics.late = 1 << 30
	w.topics.mu.Unlock()
	if late != 0 {
		t.Errorf("answered before the client was subscribed")
	}
	began := time.Now()
	if got := w.attach(wire.WantForward, time.Minute, room("c")); got.Code != wire.RelayOK {
		t.Fatalf("attached: %+v", got)
	}
	if took := time.Since(began); took < subscribePatience {
		t.Errorf("waited %s, want %s", took, subscribePatience)
	}
}

func TestAttachNeedsTheTopicKey(t *testing.T) {
	w := newWorld(t, Config{})
	k, other := room("a"), room("b")
	f := &wire.RelayAttach{Want: wire.WantForward, Lease: time.Minute, Nonce: [32]byte{9}}
	f.Topics = []wire.RelayTopic{{Topic: k.Topic, Proof: other.ProveAttach(w.relay, w.client, f.Nonce)}}
	got := w.ask(wire.RelayProtocol, f, wire.ParseRelayFrame).(*wire.RelayAttached)
	if got.Grants[0].Code != wire.RelayBadProof || w.topics.has(k.Topic) {
		t.Fatalf("attached with another room's key: %+v", got)
	}
}

func TestAttachRefusesOverTheLimitAndSaysWhich(t *testing.T) {
	w := newWorld(t, Config{TopicsPerPeer: 2})
	var last *wire.RelayAttached
	for _, name := range []string{"a", "b", "c"} {
		last = w.attach(wire.WantForward, time.Minute, room(name))
	}
	if last.Grants[0].Code != wire.RelayTopicLimit || last.Detail != "at most 2 rooms for each client" {
		t.Fatalf("third topic: %+v", last)
	}
}

func TestRequestRateIsLimited(t *testing.T) {
	w := newWorld(t, Config{Requests: 3})
	for range 3 {
		if got := w.attach(wire.WantForward, time.Minute, room("a")); got.Code != wire.RelayOK {
			t.Fatalf("within the burst: %+v", got)
		}
	}
	if got := w.attach(wire.WantForward, time.Minute, room("a")); got.Code != wire.RelayRateLimit {
		t.Fatalf("over the burst: %+v", got)
	}
}

func mailboxKey(t *testing.T) (wire.MailboxID, ed25519.PrivateKey) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return wire.MailboxID(pub), key
}

func TestMailboxKeepsUntilDeleted(t *testing.T) {
	w := newWorld(t, Config{})
	box, key := mailboxKey(t)
	nonce := [32]byte{5}
	proof := wire.ProveMailbox(key, w.relay, nonce)
	const n = 150 // more than one frame and more than one collect
	sent := map[wire.DepositID]bool{}
	for i := range n {
		f := &wire.MailboxDeposit{Mailbox: box, Keep: time.Hour, Envelope: append(bytes.Repeat([]byte{byte(i)}, 1000), byte(i>>8))}
		for range 2 { // a repeated deposit is one deposit
			r := w.ask(wire.MailboxProtocol, f, wire.ParseMailboxFrame).(*wire.MailboxReceipt)
			if !r.Verify(w.relay, box, f.Deposit()) || r.Expires.Before(time.Now()) {
				t.Fatalf("receipt: %+v", r)
			}
		}
		sent[f.Deposit()] = true
	}
	var after wire.DepositID
	var all []wire.DepositID
	for more := true; more; {
		items := w.ask(wire.MailboxProtocol, &wire.MailboxCollect{Mailbox: box, Nonce: nonce, Proof: proof, After: after, Limit: wire.MaxCollect},
			wire.ParseMailboxFrame).(*wire.MailboxItems)
		for _, it := range items.Items {
			if !sent[it.Deposit] {
				t.Fatalf("collected %s twice or never deposited", it.Deposit)
			}
			delete(sent, it.Deposit)
			all = append(all, it.Deposit)
			after = it.Deposit
		}
		more = items.More
	}
	if len(sent) != 0 {
		t.Fatalf("%d of %d deposits were not handed out", len(sent), n)
	}
	w.ask(wire.MailboxProtocol, &wire.MailboxDelete{Mailbox: box, Nonce: nonce, Proof: proof, Deposits: all}, wire.ParseMailboxFrame)
	items := w.ask(wire.MailboxProtocol, &wire.MailboxCollect{Mailbox: box, Nonce: nonce, Proof: proof, Limit: 1}, wire.ParseMailboxFrame).(*wire.MailboxItems)
	if len(items.Items) != 0 {
		t.Fatalf("%d deposits left after deleting all", len(items.Items))
	}
}

func TestMailboxOpensToItsOwnerOnly(t *testing.T) {
	w := newWorld(t, Config{})
	box, _ := mailboxKey(t)
	_, thief := mailboxKey(t)
	dep := &wire.MailboxDeposit{Mailbox: box, Keep: time.Hour, Envelope: bytes.Repeat([]byte{1}, 256)}
	w.ask(wire.MailboxProtocol, dep, wire.ParseMailboxFrame)
	nonce := [32]byte{5}
	proof := wire.ProveMailbox(thief, w.relay, nonce)
	items := w.ask(wire.MailboxProtocol, &wire.MailboxCollect{Mailbox: box, Nonce: nonce, Proof: proof, Limit: 1}, wire.ParseMailboxFrame).(*wire.MailboxItems)
	if items.Code != wire.RelayBadProof || len(items.Items) != 0 {
		t.Fatalf("a thief collected: %+v", items)
	}
	del := w.ask(wire.MailboxProtocol, &wire.MailboxDelete{Mailbox: box, Nonce: nonce, Proof: proof, Deposits: []wire.DepositID{dep.Deposit()}},
		wire.ParseMailboxFrame).(*wire.MailboxReceipt)
	if del.Code != wire.RelayBadProof {
		t.Fatalf("a thief deleted: %+v", del)
	}
}

func TestMailboxQuota(t *testing.T) {
	w := newWorld(t, Config{Archive: ArchiveConfig{MailboxItems: 3}})
	box, _ := mailboxKey(t)
	var last *wire.MailboxReceipt
	for i := range 4 {
		last = w.ask(wire.MailboxProtocol, &wire.MailboxDeposit{Mailbox: box, Keep: time.Hour, Envelope: bytes.Repeat([]byte{byte(i)}, 256)},
			wire.ParseMailboxFrame).(*wire.MailboxReceipt)
	}
	if last.Code != wire.RelayQuota || last.Detail == "" {
		t.Fatalf("the fourth deposit of three: %+v", last)
	}
}

func TestMirrorDropsTheGreedyFirst(t *testing.T) {
	var all []share
	id := func(i int) storage.ID { return storage.ID{byte(i), byte(i >> 8)} }
	for i := range 100 { // the honest one is oldest, the flooder newest
		all = append(all, share{id(i), 1, 500})
	}
	for i := range 900 {
		all = append(all, share{id(100 + i), 2, 500})
	}
	gone := choose(all, 700, 0)
	if len(gone) != 700 {
		t.Fatalf("dropped %d, want 700", len(gone))
	}
	for i, g := range gone {
		if g != id(100+i) {
			t.Fatalf("drop %d is not the flooder's oldest", i)
		}
	}
	if n := len(choose(all, 0, 1000)); n != 2 {
		t.Fatalf("dropped %d for 1000 bytes, want 2", n)
	}
	if n := len(choose(all, 5000, 0)); n != len(all) {
		t.Fatalf("dropped %d of %d when all must go", n, len(all))
	}
}

// member runs a sync session of a room's member with the mirror and returns what came of it. The mirror
// takes one session a topic at a time, and notices the end of the last one a moment later than its member.
func (w *world) member(k *wire.RoomKeys, have map[roomsync.ID]*wire.Sealed, prove bool) roomsync.Report {
	w.t.Helper()
	for range 1000 {
		if r := w.session(k, have, prove); r.End != roomsync.EndBusy {
			return r
		}
	}
	w.t.Fatal("the mirror stays busy")
	return roomsync.Report{}
}

func (w *world) session(k *wire.RoomKeys, have map[roomsync.ID]*wire.Sealed, prove bool) roomsync.Report {
	w.t.Helper()
	var items []roomsync.Item
	for id, s := range have {
		items = append(items, roomsync.Item{Time: roomsync.Time(s.HLC), ID: id})
	}
	room := roomsync.Room{
		Topic: roomsync.Topic(k.Topic), Set: roomsync.NewSnapshot(items).View(), AcceptUnproven: true,
		Floor:  roomsync.DayStart(roomsync.TimeAt(time.Now().Add(-24 * time.Hour)).Day()),
		Cut:    roomsync.TimeAt(time.Now()),
		Proven: func(_, _ []byte) bool { return false }, // a mirror has no key and shows no proof
		Check: func(records []roomsync.Record) {
			for i := range records {
				s, err := wire.CheckSealed(k.Topic, records[i].Bytes)
				if err != nil {
					records[i].Err = err
					continue
				}
				records[i].Item = roomsync.Item{Time: roomsync.Time(s.HLC), ID: roomsync.ID(s.ID)}
			}
		},
	}
	if prove {
		room.Prove = func(message []byte) ([]byte, error) {
			sig := k.ProveSync(message)
			return sig[:], nil
		}
	}
	link := roomsync.Link{Self: roomsync.PeerID(w.client.PeerID()), Peer: roomsync.PeerID(w.relay.PeerID())}
	if _, err := rand.Read(link.Nonce[:]); err != nil {
		w.t.Fatal(err)
	}
	session := roomsync.NewInitiator(link, room, nil)
	report, err := drive.Run(w.t.Context(), w.dial(roomsync.Protocol), session, func(_ context.Context, e roomsync.Effect) error {
		switch e := e.(type) {
		case roomsync.ReadRecords:
			var out [][]byte
			for _, it := range e.Items {
				out = append(out, have[it.ID].Bytes())
			}
			return session.Read(out)
		case roomsync.CommitRecords:
			for _, r := range e.Records {
				s, err := wire.CheckSealed(k.Topic, r.Bytes)
				if err != nil {
					return err
				}
				have[r.Item.ID] = s
			}
			return session.Committed(make([]roomsync.Outcome, len(e.Records)))
		}
		return nil
	})
	if err != nil && prove {
		w.t.Fatal(err)
	}
	return report
}

func TestMirrorKeepsForTheAbsent(t *testing.T) {
	w := newWorld(t, Config{})
	k := room("a")
	w.attach(wire.WantMirror, time.Minute, k)
	ada := map[roomsync.ID]*wire.Sealed{}
	for i := range 300 {
		s := chattest.SealText(t, k, time.Now().Add(-time.Hour+time.Duration(i)*time.Second), "hello")
		ada[roomsync.ID(s.ID)] = s
	}
	if r := w.member(k, ada, true); r.End != roomsync.EndFinished || r.Served != 300 {
		t.Fatalf("ada brought her events: %+v", r)
	}
	ben := map[roomsync.ID]*wire.Sealed{}
	if r := w.member(k, ben, true); r.End != roomsync.EndFinished || len(ben) != 300 {
		t.Fatalf("ben got %d of 300: %+v", len(ben), r)
	}
	if r := w.member(k, ben, true); !r.Equal || r.Sent.Total()+r.Received.Total() > 1024 {
		t.Fatalf("with nothing missing: %+v", r)
	}
	stranger := map[roomsync.ID]*wire.Sealed{}
	if r := w.member(k, stranger, false); r.End == roomsync.EndFinished || len(stranger) != 0 {
		t.Fatalf("somebody without the key got %d events: %+v", len(stranger), r)
	}
	if r := w.member(room("never attached"), map[roomsync.ID]*wire.Sealed{}, true); r.End != roomsync.EndRefused {
		t.Fatalf("a topic nobody attached: %+v", r)
	}
}

// What was said while the relay was away, and comes by sync while it is fresh, goes on to everybody at
// once; old history does not.
func TestMirrorPassesOnWhatIsFresh(t *testing.T) {
	w := newWorld(t, Config{})
	k := room("a")
	w.attach(wire.WantMirror, time.Minute, k)
	old, fresh := chattest.SealText(t, k, time.Now().Add(-time.Hour), "old"), chattest.SealText(t, k, time.Now().Add(-10*time.Second), "fresh")
	ada := map[roomsync.ID]*wire.Sealed{roomsync.ID(old.ID): old, roomsync.ID(fresh.ID): fresh}
	if r := w.member(k, ada, true); r.End != roomsync.EndFinished || r.Served != 2 {
		t.Fatalf("ada brought her events: %+v", r)
	}
	w.topics.mu.Lock()
	defer w.topics.mu.Unlock()
	if !slices.Equal(w.topics.passed, []wire.SealedID{fresh.ID}) {
		t.Errorf("passed on %d events, want the fresh one alone", len(w.topics.passed))
	}
}

func TestMirrorKeepsWhatIsForwarded(t *testing.T) {
	w := newWorld(t, Config{Archive: ArchiveConfig{Events: 40}})
	k := room("a")
	stray := chattest.SealText(t, k, time.Now().Add(-time.Hour), "before anybody attached")
	w.archive.Keep(stray, w.client)
	w.attach(wire.WantMirror, time.Minute, k)
	for i := range 200 {
		w.archive.Keep(chattest.SealText(t, k, time.Now().Add(-time.Hour+time.Duration(i)*time.Second), "x"), w.client)
	}
	ben := map[roomsync.ID]*wire.Sealed{}
	for len(w.archive.queue) > 0 { // the keeper takes them one batch after the other
		w.member(k, ben, true)
	}
	for range 100 {
		if w.archive.counts.mirrored.Load() == 200 {
			break
		}
		w.member(k, map[roomsync.ID]*wire.Sealed{}, true)
	}
	ben = map[roomsync.ID]*wire.Sealed{}
	w.member(k, ben, true)
	if n := len(ben); n == 0 || n > 40+40/trimSlack+1 {
		t.Fatalf("the mirror keeps %d events with a quota of 40", n)
	}
	if ben[roomsync.ID(stray.ID)] != nil {
		t.Fatal("an event was kept that nobody had asked to keep")
	}
}
