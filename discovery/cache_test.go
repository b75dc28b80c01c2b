package discovery

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

var policyAddr = []ma.Multiaddr{ma.StringCast("/ip4/8.8.8.8/tcp/4001")}

func TestRecordRoundTrip(t *testing.T) {
	r := &record{
		peer:  "p",
		good:  time.Unix(1767312000, 0),
		addrs: addrs(t, "/ip4/8.8.8.8/tcp/4001", "/ip6/2001:db8::1/udp/4001/quic-v1"),
	}
	// version, seconds since 1970, count; then each address with its length.
	const want = "01" + "0000000069570a80" + "02" +
		"0008" + "0408080808060fa1" +
		"0017" + "2920010db8000000000000000000000001" + "91020fa1cd03"
	raw := r.encode()
	if got := hex.EncodeToString(raw); got != want {
		t.Errorf("encoded as %s, want %s", got, want)
	}
	back, err := decodeRecord("p", raw)
	if err != nil || !back.good.Equal(r.good) || fmt.Sprint(back.addrs) != fmt.Sprint(r.addrs) {
		t.Fatalf("decoded %+v, %v", back, err)
	}
	for name, bad := range map[string][]byte{
		"empty":     nil,
		"version":   append([]byte{2}, raw[1:]...),
		"short":     raw[:len(raw)-1],
		"long":      append(bytes.Clone(raw), 0),
		"count":     append(append(bytes.Clone(raw[:9]), 17), raw[10:]...),
		"far time":  append([]byte{1, 0xff}, raw[2:]...),
		"bad bytes": append(bytes.Clone(raw[:12]), bytes.Repeat([]byte{0xff}, len(raw)-12)...),
	} {
		if _, err := decodeRecord("p", bad); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	r := &record{peer: "p", good: time.Unix(1767312000, 0), addrs: policyAddr}
	f.Add(r.encode())
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord("p", b)
		if err != nil {
			return
		}
		if got := r.encode(); !bytes.Equal(got, b) {
			t.Errorf("%x decodes, and encodes as %x", b, got)
		}
	})
}

// A restart finds its peers with every bootstrap down: what the cache holds is dialled at once.
func TestRestartWithoutBootstraps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memStore{}
		room := Key{9}
		self, boot, friend := newPeer(t), newPeer(t), newPeer(t)
		friendAt := at(t, friend, "/ip4/8.8.4.4/tcp/4001")
		net := newFakeNetwork()
		cfg := Config{Self: self, Network: net, Store: store, Bootstraps: []peer.AddrInfo{at(t, boot, "/ip4/8.8.8.8/tcp/4001")}, Seed: 1}
		f, stop := runFinder(t, cfg)
		f.Follow(Group{Name: room})
		net.up(friendAt)
		f.Good(room, friendAt)
		synctest.Wait()
		stop()

		net2 := newFakeNetwork()
		net2.up(friendAt)
		cfg.Network = net2
		f, stop = runFinder(t, cfg)
		began := time.Now()
		f.Follow(Group{Name: room})
		for !net2.Connected(friend) {
			time.Sleep(10 * time.Millisecond)
			if time.Since(began) > time.Minute {
				t.Fatal("the friend was not found")
			}
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("finding the friend took %s", took)
		}
		if net2.Connected(boot) {
			t.Error("the bootstrap was to be down")
		}
		stop()
	})
}

func TestCacheForgetsWhatIsOld(t *testing.T) {
	store := &memStore{}
	c := cache{store: store, max: 3}
	room := Key{1}
	now := time.Unix(1767312000, 0)
	for i := range 5 {
		r := &record{peer: newPeer(t), good: now.Add(time.Duration(i) * time.Hour), addrs: policyAddr}
		if err := c.save(t.Context(), room, r); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Put(t.Context(), cacheKey(room, "broken"), []byte("x")); err != nil {
		t.Fatal(err)
	}
	got, err := c.load(t.Context(), room, now)
	if err != nil || len(got) != 3 {
		t.Fatalf("%d entries, %v; want the 3 best", len(got), err)
	}
	if !got[0].good.After(got[1].good) {
		t.Error("the most recently good one is not first")
	}
	if len(store.m) != 3 {
		t.Errorf("%d entries are left in the store", len(store.m))
	}
	if got, err = c.load(t.Context(), room, now.Add(cacheLife+3*time.Hour+time.Second)); err != nil || len(got) != 1 {
		t.Errorf("after its life %d entries, %v; want 1", len(got), err)
	}
}
