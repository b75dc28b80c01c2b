package node

import (
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// A clock that is off is told from messages that are late, whichever side is wrong.
func TestSkew(t *testing.T) {
	start := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	type event struct {
		from   peer.ID
		after  time.Duration // when it came
		offset time.Duration // its time less ours
	}
	for _, tc := range []struct {
		name   string
		events []event
		ahead  time.Duration
	}{
		{"nothing heard", nil, 0},
		{"all is well", []event{{"a", 0, 0}, {"a", time.Minute, -time.Second}}, time.Second},
		{"one message that waited for an hour", []event{{"a", 0, -time.Hour}}, 0},
		{"three that waited and come at once", []event{{"a", 0, -time.Hour}, {"a", time.Second, -time.Hour}, {"a", 2 * time.Second, -time.Hour}}, 0},
		{"ours is ahead", []event{{"a", 0, -time.Hour}, {"a", time.Minute, -time.Hour}}, time.Hour},
		{"ours is behind", []event{{"a", 0, 3 * time.Hour}}, -3 * time.Hour},
		{"one liar among three", []event{
			{"a", 0, 0}, {"a", time.Minute, 0}, {"b", 0, 0}, {"b", time.Minute, 0}, {"liar", time.Minute, 9 * time.Hour},
		}, 0},
		{"it was set meanwhile", []event{{"a", 0, 3 * time.Hour}, {"a", time.Minute, 0}, {"a", 2 * time.Minute, 0}}, 0},
	} {
		var m skewMeter
		for _, e := range tc.events {
			now := start.Add(e.after)
			m.observe(e.from, now.Add(e.offset), now)
		}
		if got := m.ahead(start.Add(2 * time.Minute)); got != tc.ahead {
			t.Errorf("%s: ahead by %s, want %s", tc.name, got, tc.ahead)
		}
	}
	var m skewMeter
	for i := range 10 * skewPeers {
		m.observe(peer.ID(string(rune('a'+i))), start.Add(time.Hour), start.Add(time.Duration(i)*time.Second))
	}
	if len(m.peers) > skewPeers {
		t.Errorf("%d neighbours are remembered", len(m.peers))
	}
	if c := checkClock(-3 * time.Hour); c.Status != checkFail || !strings.Contains(c.Detail, "your clock or theirs is wrong by about 3h0m0s: yours is behind") {
		t.Errorf("the doctor says %+v", c)
	}
}
