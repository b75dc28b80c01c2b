// Package plumtree is the state machine of epidemic broadcast trees (Leitão, Pereira, Rodrigues 2007), for
// one topic at one node. What is said goes along eager links, which a duplicate turns into lazy ones, so that
// the eager ones come to be a tree; over lazy links go only ids, and whoever misses an announced message
// grafts the announcer: it gets the message and an eager link. docs/spec/tree.md has the rules.
//
// There is no I/O, no clock and no lock in here: the caller passes the time, serializes all calls of one
// Tree, and gives it an Out for what is to be sent.
package plumtree

import (
	"math/rand/v2"
	"slices"
	"time"
)

// Peer names a neighbour; what it says is up to the caller.
type Peer string

// Out takes what a Tree sends. Its methods are called from within those of the Tree, and must not block or
// call it.
type Out interface {
	// Message hands a message to a neighbour; false says that the neighbour's queue is full.
	Message(to Peer, m *Message) bool
	// Control sends a frame of another kind, with ids within its bounds; false as with Message.
	Control(to Peer, kind Kind, ids []ID) bool
}

// Message is something said, as it is passed on.
type Message struct {
	ID   ID
	Wave uint8 // of the first copy
	// Frame is of KindMessage, without marks, and with its prefix. It is never changed.
	Frame []byte
}

// Config says how a Tree behaves. The zero value of a field is its default.
type Config struct {
	// Eager is the number of eager links below which a new neighbour gets one at once (8).
	Eager int
	// MaxEager is the number of eager links from which on grafts are refused (twice Eager).
	MaxEager int
	// Cover is how many neighbours get this node's own messages from itself, eager ones first; 0: the eager
	// ones alone. At most MaxCover.
	Cover int
	// Announce is how many neighbours are told of a message that they were not given, by turns (3).
	Announce int
	// Random chooses whom to tell, and numbers; nil is seeded by chance.
	Random *rand.Rand
	// Trusted says whether a neighbour may have an eager link; nil trusts everybody.
	Trusted func(Peer) bool
}

// Times and bounds of the protocol. docs/spec/tree.md says what they are for.
const (
	// AnnounceEvery is the least time between two announcements.
	AnnounceEvery = 100 * time.Millisecond
	// GraftAfter is how long an announced message may take by the eager links while nothing is known of that,
	// GraftSoonest and GraftLatest bound what is learnt; GraftAgain is how long the answer to a graft may take
	// before the next announcer is grafted.
	GraftAfter   = 200 * time.Millisecond
	GraftSoonest = 120 * time.Millisecond
	GraftLatest  = 400 * time.Millisecond
	GraftAgain   = 400 * time.Millisecond
	// KeepFor is how long a message is kept for those who graft.
	KeepFor = 15 * time.Second
	// SeenFor is how long a message is known again at least, unless there are more than MaxSeen.
	SeenFor = 5 * time.Minute
	// settle is how long after a prune what is still under way is no reason for another one, nor for an
	// eager link.
	settle = 500 * time.Millisecond
	// recent is how far back a neighbour is told of messages when its link becomes an eager one.
	recent = 2 * time.Second
	// rescueEvery is the least time between two grafts by a node that was left without eager links.
	rescueEvery = 500 * time.Millisecond

	// MaxSeen bounds the ids remembered of one generation; there are two.
	MaxSeen = 1 << 15
	// maxRefused bounds those of messages that were not accepted, likewise.
	maxRefused = 1 << 10
	// MaxKept and MaxKeptBytes bound the messages kept.
	MaxKept      = 1024
	MaxKeptBytes = 1 << 20
	// maxMissing bounds the announced messages that are waited for, maxPromises those of one neighbour, and
	// maxAnnouncers the neighbours remembered for each.
	maxMissing    = 1024
	maxPromises   = 256
	maxAnnouncers = 4
	// maxFresh is how many ids wait for the next announcement, and for the second one.
	maxFresh = 512
	// answerBurst and answersPerSecond bound the messages that one neighbour may have by grafts.
	answerBurst      = 256
	answersPerSecond = 64
)

// Tree is one topic at one node. Its methods are not safe for concurrent use.
type Tree struct {
	cfg Config
	out Out

	peers  []*neighbour // in the order in which they came
	byPeer map[Peer]*neighbour
	eager  int // of peers

	seen    generations
	refused generations
	kept    cache
	missing map[ID]*missing
	first   []*missing // not asked for yet, by time; and what was found meanwhile
	again   []*missing // asked for, likewise
	late    lateness

	fresh     []fresh   // to be announced
	repeats   []*repeat // to be announced once more, by time
	repeated  map[ID]*repeat
	owing     int       // neighbours with owed ids
	announced time.Time // last
	turn      int       // of the lazy neighbours
	rescued   time.Time // last
	lonely    bool      // a rescue is due
	shape     shape
	swept     time.Time // last look at what is old
}

// neighbour is somebody who takes part in the topic.
type neighbour struct {
	peer     Peer
	hash     uint64
	eager    bool
	told     bool      // the number of the shape
	useful   time.Time // when it was last the first with a message
	pruned   time.Time // when it was last told so
	owed     []ID      // messages its queue had no room for
	promises int       // announced by it, and missing
	answers  float64   // messages it may still have by grafts
	refilled time.Time
}

// New returns a tree without neighbours.
func New(cfg Config, out Out) *Tree {
	if cfg.Eager <= 0 {
		cfg.Eager = 8
	}
	if cfg.MaxEager <= 0 {
		cfg.MaxEager = 2 * cfg.Eager
	}
	if cfg.Announce <= 0 {
		cfg.Announce = 3
	}
	if cfg.Random == nil {
		cfg.Random = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	if cfg.Trusted == nil {
		cfg.Trusted = func(Peer) bool { return true }
	}
	return &Tree{
		cfg: cfg, out: out, byPeer: make(map[Peer]*neighbour), missing: make(map[ID]*missing),
		seen: generations{most: MaxSeen}, refused: generations{most: maxRefused},
	}
}

// AddPeer takes in a neighbour.
func (t *Tree) AddPeer(now time.Time, p Peer) {
	if t.byPeer[p] != nil {
		return
	}
	n := &neighbour{peer: p, hash: peerHash(p), answers: answerBurst, refilled: now}
	t.byPeer[p] = n
	t.peers = append(t.peers, n)
	if t.eager < t.cfg.Eager && t.cfg.Trusted(p) {
		t.open(now, n)
	}
	t.disturbed(now)
}

// RemovePeer takes out a neighbour that is gone. A lazy one takes the place of an eager one, since a part of
// the tree may have hung there.
func (t *Tree) RemovePeer(now time.Time, p Peer) {
	n := t.byPeer[p]
	if n == nil {
		return
	}
	eager := n.eager
	t.setEager(n, false)
	t.settleDebt(n)
	delete(t.byPeer, p)
	t.peers = slices.DeleteFunc(t.peers, func(o *neighbour) bool { return o == n })
	if eager && t.eager < t.cfg.Eager {
		t.rescue(now, "")
	}
	t.disturbed(now)
}

// Distrust takes a neighbour's eager link away.
func (t *Tree) Distrust(now time.Time, p Peer) {
	if n := t.byPeer[p]; n != nil && n.eager {
		t.prune(now, n)
		t.keepOne(now, p)
	}
}

// Peers returns how many neighbours there are.
func (t *Tree) Peers() int { return len(t.peers) }

// Eager returns how many of them have an eager link.
func (t *Tree) Eager() int { return t.eager }

// Publish says something new. False: it was said before, and nothing is done.
func (t *Tree) Publish(now time.Time, id ID, topic [TopicSize]byte, data []byte) bool {
	if t.seen.has(id) {
		return false
	}
	t.seen.add(id)
	t.found(now, id)
	m := &Message{ID: id, Frame: MessageFrame(topic, 0, nil, data)}
	t.keep(now, "", m)
	if t.cfg.Cover == 0 {
		t.spread(now, "", m, nil)
		return true
	}
	// The author hands it to as many as it may, whatever their links are: so it is never far from anybody. All
	// are told who got it, so that they do not hand it to each other. By a lazy link a wave of its own begins:
	// where two waves meet is no loop of the tree.
	reach, cover := t.reach(id)
	frame := MessageFrame(topic, 0, cover, data)
	var wave uint8
	for _, n := range reach {
		own := &Message{ID: id, Frame: frame}
		if !n.eager {
			wave++
			own = &Message{ID: id, Wave: wave, Frame: MessageFrame(topic, wave, cover, data)}
		}
		if !t.out.Message(n.peer, own) {
			t.owe(n, id)
		}
	}
	t.tell(now, fresh{id: id, cover: cover, given: true})
	return true
}

// reach chooses who gets an own message from this node: all eager neighbours, and by turns as many lazy ones
// as there is room for; with their marks, of which the last ones are missing if there are too many.
func (t *Tree) reach(id ID) (reach []*neighbour, cover []Mark) {
	var lazy []*neighbour
	for _, n := range t.peers {
		if n.eager {
			reach = append(reach, n)
		} else if t.cfg.Trusted(n.peer) {
			lazy = append(lazy, n)
		}
	}
	for i := 0; len(reach) < t.cfg.Cover && i < len(lazy); i++ {
		reach = append(reach, lazy[(t.turn+i)%len(lazy)])
	}
	for _, n := range reach[:min(len(reach), MaxCover)] {
		cover = append(cover, mark(n.hash, id))
	}
	return reach, cover
}

// Arrived notes that a message came. True: it is the first copy, and Accept or Refuse must follow once it is
// checked; copies that come meanwhile count as later ones.
//
// direct says that the copy has marks, wave is the number in it.
func (t *Tree) Arrived(now time.Time, from Peer, id ID, wave uint8, direct bool) bool {
	if t.refused.has(id) {
		return false
	}
	if !t.seen.has(id) {
		t.seen.add(id)
		t.found(now, id)
		return true
	}
	n := t.byPeer[from]
	if n == nil {
		return false
	}
	first := t.kept.first(id)
	switch {
	case direct && wave != 0: // by a lazy link, from its author
	case first != nil && first.from == from: // it was asked for twice
	case !n.eager:
		// It takes us for an eager one. What was under way when it was told otherwise is no reason to say so again.
		if now.Sub(n.pruned) > settle {
			t.prune(now, n)
		}
	case t.eager < 2:
		// The last link stays: two who take each other's links away at once would both be alone.
	case first != nil && first.m.Wave != wave:
		// Two waves met, and the link is what holds their parts of the tree together.
	case first != nil && t.byPeer[first.from] != nil && !t.byPeer[first.from].eager:
		// The link that was faster is none of the tree's any more; this one may have to take its place.
	default:
		t.prune(now, n)
	}
	return false
}

// Accept passes on a message that is good. cover are the marks that came with it.
func (t *Tree) Accept(now time.Time, from Peer, m *Message, cover []Mark) {
	if n := t.byPeer[from]; n != nil {
		n.useful = now
		pushes := len(cover) == 0 || m.Wave == 0 // whoever sent it takes the link for an eager one
		if pushes && !n.eager && now.Sub(n.pruned) > settle && t.eager < t.cfg.MaxEager && t.cfg.Trusted(from) {
			t.open(now, n)
		}
	}
	t.keep(now, from, m)
	t.spread(now, from, m, cover)
}

// Refuse forgets a message that is not passed on. The same bytes are not looked at again for a while.
func (t *Tree) Refuse(id ID) {
	t.seen.remove(id)
	t.refused.add(id)
}

func (t *Tree) keep(now time.Time, from Peer, m *Message) {
	t.sweep(now)
	t.kept.add(now, from, m)
}

// spread pushes a message to all eager links but the one it came by, and those that have it from its author.
func (t *Tree) spread(now time.Time, from Peer, m *Message, cover []Mark) {
	for _, n := range t.peers {
		if !n.eager || n.peer == from || len(cover) > 0 && slices.Contains(cover, mark(n.hash, m.ID)) {
			continue
		}
		if !t.out.Message(n.peer, m) {
			t.owe(n, m.ID)
		}
	}
	t.tell(now, fresh{id: m.ID, from: from, cover: cover})
}

// Prune makes the link to a neighbour a lazy one, as it wishes.
func (t *Tree) Prune(now time.Time, from Peer) {
	if n := t.byPeer[from]; n != nil && n.eager {
		t.setEager(n, false)
		t.keepOne(now, from)
	}
}

// prune makes the link to a neighbour a lazy one and tells it so.
func (t *Tree) prune(now time.Time, n *neighbour) {
	t.setEager(n, false)
	n.pruned = now
	t.out.Control(n.peer, KindPrune, nil)
}

// open makes the link to a neighbour an eager one. What was said a moment ago passed it by: it is told.
func (t *Tree) open(now time.Time, n *neighbour) {
	if n.eager {
		return
	}
	t.setEager(n, true)
	for k := range t.kept.since(now.Add(-recent)) {
		if k.from != n.peer {
			t.owe(n, k.m.ID)
		}
	}
}

func (t *Tree) setEager(n *neighbour, eager bool) {
	if n.eager == eager {
		return
	}
	n.eager = eager
	if eager {
		t.eager++
	} else {
		t.eager--
	}
}

// keepOne sees to it that a node which was left without eager links gets one, from somebody else than the
// one that does not want it, if there is somebody.
func (t *Tree) keepOne(now time.Time, but Peer) {
	switch {
	case t.eager > 0 || len(t.peers) == 0:
	case now.Sub(t.rescued) >= rescueEvery:
		t.rescue(now, but)
	default:
		t.lonely = true // Tick does it
	}
}

// rescue grafts the lazy neighbour that was of use last.
func (t *Tree) rescue(now time.Time, but Peer) {
	var best, last *neighbour
	for _, n := range t.peers {
		switch {
		case n.eager || !t.cfg.Trusted(n.peer):
		case n.peer == but:
			last = n
		case best == nil || n.useful.After(best.useful):
			best = n
		}
	}
	if best == nil && t.eager == 0 {
		best = last
	}
	if best == nil {
		return
	}
	t.rescued = now
	t.open(now, best)
	t.out.Control(best.peer, KindGraft, nil)
}

// Next says when Tick is to be called; the zero value: not before another method was.
func (t *Tree) Next() time.Time {
	var next time.Time
	sooner := func(at time.Time) {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	if t.unannounced() {
		sooner(t.announced.Add(AnnounceEvery))
	}
	if len(t.repeats) > 0 {
		sooner(t.repeats[0].at.Add(RepeatAfter))
	}
	for _, queue := range []*[]*missing{&t.first, &t.again} {
		if m := front(queue); m != nil {
			sooner(m.at)
		}
	}
	if t.lonely {
		sooner(t.rescued.Add(rescueEvery))
	}
	if !t.shape.due.IsZero() {
		sooner(t.shape.due)
	}
	if at := t.kept.oldest(); !at.IsZero() {
		sooner(at.Add(KeepFor))
	}
	if !t.seen.empty() || !t.refused.empty() {
		sooner(t.swept.Add(SeenFor))
	}
	return next
}

// Tick does what is due. It returns the neighbours that announced what they did not deliver when asked.
func (t *Tree) Tick(now time.Time) (broken []Peer) {
	if t.unannounced() && now.Sub(t.announced) >= AnnounceEvery {
		t.announce(now)
	}
	if len(t.repeats) > 0 && now.Sub(t.repeats[0].at) >= RepeatAfter {
		t.announceAgain(now)
	}
	if t.lonely && now.Sub(t.rescued) >= rescueEvery {
		t.lonely = false
		if t.eager == 0 {
			t.rescue(now, "")
		}
	}
	if !t.shape.due.IsZero() && !now.Before(t.shape.due) {
		t.layAnew(now)
	}
	t.sweep(now)
	return t.fetch(now)
}

// yield takes the place of the eager neighbour that was of no use for the longest time.
func (t *Tree) yield(now time.Time, to *neighbour) {
	var worst *neighbour
	for _, n := range t.peers {
		if n.eager && n != to && (worst == nil || n.useful.Before(worst.useful)) {
			worst = n
		}
	}
	if worst != nil {
		t.prune(now, worst)
	}
}

// sweep forgets what is old.
func (t *Tree) sweep(now time.Time) {
	t.kept.expire(now)
	if t.swept.IsZero() {
		t.swept = now
	}
	if now.Sub(t.swept) >= SeenFor {
		t.swept = now
		t.seen.age()
		t.refused.age()
	}
}
