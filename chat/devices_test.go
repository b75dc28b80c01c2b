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

// noted returns the lines that a node wrote into a conversation itself.
func noted(t *testing.T, nd *chattest.Node, target chat.Target) string {
	t.Helper()
	page, err := nd.Service().History(t.Context(), chat.HistoryQuery{Target: target, N: 100})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range page {
		if m.Kind == chat.KindNotice {
			out = append(out, m.Text)
		}
	}
	return strings.Join(out, "\n")
}

// pass makes the clocks of nodes go on by much, and a minute for what follows from that.
func pass(d time.Duration, nodes ...*chattest.Node) {
	for _, nd := range nodes {
		nd.SetSkew(time.Until(nd.Now()) + d)
	}
	time.Sleep(time.Minute)
}

// TestRevokedDevice: bob loses one of his two devices. Contacts send it nothing and take nothing from it, and
// the private room it is in gets a key that it does not get.
func TestRevokedDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := chattest.New(t, 91)
		relay := n.Relay()
		ada, lost, bob := n.Node("ada"), n.Node("bob"), (*chattest.Node)(nil)
		bob = n.Device("bob", lost)
		ada.Start()
		lost.Start()
		defer func() {
			ada.Stop()
			lost.Stop()
			bob.Stop()
		}()
		target := create(t, chat.HistoryAll, ada, lost)
		admit(t, ada, target, lost)
		for a, b := range map[*chattest.Node]*chattest.Node{ada: lost, lost: ada} {
			if _, err := a.Service().AddContact(t.Context(), b.Account().String(), ""); err != nil {
				t.Fatal(err)
			}
		}
		first := say(t, ada, to(lost), "to the only device")
		eventually(t, time.Minute, state(t, ada, first.ID, chat.StateDelivered))
		bob.Start()
		if _, err := bob.Service().AddContact(t.Context(), ada.Account().String(), "ada"); err != nil {
			t.Fatal(err)
		}
		say(t, bob, to(ada), "from a new device")
		eventually(t, 5*time.Minute, func() error {
			if text := noted(t, ada, to(bob)); !strings.Contains(text, "uses a new device") {
				return fmt.Errorf("ada is told %q", text)
			}
			return nil
		})
		say(t, ada, to(bob), "to both")
		eventually(t, time.Minute, all(shows(t, lost, to(ada), "to the only device", "to both"), shows(t, bob, to(ada), "from a new device", "to both")))
		time.Sleep(time.Minute)
		key := func() string { return fmt.Sprint(chat.NewestEpoch(ada.Service(), target)) }
		before := key()

		for name, want := range map[string]error{
			bob.ID().String(): chat.ErrBadRequest, ada.ID().String(): chat.ErrDenied, "nothing": chat.ErrNotFound, "": chat.ErrNotFound,
		} {
			wantErr(t, "revoking "+name, bob.Service().RevokeDevice(t.Context(), name), want)
		}
		name := lost.ID().String()
		for range 2 { // again changes nothing
			if err := bob.Service().RevokeDevice(t.Context(), name[len(name)-8:]); err != nil {
				t.Fatalf("revoking: %v", err)
			}
		}
		devices, err := bob.Service().Devices(t.Context())
		if err != nil || len(devices) != 2 || !devices[0].Here || devices[0].Device != bob.ID() || !devices[1].Revoked || devices[1].Device != lost.ID() {
			t.Errorf("bob's devices are %+v, %v", devices, err)
		}
		eventually(t, time.Minute, func() error {
			if text := noted(t, ada, to(bob)); strings.Count(text, "revoked a device ("+name[len(name)-8:]) != 1 {
				return fmt.Errorf("ada is told %q", text)
			}
			if key() == before {
				return errors.New("the room has the key that the lost device holds")
			}
			return nil
		})
		say(t, ada, target, "not for the lost one")
		say(t, ada, to(bob), "for the other one")
		eventually(t, time.Minute, shows(t, bob, to(ada), "from a new device", "to both", "for the other one"))
		late, err := lost.Service().Send(t.Context(), chat.SendRequest{Target: to(ada), Text: "from the lost one"})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)       // the new list is left in the table
		pass(10*time.Hour, ada, lost, bob) // the lost device looks at its account's list now and then
		if err := state(t, lost, late.ID, chat.StateDelivered)(); err == nil {
			t.Error("what the lost device says arrives")
		}
		if got := texts(t, ada, to(lost)); slices.Contains(got, "from the lost one") {
			t.Errorf("ada shows %q", got)
		}
		if got := append(texts(t, lost, target), texts(t, lost, to(ada))...); slices.Contains(got, "not for the lost one") || slices.Contains(got, "for the other one") {
			t.Errorf("the lost device reads %q", got)
		}
		if !lost.Service().Revoked() || bob.Service().Revoked() {
			t.Errorf("revoked: the lost one %v, the other one %v", lost.Service().Revoked(), bob.Service().Revoked())
		}
		staysRevoked(t, ada, lost, bob, key)
		entersByNoMail(t, relay, ada, lost, bob)
	})
}

// staysRevoked restarts all and signs all lists anew: the lost device does not sign itself back in.
func staysRevoked(t *testing.T, ada, lost, bob *chattest.Node, key func() string) {
	t.Helper()
	after := key()
	for _, nd := range []*chattest.Node{ada, lost, bob} {
		nd.Stop()
	}
	for _, nd := range []*chattest.Node{ada, lost, bob} {
		nd.Start()
	}
	pass(8*24*time.Hour, ada, lost, bob) // lists are signed anew
	say(t, ada, to(bob), "again")
	eventually(t, time.Minute, shows(t, bob, to(ada), "from a new device", "to both", "for the other one", "again"))
	if got := texts(t, lost, to(ada)); slices.Contains(got, "again") {
		t.Errorf("after a restart the lost device reads %q", got)
	}
	if got := key(); got != after {
		t.Errorf("the key was changed again, from %s to %s", after, got)
	}
}

// entersByNoMail lets the lost device begin a session anew by mail, as with somebody who was never met.
func entersByNoMail(t *testing.T, relay *chattest.Relay, ada, lost, bob *chattest.Node) {
	t.Helper()
	ada.Stop()
	bob.Stop()
	lost.Stop()
	var err error
	if lost.Config.Store, err = storage.OpenMemory(storage.Options{Now: lost.Now}); err != nil {
		t.Fatal(err)
	}
	defer lost.Config.Store.Close()
	mail := relay.Mail()
	lost.Start()
	anew := say(t, lost, to(ada), "from the lost one, anew")
	eventually(t, 5*time.Minute, state(t, lost, anew.ID, chat.StateStored))
	if relay.Mail() <= mail {
		t.Error("nothing lies in ada's mailbox")
	}
	ada.Start()
	time.Sleep(5 * time.Minute)
	if got := texts(t, ada, to(lost)); relay.Mail() != 0 || slices.Contains(got, "from the lost one, anew") {
		t.Errorf("ada shows %q; %d deposits wait", got, relay.Mail())
	}
}
