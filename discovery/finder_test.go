package discovery

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Two members of a room that know nothing but a rendezvous find each other, whatever order they start in,
// though the first announcements fail and the table is empty at first.
func TestMembersMeetAtTheRendezvous(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		place := &meetingPlace{fail: 3}
		room := Group{Name: Key{7}, Keys: func(time.Time) []Key { return []Key{{42}} }}
		a, b := at(t, newPeer(t), "/ip4/8.8.8.8/tcp/1"), at(t, newPeer(t), "/ip4/8.8.4.4/tcp/1")
		netA, netB := newFakeNetwork(), newFakeNetwork()
		netA.answers[b.ID], netB.answers[a.ID] = b.Addrs[0].String(), a.Addrs[0].String()
		visitA, visitB := &visitor{place: place, self: a}, &visitor{place: place, self: b, ready: true}
		fa, stopA := runFinder(t, Config{Self: a.ID, Network: netA, Rendezvous: visitA, Seed: 1})
		fb, stopB := runFinder(t, Config{Self: b.ID, Network: netB, Rendezvous: visitB, Seed: 2})
		fa.Follow(room)
		fb.Follow(room)
		time.Sleep(time.Minute)
		if netA.Connected(b.ID) {
			t.Error("found each other over an empty table")
		}
		visitA.setReady()
		time.Sleep(time.Minute)
		if !netA.Connected(b.ID) && !netB.Connected(a.ID) {
			t.Error("did not find each other")
		}
		if n := place.announcements(); n < 5 {
			t.Errorf("%d announcements, want at least 5 (3 failed)", n)
		}
		fa.Unfollow(room.Name)
		tries := place.announcements()
		time.Sleep(24 * time.Hour)
		// B goes on: about one announcement every 100 minutes.
		if more := place.announcements() - tries; more < 12 || more > 18 {
			t.Errorf("%d announcements a day, want about 14", more)
		}
		stopA()
		stopB()
	})
}

// The key of the day changes at midnight UTC; who still announces under yesterday's is found.
func TestRendezvousFollowsTheDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		place := &meetingPlace{}
		self := at(t, newPeer(t), "/ip4/8.8.8.8/tcp/1")
		keys := func(now time.Time) []Key {
			day := byte(now.Unix() / 86400)
			return []Key{{1, day}, {1, day - 1}}
		}
		net := newFakeNetwork()
		f, stop := runFinder(t, Config{Self: self.ID, Network: net, Rendezvous: &visitor{place: place, self: self, ready: true}, Seed: 1})
		f.Follow(Group{Name: Key{7}, Keys: keys})
		today := keys(time.Now())[0]
		time.Sleep(10 * time.Second)
		if place.under(today) != 1 {
			t.Fatal("not announced under today's key")
		}
		time.Sleep(24*time.Hour + time.Minute)
		if place.under(keys(time.Now())[0]) != 1 {
			t.Error("not announced under the next day's key")
		}
		late := at(t, newPeer(t), "/ip4/8.8.4.4/tcp/1")
		net.up(late)
		yesterday := keys(time.Now())[1]
		place.mu.Lock()
		if place.found[yesterday] == nil {
			place.found[yesterday] = map[peer.ID]peer.AddrInfo{}
		}
		place.found[yesterday][late.ID] = late
		place.mu.Unlock()
		f.Wake()
		time.Sleep(time.Minute)
		if !net.Connected(late.ID) {
			t.Error("a member under yesterday's key was not found")
		}
		stop()
	})
}

// A stranger who fills the DHT with private addresses makes nobody knock at his own router.
func TestPrivateAddressesFromStrangersAreNotDialled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		place := &meetingPlace{found: map[Key]map[peer.ID]peer.AddrInfo{{42}: {}}}
		evil := at(t, newPeer(t), "/ip4/192.168.7.1/tcp/80", "/ip4/127.0.0.1/tcp/6379", "/ip4/10.1.2.3/tcp/22")
		near := at(t, newPeer(t), "/ip4/192.168.1.77/tcp/4001")
		place.found[Key{42}][evil.ID], place.found[Key{42}][near.ID] = evil, near
		net := newFakeNetwork()
		net.subnets = []string{"192.168.1.5/24"}
		self := newPeer(t)
		f, stop := runFinder(t, Config{Self: self, Network: net, Rendezvous: &visitor{place: place, self: peer.AddrInfo{ID: self}, ready: true}, Seed: 1})
		f.Follow(Group{Name: Key{7}, Keys: func(time.Time) []Key { return []Key{{42}} }})
		time.Sleep(10 * time.Minute)
		stop()
		if len(net.tried) == 0 {
			t.Error("the neighbour was not tried")
		}
		for _, a := range net.tried {
			if a != near.Addrs[0].String() {
				t.Errorf("dialled %s", a)
			}
		}
	})
}

// A relay that restarts is found again quickly, and one that stays away is not flooded.
func TestBootstrapIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boot := at(t, newPeer(t), "/ip4/8.8.8.8/tcp/4001")
		net := newFakeNetwork()
		net.up(boot)
		f, stop := runFinder(t, Config{Self: newPeer(t), Network: net, Bootstraps: []peer.AddrInfo{boot}, Seed: 1})
		time.Sleep(time.Second)
		if !net.Connected(boot.ID) {
			t.Fatal("bootstrap not dialled at the start")
		}
		time.Sleep(time.Minute)
		before := net.dialsTo(boot.ID)
		net.disconnect(boot.ID)
		f.Lost(boot.ID)
		time.Sleep(3 * time.Second)
		if !net.Connected(boot.ID) || net.dialsTo(boot.ID) != before+1 {
			t.Errorf("not back after 3 s (%d dials)", net.dialsTo(boot.ID)-before)
		}
		net.mu.Lock()
		delete(net.answers, boot.ID)
		net.mu.Unlock()
		net.disconnect(boot.ID)
		f.Lost(boot.ID)
		before = net.dialsTo(boot.ID)
		time.Sleep(time.Hour)
		if n := net.dialsTo(boot.ID) - before; n < 100 || n > 160 {
			t.Errorf("%d dials in an hour, want about 125", n)
		}
		// The machine comes back from sleep: it is tried at once.
		net.up(boot)
		f.Wake()
		time.Sleep(1500 * time.Millisecond)
		if !net.Connected(boot.ID) {
			t.Error("not tried after waking")
		}
		stop()
	})
}

// fakeLAN reports peers when told.
type fakeLAN struct {
	found    chan peer.AddrInfo
	restarts chan struct{}
}

func (l *fakeLAN) Run(ctx context.Context, found func(peer.AddrInfo)) error {
	for {
		select {
		case info := <-l.found:
			found(info)
		case <-ctx.Done():
			return nil
		}
	}
}

func (l *fakeLAN) Restart() { l.restarts <- struct{}{} }

func TestLocalPeersAreDialledAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := &fakeLAN{found: make(chan peer.AddrInfo), restarts: make(chan struct{}, 1)}
		net := newFakeNetwork()
		f, stop := runFinder(t, Config{Self: newPeer(t), Network: net, LAN: lan, Seed: 1})
		for i := range 20 {
			p := at(t, newPeer(t), fmt.Sprintf("/ip4/192.168.1.%d/tcp/1", i+1))
			net.up(p)
			lan.found <- p
		}
		time.Sleep(10 * time.Second)
		net.mu.Lock()
		up, most := len(net.connected), net.most
		net.mu.Unlock()
		if up != 20 {
			t.Errorf("%d of 20 connected after 10 s", up)
		}
		if most > DefaultLimits().ParallelDials {
			t.Errorf("%d dials at once", most)
		}
		f.Wake()
		select {
		case <-lan.restarts:
		default:
			t.Error("waking did not announce anew")
		}
		stop()
	})
}

func TestAnnounceAndFindByKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		place := &meetingPlace{}
		self := at(t, newPeer(t), "/ip4/8.8.8.8/tcp/1")
		other := at(t, newPeer(t), "/ip4/8.8.4.4/tcp/1", "/ip4/192.168.0.1/tcp/1")
		fa, stopA := runFinder(t, Config{Self: self.ID, Network: newFakeNetwork(), Rendezvous: &visitor{place: place, self: self, ready: true}, Seed: 1})
		fb, stopB := runFinder(t, Config{Self: other.ID, Network: newFakeNetwork(), Rendezvous: &visitor{place: place, self: other, ready: true}, Seed: 2})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			fb.Announce(ctx, Key{5})
		}()
		synctest.Wait()
		got, err := fa.Find(t.Context(), Key{5})
		if err != nil || len(got) != 1 || got[0].ID != other.ID || len(got[0].Addrs) != 1 {
			t.Errorf("found %v, %v; want the other at its public address", got, err)
		}
		if got, err := fa.Find(t.Context(), Key{6}); err != nil || len(got) != 0 {
			t.Errorf("nobody announced, and found %v, %v", got, err)
		}
		cancel()
		<-done
		stopA()
		stopB()
	})
}

func TestEverythingCanBeOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, stop := runFinder(t, Config{Self: newPeer(t), Network: newFakeNetwork(), Seed: 1})
		f.Follow(Group{Name: Key{1}, Keys: func(time.Time) []Key { return []Key{{1}} }})
		f.Announce(t.Context(), Key{1})
		if got, err := f.Find(t.Context(), Key{1}); err != nil || got != nil {
			t.Errorf("found %v, %v", got, err)
		}
		f.Good(Key{1}, at(t, newPeer(t), "/ip4/8.8.8.8/tcp/1"))
		f.Wake()
		time.Sleep(time.Hour)
		stop()
		f.Follow(Group{Name: Key{2}})
		f.Unfollow(Key{2})
	})
}
