package tui

import (
	"slices"
	"testing"

	"github.com/starling-chat/starling/node/api"
)

func TestPrivateRooms(t *testing.T) {
	n := newFakeNode(t)
	n.direct("bob", "0BOB")
	d := newDriver(t, n, 100, 24)
	d.enter("/kick @bob")
	d.wants("that is for private rooms")
	d.enter("/create den all")
	d.wants(" #den", "only who is invited gets in", "private")
	d.enter("/op bob")
	d.enter("/deop bob")
	d.enter("/policy history none")
	d.enter("/kick bob too loud")
	d.wants("Take @bob out of #den?")
	d.keys("n")
	d.enter("/ban bob too loud")
	d.keys("y")
	d.enter("/unban bob")
	n.mu.Lock()
	got := n.changes
	n.mu.Unlock()
	want := []string{
		"create den all", "#den @bob role admin ", "#den @bob role member ", "#den history none", "#den @bob ban  too loud", "#den @bob unban  ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the node was asked %q, want %q", got, want)
	}
	d.enter("/invite once 48h")
	d.wants("Whoever has this link can join #den", "for one person", "until 2026-03-03")
	d.keys("esc")
	d.enter("/invite @bob")
	d.wants("an invite into #den goes to @bob")
	if sent := n.requests(); len(sent) != 1 || sent[0].Target != "@bob" || sent[0].Text != "starling:invite/1" {
		t.Errorf("sent %+v", sent)
	}
	d.enter("/invite list")
	d.wants("r: revoke", "starling:invite/0", "starling:invite/1")
	d.keys("r")
	d.lacks("starling:invite/0")
	d.keys("esc")
	c := n.room("den")
	n.mu.Lock()
	c.Membership = api.MembershipKeyless
	c.members[1].Role = "moderator"
	n.tellConversation(c)
	n.mu.Unlock()
	d.sync(n, 0)
	d.second()
	d.wants("waiting for the room's new key", "+bob")
	for _, membership := range []string{api.MembershipPending, api.MembershipMember} {
		n.mu.Lock()
		c.Membership, c.Policy = membership, "newcomers see nothing"
		n.tellConversation(c)
		n.mu.Unlock()
		d.sync(n, 0)
		d.second()
	}
	d.wants("you are in #den: newcomers see nothing")
}

func TestSplitRoom(t *testing.T) {
	n := newFakeNode(t)
	d := newDriver(t, n, 100, 24)
	c := n.room("lobby")
	n.mu.Lock()
	c.Split = &api.Split{Nicks: []string{"eve\x1b[2J", "dan"}}
	n.tellConversation(c)
	c.Split = nil
	n.tellConversation(c)
	events := slices.Clone(n.log)
	n.mu.Unlock()
	d.event(events[0])
	d.wants("#lobby is in islands: what dan, eve")
	d.lacks("\x1b[2J")
	d.event(events[1])
	d.lacks("islands")
}
