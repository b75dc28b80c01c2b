package plumtree

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// recorder is one tree whose frames are written down.
type recorder struct {
	*Tree
	now  time.Time
	sent []string
}

func (r *recorder) Message(to Peer, m *Message) bool {
	f, err := ParseFrame(m.Frame[Prefix:])
	if err != nil {
		panic(err)
	}
	r.sent = append(r.sent, fmt.Sprintf("%s message wave %d, %d marks", to, f.Wave, len(f.Cover)))
	return true
}

func (r *recorder) Control(to Peer, kind Kind, ids []ID) bool {
	name := [...]string{"", "", "have", "graft", "prune", "shape"}[kind]
	r.sent = append(r.sent, fmt.Sprintf("%s %s %d", to, name, len(ids)))
	return true
}

// took returns what was sent since the last time, sorted.
func (r *recorder) took() []string {
	out := r.sent
	r.sent = nil
	slices.Sort(out)
	return out
}

func (r *recorder) want(t *testing.T, what string, frames ...string) {
	t.Helper()
	if got := r.took(); !slices.Equal(got, frames) {
		t.Errorf("%s: sent %q, want %q", what, got, frames)
	}
}

// record makes a tree that has some neighbours, the first ones with eager links.
func record(eager int, peers ...Peer) *recorder {
	r := &recorder{now: time.Unix(1e9, 0)}
	r.Tree = New(Config{Cover: MaxCover, Random: rand.New(rand.NewPCG(1, 1))}, r)
	for _, p := range peers {
		r.AddPeer(r.now, p)
	}
	for _, p := range peers[eager:] {
		r.Tree.Prune(r.now, p)
	}
	r.now = r.now.Add(time.Second)
	return r
}

func (r *recorder) receive(from Peer, id ID, wave uint8, cover ...Mark) (first bool) {
	if !r.Arrived(r.now, from, id, wave, len(cover) > 0) {
		return false
	}
	r.Accept(r.now, from, &Message{ID: id, Wave: wave, Frame: MessageFrame(testTopic, wave, nil, []byte("x"))}, cover)
	return true
}

func TestNobodyIsLeftAlone(t *testing.T) {
	r := record(1, "a", "b", "c")
	r.Tree.byPeer["c"].useful = r.now // b never said anything
	r.Tree.Prune(r.now, "a")
	r.want(t, "pruned by the only eager neighbour", "c graft 0")
	r.Tree.Prune(r.now, "c")
	r.want(t, "pruned again at once")
	r.now = r.now.Add(rescueEvery)
	r.Tick(r.now)
	r.want(t, "a while later", "c graft 0")
	r.RemovePeer(r.now, "c")
	if got := r.took(); len(got) != 1 || got[0] != "a graft 0" && got[0] != "b graft 0" {
		t.Errorf("the only eager neighbour is gone: sent %q", got)
	}
	r = record(1, "a")
	r.Tree.Prune(r.now, "a")
	r.want(t, "pruned by the only neighbour there is", "a graft 0")
	r = record(1, "a", "b")
	r.Distrust(r.now, "a")
	r.want(t, "the only eager neighbour lied", "a prune 0", "b graft 0")
}

func TestLaterCopies(t *testing.T) {
	id := func(b byte) ID { return ID{b} }
	r := record(3, "a", "b", "c")
	r.receive("a", id(1), 0)
	r.took()
	r.receive("a", id(1), 0)
	r.want(t, "twice from the same")
	r.receive("b", id(1), 0)
	r.want(t, "from another eager one", "b prune 0")
	r.receive("b", id(1), 0)
	r.want(t, "what was under way")
	r.now = r.now.Add(2 * settle)
	r.receive("b", id(1), 0)
	r.want(t, "from one that did not heed it", "b prune 0")
	r.receive("c", id(1), 2)
	r.want(t, "of another wave")
	r.receive("b", id(1), 4, 77)
	r.want(t, "from its author, by a lazy link")
	r.Tree.Prune(r.now, "a")
	r.receive("c", id(1), 0)
	r.want(t, "by the last eager link")
	r = record(3, "a", "b", "c")
	r.receive("a", id(2), 0)
	r.Tree.Prune(r.now, "a")
	r.took()
	r.receive("b", id(2), 0)
	r.want(t, "when the first one's link is no eager one any more")
	if r.Eager() != 2 {
		t.Errorf("%d eager links", r.Eager())
	}
}

func TestWhoPushesBecomesEager(t *testing.T) {
	r := record(1, "a", "b", "c")
	r.receive("b", ID{1}, 1, 77)
	if r.Eager() != 1 {
		t.Error("an author that reached out has an eager link")
	}
	r.receive("b", ID{2}, 0, 77)
	r.receive("c", ID{3}, 1)
	if r.Eager() != 3 {
		t.Errorf("%d eager links, want those of all who push", r.Eager())
	}
	r = record(2, "a", "b")
	r.receive("a", ID{1}, 0)
	r.receive("b", ID{1}, 0) // is pruned
	r.receive("b", ID{2}, 0) // was under way
	if r.Eager() != 1 {
		t.Error("what was under way undid a prune")
	}
}

// Only those are told of a message who were not given it and did not give it; and those whom the author's
// marks name, since these may be false.
func TestWhoIsTold(t *testing.T) {
	r := record(2, "a", "b", "c", "d")
	r.receive("a", ID{1}, 0)
	r.want(t, "from an eager one", "b message wave 0, 0 marks", "c have 1", "d have 1")
	r.now = r.now.Add(time.Second)
	r.receive("c", ID{2}, 1, MarkOf("c", ID{2}), MarkOf("b", ID{2}))
	r.want(t, "from its author, who has told b", "a message wave 1, 0 marks", "b have 1", "d have 1")
	r.receive("a", ID{3}, 0)
	r.want(t, "at once after another", "b message wave 0, 0 marks")
	r.now = r.now.Add(AnnounceEvery)
	r.Tick(r.now)
	r.want(t, "a while later", "c have 1", "d have 1")
	r.now = r.now.Add(time.Second)
	r.Publish(r.now, ID{4}, testTopic, []byte("own"))
	r.want(t, "an own one", "a message wave 0, 4 marks", "b message wave 0, 4 marks", "c message wave 1, 4 marks", "d message wave 2, 4 marks")
	r = record(1, "a", "b")
	r.receive("a", ID{1}, 0)
	r.took()
	r.now = r.now.Add(recent / 2)
	r.Graft(r.now, "b", nil)
	r.now = r.now.Add(AnnounceEvery)
	r.Tick(r.now)
	r.want(t, "to one whose link has become eager", "b have 1")
}

// Whom the first announcement did not reach the second one does, unless they turned out to know; and then it is
// done with.
func TestSecondAnnouncement(t *testing.T) {
	r := record(1, "a", "b", "c", "d", "e", "f", "g")
	r.receive("a", ID{1}, 0)
	first := r.took()
	if len(first) != 3 {
		t.Fatalf("sent %q, want three announcements", first)
	}
	untold := slices.DeleteFunc([]string{"b", "c", "d", "e", "f", "g"}, func(p string) bool { return slices.Contains(first, p+" have 1") })
	r.now = r.now.Add(RepeatAfter / 4)
	r.receive("a", ID{2}, 0)
	r.took()
	r.now = r.now.Add(RepeatAfter / 4)
	r.receive("a", ID{3}, 0)
	r.took()
	r.Have(r.now, Peer(untold[0]), []ID{{1}, {2}, {3}})
	if next := r.Next(); !next.Equal(r.now.Add(RepeatAfter / 2)) {
		t.Errorf("the next thing is due after %v", next.Sub(r.now))
	}
	r.now = r.now.Add(RepeatAfter / 2)
	r.Tick(r.now)
	got := r.took()
	if slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, untold[0]) || strings.HasPrefix(s, "a ") }) {
		t.Errorf("told who knows: %q", got)
	}
	for _, p := range untold[1:] {
		if !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, p+" have") }) {
			t.Errorf("%s was not told: %q", p, got)
		}
	}
	r.now = r.now.Add(RepeatAfter)
	r.Tick(r.now)
	r.want(t, "all was announced twice")
	if len(r.repeats)+len(r.repeated) != 0 {
		t.Errorf("%d are still to be announced", len(r.repeats))
	}
	// Of more than there is room for the newest are kept.
	for i := range 3 * maxFresh {
		r.receive("a", ID{9, byte(i), byte(i >> 8)}, 0)
	}
	r.now = r.now.Add(AnnounceEvery)
	r.Tick(r.now)
	last := 3*maxFresh - 1
	if len(r.repeats) != maxFresh || len(r.repeated) != maxFresh || r.repeated[ID{9, byte(last), byte(last >> 8)}] == nil {
		t.Errorf("%d are to be announced again, want the newest %d", len(r.repeats), maxFresh)
	}
}

func TestReachIsBounded(t *testing.T) {
	var peers []Peer
	for i := range 40 {
		peers = append(peers, Peer(fmt.Sprint("p", i)))
	}
	r := record(3, peers...)
	r.Publish(r.now, ID{1}, testTopic, []byte("own"))
	reached := 0
	for _, f := range r.took() {
		if strings.Contains(f, "message") {
			reached++
		}
	}
	if reached != MaxCover {
		t.Errorf("an author reaches %d of 40", reached)
	}
	for _, p := range peers {
		r.Graft(r.now, p, nil)
	}
	if r.Eager() != 16 {
		t.Errorf("%d eager links, want 16", r.Eager())
	}
}

// Who announced what is missing is asked in turn, and takes the place of whoever was of no use for longest.
func TestWhoIsAsked(t *testing.T) {
	var peers []Peer
	for i := range 8 {
		peers = append(peers, Peer(fmt.Sprint("e", i)))
	}
	r := record(8, append(peers, "x", "y")...)
	for _, p := range peers[1:] {
		r.byPeer[p].useful = r.now
	}
	r.Have(r.now, "x", []ID{{1}, {2}})
	r.Have(r.now, "y", []ID{{1}})
	r.now = r.now.Add(GraftAfter - 1)
	r.Tick(r.now)
	r.want(t, "before the time")
	r.receive("e1", ID{2}, 0)
	r.took()
	r.now = r.now.Add(1)
	r.Tick(r.now)
	r.want(t, "when one did not come", "e0 prune 0", "x graft 1")
	r.now = r.now.Add(GraftAgain)
	broken := r.Tick(r.now)
	if got := r.took(); !slices.Contains(got, "x prune 0") || !slices.Contains(got, "y graft 1") {
		t.Errorf("when the first announcer did not deliver: sent %q", got)
	}
	if !slices.Equal(broken, []Peer{"x"}) {
		t.Errorf("broken promises of %q", broken)
	}
	r.receive("y", ID{1}, 0)
	r.took()
	r.now = r.now.Add(GraftAgain)
	if broken := r.Tick(r.now); len(broken) > 0 || r.byPeer["x"].promises+r.byPeer["y"].promises != 0 {
		t.Errorf("broken promises of %q after it came", broken)
	}
}

// Of two numbers the lower one wins, and both ends of a link that has carried it twice make it lazy.
func TestShapeRules(t *testing.T) {
	r := record(1, "a", "b", "c")
	r.Shape(r.now, "b", ID{5})
	r.want(t, "a number", "a shape 1", "c shape 1")
	r.Shape(r.now, "c", ID{5})
	r.want(t, "the same by another one")
	r.Shape(r.now, "c", ID{6})
	r.want(t, "a higher one")
	r.Shape(r.now, "c", ID{4})
	r.want(t, "a lower one", "a shape 1", "b shape 1")
	r.Shape(r.now, "a", ID{4})
	r.Shape(r.now, "b", ID{4})
	if r.Eager() != 1 || !r.byPeer["c"].eager {
		t.Errorf("%d eager links, want that to c alone", r.Eager())
	}
	r.now = r.now.Add(ShapeTake)
	r.Shape(r.now, "a", ID{9})
	r.want(t, "any one after a while", "b shape 1", "c shape 1")
}

// How long an announced message is waited for is learnt from those that came by themselves, within bounds.
func TestPatienceIsLearnt(t *testing.T) {
	r := record(1, "a", "b")
	number := byte(0)
	come := func(late time.Duration) {
		number++
		id := ID{number}
		r.Have(r.now, "b", []ID{id})
		r.now = r.now.Add(late)
		r.receive("a", id, 0)
	}
	if w := r.late.patience(); w != GraftAfter {
		t.Errorf("waits %s while nothing is known", w)
	}
	for range 50 {
		come(2 * time.Millisecond)
	}
	if w := r.late.patience(); w != GraftSoonest {
		t.Errorf("waits %s where the tree is fast", w)
	}
	for range 50 {
		come(150 * time.Millisecond)
		come(190 * time.Millisecond)
	}
	if w := r.late.patience(); w < 200*time.Millisecond || w >= GraftLatest {
		t.Errorf("waits %s where it takes 150 to 190 ms", w)
	}
	before := r.late
	r.Have(r.now, "b", []ID{{200}})
	r.now = r.now.Add(time.Second)
	r.Tick(r.now)
	r.receive("b", ID{200}, 0)
	if r.late != before {
		t.Error("what had to be asked for says something about the tree")
	}
	for range 50 {
		r.late.add(time.Minute)
	}
	if w := r.late.patience(); w != GraftLatest {
		t.Errorf("waits %s at most", w)
	}
}
