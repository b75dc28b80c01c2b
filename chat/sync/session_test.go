package sync

import (
	"fmt"
	"testing"
)

const testStart = 1_750_000_000_000 // ms

// history returns n records, one every 30 s, oldest first, with size bytes of random-looking payload.
func history(who string, n, size int) [][]byte {
	return historyAt(who, n, size, testStart, 30_000)
}

func historyAt(who string, n, size int, start, step uint64) [][]byte {
	records := make([][]byte, n)
	for i := range records {
		payload := make([]byte, 0, size+64)
		for len(payload) < size {
			payload = append(payload, seal(fmt.Sprint(who, i, len(payload)), nil)...)
		}
		records[i] = makeRecord(timeOf(start+uint64(i)*step, uint16(i%3)), payload[:size])
	}
	return records
}

func TestSmallSets(t *testing.T) {
	all := history("x", 100, 50)
	for _, c := range []struct {
		name string
		a, b [][]byte
	}{
		{"both empty", nil, nil},
		{"initiator empty", nil, all},
		{"responder empty", all, nil},
		{"equal", all, all},
		{"one missing here", all[:50], all[:51]},
		{"one missing there", all[:51], all[:50]},
		{"disjoint", all[:50], all[50:]},
		{"holes on both sides", append(all[:20:20], all[40:]...), append(all[:60:60], all[80:]...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := newNode("a"), newNode("b")
			a.addAll(c.a)
			b.addAll(c.b)
			ra, rb, _ := syncNodes(t, a, b, nil)
			mustFinish(t, ra, rb)
			mustBeEqual(t, a, b)
			if !ra.Equal && ra.Accepted+rb.Accepted == 0 {
				t.Error("not equal, but nothing came")
			}
			if len(ra.Complete) != 1 || len(rb.Complete) != 1 {
				t.Errorf("complete: %v and %v", ra.Complete, rb.Complete)
			}
		})
	}
}
