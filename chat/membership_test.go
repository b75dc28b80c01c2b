package chat

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/starling-chat/starling/chat/wire"
)

// troupe is members who write membership events, each knowing its own part of them.
type troupe struct {
	t       testing.TB
	room    wire.RoomID
	seq     map[wire.AccountID]uint64
	clock   wire.HLC
	all     []*memberEvent
	counter int
}

func person(name string) wire.AccountID {
	return wire.AccountID(sha256.Sum256([]byte("person " + name)))
}

func topicNamed(name string) wire.TopicKey {
	return wire.TopicKey(sha256.Sum256([]byte("topic " + name)))
}

// newTroupe begins a room of which ada is the owner.
func newTroupe(t testing.TB) (*troupe, *ledger) {
	tr := &troupe{t: t, seq: make(map[wire.AccountID]uint64), clock: wire.HLCFromTime(time.UnixMilli(1_700_000_000_000))}
	create := tr.event(nil, "ada", &wire.CreateBody{Name: "kitchen", Topic: topicNamed("0"), Network: "test"})
	tr.room = wire.RoomID(create.ID)
	l := newLedger(tr.room)
	l.add(create)
	return tr, l
}

// event makes an event by somebody who knows a ledger, and adds it there.
func (tr *troupe) event(l *ledger, by string, body wire.Body) *memberEvent {
	tr.counter++
	tr.clock += 1 << 16
	author := person(by)
	tr.seq[author]++
	e := &memberEvent{
		HLC: tr.clock, Author: author, Device: wire.DeviceID(author), Seq: tr.seq[author], Body: body,
		ID: wire.EventID(sha256.Sum256(fmt.Appendf(nil, "event %d", tr.counter))),
	}
	tr.all = append(tr.all, e)
	if l != nil {
		e.Parents = slices.Clone(l.now().Heads)
		if !l.add(e) {
			tr.t.Fatalf("event %d by %s was not new", tr.counter, by)
		}
	}
	return e
}

// share makes ledgers know what any of them knows.
func share(list ...*ledger) {
	for _, from := range list {
		for _, to := range list {
			for _, e := range from.events {
				to.add(e)
			}
		}
	}
}

// copyOf returns a ledger with the same events.
func copyOf(l *ledger) *ledger {
	c := newLedger(l.room)
	for _, e := range l.events {
		c.add(e)
	}
	return c
}

// roles returns what a ledger says of people, in short.
func roles(l *ledger, names ...string) string {
	out := ""
	for _, n := range names {
		out += fmt.Sprintf("%s:%s ", n, l.now().role(person(n)))
	}
	return out
}

func wantRoles(t *testing.T, l *ledger, want string, names ...string) {
	t.Helper()
	if got := roles(l, names...); got != want {
		t.Errorf("roles are %q, want %q", got, want)
	}
}

func addOf(name string, role wire.Role) *wire.AddBody {
	return &wire.AddBody{Account: person(name), Role: role}
}

func removeOf(name string, epoch uint32, topic string) *wire.RemoveBody {
	return &wire.RemoveBody{Account: person(name), Epoch: epoch, Topic: topicNamed(topic)}
}

func TestMembershipRights(t *testing.T) {
	tr, l := newTroupe(t)
	tr.event(l, "ada", addOf("bob", wire.RoleAdmin))
	tr.event(l, "bob", addOf("cy", wire.RoleMember))
	tr.event(l, "cy", addOf("dan", wire.RoleMember))                                  // no right
	tr.event(l, "bob", addOf("eve", wire.RoleOwner))                                  // above his own role
	tr.event(l, "bob", &wire.RoleBody{Account: person("ada"), Role: wire.RoleMember}) // above him
	tr.event(l, "cy", &wire.RoleBody{Account: person("cy"), Role: wire.RoleAdmin})    // no right
	tr.event(l, "mallory", addOf("mallory", wire.RoleOwner))                          // nobody
	tr.event(l, "bob", removeOf("ada", 1, "x"))                                       // above him
	tr.event(l, "cy", &wire.PolicyBody{InviteRole: wire.RoleMember})                  // no right
	wantRoles(t, l, "ada:owner bob:admin cy:member dan:none eve:none mallory:none ", "ada", "bob", "cy", "dan", "eve", "mallory")
	tr.event(l, "ada", &wire.PolicyBody{InviteRole: wire.RoleMember, ShareHistory: true})
	tr.event(l, "cy", addOf("dan", wire.RoleMember))
	tr.event(l, "bob", &wire.RoleBody{Account: person("bob"), Role: wire.RoleMember}) // oneself, downwards
	wantRoles(t, l, "ada:owner bob:member cy:member dan:member ", "ada", "bob", "cy", "dan")
	if !l.now().Policy.ShareHistory {
		t.Error("the policy did not change")
	}
}

func TestBanKeepsOut(t *testing.T) {
	tr, l := newTroupe(t)
	tr.event(l, "ada", addOf("eve", wire.RoleMember))
	tr.event(l, "ada", removeOf("eve", 1, "1"))
	tr.event(l, "ada", &wire.BanBody{Account: person("eve")})
	tr.event(l, "ada", addOf("eve", wire.RoleMember))
	wantRoles(t, l, "eve:none ", "eve")
	tr.event(l, "ada", &wire.BanBody{Account: person("eve"), Lift: true})
	tr.event(l, "ada", addOf("eve", wire.RoleMember))
	wantRoles(t, l, "eve:member ", "eve")
	if n := len(l.now().Spells[person("eve")]); n != 2 {
		t.Errorf("%d spells, want 2", n)
	}
	if got := l.now().Spells[person("eve")][1].From; got != 1 {
		t.Errorf("the second spell begins with epoch %d, want 1", got)
	}
}

func TestRemoveWins(t *testing.T) {
	tr, l := newTroupe(t)
	tr.event(l, "ada", addOf("bob", wire.RoleAdmin))
	tr.event(l, "bob", addOf("cy", wire.RoleMember)) // before the removal: stands
	away := copyOf(l)
	tr.event(away, "bob", addOf("mallory", wire.RoleAdmin)) // at the same time: void
	tr.event(away, "mallory", addOf("eve", wire.RoleMember))
	tr.event(l, "ada", removeOf("bob", 1, "1"))
	share(l, away)
	for _, x := range []*ledger{l, away} {
		wantRoles(t, x, "bob:none cy:member mallory:none eve:none ", "bob", "cy", "mallory", "eve")
	}
	// What the removed does afterwards means nothing, whatever it claims to know.
	tr.event(l, "bob", addOf("eve", wire.RoleMember))
	wantRoles(t, l, "eve:none ", "eve")
	// Added again, bob acts again.
	tr.event(l, "ada", addOf("bob", wire.RoleAdmin))
	tr.event(l, "bob", addOf("eve", wire.RoleMember))
	wantRoles(t, l, "bob:admin eve:member ", "bob", "eve")
}

func TestMutualRemoval(t *testing.T) {
	for _, first := range []string{"bob", "cy"} { // whoever's clock is behind
		tr, l := newTroupe(t)
		tr.event(l, "ada", addOf("bob", wire.RoleAdmin)) // more senior than cy
		tr.event(l, "ada", addOf("cy", wire.RoleAdmin))
		away := copyOf(l)
		if first == "bob" {
			tr.event(l, "bob", removeOf("cy", 1, "b"))
			tr.event(away, "cy", removeOf("bob", 1, "c"))
		} else {
			tr.event(away, "cy", removeOf("bob", 1, "c"))
			tr.event(l, "bob", removeOf("cy", 1, "b"))
		}
		share(l, away)
		for _, x := range []*ledger{l, away} {
			wantRoles(t, x, "bob:admin cy:none ", "bob", "cy")
			if got := x.now().newest().Topic; got != topicNamed("b") {
				t.Errorf("%s first: the epoch is that of the void removal", first)
			}
		}
	}
}

func TestMutualRemovalHigherRole(t *testing.T) {
	tr, l := newTroupe(t)
	tr.event(l, "ada", addOf("bob", wire.RoleAdmin))
	tr.event(l, "ada", addOf("cy", wire.RoleOwner)) // later, and of a higher role
	away := copyOf(l)
	tr.event(l, "bob", removeOf("cy", 1, "b")) // no right: a higher role
	tr.event(away, "cy", removeOf("bob", 1, "c"))
	share(l, away)
	wantRoles(t, l, "bob:none cy:owner ", "bob", "cy")
}

func TestOneTimeInvite(t *testing.T) {
	tr, l := newTroupe(t)
	tr.event(l, "ada", addOf("bob", wire.RoleAdmin))
	away := copyOf(l)
	token := wire.InviteToken{7}
	tr.event(l, "ada", &wire.AddBody{Account: person("cy"), Role: wire.RoleMember, Invite: token})
	tr.event(away, "bob", &wire.AddBody{Account: person("dan"), Role: wire.RoleMember, Invite: token})
	share(l, away)
	wantRoles(t, l, "cy:member dan:none ", "cy", "dan")
	if !l.changeDue() {
		t.Error("dan was given the secret and is no member, and no change is due")
	}
	tr.event(l, "ada", &wire.EpochBody{Epoch: 1, Topic: topicNamed("1")})
	if l.changeDue() {
		t.Error("a change is still due")
	}
	// The same person let in twice at the same time is one member, once.
	away = copyOf(l)
	token = wire.InviteToken{8}
	tr.event(l, "ada", &wire.AddBody{Account: person("eve"), Role: wire.RoleMember, Invite: token})
	tr.event(away, "bob", &wire.AddBody{Account: person("eve"), Role: wire.RoleMember, Invite: token})
	share(l, away)
	wantRoles(t, l, "eve:member ", "eve")
	if n := len(l.now().Spells[person("eve")]); n != 1 || l.changeDue() {
		t.Errorf("%d spells, change due %v; want 1, false", n, l.changeDue())
	}
	// Revoked, a token lets nobody in.
	token = wire.InviteToken{9}
	tr.event(l, "bob", &wire.RevokeBody{Invite: token})
	tr.event(l, "ada", &wire.AddBody{Account: person("fay"), Role: wire.RoleMember, Invite: token})
	wantRoles(t, l, "fay:none ", "fay")
}

func TestEpochsCount(t *testing.T) {
	tr, l := newTroupe(t)
	for _, n := range []string{"bob", "cy", "dan"} {
		tr.event(l, "ada", addOf(n, wire.RoleAdmin))
	}
	away := copyOf(l)
	tr.event(l, "ada", removeOf("cy", 1, "a"))
	tr.event(away, "bob", removeOf("dan", 1, "b"))
	share(l, away)
	m := l.now()
	if got := m.newest(); got.Number != 1 || got.Topic != topicNamed("a") {
		t.Errorf("the newest epoch is %d, and not that of the first in the line", got.Number)
	}
	if _, ok := m.Announced[topicNamed("b")]; !ok {
		t.Error("the epoch that lost is forgotten: what was said under it cannot be read")
	}
	if !l.changeDue() {
		t.Error("dan holds the epoch that counts, and no change is due")
	}
	tr.event(l, "bob", &wire.EpochBody{Epoch: 3, Topic: topicNamed("c")}) // leaves one out
	tr.event(l, "bob", &wire.EpochBody{Epoch: 2, Topic: topicNamed("a")}) // a key that was there before
	if got := l.now().newest().Number; got != 1 {
		t.Errorf("the newest epoch is %d, want 1", got)
	}
	tr.event(l, "bob", &wire.EpochBody{Epoch: 2, Topic: topicNamed("d")})
	if l.changeDue() || l.now().newest().Number != 2 {
		t.Error("the change did not count")
	}
	tr.event(l, "bob", &wire.LeaveBody{})
	if !l.changeDue() || l.now().role(person("bob")) != 0 {
		t.Error("bob left, and no change is due")
	}
}

func TestLedgerWaitsForAncestors(t *testing.T) {
	tr, l := newTroupe(t)
	part := copyOf(l)
	first := tr.event(l, "ada", addOf("bob", wire.RoleAdmin))
	second := tr.event(l, "bob", addOf("cy", wire.RoleMember))
	part.add(second)
	if roles(part, "bob", "cy") != "bob:none cy:none " || !slices.Equal(part.now().Missing, []wire.EventID{first.ID}) {
		t.Errorf("%s, missing %v", roles(part, "bob", "cy"), part.now().Missing)
	}
	part.add(first)
	wantRoles(t, part, "bob:admin cy:member ", "bob", "cy")
	if len(part.now().Missing) != 0 {
		t.Error("something is still missing")
	}
	empty := newLedger(tr.room)
	empty.add(second)
	if len(empty.now().Missing) != 2 {
		t.Errorf("missing %v, want the create event and bob's", empty.now().Missing)
	}
	if got := l.after(first.ID); len(got) != 1 || got[0] != second {
		t.Errorf("%d events after the first, want the second", len(got))
	}
}

// TestSecretsAreChecked goes through who may hand over which epoch's secret.
func TestSecretsAreChecked(t *testing.T) {
	tr, l := newTroupe(t)
	tr.event(l, "ada", addOf("bob", wire.RoleAdmin))
	tr.event(l, "ada", addOf("cy", wire.RoleMember))
	tr.event(l, "ada", addOf("dan", wire.RoleModerator))
	tr.event(l, "ada", addOf("eve", wire.RoleAdmin))
	tr.event(l, "bob", &wire.EpochBody{Epoch: 1, Topic: topicNamed("1")})
	tr.event(l, "ada", removeOf("eve", 2, "2"))
	tr.event(l, "ada", &wire.RoleBody{Account: person("bob"), Role: wire.RoleMember})
	for _, c := range []struct {
		what, from, topic string
		number            uint32
		want              bool
	}{
		{"by an admin", "ada", "1", 1, true},
		{"by who announced it, and has no right any more", "bob", "1", 1, true},
		{"another's by who has no right", "bob", "2", 2, false},
		{"by a member", "cy", "1", 1, false},
		{"by a moderator", "dan", "1", 1, false},
		{"by who was removed", "eve", "1", 1, false},
		{"by a stranger", "mallory", "1", 1, false},
		{"under another number", "ada", "1", 2, false},
		{"another epoch's number", "ada", "2", 1, false},
		{"that nobody announced", "ada", "3", 3, false},
	} {
		if got := fits(l.now(), topicNamed(c.topic), secretRow{Number: c.number, From: person(c.from)}); got != c.want {
			t.Errorf("a secret %s: taken %v, want %v", c.what, got, c.want)
		}
	}
}

// summary is all that an evaluation says, in one text.
func (m *membership) summary() string {
	out := ""
	sorted := func(ids []wire.AccountID) []wire.AccountID {
		slices.SortFunc(ids, func(a, b wire.AccountID) int { return slices.Compare(a[:], b[:]) })
		return ids
	}
	for _, a := range sorted(slices.Collect(maps.Keys(m.Members))) {
		out += fmt.Sprintf("%x:%d@%d ", a[:4], m.Members[a].Role, m.Members[a].place)
	}
	for _, a := range sorted(slices.Collect(maps.Keys(m.Spells))) {
		out += fmt.Sprintf("%x:%v %v ", a[:4], m.Spells[a], m.Roles[a])
	}
	out += fmt.Sprint(m.Posting)
	return out + fmt.Sprint(m.Epochs, m.Policy, m.Heads, m.Banned, len(m.Spent), len(m.Announced), len(m.void), len(m.Missing))
}

// TestMembershipInEveryOrder lets people act on what little they know of each other, and delivers what
// they did to five replicas in orders of their own, with repetitions: all must agree.
func TestMembershipInEveryOrder(t *testing.T) {
	names := []string{"ada", "bob", "cy", "dan", "eve", "fay"}
	runs := 300
	if testing.Short() {
		runs = 50
	}
	deleted, posted := make(map[bool]int), make(map[bool]int)
	for run := range runs {
		seed := uint64(run) + 1
		rnd := rand.New(rand.NewPCG(seed, 36))
		tr, root := newTroupe(t)
		views := make(map[string]*ledger)
		for _, n := range names {
			views[n] = copyOf(root)
		}
		epoch := uint32(0)
		for range 10 + rnd.IntN(30) {
			by, on := names[rnd.IntN(len(names))], names[rnd.IntN(len(names))]
			l := views[by]
			if rnd.IntN(3) == 0 { // they meet somebody
				share(l, views[on])
			}
			number := l.now().newest().Number + 1
			epoch++
			topic := fmt.Sprint("t", epoch)
			bodies := []wire.Body{
				addOf(on, wire.Role(1+rnd.IntN(4))), addOf(on, wire.RoleAdmin), removeOf(on, number, topic), removeOf(on, number, topic),
				&wire.RoleBody{Account: person(on), Role: wire.Role(1 + rnd.IntN(4))},
				&wire.EpochBody{Epoch: number, Topic: topicNamed(topic)}, &wire.LeaveBody{},
				&wire.AddBody{Account: person(on), Role: wire.RoleMember, Invite: wire.InviteToken{byte(1 + rnd.IntN(3))}},
				&wire.RevokeBody{Invite: wire.InviteToken{byte(1 + rnd.IntN(3))}},
				&wire.BanBody{Account: person(on), Lift: rnd.IntN(2) == 0},
				&wire.PolicyBody{InviteRole: wire.Role(1 + rnd.IntN(4)), PostRole: wire.Role(rnd.IntN(5))},
			}
			tr.event(l, by, bodies[rnd.IntN(len(bodies))])
			if rnd.IntN(5) == 0 { // a clock that is wrong
				tr.clock -= wire.HLC(rnd.IntN(20)) << 16
			}
		}
		var redactions []redactionBy
		for range 10 {
			r := redactionBy{names[rnd.IntN(len(names))], names[rnd.IntN(len(names))], nil}
			for range 1 + rnd.IntN(wire.MaxParents) {
				r.parents = append(r.parents, tr.all[rnd.IntN(len(tr.all))].ID)
			}
			redactions = append(redactions, r)
		}
		want := ""
		for replica := range 5 {
			l := newLedger(tr.room)
			order := rnd.Perm(len(tr.all))
			for i, k := range order {
				l.add(tr.all[k])
				l.add(tr.all[order[rnd.IntN(i+1)]])
				if rnd.IntN(4) == 0 {
					l.now() // looking on the way changes nothing
				}
			}
			got := l.now().summary()
			for i, r := range redactions {
				reaches := l.reaches(eventNumber(i), person(r.by), person(r.of), r.parents)
				got += fmt.Sprint(" ", reaches)
				deleted[reaches]++
			}
			for _, n := range names {
				for _, e := range tr.all {
					may := l.now().mayPost(person(n), wire.KindMessage, e.HLC)
					got += fmt.Sprint(" ", may)
					posted[may]++
				}
			}
			if replica == 0 {
				want = got
			}
			if got != want {
				t.Fatalf("seed %d, replica %d:\n%s\nwant\n%s", seed, replica, got, want)
			}
			if len(l.now().Missing) != 0 || len(l.now().effect)+len(l.now().void) != len(tr.all) {
				t.Fatalf("seed %d: %d of %d events are in the line", seed, len(l.now().effect)+len(l.now().void), len(tr.all))
			}
		}
	}
	if min(deleted[true], deleted[false], posted[true], posted[false]) < runs {
		t.Errorf("one-sided: redactions that reach %v, messages that may be posted %v", deleted, posted)
	}
}

// redactionBy is somebody's deletion of what another one said, by the events it names.
type redactionBy struct {
	by, of  string
	parents []wire.EventID
}

// TestRights goes through who may post when, and whose deletions reach whom.
func TestRights(t *testing.T) {
	tr, l := newTroupe(t)
	for _, n := range []string{"bob", "cy", "dan"} {
		tr.event(l, "ada", addOf(n, wire.RoleMember))
	}
	may := func(who string, kind wire.Kind, at wire.HLC, want bool) {
		t.Helper()
		if got := l.now().mayPost(person(who), kind, at); got != want {
			t.Errorf("%s may say kind %d at %v: %v, want %v", who, kind, at, got, want)
		}
	}
	n := 0
	reaches := func(by, of string, want bool, parents ...wire.EventID) {
		t.Helper()
		n++
		if got := l.reaches(eventNumber(n), person(by), person(of), parents); got != want {
			t.Errorf("a deletion by %s of what %s said counts: %v, want %v", by, of, got, want)
		}
	}
	reaches("bob", "cy", false, l.now().Heads...)
	before := tr.clock
	tr.event(l, "ada", &wire.PolicyBody{PostRole: wire.RoleModerator})
	may("bob", wire.KindMessage, before, true) // said before
	may("bob", wire.KindMessage, tr.clock, false)
	may("bob", wire.KindEdit, tr.clock, false)
	may("bob", wire.KindTopic, tr.clock, false)
	may("bob", wire.KindReact, tr.clock, true)
	may("ada", wire.KindMessage, tr.clock, true)
	plain := tr.clock
	promoted := tr.event(l, "ada", &wire.RoleBody{Account: person("bob"), Role: wire.RoleModerator})
	may("bob", wire.KindMessage, plain, false)
	may("bob", wire.KindMessage, tr.clock, true)
	reaches("bob", "cy", true, promoted.ID)
	reaches("bob", "bob", false, promoted.ID) // authors do that by being authors
	reaches("bob", "ada", false, promoted.ID)
	reaches("bob", "nobody", true, promoted.ID)
	reaches("ada", "bob", true, promoted.ID)
	reaches("cy", "dan", false, promoted.ID)
	reaches("bob", "cy", false, wire.EventID(l.room)) // by somebody who does not know of his role
	reaches("bob", "cy", false, eventNumber(99))      // an event that is not here
	tr.event(l, "ada", &wire.RoleBody{Account: person("cy"), Role: wire.RoleModerator})
	reaches("bob", "cy", false, l.now().Heads...)
	demoted := tr.event(l, "ada", &wire.RoleBody{Account: person("bob"), Role: wire.RoleMember})
	reaches("bob", "dan", false, demoted.ID)
	reaches("bob", "dan", true, promoted.ID) // deleted meanwhile, without knowing
	may("bob", wire.KindMessage, tr.clock, false)
	may("bob", wire.KindMessage, demoted.HLC-1, true)
	tr.event(l, "ada", removeOf("cy", 1, "1"))
	may("cy", wire.KindMessage, tr.clock+1, true) // whether it stands is for the marks to say
	tr.event(l, "ada", &wire.PolicyBody{})
	may("bob", wire.KindMessage, tr.clock, true)
}

// TestMembershipActs: the property test above would pass if nothing ever had effect.
func TestMembershipActs(t *testing.T) {
	tr, l := newTroupe(t)
	for i := range 500 {
		tr.event(l, "ada", addOf(fmt.Sprint("p", i), wire.RoleMember))
	}
	start := time.Now()
	if n := len(l.now().Members); n != 501 {
		t.Errorf("%d members, want 501", n)
	}
	t.Logf("500 additions evaluated in %v", time.Since(start))
}
