package main

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/starling-chat/starling/node/api"
)

// stopWithin is what a node has to stop; the rest of the process takes no time worth naming.
const stopWithin = 5 * time.Second

// TestToldToStopUnderLoad sends SIGTERM to a node that sends and receives as fast as it can, 3 times, or 20
// in the full run. It ends with 0 within five seconds, and whatever it accepted is there after the
// restart, once.
func TestToldToStopUnderLoad(t *testing.T) {
	t.Parallel()
	rounds := 3
	if full() {
		rounds = 20
	}
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	other, b, _ := launch(t, shortHome(t))
	st, err := b.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Join(t.Context(), api.JoinRequest{Room: "lobby"}); err != nil {
		t.Fatal(err)
	}
	home := shortHome(t)
	p, a, _ := launch(t, home, "--bootstrap", st.Addrs[0])
	if _, err := a.Join(t.Context(), api.JoinRequest{Room: "lobby"}); err != nil {
		t.Fatal(err)
	}
	talking := make(chan struct{})
	theirs := map[string]string{}
	go func() { // ends when the other node is killed below; waited for there
		defer close(talking)
		sendUntilBroken(t, b, -1, theirs)
	}()
	accepted := map[string]string{}
	slowest := time.Duration(0)
	for round := range rounds {
		eventually(t, "the rooms meet", func() bool { return roomPeers(t, a) == 1 })
		moment := 100*time.Millisecond + time.Duration(random.Int64N(int64(700*time.Millisecond)))
		victim, told := p, make(chan time.Time, 1)
		time.AfterFunc(moment, func() {
			told <- time.Now()
			victim.cmd.Process.Signal(syscall.SIGTERM)
		})
		sendUntilBroken(t, a, round, accepted)
		<-victim.done
		took := time.Since(<-told)
		slowest = max(slowest, took)
		if victim.err != nil {
			t.Fatalf("told to stop it ended with %v; its output:\n%s", victim.err, victim.output())
		}
		if took > stopWithin {
			t.Errorf("stopping took %s", took)
		}
		p, a, _ = launch(t, home, "--bootstrap", st.Addrs[0])
	}
	kill(other)
	<-talking
	checkHistory(t, a, accepted)
	t.Logf("%d stops, %d accepted, %d by the other meanwhile, slowest stop %s", rounds, len(accepted), len(theirs), slowest)
}
