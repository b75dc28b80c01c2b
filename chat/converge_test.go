package chat_test

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/chattest"
	"github.com/starling-chat/starling/storage"
)

// dump writes down everything that nodes with the same set of events by others must agree on: what is
// shown, who is there, and every stored record, bodies that were dropped included.
func dump(t *testing.T, nd *chattest.Node, room chat.Target) string {
	t.Helper()
	svc := nd.Service()
	type line struct {
		ID, Kind, Text, Nick, ReplyTo       string
		Edited, Redacted, Shared, BackDated bool
		Reactions                           []chat.Reaction
		SentAt                              time.Time
	}
	out := make(map[string]any)
	list, err := svc.History(t.Context(), chat.HistoryQuery{Target: room, N: 1000, Local: true})
	if err != nil {
		t.Fatal(err)
	}
	var lines []line
	for _, m := range list {
		if m.Own {
			continue
		}
		for i := range m.Reactions {
			m.Reactions[i].Own = false
		}
		lines = append(lines, line{
			m.ID.String(), m.Kind, m.Text, m.Nick, m.ReplyTo.String(), m.Edited, m.Redacted, m.NickShared, m.BackDated, m.Reactions, m.SentAt,
		})
	}
	out["lines"] = lines
	members, err := svc.Members(t.Context(), room)
	if err != nil {
		t.Fatal(err)
	}
	who := make(map[string]string)
	for _, m := range members {
		if m.Account != nd.Account() {
			who[m.Account.String()] = fmt.Sprint(m.Nick, m.NickShared, m.Devices, m.LastSeen)
		}
	}
	out["members"] = who
	c, err := svc.Conversation(t.Context(), room)
	if err != nil {
		t.Fatal(err)
	}
	out["topic"] = c.Topic
	out["gaps"] = c.Gaps
	d, err := svc.Digest(t.Context(), room)
	if err != nil {
		t.Fatal(err)
	}
	out["digest"] = fmt.Sprintf("%d %x", d.Count, d.SHA256)
	records := make(map[string]string)
	stream, err := nd.Store.LookupStream(t.Context(), "room/"+string(room.Room[:]))
	if err != nil {
		t.Fatal(err)
	}
	for rec, err := range nd.Store.Scan(t.Context(), stream, storage.Range{}) {
		if err != nil {
			t.Fatal(err)
		}
		const own = 4 // the flag of records that this account made
		if rec.Flags&own != 0 {
			continue
		}
		records[rec.ID.String()] = fmt.Sprintf("%x", sha256.Sum256(rec.Value))
	}
	out["records"] = records
	b, err := json.MarshalIndent(out, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestAnyOrderAnyRepetition gives the same events to nodes in every which order: each ends up showing,
// and storing, exactly the same.
func TestAnyOrderAnyRepetition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := chattest.New(t, 50)
		n.Set(wan)
		ada, bob, cleo := n.Node("ada"), n.Node("bob"), n.Node("cleo")
		for _, nd := range []*chattest.Node{ada, bob, cleo} {
			nd.Start()
		}
		n.Record()
		room := join(t, "lobby", ada, bob, cleo)
		banter(t, room, ada, bob, cleo)
		recorded := n.Recording()
		for _, nd := range []*chattest.Node{ada, bob, cleo} {
			nd.Stop()
		}

		want := ""
		for seed := range uint64(25) {
			other := chattest.New(t, 1000+seed)
			nd := other.Node("reader")
			nd.Start()
			if _, err := nd.Service().Join(t.Context(), "lobby", ""); err != nil {
				t.Fatal(err)
			}
			if seed%5 == 4 { // a restart in the middle changes nothing
				for _, r := range order(recorded, seed)[:len(recorded)/2] {
					nd.Deliver(r)
				}
				synctest.Wait()
				nd.Stop()
				nd.Start()
				synctest.Wait()
			}
			for _, r := range order(recorded, seed) {
				nd.Deliver(r)
				if seed%2 == 0 {
					synctest.Wait() // one at a time; otherwise in batches
				}
			}
			time.Sleep(time.Second) // what a busy room gathers is taken in by then
			synctest.Wait()
			noText(t, nd, "secret", "gone")
			got := dump(t, nd, room)
			nd.Stop()
			if want == "" {
				want = got
			}
			if got != want {
				t.Fatalf("in order %d: %s", seed, firstDifference(got, want))
			}
		}
	})
}

// TestLateAndDeletedTogether has one batch say of a message both that its clock was wrong and that it was deleted.
func TestLateAndDeletedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := chattest.New(t, 51)
		n.Set(wan)
		ada, bob := n.Node("ada"), n.Node("bob")
		ada.Start()
		bob.Start()
		room := join(t, "lobby", ada, bob)
		n.Record()
		say(t, ada, room, "on time")
		time.Sleep(time.Second)
		bob.SetSkew(-time.Hour)
		slow := say(t, bob, room, "an hour ago")
		say(t, bob, room, "something else")
		if _, err := bob.Service().Send(t.Context(), chat.SendRequest{Target: room, Action: chat.ActionRedact, Ref: slow.ID}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		recorded := n.Recording()
		ada.Stop()
		bob.Stop()
		if len(recorded) != 4 {
			t.Fatalf("%d events were said, want 4", len(recorded))
		}
		shown := make([]string, 0, 2)
		for _, order := range [][]int{{0, 1, 2, 3}, {1, 2, 0, 3}} {
			other := chattest.New(t, 52)
			nd := other.Node("reader")
			nd.Start()
			if _, err := nd.Service().Join(t.Context(), "lobby", ""); err != nil {
				t.Fatal(err)
			}
			nd.Deliver(recorded[order[0]])
			time.Sleep(time.Second)
			for _, i := range order[1:] { // the first of these is taken alone, the others together
				nd.Deliver(recorded[i])
			}
			time.Sleep(time.Second)
			shown = append(shown, shownTo(t, nd, room))
			if kept := indexRowOf(t, nd, room, slow.ID); kept != "deleted, back-dated" {
				t.Errorf("in order %v the index has it as %s", order, kept)
			}
			nd.Stop()
		}
		if !strings.Contains(shown[0], "true") || shown[0] != shown[1] {
			t.Error(firstDifference(shown[1], shown[0]))
		}
	})
}

// indexRowOf says what the stored index has of an event: both facts are in one row, whichever was noted last.
func indexRowOf(t *testing.T, nd *chattest.Node, room chat.Target, id chat.MessageID) string {
	t.Helper()
	stream, err := nd.Store.LookupStream(t.Context(), "room/"+string(room.Room[:]))
	if err != nil {
		t.Fatal(err)
	}
	row, err := nd.Store.GetBucket(t.Context(), "events", append(stream[:], id[:]...))
	if err != nil || len(row) < 4 {
		t.Fatalf("row of %d bytes, %v", len(row), err)
	}
	// A row begins with version, kind, flags of the record, flags of its own.
	const bodily, backDated = 1 << 3, 1
	var what []string
	if row[2]&bodily != 0 {
		what = append(what, "deleted")
	}
	if row[3]&backDated != 0 {
		what = append(what, "back-dated")
	}
	return strings.Join(what, ", ")
}

// firstDifference shows where two dumps part.
func firstDifference(got, want string) string {
	a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			from := max(0, i-8)
			return fmt.Sprintf("line %d\n%s\nwant\n%s", i, strings.Join(a[from:i+1], "\n"), strings.Join(b[from:i+1], "\n"))
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(a), len(b))
}

// banter says a bit of everything.
func banter(t *testing.T, room chat.Target, ada, bob, cleo *chattest.Node) {
	t.Helper()
	do := func(nd *chattest.Node, req chat.SendRequest) chat.Message {
		t.Helper()
		req.Target = room
		m, err := nd.Service().Send(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		return m
	}
	first := do(ada, chat.SendRequest{Text: "a typo"})
	do(bob, chat.SendRequest{Action: chat.ActionReact, Ref: first.ID, Text: "👍"})
	do(ada, chat.SendRequest{Action: chat.ActionEdit, Ref: first.ID, Text: "another typo"})
	do(ada, chat.SendRequest{Action: chat.ActionEdit, Ref: first.ID, Text: "right"})
	regret := do(bob, chat.SendRequest{Text: "a secret", ReplyTo: first.ID})
	do(bob, chat.SendRequest{Action: chat.ActionEdit, Ref: regret.ID, Text: "a worse secret"})
	do(cleo, chat.SendRequest{Action: chat.ActionReact, Ref: regret.ID, Text: "!"})
	do(bob, chat.SendRequest{Action: chat.ActionRedact, Ref: regret.ID})
	do(cleo, chat.SendRequest{Action: chat.ActionReact, Ref: first.ID, Text: "👍"})
	do(cleo, chat.SendRequest{Action: chat.ActionReact, Ref: first.ID})
	for _, topic := range []string{"birds", "starlings"} {
		if err := ada.Service().SetTopic(t.Context(), room, topic); err != nil {
			t.Fatal(err)
		}
	}
	if err := cleo.Service().SetNick(t.Context(), "Ada"); err != nil {
		t.Fatal(err)
	}
	last := do(cleo, chat.SendRequest{Text: "gone too"})
	do(cleo, chat.SendRequest{Action: chat.ActionRedact, Ref: last.ID})
	cleo.SetSkew(-time.Hour)
	do(cleo, chat.SendRequest{Text: "my clock is slow"})
	if err := bob.Service().Leave(t.Context(), room); err != nil {
		t.Fatal(err)
	}
	do(ada, chat.SendRequest{Text: "bye"})
	time.Sleep(time.Second)
}

// order returns the events shuffled, a third of them twice.
func order(list []chattest.Recorded, seed uint64) []chattest.Recorded {
	r := rand.New(rand.NewPCG(seed, 7))
	out := append([]chattest.Recorded(nil), list...)
	for _, e := range list {
		if r.IntN(3) == 0 {
			out = append(out, e)
		}
	}
	r.Shuffle(len(out), func(i, k int) { out[i], out[k] = out[k], out[i] })
	return out
}

// shownTo writes down the messages of a room as one node shows them, without what may differ from node
// to node.
func shownTo(t *testing.T, nd *chattest.Node, room chat.Target) string {
	t.Helper()
	var out strings.Builder
	for _, m := range messages(t, nd, room) {
		fmt.Fprintln(&out, m.ID, m.Account, m.Text, m.Edited, m.Redacted, m.SentAt.UnixMilli(), m.BackDated)
		for _, r := range m.Reactions {
			fmt.Fprintln(&out, " ", r.Text, r.Nicks)
		}
	}
	return out.String()
}

// schedules is how many random runs TestRandomSchedules makes, and firstSchedule the seed of the first: a run
// of many can be cut into pieces. Ten thousand take about an hour of one core.
var (
	schedules     = flag.Uint64("schedules", defaultSchedules(), "how many random schedules to run")
	firstSchedule = flag.Uint64("first-schedule", 0, "the seed of the first")
)

func defaultSchedules() uint64 {
	if os.Getenv("STARLING_FULL") != "" {
		return 10_000
	}
	return 12
}

// TestRandomSchedules lets five nodes talk, edit, delete and react while the network is cut and healed,
// nodes are killed and started, and clocks are wrong; in the end all show the same, with every accepted
// message in it. A failure names its seed.
func TestRandomSchedules(t *testing.T) {
	for seed := *firstSchedule; seed < *firstSchedule+*schedules; seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			names := []string{"a", "b", "c", "d", "e"}
			world(t, seed, names, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
				n.Set(chattest.Conditions{Delay: 10 * time.Millisecond, Jitter: 300 * time.Millisecond, Loss: 0.1, Repeat: 0.05})
				room := join(t, "lobby", nodes...)
				s := &schedule{t: t, n: n, nodes: nodes, room: room, accepted: make(map[chat.MessageID]bool), up: []bool{true, true, true, true, true}}
				// Every eighth has clocks that are an hour ahead, and long silences. Waiting is most of what a schedule
				// costs, and eight minutes ahead is as much in the future as an hour is.
				// Every 128th has them nearly a day ahead: what is further in the future nobody takes.
				switch s.ahead, s.silence = 8, 90; {
				case seed%128 == 127:
					s.ahead = 23*60 + 30
				case seed%8 == 0:
					s.ahead, s.silence = 60, 300
				}
				for range 120 {
					s.step()
				}
				n.Heal()
				for i, nd := range nodes {
					nd.SetSkew(0)
					if !s.up[i] {
						nd.Start()
					}
				}
				time.Sleep(time.Duration(s.ahead+1) * time.Minute) // what was said with a clock that is ahead becomes due
				eventually(t, 30*time.Minute, func() error {
					want := shownTo(t, nodes[0], room)
					for _, nd := range nodes[1:] {
						if got := shownTo(t, nd, room); got != want {
							return fmt.Errorf("%s: %s", nd.Name, firstDifference(got, want))
						}
					}
					return nil
				})
				eventually(t, 10*time.Minute, equalDigests(t, len(s.accepted), room, nodes...))
				for _, m := range messages(t, nodes[0], room) {
					delete(s.accepted, m.ID)
				}
				if len(s.accepted) != 0 {
					t.Errorf("%d accepted messages are nowhere", len(s.accepted))
				}
				for _, nd := range nodes {
					noText(t, nd, s.deleted...)
				}
			})
		})
	}
}

// schedule is a random run.
type schedule struct {
	t        *testing.T
	n        *chattest.Network
	nodes    []*chattest.Node
	room     chat.Target
	up       []bool
	accepted map[chat.MessageID]bool
	deleted  []string
	said     int
	ahead    int // by how many minutes a clock is ahead at most
	silence  int // how many seconds nobody does anything at most
}

func (s *schedule) step() {
	i := s.n.Intn(len(s.nodes))
	nd := s.nodes[i]
	switch k := s.n.Intn(20); {
	case k == 0:
		cut := 1 + s.n.Intn(3)
		s.n.Partition(s.nodes[:cut], s.nodes[cut:])
	case k == 1:
		s.n.Heal()
	case k == 2:
		if s.up[i] {
			nd.Stop()
		} else {
			nd.Start()
		}
		s.up[i] = !s.up[i]
	case k == 3:
		minutes := -s.n.Intn(24 * 60)
		if s.n.Intn(2) == 0 {
			minutes = s.n.Intn(s.ahead)
		}
		nd.SetSkew(time.Duration(minutes) * time.Minute)
	case k == 4:
		time.Sleep(time.Duration(s.n.Intn(s.silence)) * time.Second)
	case !s.up[i]:
	case k < 9:
		s.modify(nd)
	default:
		s.said++
		m := say(s.t, nd, s.room, fmt.Sprintf("<%s-%d>", nd.Name, s.said))
		s.accepted[m.ID] = true
	}
	time.Sleep(time.Duration(s.n.Intn(500)) * time.Millisecond)
}

// modify edits or deletes an own message, or reacts to any.
func (s *schedule) modify(nd *chattest.Node) {
	list := messages(s.t, nd, s.room)
	if len(list) == 0 {
		return
	}
	m := list[s.n.Intn(len(list))]
	if m.Redacted {
		return
	}
	req := chat.SendRequest{Target: s.room, Ref: m.ID, Action: chat.ActionReact, Text: []string{"+", "-"}[s.n.Intn(2)]}
	if m.Own {
		s.said++
		req.Action, req.Text = chat.ActionEdit, fmt.Sprintf("<edit-%d>", s.said)
		if s.n.Intn(3) == 0 {
			req.Action, req.Text = chat.ActionRedact, ""
			s.deleted = append(s.deleted, m.Text)
		}
	}
	// It may have been deleted while we looked.
	if _, err := nd.Service().Send(s.t.Context(), req); err != nil && !errors.Is(err, chat.ErrConflict) {
		s.t.Fatalf("%s: %v", req.Action, err)
	}
}
