package chat_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/chattest"
)

func export(t *testing.T, nd *chattest.Node, room chat.Target) []byte {
	t.Helper()
	var out bytes.Buffer
	if n, err := nd.Service().Export(t.Context(), room, &out); err != nil || n == 0 {
		t.Fatalf("%d records, %v", n, err)
	}
	return out.Bytes()
}

func TestBundleCarriesARoomBetweenNodesThatNeverMeet(t *testing.T) {
	world(t, 320, []string{"ada", "bob", "cleo"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, bob, cleo := nodes[0], nodes[1], nodes[2]
		n.Partition([]*chattest.Node{ada, cleo}, []*chattest.Node{bob})
		room := join(t, "lobby", ada, bob)
		join(t, "lobby", cleo)
		time.Sleep(time.Minute)
		var want []string
		for i := range 500 {
			want = append(want, fmt.Sprint("line ", i))
			say(t, ada, room, want[i])
		}
		gone := say(t, ada, room, "a slip of the tongue")
		if _, err := ada.Service().Send(t.Context(), chat.SendRequest{Target: room, Action: chat.ActionRedact, Ref: gone.ID}); err != nil {
			t.Fatal(err)
		}
		want = append(want, "")
		time.Sleep(5 * time.Second)
		bundle := export(t, ada, room)
		if bytes.Contains(bundle, []byte("line 1")) || bytes.Contains(bundle, []byte("lobby")) {
			t.Error("a bundle can be read without the room's key")
		}
		got, err := bob.Service().Import(t.Context(), bytes.NewReader(bundle))
		if err != nil || got.New < 502 || got.Invalid+got.Foreign+got.Refused != 0 {
			t.Fatalf("%+v, %v", got, err)
		}
		eventually(t, time.Second, shows(t, bob, room, want...))
		noText(t, bob, "a slip of the tongue")
		if c, err := bob.Service().Conversation(t.Context(), room); err != nil || c.Unread != 0 {
			t.Errorf("%d unread, %v", c.Unread, err)
		}
		again, err := bob.Service().Import(t.Context(), bytes.NewReader(bundle))
		if err != nil || again.New != 0 || again.Known != got.Records {
			t.Errorf("a second time: %+v, %v", again, err)
		}
		checkStore(t, bob)
		n.Heal()
		eventually(t, time.Minute, equalDigests(t, len(want), room, ada, bob, cleo))
	})
}

func TestBundleThatIsDamaged(t *testing.T) {
	world(t, 321, []string{"ada", "bob", "eve"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, bob, eve := nodes[0], nodes[1], nodes[2]
		n.Partition([]*chattest.Node{ada}, []*chattest.Node{bob}, []*chattest.Node{eve})
		room := join(t, "lobby", ada, bob)
		for i := range 50 {
			say(t, ada, room, fmt.Sprint("line ", i))
		}
		bundle := export(t, ada, room)
		if got, err := eve.Service().Import(t.Context(), bytes.NewReader(bundle)); err != nil || got.Foreign != got.Records || got.New != 0 {
			t.Errorf("who is not in the room: %+v, %v", got, err)
		}
		bad := bytes.Clone(bundle)
		bad[len(bad)/2] ^= 1
		got, err := bob.Service().Import(t.Context(), bytes.NewReader(bad))
		wantErr(t, "a damaged bundle", err, chat.ErrBadRequest)
		if got.New < 40 || got.Invalid != 1 {
			t.Errorf("of a damaged bundle came %+v", got)
		}
		got, err = bob.Service().Import(t.Context(), bytes.NewReader(bundle[:len(bundle)-1]))
		wantErr(t, "a bundle that is cut off", err, chat.ErrBadRequest)
		if got.New != 1 {
			t.Errorf("of the rest came %+v", got)
		}
		if _, err := bob.Service().Import(t.Context(), bytes.NewReader([]byte("a letter"))); err == nil {
			t.Error("a letter is taken for a bundle")
		}
	})
}
