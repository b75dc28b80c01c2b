package discovery

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/peer"
)

// numbered lets in values that repeat their key and end with a number; the greater one is newer.
type numbered struct{}

func (numbered) Check(key Key, value []byte) error {
	if len(value) != len(key)+8 || !bytes.HasPrefix(value, key[:]) {
		return errors.New("not the record of this key")
	}
	return nil
}

func (numbered) Newer(a, b []byte) bool { return bytes.Compare(a[32:], b[32:]) > 0 }

func numberedValue(key Key, n uint64) []byte {
	return binary.BigEndian.AppendUint64(bytes.Clone(key[:]), n)
}

// A record left by one client is found by another after the first has gone and the server was restarted;
// an older one does not replace it, and a bad one is refused.
func TestDHTKeepsRecords(t *testing.T) {
	server := newHost(t)
	disk := &memStore{}
	run := func() (stop func()) {
		d := NewDHT(server, DHTConfig{Network: "one", Server: true, Records: numbered{}, Store: disk})
		ctx, cancel := context.WithCancel(t.Context())
		ready, done := make(chan struct{}), make(chan error, 1)
		go func() { done <- d.Run(ctx, func() { close(ready) }) }()
		<-ready
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	stop := run()
	boot := peer.AddrInfo{ID: server.ID(), Addrs: server.Addrs()}
	client := func() *DHT {
		h := newHost(t)
		d := newTestDHT(t, h, DHTConfig{Network: "one", Records: numbered{}, Bootstraps: []peer.AddrInfo{boot}})
		if err := h.Connect(t.Context(), boot); err != nil {
			t.Fatal(err)
		}
		poll(t, 10*time.Second, "the server is in the table", d.Ready)
		return d
	}
	a, b := client(), client()
	key := Key{7: 7}
	if _, err := b.Get(t.Context(), key); !errors.Is(err, ErrNoRecord) {
		t.Errorf("before anything was left: %v", err)
	}
	if err := a.Put(t.Context(), key, numberedValue(key, 5)); err != nil {
		t.Fatal(err)
	}
	want := func(when string, n uint64) {
		t.Helper()
		if got, err := client().Get(t.Context(), key); err != nil || !bytes.Equal(got, numberedValue(key, n)) {
			t.Errorf("%s: found %x, %v", when, got, err)
		}
	}
	want("after it was left", 5)
	if err := b.Put(t.Context(), key, numberedValue(key, 4)); err != nil {
		t.Logf("an older one: %v", err)
	}
	want("after an older one was offered", 5)
	if err := b.Put(t.Context(), key, numberedValue(Key{1}, 9)); err == nil {
		t.Error("a record of another key was taken")
	}
	if err := a.Put(t.Context(), key, numberedValue(key, 6)); err != nil {
		t.Fatal(err)
	}
	want("after a newer one was left", 6)
	stop()
	stop = run()
	defer stop()
	poll(t, 10*time.Second, "the server that was restarted has it", func() bool {
		got, err := client().Get(t.Context(), key)
		return err == nil && bytes.Equal(got, numberedValue(key, 6))
	})
}

// The table keeps its bounds, whoever fills it, and what is nearest to it.
func TestTableIsBounded(t *testing.T) {
	disk := &memStore{}
	tab, err := newTable(t.Context(), "self", disk)
	if err != nil {
		t.Fatal(err)
	}
	value := make([]byte, 8<<10)
	refused := 0
	const many = 4 * maxTableBytes / (8 << 10)
	for i := range many {
		switch err := tab.Put(t.Context(), ds.NewKey(fmt.Sprint("K", i)), value); {
		case errors.Is(err, errTableFull):
			refused++
		case err != nil:
			t.Fatal(err)
		}
	}
	if tab.bytes > maxTableBytes || len(tab.held) > maxTable || len(tab.held) < maxTableBytes/(9<<10) {
		t.Errorf("%d records of %d bytes", len(tab.held), tab.bytes)
	}
	if refused == 0 || refused > many-len(tab.held) {
		t.Errorf("%d of %d refused", refused, many)
	}
	again, err := newTable(t.Context(), "self", disk)
	if err != nil || len(again.held) != len(tab.held) || again.bytes != tab.bytes {
		t.Errorf("read again: %d records of %d bytes, %v; were %d of %d", len(again.held), again.bytes, err, len(tab.held), tab.bytes)
	}
	for k := range tab.held {
		if err := tab.Delete(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	if tab.bytes != 0 || len(tab.held) != 0 {
		t.Errorf("%d records of %d bytes left", len(tab.held), tab.bytes)
	}
}
