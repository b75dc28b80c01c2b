package chat_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/chattest"
	"github.com/starling-chat/starling/storage"
)

// setPolicy changes a room's policy and waits until others know.
func setPolicy(t *testing.T, by *chattest.Node, target chat.Target, req chat.PolicyRequest, others ...*chattest.Node) {
	t.Helper()
	if err := by.Service().SetPolicy(t.Context(), target, req); err != nil {
		t.Fatalf("%s sets a policy: %v", by.Name, err)
	}
	want, err := by.Service().Conversation(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	for _, nd := range others {
		eventually(t, time.Minute, func() error {
			if c, err := nd.Service().Conversation(t.Context(), target); err != nil || c.Policy != want.Policy {
				return fmt.Errorf("%s has %q, %w", nd.Name, c.Policy, err)
			}
			return nil
		})
	}
}

// try sends and returns what came of it.
func try(t *testing.T, nd *chattest.Node, req chat.SendRequest) error {
	t.Helper()
	_, err := nd.Service().Send(within(t, 30*time.Second), req)
	return err
}

// wantStubs checks how many records lost their body.
func wantStubs(t *testing.T, nd *chattest.Node, want int) {
	t.Helper()
	streams, err := nd.Store.Streams(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stubs := 0
	for _, s := range streams {
		for rec, err := range nd.Store.Scan(t.Context(), s.ID, storage.Range{}) {
			if err != nil {
				t.Fatal(err)
			}
			// The end of a stub: the body's hash (field 7) before the signature (field 8).
			if at := len(rec.Value) - 34 - 66; at > 0 && rec.Value[at] == 7<<3|2 && rec.Value[at+1] == 32 && rec.Value[at+34] == 8<<3|2 {
				stubs++
			}
		}
	}
	if stubs != want {
		t.Errorf("%s keeps %d bare records, want %d", nd.Name, stubs, want)
	}
}

func TestPostRole(t *testing.T) {
	world(t, 31, []string{"ada", "bob", "cy"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, bob, cy := nodes[0], nodes[1], nodes[2]
		target := create(t, chat.HistoryAll, ada, bob, cy)
		admit(t, ada, target, bob, cy)
		setRole(t, ada, target, bob, "moderator")
		mine := say(t, cy, target, "said before")
		eventually(t, time.Minute, shows(t, ada, target, "said before"))
		setPolicy(t, ada, target, chat.PolicyRequest{Post: "moderator"}, bob, cy)

		for what, req := range map[string]chat.SendRequest{
			"message": {Text: "may I?"},
			"edit":    {Action: chat.ActionEdit, Ref: mine.ID, Text: "changed"},
		} {
			req.Target = target
			if err := try(t, cy, req); !errors.Is(err, chat.ErrDenied) || !strings.Contains(err.Error(), "only moderators and admins may post") {
				t.Errorf("%s by a member: %v", what, err)
			}
		}
		if err := cy.Service().SetTopic(t.Context(), target, "mine"); !errors.Is(err, chat.ErrDenied) {
			t.Errorf("topic by a member: %v", err)
		}
		if err := try(t, cy, chat.SendRequest{Target: target, Action: chat.ActionReact, Ref: mine.ID, Text: "+1"}); err != nil {
			t.Errorf("reaction by a member: %v", err)
		}
		say(t, bob, target, "by a moderator")
		eventually(t, time.Minute, all(
			shows(t, cy, target, "said before", "by a moderator"), shows(t, ada, target, "said before", "by a moderator"), digests(t, target, ada, bob, cy)))

		// Who has not learnt of a restriction writes; nobody shows it, whoever learnt of what first.
		setPolicy(t, ada, target, chat.PolicyRequest{Post: "member"}, bob, cy)
		n.Partition([]*chattest.Node{ada}, []*chattest.Node{bob, cy})
		early := say(t, cy, target, "in time")
		eventually(t, time.Minute, shows(t, bob, target, "said before", "by a moderator", "in time"))
		time.Sleep(time.Minute)
		setPolicy(t, ada, target, chat.PolicyRequest{Post: "admin"})
		time.Sleep(time.Minute)
		say(t, cy, target, "too late")
		eventually(t, time.Minute, shows(t, bob, target, "said before", "by a moderator", "in time", "too late"))
		n.Heal()
		want := []string{"said before", "by a moderator", "in time"}
		eventually(t, 10*time.Minute, all(
			shows(t, ada, target, want...), shows(t, bob, target, want...), shows(t, cy, target, want...), digests(t, target, ada, bob, cy)))
		if early.ID.IsZero() {
			t.Error("no id")
		}
		// A restart decides the same, and once it is lifted what was said too late stays hidden.
		bob.Stop()
		bob.Start()
		setPolicy(t, ada, target, chat.PolicyRequest{Post: "member"}, bob, cy)
		say(t, cy, target, "again")
		want = append(want, "again")
		eventually(t, time.Minute, all(
			shows(t, ada, target, want...), shows(t, bob, target, want...), shows(t, cy, target, want...), digests(t, target, ada, bob, cy)))
	})
}

func TestRoomPace(t *testing.T) {
	world(t, 32, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, bob := nodes[0], nodes[1]
		target := create(t, chat.HistoryAll, ada, bob)
		admit(t, ada, target, bob)
		rate, burst := uint32(6), uint32(3)
		setPolicy(t, ada, target, chat.PolicyRequest{Rate: &rate, Burst: &burst}, bob)
		start := time.Now()
		var want []string
		for i := range 6 {
			want = append(want, fmt.Sprint("message ", i))
			say(t, bob, target, want[i])
		}
		if took := time.Since(start); took < 29*time.Second || took > 45*time.Second {
			t.Errorf("6 messages at 6 a minute, 3 at once, took %v", took)
		}
		eventually(t, time.Minute, shows(t, ada, target, want...))
		rate = 6001
		if err := ada.Service().SetPolicy(t.Context(), target, chat.PolicyRequest{Rate: &rate}); !errors.Is(err, chat.ErrBadRequest) {
			t.Errorf("a rate over the limit: %v", err)
		}
	})
}

func TestModeratorsDelete(t *testing.T) {
	world(t, 33, []string{"ada", "bob", "cy", "dan"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, bob, cy, dan := nodes[0], nodes[1], nodes[2], nodes[3]
		target := create(t, chat.HistoryAll, ada, bob, cy, dan)
		admit(t, ada, target, bob, cy, dan)
		setRole(t, ada, target, bob, "moderator")
		bad := say(t, cy, target, "rude words")
		time.Sleep(time.Second)
		high := say(t, ada, target, "by the owner")
		eventually(t, time.Minute, all(shows(t, bob, target, "rude words", "by the owner"), shows(t, dan, target, "rude words", "by the owner")))
		if err := try(t, cy, chat.SendRequest{Target: target, Action: chat.ActionEdit, Ref: bad.ID, Text: "ruder words"}); err != nil {
			t.Fatal(err)
		}
		redact := func(by *chattest.Node, id chat.MessageID) error {
			return try(t, by, chat.SendRequest{Target: target, Action: chat.ActionRedact, Ref: id})
		}
		if err := redact(dan, bad.ID); !errors.Is(err, chat.ErrDenied) || !strings.Contains(err.Error(), "only moderators and admins") {
			t.Errorf("a member deletes: %v", err)
		}
		if err := redact(bob, high.ID); !errors.Is(err, chat.ErrDenied) || !strings.Contains(err.Error(), "higher role") {
			t.Errorf("a moderator deletes what the owner said: %v", err)
		}
		eventually(t, time.Minute, shows(t, dan, target, "ruder words", "by the owner"))
		if err := redact(bob, bad.ID); err != nil {
			t.Fatalf("a moderator deletes: %v", err)
		}
		for _, nd := range nodes {
			eventually(t, time.Minute, shows(t, nd, target, "", "by the owner"))
			noText(t, nd, "rude words", "ruder words")
			wantStubs(t, nd, 2)
		}
		eventually(t, time.Minute, digests(t, target, ada, bob, cy, dan))
	})
}

// TestRightsInEveryOrder gives what was said of roles, bounds and deletions to readers in orders of their
// own: all end with the same, and with the text gone.
func TestRightsInEveryOrder(t *testing.T) {
	const readers = 8
	names := []string{"ada", "bob", "cy"}
	for i := range readers {
		names = append(names, fmt.Sprint("reader", i))
	}
	world(t, 34, names, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, bob, cy, rest := nodes[0], nodes[1], nodes[2], nodes[3:]
		target := create(t, chat.HistoryAll, nodes[0], nodes[1:]...)
		admit(t, ada, target, nodes[1:]...)
		time.Sleep(time.Minute)
		var groups [][]*chattest.Node
		for _, nd := range rest {
			groups = append(groups, []*chattest.Node{nd})
		}
		n.Partition(append(groups, nodes[:3])...)
		n.Record()
		first := say(t, cy, target, "erased by bob")
		second := say(t, cy, target, "kept")
		eventually(t, time.Minute, shows(t, bob, target, "erased by bob", "kept"))
		setRole(t, ada, target, bob, "moderator")
		if err := try(t, bob, chat.SendRequest{Target: target, Action: chat.ActionRedact, Ref: first.ID}); err != nil {
			t.Fatal(err)
		}
		// What bob deletes before he learns that he may not any more is deleted; what he says then is not shown.
		third := say(t, cy, target, "erased while apart")
		eventually(t, time.Minute, shows(t, bob, target, "", "kept", "erased while apart"))
		n.Partition(append(groups, []*chattest.Node{ada}, []*chattest.Node{bob, cy})...)
		if err := ada.Service().ChangeMember(t.Context(), target, chat.MemberChange{Who: "@" + bob.Account().String(), Action: chat.MemberRole, Role: "member"}); err != nil {
			t.Fatal(err)
		}
		setPolicy(t, ada, target, chat.PolicyRequest{Post: "moderator"})
		time.Sleep(time.Minute)
		say(t, bob, target, "hidden from all")
		if err := try(t, bob, chat.SendRequest{Target: target, Action: chat.ActionRedact, Ref: third.ID}); err != nil {
			t.Fatal(err)
		}
		n.Partition(append(groups, nodes[:3])...)
		eventually(t, 10*time.Minute, all(
			shows(t, ada, target, "", "kept", ""), shows(t, bob, target, "", "kept", ""), shows(t, cy, target, "", "kept", ""), digests(t, target, ada, bob, cy)))
		if err := try(t, bob, chat.SendRequest{Target: target, Action: chat.ActionRedact, Ref: second.ID}); !errors.Is(err, chat.ErrDenied) {
			t.Errorf("bob deletes although he may not any more: %v", err)
		}
		recorded := n.Recording()
		if len(recorded) < 9 {
			t.Fatalf("%d events were recorded", len(recorded))
		}
		want := shownTo(t, ada, target)
		for i, nd := range rest {
			list := order(recorded, uint64(i))
			if i == 0 {
				slices.Reverse(list)
			}
			for _, r := range list {
				nd.Deliver(r)
				if i%2 == 0 {
					time.Sleep(time.Second) // one at a time; otherwise in batches
				}
			}
			time.Sleep(time.Second)
			synctest.Wait()
			eventually(t, time.Second, all(shows(t, nd, target, "", "kept", ""), digests(t, target, ada, nd)))
			noText(t, nd, "erased by bob", "erased while apart")
			wantStubs(t, nd, 2)
			if got := shownTo(t, nd, target); got != want {
				t.Errorf("%s: %s", nd.Name, firstDifference(got, want))
			}
		}
	})
}
