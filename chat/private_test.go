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
}

func TestPrivateRoom(t *testing.T) {
	world(t, 1, []string{"ada", "bob", "cy"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, bob, cy := nodes[0], nodes[1], nodes[2]
		n.Watch(secretName, "only for members", "just us two")
		target := create(t, chat.HistoryAll, ada, bob, cy)
		say(t, ada, target, "only for members: first")
		inv := link(t, ada, target, true)
		c := accept(t, bob, inv.Link)
		if c.Membership != chat.MembershipPending || c.Note == "" {
			t.Errorf("after accepting bob sees %+v", c)
		}
		eventually(t, time.Minute, all(stands(t, bob, target, chat.MembershipMember, 2), stands(t, ada, target, chat.MembershipMember, 2)))
		eventually(t, time.Minute, shows(t, bob, target, "only for members: first"))
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
