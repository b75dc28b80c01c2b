package chat_test

import (
	"strings"
	"testing"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/chattest"
)

// trusted makes bob a contact of ada's by the name of bobby, whose key she compared.
func trusted(t *testing.T, ada, bob *chattest.Node) {
	t.Helper()
	for _, nd := range []*chattest.Node{ada, bob} {
		if err := nd.Service().SetNick(t.Context(), nd.Name); err != nil {
			t.Fatal(err)
		}
	}
	friends(t, ada, bob)
	if _, err := ada.Service().AddContact(t.Context(), bob.Account().String(), "bobby"); err != nil {
		t.Fatal(err)
	}
	if _, err := ada.Service().SetTrust(t.Context(), "@bobby", chat.TrustVerified); err != nil {
		t.Fatal(err)
	}
}

// trust returns how a node trusts another.
func trust(t *testing.T, nd, other *chattest.Node) chat.Contact {
	t.Helper()
	list, err := nd.Service().Contacts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		if c.Account == other.Account() {
			return c
		}
	}
	return chat.Contact{}
}

func refused(t *testing.T, nd, other *chattest.Node) {
	t.Helper()
	_, err := nd.Service().Send(t.Context(), chat.SendRequest{Target: to(other), Text: "to the wrong one"})
	wantErr(t, "writing to "+other.Name, err, chat.ErrKeyChanged)
}

func TestAVerifiedNameUnderANewKeyStopsSending(t *testing.T) {
	for _, c := range []struct {
		name   string
		decide func(t *testing.T, ada, bob, new *chattest.Node)
	}{
		{"the new key is accepted", func(t *testing.T, ada, bob, new *chattest.Node) {
			if _, err := ada.Service().SetContact(t.Context(), new.Account().String(), chat.ContactAccept, ""); err != nil {
				t.Fatal(err)
			}
			if got := trust(t, ada, new); got.Trust != chat.TrustUnverified || got.Petname != "bobby" {
				t.Errorf("the new one: %+v", got)
			}
			if got := trust(t, ada, bob); got.Trust != chat.TrustUnverified || got.Petname != "" {
				t.Errorf("the old one: %+v", got)
			}
		}},
		{"the new key is verified", func(t *testing.T, ada, bob, new *chattest.Node) {
			if _, err := ada.Service().SetTrust(t.Context(), new.Account().String(), chat.TrustVerified); err != nil {
				t.Fatal(err)
			}
			if got := trust(t, ada, new); got.Trust != chat.TrustVerified || got.Petname != "bobby" {
				t.Errorf("the new one: %+v", got)
			}
		}},
		{"the new key is removed", func(t *testing.T, ada, bob, new *chattest.Node) {
			if _, err := ada.Service().SetContact(t.Context(), new.Account().String(), chat.ContactRemove, ""); err != nil {
				t.Fatal(err)
			}
			if got := trust(t, ada, bob); got.Trust != chat.TrustVerified || got.Petname != "bobby" {
				t.Errorf("the old one: %+v", got)
			}
		}},
		{"the old key is kept", func(t *testing.T, ada, bob, new *chattest.Node) {
			if _, err := ada.Service().SetContact(t.Context(), "@bobby", chat.ContactAccept, ""); err != nil {
				t.Fatal(err)
			}
			if got := trust(t, ada, bob); got.Trust != chat.TrustUnverified || got.Petname != "bobby" {
				t.Errorf("the old one: %+v", got)
			}
			if got := trust(t, ada, new); got.Trust != chat.TrustUnverified || got.Petname != "" {
				t.Errorf("the new one: %+v", got)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			world(t, 120, []string{"ada", "bob", "new"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
				ada, bob, new := nodes[0], nodes[1], nodes[2]
				new.Config.AcceptStrangers = true
				trusted(t, ada, bob)
				n.Partition([]*chattest.Node{ada}, []*chattest.Node{bob, new})
				m := say(t, ada, to(bob), "said before")
				link := new.Service().Me().Link
				got, err := ada.Service().AddContact(t.Context(), link, "bobby")
				if err != nil || got.Trust != chat.TrustChanged || got.Instead == nil || *got.Instead != bob.Account() {
					t.Fatalf("a new link for a verified name: %+v, %v", got, err)
				}
				n.Heal()
				refused(t, ada, bob)
				refused(t, ada, new)
				time.Sleep(10 * time.Minute)
				if got := texts(t, bob, to(ada)); len(got) != 2 {
					t.Errorf("what waited was sent: %q", got)
				}
				ada.Stop()
				ada.Start() // and it stays so
				refused(t, ada, bob)
				c.decide(t, ada, bob, new)
				delivered(t, ada, m.ID, time.Minute) // what waited for bob is for bob
				say(t, ada, to(bob), "to bob")
				say(t, ada, to(new), "to the new one")
			})
		})
	}
}

func TestAnImpostorOfAVerifiedNickIsQuestioned(t *testing.T) {
	world(t, 121, []string{"ada", "bob", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, bob, eve := nodes[0], nodes[1], nodes[2]
		trusted(t, ada, bob)
		if err := eve.Service().SetNick(t.Context(), "BOB"); err != nil {
			t.Fatal(err)
		}
		say(t, eve, to(ada), "it is me, bob, with a new phone")
		eventually(t, time.Minute, shows(t, ada, to(eve), "it is me, bob, with a new phone"))
		time.Sleep(10 * time.Second)
		got := trust(t, ada, eve)
		if got.Trust != chat.TrustChanged || got.State != chat.ContactRequest || got.Instead == nil || *got.Instead != bob.Account() {
			t.Fatalf("eve: %+v", got)
		}
		if k := notices(t, ada, to(eve)); k != 1 {
			t.Errorf("%d lines say so", k)
		}
		refused(t, ada, eve)
		// A stranger cannot keep ada from writing to bob.
		if got := trust(t, ada, bob); got.Trust != chat.TrustVerified {
			t.Errorf("bob: %+v", got)
		}
		delivered(t, ada, say(t, ada, to(bob), "was that you?").ID, time.Minute)
		if _, err := ada.Service().SetContact(t.Context(), eve.Account().String(), chat.ContactAccept, ""); err != nil {
			t.Fatal(err)
		}
		if got := trust(t, ada, eve); got.Trust != chat.TrustUnverified || got.State != chat.ContactFriend || got.Petname != "" {
			t.Errorf("eve, accepted: %+v", got)
		}
		delivered(t, ada, say(t, ada, to(eve), "well then").ID, time.Minute)
	})
}

func TestADeviceThatChangesItsAccountStopsSending(t *testing.T) {
	world(t, 122, []string{"ada", "bob", "other"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, bob, other := nodes[0], nodes[1], nodes[2]
		trusted(t, ada, bob)
		bob.Stop()
		cert, err := other.CertifyDevice(bob.ID(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		frame, err := chattest.Hello(cert, "bob")
		if err != nil {
			t.Fatal(err)
		}
		ada.Service().HandleFrame(bob.ID(), chat.PathLAN, frame)
		time.Sleep(time.Second)
		if got := trust(t, ada, bob); got.Trust != chat.TrustChanged {
			t.Fatalf("bob: %+v", got)
		}
		refused(t, ada, bob)
		list, err := ada.Service().History(t.Context(), chat.HistoryQuery{Target: to(bob)})
		if err != nil || len(list) == 0 || !strings.Contains(list[len(list)-1].Text, "another account") {
			t.Errorf("no line says so: %+v, %v", list, err)
		}
		if _, err := ada.Service().SetTrust(t.Context(), "@bobby", chat.TrustVerified); err != nil {
			t.Fatal(err)
		}
		say(t, ada, to(bob), "verified again")
	})
}
