package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/starling-chat/starling/node/api"
)

// member is a node of a soak test that is killed and started again, always at the same address.
type member struct {
	home, addr string
	others     []string // addresses of the rest

	mu       sync.Mutex // guards p, c
	p        *proc
	c        *api.Client
	accepted map[string]string // client id -> message id; belongs to its sender until that has ended
}

func (m *member) client() *api.Client {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.c
}

// run starts the node and waits until it is ready.
func (m *member) run(t *testing.T) error {
	log, err := os.OpenFile(m.home+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{"run", "--home", m.home, "--no-mdns", "--no-dht"}
	if m.addr == "" {
		args = append(args, "--listen", "/ip4/127.0.0.1/tcp/0")
	} else {
		at, _, _ := strings.Cut(m.addr, "/p2p/")
		args = append(args, "--listen", at)
	}
	for _, o := range m.others {
		args = append(args, "--bootstrap", o)
	}
	p, err := startProcess(filepath.Dir(m.home), os.Environ(), log, args...)
	if err != nil {
		return err
	}
	if _, err := p.waitFor(readyPattern); err != nil {
		b, _ := os.ReadFile(m.home + ".log")
		kill(p)
		return fmt.Errorf("%w\nits log:\n%s", err, b)
	}
	c := api.NewClient(api.FindSocket(m.home))
	m.mu.Lock()
	m.p, m.c = p, c
	m.mu.Unlock()
	return nil
}

// restart kills the node without warning and starts it again.
func (m *member) restart(t *testing.T) error {
	m.mu.Lock()
	p, c := m.p, m.c
	m.mu.Unlock()
	kill(p)
	c.Close()
	return m.run(t)
}

// gather starts nodes that know each other's addresses and share a room.
func gather(t *testing.T, count int, room string) []*member {
	t.Helper()
	list := make([]*member, count)
	for i := range list {
		m := &member{home: shortHome(t), accepted: make(map[string]string)}
		list[i] = m
		for _, o := range list[:i] {
			m.others = append(m.others, o.addr)
		}
		if err := m.run(t); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			kill(m.p)
			m.c.Close()
		})
		st, err := m.c.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m.addr = st.Addrs[0]
		if _, err := m.c.SetNick(t.Context(), "n"+strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
		if _, err := m.c.Join(t.Context(), api.JoinRequest{Room: room}); err != nil {
			t.Fatal(err)
		}
	}
	for i, m := range list {
		m.others = nil
		for k, o := range list {
			if k != i {
				m.others = append(m.others, o.addr)
			}
		}
	}
	for _, m := range list {
		eventually(t, "the room meets", func() bool { return roomPeers(t, m.client()) == count-1 })
	}
	return list
}

// chatter sends a message for every period that passes until ctx ends: what was not said while the node was down
// is said once it is back. One that was not answered is sent again under the same client id, as a program would.
func (m *member) chatter(ctx context.Context, who int, room string, period time.Duration) {
	began := time.Now()
	for n := 0; ; n++ {
		select {
		case <-time.After(time.Until(began.Add(time.Duration(n) * period))):
		case <-ctx.Done():
			return
		}
		id := fmt.Sprintf("%d-%d", who, n)
		for {
			res, err := m.client().Send(context.WithoutCancel(ctx), api.SendRequest{Target: room, Text: "<" + id + ">", ClientID: id, TimeoutMS: 5000})
			if err == nil && res.Error == nil {
				m.accepted[id] = res.ID
				break
			}
			select {
			case <-time.After(period):
			case <-ctx.Done():
				return
			}
		}
	}
}

// TestRoomUnderKills lets five nodes talk, 20 messages a second each, while a random one is killed every
// three seconds: for three minutes, or for twenty seconds without the full run. Nothing that was accepted
// is lost anywhere or shown twice, and within a minute of the end all hold the same.
func TestRoomUnderKills(t *testing.T) {
	t.Parallel()
	length, period := 20*time.Second, 200*time.Millisecond
	if full() {
		length, period = 3*time.Minute, 50*time.Millisecond
	}
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	list := gather(t, 5, "lobby")
	ctx, stop := context.WithTimeout(t.Context(), length)
	defer stop()
	var talking sync.WaitGroup
	for i, m := range list {
		talking.Go(func() { m.chatter(ctx, i, "#lobby", period) }) // ends with ctx
	}
	kills := 0
	for ctx.Err() == nil {
		select {
		case <-time.After(3 * time.Second):
		case <-ctx.Done():
			continue
		}
		if err := list[random.IntN(len(list))].restart(t); err != nil {
			t.Fatal(err)
		}
		kills++
	}
	talking.Wait()
	ended := time.Now()
	accepted := make(map[string]string)
	for _, m := range list {
		for client, id := range m.accepted {
			accepted[client] = id
		}
	}
	if want := len(list) * int(length/period); len(accepted) < want*9/10 {
		t.Errorf("%d accepted, want about %d: this was not the rate that was to be tried", len(accepted), want)
	}
	agree(t, list, len(accepted), patience)
	t.Logf("%d kills, %d accepted, equal %s after the end", kills, len(accepted), time.Since(ended).Round(100*time.Millisecond))
	for i, m := range list {
		t.Run("node "+strconv.Itoa(i), func(t *testing.T) { checkHistory(t, m.client(), accepted) })
	}
}

// agree waits until the nodes hold the same messages, at least so many.
func agree(t *testing.T, list []*member, least int, limit time.Duration) {
	t.Helper()
	last := ""
	began, told := time.Now(), time.Now()
	deadline := began.Add(limit)
	for {
		var sums []string
		good := true
		for _, m := range list {
			d, err := m.client().Digest(t.Context(), "#lobby")
			good = good && err == nil && d.Count >= least
			sums = append(sums, fmt.Sprintf("%d %.8s %v", d.Count, d.SHA256, err))
		}
		last = fmt.Sprint(sums)
		if good && len(slices.Compact(slices.Clone(sums))) == 1 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the nodes do not agree after %s: %s, want at least %d", limit, last, least)
		}
		if time.Since(told) > 20*time.Second {
			told = time.Now()
			t.Logf("after %s: %s", time.Since(began).Round(time.Second), last)
		}
		time.Sleep(pollPeriod)
	}
}

// TestBurstIntoARoom sends a burst (2,000 messages, 20,000 in the full run) into a room of five: nothing is
// missing anywhere a minute after the last was accepted.
func TestBurstIntoARoom(t *testing.T) {
	t.Parallel()
	count := 2_000
	if full() {
		count = 20_000
	}
	list := gather(t, 5, "lobby")
	began := time.Now()
	sendMany(t, list[0].client(), "lobby", count)
	accepted := time.Now()
	agree(t, list, count, patience)
	t.Logf("%d accepted in %s, at all five %s later", count, accepted.Sub(began).Round(time.Millisecond), time.Since(accepted).Round(time.Millisecond))
	for _, m := range list {
		d, err := m.client().Digest(t.Context(), "#lobby")
		if err != nil || d.Count != count {
			t.Errorf("a node holds %d messages (%v), want %d", d.Count, err, count)
		}
	}
}

// TestOverload lets everybody in a room of five send as fast as they can, which is more than twice what they can take
// in where all five share a machine: whatever was accepted arrives everywhere, though it takes longer than it took
// to say it.
func TestOverload(t *testing.T) {
	t.Parallel()
	if !full() {
		t.Skip("a full run only")
	}
	list := gather(t, 5, "lobby")
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	var total atomic.Int64
	var talking sync.WaitGroup
	for i, m := range list {
		talking.Go(func() { // ends with ctx
			r, w, err := os.Pipe()
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			go func() { // ends when ctx has ended, or the pipe is closed
				defer w.Close()
				enc := json.NewEncoder(w)
				for n := 0; ctx.Err() == nil; n++ {
					if enc.Encode(api.BatchItem{ClientID: strconv.Itoa(n), Text: fmt.Sprintf("<%d-%d>", i, n)}) != nil {
						return
					}
				}
			}()
			err = m.client().Batch(t.Context(), "#lobby", r, func(res api.SendResult) error {
				if res.Error == nil {
					total.Add(1)
				}
				return nil
			})
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("node %d: %v", i, err)
			}
		})
	}
	talking.Wait()
	ended := time.Now()
	count := int(total.Load())
	agree(t, list, count, 8*time.Minute)
	t.Logf("%d accepted in a minute, equal %s later", count, time.Since(ended).Round(time.Millisecond))
}

// TestMailForSomebodyAway sends direct messages (300; 10,000 in the full run) to somebody who left as soon as
// the first had gone both ways, restarts the sender twice meanwhile and then switches it off. The relay alone
// is up when the recipient comes back, who sees all of them, once, within a minute.
func TestMailForSomebodyAway(t *testing.T) {
	t.Parallel()
	count := 300
	if full() {
		count = 10_000
	}
	ctx := t.Context()
	relayHome, homeA, homeB := shortHome(t), shortHome(t), shortHome(t)
	relay, err := startProcess(filepath.Dir(relayHome), os.Environ(), nil, append([]string{"relay"}, loopback(relayHome)...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(relay) })
	line, err := relay.waitFor(readyPattern)
	if err != nil {
		t.Fatal(err)
	}
	var ready struct{ Addrs []string }
	if err := json.Unmarshal([]byte(line[0]), &ready); err != nil {
		t.Fatal(err)
	}
	pa, a, _ := launch(t, homeA, "--relay", ready.Addrs[0])
	pb, b, _ := launch(t, homeB, "--relay", ready.Addrs[0])
	for _, c := range []*api.Client{a, b} {
		eventually(t, "the relay is there", func() bool {
			st, err := c.Status(ctx)
			return err == nil && len(st.Relays) == 1 && st.Relays[0].Connected
		})
	}
	acquaint(t, a, b)
	if err := b.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	<-pb.done
	began := time.Now()
	for part := range 3 {
		if part > 0 {
			if part == 1 {
				kill(pa)
			} else {
				if err := a.Stop(ctx); err != nil {
					t.Fatal(err)
				}
				<-pa.done
			}
			pa, a, _ = launch(t, homeA, "--relay", ready.Addrs[0])
		}
		var in strings.Builder
		enc := json.NewEncoder(&in)
		for i := part * count / 3; i < (part+1)*count/3; i++ {
			if err := enc.Encode(api.BatchItem{ClientID: strconv.Itoa(i), Text: fmt.Sprintf("<dm-%d>", i)}); err != nil {
				t.Fatal(err)
			}
		}
		err := a.Batch(ctx, "@bob", strings.NewReader(in.String()), func(r api.SendResult) error {
			if r.Error != nil {
				return r.Error
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("accepted in %s", time.Since(began).Round(time.Millisecond))
	var box []api.OutboxEntry
	defer func() {
		if t.Failed() && len(box) > 0 {
			t.Logf("%d wait; the first: %+v", len(box), box[0])
		}
	}()
	eventually(t, "all lie in the mailbox", func() bool {
		var err error
		box, err = a.Outbox(ctx)
		return err == nil && !slices.ContainsFunc(box, func(e api.OutboxEntry) bool { return e.State != api.StateStored })
	})
	t.Logf("stored after %s", time.Since(began).Round(time.Millisecond))
	kill(pa)
	began = time.Now()
	_, b, _ = launch(t, homeB, "--relay", ready.Addrs[0])
	eventually(t, "all arrive", func() bool {
		d, err := b.Digest(ctx, "@ada")
		return err == nil && d.Count == count+2
	})
	took := time.Since(began)
	t.Logf("%d messages shown %s after the start", count, took.Round(time.Millisecond))
	if took > time.Minute {
		t.Errorf("it took %s, at most a minute is allowed", took)
	}
	checkDirect(t, b, count)
}

// acquaint makes two nodes contacts called ada and bob that know each other's mailboxes.
func acquaint(t *testing.T, a, b *api.Client) {
	t.Helper()
	ctx := t.Context()
	link := func(c *api.Client) string {
		me, err := c.Me(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return me.Link
	}
	for _, x := range []struct {
		c    *api.Client
		who  string
		name string
	}{{a, link(b), "bob"}, {b, link(a), "ada"}} {
		if _, err := x.c.AddContact(ctx, api.ContactRequest{Who: x.who, Petname: x.name}); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range []struct {
		c   *api.Client
		who string
	}{{a, "@bob"}, {b, "@ada"}} { // both know where the other's mailbox is
		if res, err := x.c.Send(ctx, api.SendRequest{Target: x.who, Text: "hello", Wait: api.StateDelivered, TimeoutMS: 60_000}); err != nil || res.Error != nil {
			t.Fatalf("%v %v", err, res.Error)
		}
	}
}

// checkDirect says that every direct message is shown once.
func checkDirect(t *testing.T, b *api.Client, count int) {
	t.Helper()
	ctx := t.Context()
	all, err := lastMessages(ctx, b, api.HistoryQuery{Target: "@ada"}, count+100)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, m := range all {
		seen[m.Text]++
	}
	for i := range count {
		if n := seen[fmt.Sprintf("<dm-%d>", i)]; n != 1 {
			t.Errorf("message %d is shown %d times", i, n)
		}
	}
}
