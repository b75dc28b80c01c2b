package chat_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/chattest"
	"github.com/starling-chat/starling/storage"
)

// sessionsOf returns what a node holds of its sessions with another; putSessions puts it back, as a disk
// restored from a copy does, and nil is as if it was never there.
func sessionsOf(t *testing.T, nd, other *chattest.Node) []byte {
	t.Helper()
	id := other.ID()
	b, err := nd.Store.GetEphemeral(t.Context(), "sessions", id[:])
	if err != nil {
		t.Fatalf("%s holds no sessions with %s: %v", nd.Name, other.Name, err)
	}
	return b
}

func putSessions(t *testing.T, nd, other *chattest.Node, state []byte) {
	t.Helper()
	id := other.ID()
	var b storage.Batch
	if state == nil {
		b.DeleteEphemeral("sessions", id[:])
	} else {
		b.PutEphemeral("sessions", id[:], state)
	}
	if _, err := nd.Store.Commit(t.Context(), &b, storage.Durable); err != nil {
		t.Fatal(err)
	}
}

// restartID returns the number of the restart prekey that a node was given by another; 0 is none.
func restartID(t *testing.T, nd, by *chattest.Node) uint32 {
	t.Helper()
	id := by.ID()
	b, err := nd.Store.GetBucket(t.Context(), "peerkeys", id[:])
	var row struct {
		ID uint32 `json:"restart_id"`
	}
	if err == nil {
		err = json.Unmarshal(b, &row)
	}
	if err != nil {
		t.Fatal(err)
	}
	return row.ID
}

func notices(t *testing.T, nd *chattest.Node, target chat.Target) int {
	t.Helper()
	list, err := nd.Service().History(t.Context(), chat.HistoryQuery{Target: target, N: 1000})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, m := range list {
		if m.Kind == chat.KindNotice {
			n++
		}
	}
	return n
}

// converse sends texts in both directions in turn, and returns all of them. Each change of direction is a
// new ratchet key.
func converse(t *testing.T, ada, bob *chattest.Node, label string, rounds int) []string {
	t.Helper()
	var all []string
	for i := range rounds {
		for _, pair := range [][2]*chattest.Node{{ada, bob}, {bob, ada}} {
			text := fmt.Sprintf("%s %d by %s", label, i, pair[0].Name)
			delivered(t, pair[0], say(t, pair[0], to(pair[1]), text).ID, 3*time.Hour)
			all = append(all, text)
		}
	}
	return all
}

func TestSessionsThatAreLostOrRolledBackHeal(t *testing.T) {
	for i, c := range []struct {
		name     string
		ada, bob string // what becomes of their sessions: kept, lost, back
	}{
		{"one lost", "kept", "lost"},
		{"one rolled back", "kept", "back"},
		{"the other rolled back", "back", "kept"},
		{"both lost", "lost", "lost"},
		{"both rolled back", "back", "back"},
		{"one lost, one rolled back", "lost", "back"},
	} {
		t.Run(c.name, func(t *testing.T) {
			world(t, uint64(100+i), []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
				n.Set(wan)
				ada, bob := nodes[0], nodes[1]
				meet(t, ada, bob)
				want := converse(t, ada, bob, "before", 2)
				time.Sleep(time.Minute)
				old := map[*chattest.Node][]byte{ada: sessionsOf(t, ada, bob), bob: sessionsOf(t, bob, ada)}
				want = append(want, converse(t, ada, bob, "between", 5)...)
				ada.Stop()
				bob.Stop()
				for _, side := range []struct {
					nd, other *chattest.Node
					what      string
				}{{ada, bob, c.ada}, {bob, ada, c.bob}} {
					switch side.what {
					case "lost":
						putSessions(t, side.nd, side.other, nil)
					case "back":
						putSessions(t, side.nd, side.other, old[side.nd])
					}
				}
				ada.Start()
				bob.Start()
				// Both at once, so that both may begin anew together.
				var ids, his []chat.MessageID
				for j := range 4 {
					ids = append(ids, say(t, ada, to(bob), fmt.Sprintf("at once %d by ada", j)).ID)
					his = append(his, say(t, bob, to(ada), fmt.Sprintf("at once %d by bob", j)).ID)
				}
				for j := range ids {
					delivered(t, ada, ids[j], 3*time.Hour)
					delivered(t, bob, his[j], 3*time.Hour)
				}
				converse(t, ada, bob, "after", 2)
				for _, nd := range nodes {
					other := nodes[0]
					if nd == ada {
						other = bob
					}
					got := texts(t, nd, to(other))
					count := make(map[string]int)
					for _, text := range got {
						count[text]++
					}
					for text, k := range count {
						if k != 1 {
							t.Errorf("%s shows %q %d times", nd.Name, text, k)
						}
					}
					if len(got) != len(want)+8+4 {
						t.Errorf("%s shows %d messages, want %d: %q", nd.Name, len(got), len(want)+8+4, got)
					}
					if k := notices(t, nd, to(other)); k > 1 {
						t.Errorf("%s sees %d lines about new sessions", nd.Name, k)
					}
				}
			})
		})
	}
}

func TestAnUnhappyMailboxHeals(t *testing.T) {
	// Bob loses his sessions while his mail waits; the two are never there together. What was stored is sealed
	// again on the new session, and nobody sees it twice.
	world(t, 110, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, bob := nodes[0], nodes[1]
		n.Relay()
		toBob, toAda := friends(t, ada, bob)
		time.Sleep(2 * time.Minute)
		bob.Stop()
		want := []string{"hello", "hello yourself"}
		var last chat.Message
		for i := range 5 {
			last = say(t, ada, toBob, fmt.Sprintf("stored %d", i))
			want = append(want, last.Text)
			eventually(t, time.Minute, state(t, ada, last.ID, chat.StateStored))
		}
		ada.Stop()
		putSessions(t, bob, ada, nil)
		bob.Start()
		time.Sleep(3 * time.Minute)
		if got := texts(t, bob, toAda); len(got) != 2 {
			t.Errorf("bob shows %q without the keys", got)
		}
		bob.Stop()
		ada.Start()
		time.Sleep(3 * time.Minute) // she hears of the new session, and sends again
		ada.Stop()
		bob.Start()
		eventually(t, 5*time.Minute, shows(t, bob, toAda, want...))
		if k := notices(t, bob, toAda); k != 0 {
			t.Errorf("%d lines: rubbish in a mailbox must not write to the screen", k)
		}
		time.Sleep(time.Minute)
		bob.Stop()
		ada.Start()
		eventually(t, 5*time.Minute, state(t, ada, last.ID, chat.StateDelivered))
	})
}

func TestTheRestartPrekeyIsForOneSession(t *testing.T) {
	world(t, 111, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(wan)
		ada, bob := nodes[0], nodes[1]
		toBob, _ := meet(t, ada, bob)
		converse(t, ada, bob, "before", 1)
		time.Sleep(time.Minute)
		first := restartID(t, bob, ada)
		key := binary.BigEndian.AppendUint32(nil, first)
		if _, err := ada.Store.GetEphemeral(t.Context(), "prekeys", key); first == 0 || err != nil {
			t.Fatalf("bob holds restart prekey %d, whose other half: %v", first, err)
		}
		bob.Stop()
		putSessions(t, bob, ada, nil)
		bob.Start()
		delivered(t, ada, say(t, ada, toBob, "on what?").ID, 10*time.Minute)
		time.Sleep(2 * time.Minute)
		if _, err := ada.Store.GetEphemeral(t.Context(), "prekeys", key); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("the used prekey is still there: %v", err)
		}
		if second := restartID(t, bob, ada); second == 0 || second == first {
			t.Errorf("bob holds restart prekey %d after %d was used", second, first)
		}
		// Not again within the hour, and nothing is lost by that.
		bob.Stop()
		putSessions(t, bob, ada, nil)
		bob.Start()
		m := say(t, ada, toBob, "and now?")
		time.Sleep(20 * time.Minute)
		if k := notices(t, bob, to(ada)); k != 1 {
			t.Errorf("%d new sessions within the hour", k)
		}
		delivered(t, ada, m.ID, 3*time.Hour)
	})
}
