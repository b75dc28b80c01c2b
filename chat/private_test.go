package chat_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/chattest"
)

// secretName is a room name that must never be seen on the way.
const secretName = "kitchen-cabinet"

// create makes a private room by a node, after all took their names for nicks.
func create(t *testing.T, history string, owner *chattest.Node, others ...*chattest.Node) chat.Target {
	t.Helper()
	for _, nd := range append([]*chattest.Node{owner}, others...) {
		if err := nd.Service().SetNick(t.Context(), nd.Name); err != nil {
			t.Fatal(err)
		}
	}
	c, err := owner.Service().CreateRoom(t.Context(), chat.CreateRequest{Name: secretName, History: history})
	if err != nil {
		t.Fatalf("creating a room: %v", err)
	}
	if c.Membership != chat.MembershipMember || c.Role != "owner" || c.Access != chat.AccessPrivate || c.Members != 1 {
		t.Errorf("the new room is %+v", c)
	}
	target, err := owner.Service().Resolve("#" + secretName)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// link makes an invite.
func link(t *testing.T, by *chattest.Node, target chat.Target, oneTime bool) chat.Invite {
	t.Helper()
	inv, err := by.Service().CreateInvite(t.Context(), chat.InviteRequest{Target: target, OneTime: oneTime})
	if err != nil {
		t.Fatalf("%s invites: %v", by.Name, err)
	}
	return inv
}

// accept accepts an invite, without waiting to be admitted.
func accept(t *testing.T, nd *chattest.Node, link string) chat.Conversation {
	t.Helper()
	c, err := nd.Service().Join(t.Context(), link, "")
	if err != nil {
		t.Fatalf("%s accepts: %v", nd.Name, err)
	}
	return c
}

// stands checks how somebody stands with a room.
func stands(t *testing.T, nd *chattest.Node, target chat.Target, membership string, members int) func() error {
	return func() error {
		c, err := nd.Service().Conversation(t.Context(), target)
		if err != nil {
			return fmt.Errorf("%s: %w", nd.Name, err)
		}
		if c.Membership != membership || membership == chat.MembershipMember && c.Members != members {
			return fmt.Errorf("%s is %s of %d (%s), want %s of %d", nd.Name, c.Membership, c.Members, c.Note, membership, members)
		}
		return nil
	}
}

// all joins checks.
func all(checks ...func() error) func() error {
	return func() error {
		for _, check := range checks {
			if err := check(); err != nil {
				return err
			}
		}
		return nil
	}
}

// admit lets nodes in one after the other.
func admit(t *testing.T, owner *chattest.Node, target chat.Target, others ...*chattest.Node) {
	t.Helper()
	for i, nd := range others {
		accept(t, nd, link(t, owner, target, true).Link)
		checks := []func() error{stands(t, owner, target, chat.MembershipMember, i+2)}
		for _, in := range others[:i+1] {
			checks = append(checks, stands(t, in, target, chat.MembershipMember, i+2))
		}
		eventually(t, time.Minute, all(checks...))
	}
}

// begins checks what the first line of a room says.
func begins(t *testing.T, nd *chattest.Node, target chat.Target, want string) error {
	t.Helper()
	page, err := nd.Service().History(t.Context(), chat.HistoryQuery{Target: target, N: 100})
	if err != nil || len(page) == 0 || page[0].Text != want || page[0].Kind != chat.KindMember {
		return fmt.Errorf("%s sees %+v first, want %q: %w", nd.Name, page, want, err)
	}
	return nil
}

func remove(t *testing.T, by *chattest.Node, target chat.Target, who *chattest.Node) {
	t.Helper()
	err := by.Service().ChangeMember(t.Context(), target, chat.MemberChange{Who: "@" + who.Account().String(), Action: chat.MemberRemove})
	if err != nil {
		t.Fatalf("%s removes %s: %v", by.Name, who.Name, err)
	}
}

func setRole(t *testing.T, by *chattest.Node, target chat.Target, who *chattest.Node, role string) {
	t.Helper()
	err := by.Service().ChangeMember(t.Context(), target, chat.MemberChange{Who: "@" + who.Account().String(), Action: chat.MemberRole, Role: role})
	if err != nil {
		t.Fatalf("%s makes %s %s: %v", by.Name, who.Name, role, err)
	}
	eventually(t, time.Minute, func() error {
		c, err := who.Service().Conversation(t.Context(), target)
		if err != nil || c.Role != role {
			return fmt.Errorf("%s is %s, %w", who.Name, c.Role, err)
		}
		return nil
	})
}

func TestPrivateRoom(t *testing.T) {
	world(t, 1, []string{"ada", "bob", "cy"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, bob, cy := nodes[0], nodes[1], nodes[2]
		n.Watch(secretName, "only for members", "just us two")
		target := create(t, chat.HistoryAll, ada, bob, cy)
		say(t, ada, target, "only for members: first")
		inv := link(t, ada, target, true)
		broken := " " + inv.Link[:70] + "\r\n  " + inv.Link[70:140] + "\n" + inv.Link[140:] + "\n" // as a mail has it
		c := accept(t, bob, broken)
		if c.Membership != chat.MembershipPending || c.Note == "" {
			t.Errorf("after accepting bob sees %+v", c)
		}
		eventually(t, time.Minute, all(stands(t, bob, target, chat.MembershipMember, 2), stands(t, ada, target, chat.MembershipMember, 2)))
		eventually(t, time.Minute, shows(t, bob, target, "only for members: first"))
		for _, nd := range nodes[:2] {
			eventually(t, time.Minute, func() error { return begins(t, nd, target, "ada made the room") })
		}
		say(t, bob, target, "only for members: second")
		eventually(t, time.Minute, shows(t, ada, target, "only for members: first", "only for members: second"))
		if list, err := ada.Service().Invites(t.Context()); err != nil || len(list) != 1 || !list[0].Used || !list[0].OneTime {
			t.Errorf("invites are %+v, %v", list, err)
		}
		// The link is used up, and says so.
		accept(t, cy, inv.Link)
		eventually(t, time.Minute, func() error {
			c, err := cy.Service().Conversation(t.Context(), target)
			if err != nil || c.Membership != chat.MembershipRemoved || !strings.Contains(c.Note, "used already") {
				return fmt.Errorf("%+v, %v", c, err)
			}
			return nil
		})
		// Another one works.
		accept(t, cy, link(t, ada, target, false).Link)
		eventually(t, time.Minute, all(stands(t, cy, target, chat.MembershipMember, 3), stands(t, bob, target, chat.MembershipMember, 3)))
		eventually(t, time.Minute, shows(t, cy, target, "only for members: first", "only for members: second"))
		members, err := bob.Service().Members(t.Context(), target)
		if err != nil || len(members) != 3 {
			t.Fatalf("members are %+v, %v", members, err)
		}
		for _, m := range members {
			want := "member"
			if m.Account == ada.Account() {
				want = "owner"
			}
			if m.Role != want {
				t.Errorf("%s is %s, want %s", m.Nick, m.Role, want)
			}
		}
		// What newcomers are called is no line of its own; that somebody takes another name is.
		if err := bob.Service().SetNick(t.Context(), "bobby"); err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Minute, func() error {
			page, err := cy.Service().History(t.Context(), chat.HistoryQuery{Target: target, N: 100})
			var names []string
			for _, m := range page {
				if m.Kind == chat.KindProfile {
					names = append(names, m.Text)
				}
			}
			if err != nil || !slices.Equal(names, []string{"bobby"}) {
				return fmt.Errorf("lines about names: %q, %w", names, err)
			}
			return nil
		})
		// Removed, cy reads no more.
		remove(t, ada, target, cy)
		eventually(t, time.Minute, all(stands(t, bob, target, chat.MembershipMember, 2), stands(t, cy, target, chat.MembershipRemoved, 0)))
		say(t, bob, target, "just us two")
		eventually(t, time.Minute, shows(t, ada, target, "only for members: first", "only for members: second", "just us two"))
		time.Sleep(10 * time.Minute)
		if got := texts(t, cy, target); slices.Contains(got, "just us two") {
			t.Errorf("cy reads on: %q", got)
		}
		if _, err := cy.Service().Send(t.Context(), chat.SendRequest{Target: target, Text: "hello?"}); !errors.Is(err, chat.ErrDenied) {
			t.Errorf("cy writes: %v", err)
		}
		if seen := n.Seen(); len(seen) > 0 {
			t.Errorf("in clear on the way: %q", seen)
		}
	})
}

// digests checks that nodes show the same messages of a room.
func digests(t *testing.T, target chat.Target, nodes ...*chattest.Node) func() error {
	return func() error {
		var first chat.Digest
		for i, nd := range nodes {
			d, err := nd.Service().Digest(t.Context(), target)
			if err != nil {
				return err
			}
			if i == 0 {
				first = d
			}
			if d.Count != first.Count || d.SHA256 != first.SHA256 {
				return fmt.Errorf("%s holds %d messages, %s %d", nd.Name, d.Count, nodes[0].Name, first.Count)
			}
		}
		return nil
	}
}

func TestAcceptWhileTheCreatorIsAway(t *testing.T) {
	world(t, 2, []string{"ada", "bob", "cy"}, func(t *testing.T, _ *chattest.Network, nodes []*chattest.Node) {
		ada, bob, cy := nodes[0], nodes[1], nodes[2]
		target := create(t, chat.HistoryAll, ada, bob, cy)
		admit(t, ada, target, bob)
		say(t, ada, target, "before")
		setRole(t, ada, target, bob, "admin")
		inv := link(t, ada, target, true)
		bob.Stop()
		ada.Stop()
		accept(t, cy, inv.Link)
		time.Sleep(time.Minute)
		if err := stands(t, cy, target, chat.MembershipPending, 0)(); err != nil {
			t.Error(err)
		}
		bob.Start()
		eventually(t, 5*time.Minute, all(stands(t, cy, target, chat.MembershipMember, 3), stands(t, bob, target, chat.MembershipMember, 3)))
		eventually(t, time.Minute, shows(t, cy, target, "before"))
		say(t, cy, target, "hello")
		eventually(t, time.Minute, shows(t, bob, target, "before", "hello"))
		cy.Stop()
		ada.Start()
		eventually(t, 5*time.Minute, all(stands(t, ada, target, chat.MembershipMember, 3), shows(t, ada, target, "before", "hello")))
	})
}

func TestNewcomersWithoutHistory(t *testing.T) {
	world(t, 3, []string{"ada", "bob", "cy"}, func(t *testing.T, _ *chattest.Network, nodes []*chattest.Node) {
		ada, bob, cy := nodes[0], nodes[1], nodes[2]
		target := create(t, chat.HistoryNone, ada, bob, cy)
		say(t, ada, target, "one")
		admit(t, ada, target, bob)
		say(t, bob, target, "two")
		eventually(t, time.Minute, shows(t, ada, target, "one", "two"))
		admit(t, ada, target, bob, cy)
		say(t, cy, target, "three")
		eventually(t, time.Minute, all(
			shows(t, ada, target, "one", "two", "three"), shows(t, bob, target, "two", "three"), shows(t, cy, target, "three")))
		knows := func(want int) {
			t.Helper()
			members, err := cy.Service().Members(t.Context(), target)
			if err != nil || len(members) != want {
				t.Fatalf("%+v, %v", members, err)
			}
			for _, m := range members {
				if m.Nick == m.Fingerprint {
					t.Errorf("cy does not know the nick of %s", m.Account)
				}
			}
		}
		knows(3)
		ada.Stop()
		bob.Stop()
		cy.Stop()
		cy.Start() // nicks that were handed over are kept
		knows(3)
		ada.Start()
		bob.Start()
		c, err := cy.Service().Conversation(t.Context(), target)
		if err != nil || c.History != chat.HistoryNone || !strings.Contains(c.Policy, "nothing") || len(c.Gaps) > 0 {
			t.Errorf("cy sees %+v, %v", c, err)
		}
		if err := ada.Service().SetPolicy(t.Context(), target, chat.PolicyRequest{History: chat.HistoryAll}); err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Minute, func() error {
			if c, err := cy.Service().Conversation(t.Context(), target); err != nil || c.History != chat.HistoryAll {
				return fmt.Errorf("history is %s, %w", c.History, err)
			}
			return nil
		})
		if err := cy.Service().SetPolicy(t.Context(), target, chat.PolicyRequest{History: chat.HistoryNone}); !errors.Is(err, chat.ErrDenied) {
			t.Errorf("a member changes the policy: %v", err)
		}
	})
}

// TestRemovedCannotInject: what somebody says who does not know of the removal yet, or pretends not to,
// is under a key that the others hold, and shown by nobody.
func TestRemovedCannotInject(t *testing.T) {
	world(t, 4, []string{"ada", "bob", "cy", "dan"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, bob, cy, dan := nodes[0], nodes[1], nodes[2], nodes[3]
		target := create(t, chat.HistoryAll, ada, bob, cy, dan)
		admit(t, ada, target, bob, cy)
		stood := say(t, cy, target, "this stands")
		eventually(t, time.Minute, shows(t, ada, target, "this stands"))
		n.Partition([]*chattest.Node{ada}, []*chattest.Node{bob, cy})
		say(t, cy, target, "said away") // bob shows it until he learns
		eventually(t, time.Minute, shows(t, bob, target, "this stands", "said away"))
		if _, err := cy.Service().Send(t.Context(), chat.SendRequest{Target: target, Action: chat.ActionReact, Ref: stood.ID, Text: "+1"}); err != nil {
			t.Fatal(err)
		}
		remove(t, ada, target, cy)
		say(t, ada, target, "for bob")
		n.Heal()
		eventually(t, 10*time.Minute, all(
			stands(t, bob, target, chat.MembershipMember, 2), stands(t, cy, target, chat.MembershipRemoved, 0),
			shows(t, bob, target, "this stands", "for bob"), shows(t, ada, target, "this stands", "for bob"), digests(t, target, ada, bob)))
		for _, nd := range []*chattest.Node{ada, bob} {
			if m := messages(t, nd, target)[0]; len(m.Reactions) != 0 {
				t.Errorf("%s shows the reaction of a removed member", nd.Name)
			}
		}
		if got := texts(t, cy, target); slices.Contains(got, "for bob") {
			t.Errorf("cy reads %q", got)
		}
		// A newcomer who gets the old keys too decides the same, from the set alone.
		admit(t, ada, target, bob)
		accept(t, dan, link(t, ada, target, true).Link)
		eventually(t, time.Minute, stands(t, dan, target, chat.MembershipMember, 3))
		eventually(t, 5*time.Minute, all(shows(t, dan, target, "this stands", "for bob"), digests(t, target, ada, bob, dan)))
		// And so does a restart.
		bob.Stop()
		bob.Start()
		eventually(t, time.Minute, all(shows(t, bob, target, "this stands", "for bob"), digests(t, target, ada, bob, dan)))
		// Let in again, cy is heard again; what was said in between is not.
		accept(t, cy, link(t, ada, target, true).Link)
		eventually(t, 5*time.Minute, stands(t, cy, target, chat.MembershipMember, 4))
		say(t, cy, target, "back")
		eventually(t, 5*time.Minute, all(shows(t, ada, target, "this stands", "for bob", "back"), digests(t, target, ada, bob, dan, cy)))
	})
}

func TestTwoAdminsRedeemOneLink(t *testing.T) {
	world(t, 5, []string{"ada", "bob", "cy", "dan"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, bob, cy, dan := nodes[0], nodes[1], nodes[2], nodes[3]
		target := create(t, chat.HistoryAll, ada, bob, cy, dan)
		admit(t, ada, target, bob)
		setRole(t, ada, target, bob, "admin")
		time.Sleep(10 * time.Second)
		inv := link(t, ada, target, true)
		n.Partition([]*chattest.Node{ada, cy}, []*chattest.Node{bob, dan})
		accept(t, cy, inv.Link)
		accept(t, dan, inv.Link)
		eventually(t, 10*time.Minute, all(stands(t, cy, target, chat.MembershipMember, 3), stands(t, dan, target, chat.MembershipMember, 3)))
		n.Heal()
		isMember := func(nd *chattest.Node) bool {
			c, err := nd.Service().Conversation(t.Context(), target)
			return err == nil && c.Membership == chat.MembershipMember
		}
		eventually(t, 20*time.Minute, func() error {
			if isMember(cy) == isMember(dan) {
				return fmt.Errorf("cy is in: %v, dan is in: %v", isMember(cy), isMember(dan))
			}
			return all(stands(t, ada, target, chat.MembershipMember, 3), stands(t, bob, target, chat.MembershipMember, 3))()
		})
		in, out := cy, dan
		if isMember(dan) {
			in, out = dan, cy
		}
		time.Sleep(5 * time.Minute) // the key is changed, since the one who is out holds it
		say(t, ada, target, "after the change")
		eventually(t, 10*time.Minute, all(shows(t, bob, target, "after the change"), shows(t, in, target, "after the change")))
		time.Sleep(10 * time.Minute)
		if got := texts(t, out, target); len(got) != 0 {
			t.Errorf("%s was refused and reads %q", out.Name, got)
		}
	})
}

func TestTwoAdminsActApart(t *testing.T) {
	for _, history := range []string{chat.HistoryAll, chat.HistoryNone} {
		world(t, 6, []string{"ada", "bob", "cy", "dan", "eve", "fay"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
			ada, bob, cy, dan, eve, fay := nodes[0], nodes[1], nodes[2], nodes[3], nodes[4], nodes[5]
			target := create(t, history, ada, bob, cy, dan, eve, fay)
			admit(t, ada, target, bob, cy, dan)
			setRole(t, ada, target, bob, "admin")
			time.Sleep(10 * time.Second)
			n.Partition([]*chattest.Node{ada, cy, dan, eve}, []*chattest.Node{bob, fay})
			remove(t, ada, target, cy)
			remove(t, bob, target, dan)
			accept(t, eve, link(t, ada, target, false).Link)
			accept(t, fay, link(t, bob, target, false).Link)
			eventually(t, 10*time.Minute, all(stands(t, eve, target, chat.MembershipMember, 4), stands(t, fay, target, chat.MembershipMember, 4)))
			say(t, ada, target, "here")
			say(t, bob, target, "there")
			n.Heal()
			in := []*chattest.Node{ada, bob, eve, fay}
			var checks []func() error
			for _, nd := range in {
				checks = append(checks, stands(t, nd, target, chat.MembershipMember, 4))
			}
			eventually(t, 20*time.Minute, all(checks...))
			time.Sleep(10 * time.Minute) // for the change of the key that both removals make due
			say(t, fay, target, "together")
			checks = nil
			for _, nd := range in {
				checks = append(checks, func() error {
					if got := texts(t, nd, target); !slices.Contains(got, "together") {
						return fmt.Errorf("%s shows %q", nd.Name, got)
					}
					return nil
				})
			}
			eventually(t, 20*time.Minute, all(checks...))
			if history == chat.HistoryAll {
				eventually(t, 20*time.Minute, digests(t, target, in...))
			}
			for _, nd := range []*chattest.Node{cy, dan} {
				if got := texts(t, nd, target); slices.Contains(got, "together") {
					t.Errorf("%s, history %s: %s was removed and reads %q", t.Name(), history, nd.Name, got)
				}
			}
		})
	}
}

func TestMemberAwayDuringRemoval(t *testing.T) {
	world(t, 7, []string{"ada", "bob", "cy", "dan"}, func(t *testing.T, _ *chattest.Network, nodes []*chattest.Node) {
		ada, bob, cy, dan := nodes[0], nodes[1], nodes[2], nodes[3]
		target := create(t, chat.HistoryAll, ada, bob, cy, dan)
		admit(t, ada, target, bob, cy, dan)
		setRole(t, ada, target, dan, "admin")
		time.Sleep(10 * time.Second)
		bob.Stop()
		remove(t, ada, target, cy)
		eventually(t, time.Minute, stands(t, dan, target, chat.MembershipMember, 3))
		say(t, ada, target, "while bob is away")
		eventually(t, time.Minute, shows(t, dan, target, "while bob is away"))
		ada.Stop() // dan has the right to give the key
		bob.Start()
		eventually(t, 10*time.Minute, all(stands(t, bob, target, chat.MembershipMember, 3), shows(t, bob, target, "while bob is away")))
		say(t, bob, target, "back")
		eventually(t, time.Minute, shows(t, dan, target, "while bob is away", "back"))
	})
}

// TestPrivateRoomAcrossRestarts stops nodes in the middle of each step.
func TestPrivateRoomAcrossRestarts(t *testing.T) {
	world(t, 8, []string{"ada", "bob", "cy"}, func(t *testing.T, _ *chattest.Network, nodes []*chattest.Node) {
		ada, bob, cy := nodes[0], nodes[1], nodes[2]
		again := func(list ...*chattest.Node) {
			for _, nd := range list {
				nd.Stop()
			}
			for _, nd := range list {
				nd.Start()
			}
		}
		target := create(t, chat.HistoryNone, ada, bob, cy)
		again(ada)
		say(t, ada, target, "alone")
		inv := link(t, ada, target, true)
		again(ada)
		accept(t, bob, inv.Link)
		again(bob, ada)
		eventually(t, 5*time.Minute, all(stands(t, bob, target, chat.MembershipMember, 2), stands(t, ada, target, chat.MembershipMember, 2)))
		admit(t, ada, target, bob, cy)
		again(bob, cy)
		say(t, bob, target, "hello")
		eventually(t, 5*time.Minute, all(stands(t, cy, target, chat.MembershipMember, 3), shows(t, cy, target, "hello"), shows(t, ada, target, "alone", "hello")))
		bob.Stop()
		remove(t, ada, target, cy)
		ada.Stop() // before anybody was told
		bob.Start()
		ada.Start()
		eventually(t, 10*time.Minute, all(stands(t, bob, target, chat.MembershipMember, 2), stands(t, cy, target, chat.MembershipRemoved, 0)))
		say(t, bob, target, "without cy")
		again(ada)
		eventually(t, 5*time.Minute, all(shows(t, ada, target, "alone", "hello", "without cy")))
		if err := bob.Service().Leave(t.Context(), target); err != nil {
			t.Fatal(err)
		}
		eventually(t, 5*time.Minute, stands(t, ada, target, chat.MembershipMember, 1))
		again(bob, ada)
		if _, err := bob.Service().Send(t.Context(), chat.SendRequest{Target: target, Text: "x"}); !errors.Is(err, chat.ErrNotJoined) {
			t.Errorf("bob left and writes: %v", err)
		}
		// Let in again, bob goes on where he ended.
		accept(t, bob, link(t, ada, target, true).Link)
		eventually(t, 5*time.Minute, stands(t, bob, target, chat.MembershipMember, 2))
		say(t, bob, target, "here again")
		eventually(t, 5*time.Minute, shows(t, ada, target, "alone", "hello", "without cy", "here again"))
	})
}

func TestInvitesThatLetNobodyIn(t *testing.T) {
	world(t, 9, []string{"ada", "bob", "cy"}, func(t *testing.T, _ *chattest.Network, nodes []*chattest.Node) {
		ada, bob, cy := nodes[0], nodes[1], nodes[2]
		target := create(t, chat.HistoryAll, ada, bob, cy)
		refused := func(nd *chattest.Node, link, why string) {
			t.Helper()
			accept(t, nd, link)
			eventually(t, 5*time.Minute, func() error {
				c, err := nd.Service().Conversation(t.Context(), target)
				if err != nil || c.Membership != chat.MembershipRemoved || !strings.Contains(c.Note, why) {
					return fmt.Errorf("%+v, %w", c, err)
				}
				return nil
			})
			if err := nd.Service().Leave(t.Context(), target); err != nil {
				t.Fatal(err)
			}
			if list, _ := nd.Service().Conversations(t.Context()); len(list) != 0 {
				t.Errorf("%s still lists %+v", nd.Name, list)
			}
		}
		inv := link(t, ada, target, false)
		if err := ada.Service().RevokeInvite(t.Context(), inv.ID); err != nil {
			t.Fatal(err)
		}
		refused(bob, inv.Link, "taken back")
		late := link(t, ada, target, false)
		ada.Stop()
		accept(t, bob, late.Link)
		ada.SetSkew(8 * 24 * time.Hour)
		bob.SetSkew(8 * 24 * time.Hour)
		cy.SetSkew(8 * 24 * time.Hour)
		ada.Start()
		eventually(t, 2*time.Hour, func() error {
			c, err := bob.Service().Conversation(t.Context(), target)
			if err != nil || !strings.Contains(c.Note, "expired: ask") {
				return fmt.Errorf("%+v, %w", c, err)
			}
			return nil
		})
		if err := bob.Service().Leave(t.Context(), target); err != nil {
			t.Fatal(err)
		}
		if _, err := bob.Service().Join(t.Context(), late.Link, ""); !errors.Is(err, chat.ErrDenied) {
			t.Errorf("an expired invite: %v", err)
		}
		if _, err := bob.Service().Join(t.Context(), late.Link[:len(late.Link)-3], ""); !errors.Is(err, chat.ErrBadRequest) {
			t.Errorf("a damaged invite: %v", err)
		}
		if _, err := bob.Service().Join(t.Context(), "starling:invite/AgEC", ""); !errors.Is(err, chat.ErrBadRequest) {
			t.Errorf("garbage: %v", err)
		}
		admit(t, ada, target, bob)
		if _, err := bob.Service().CreateInvite(t.Context(), chat.InviteRequest{Target: target}); !errors.Is(err, chat.ErrDenied) {
			t.Errorf("a member without the right invites: %v", err)
		}
		err := ada.Service().ChangeMember(t.Context(), target, chat.MemberChange{Who: "@bob", Action: chat.MemberBan, Reason: "noise"})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Minute, stands(t, bob, target, chat.MembershipRemoved, 0))
		if err := bob.Service().Leave(t.Context(), target); err != nil {
			t.Fatal(err)
		}
		accept(t, bob, link(t, ada, target, false).Link)
		eventually(t, 5*time.Minute, func() error {
			c, err := bob.Service().Conversation(t.Context(), target)
			if err != nil || !strings.Contains(c.Note, "not let in") {
				return fmt.Errorf("%+v, %w", c, err)
			}
			return nil
		})
	})
}

// TestRefusalByWhoIsBehind: bob has not heard yet that dee may invite, which is no reason to give up.
func TestRefusalByWhoIsBehind(t *testing.T) {
	world(t, 10, []string{"ada", "bob", "cy", "dee"}, func(t *testing.T, _ *chattest.Network, nodes []*chattest.Node) {
		ada, bob, cy, dee := nodes[0], nodes[1], nodes[2], nodes[3]
		target := create(t, chat.HistoryAll, ada, bob, cy, dee)
		admit(t, ada, target, bob, dee)
		setRole(t, ada, target, bob, "admin")
		role := func(nd *chattest.Node) func() error {
			return func() error {
				c, err := nd.Service().Conversation(t.Context(), target)
				if err != nil || c.Role != "admin" {
					return fmt.Errorf("%s is %s, %w", nd.Name, c.Role, err)
				}
				return nil
			}
		}
		eventually(t, time.Minute, role(bob))
		bob.Stop()
		setRole(t, ada, target, dee, "admin")
		eventually(t, time.Minute, role(dee))
		inv := link(t, dee, target, true)
		ada.Stop()
		dee.Stop()
		accept(t, cy, inv.Link)
		bob.Start()
		eventually(t, 5*time.Minute, func() error {
			c, err := cy.Service().Conversation(t.Context(), target)
			if err != nil || c.Membership != chat.MembershipPending || !strings.Contains(c.Note, "did not") {
				return fmt.Errorf("%+v, %w", c, err)
			}
			return nil
		})
		dee.Start()
		eventually(t, 5*time.Minute, all(stands(t, cy, target, chat.MembershipMember, 4), stands(t, dee, target, chat.MembershipMember, 4)))
	})
}

// TestKeysAreChangedMonthly: and nobody is lost on the way.
func TestKeysAreChangedMonthly(t *testing.T) {
	world(t, 10, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, bob := nodes[0], nodes[1]
		target := create(t, chat.HistoryAll, ada, bob)
		admit(t, ada, target, bob)
		n.Record()
		say(t, ada, target, "old key")
		ada.SetSkew(31 * 24 * time.Hour)
		bob.SetSkew(31 * 24 * time.Hour)
		time.Sleep(time.Minute)
		say(t, bob, target, "new key")
		eventually(t, time.Hour, all(shows(t, ada, target, "old key", "new key"), digests(t, target, ada, bob)))
		topics := make(map[string]bool)
		for _, r := range n.Recording() {
			topics[r.Topic.String()] = true
		}
		if len(topics) < 2 {
			t.Errorf("%d topics were used in a month, want two", len(topics))
		}
	})
}
