package bench

import (
	"context"
	"errors"
	"slices"
	"time"
)

// quietTime is how long a measurement waits for the next arrival before it takes the rest for lost.
const quietTime = 20 * time.Second

// pair is two connected processes of one kind, with the number of the next message.
type pair struct {
	*group
	next int
}

func (s *Suite) startPair(ctx context.Context, args ...string) (*pair, error) {
	g, err := s.startGroup(ctx, 2, args...)
	if err != nil {
		return nil, err
	}
	p := &pair{group: g}
	// The first message makes the session, or the stream; a node that just met another may also
	// retry it, which is no part of what is measured.
	if _, err := p.pingPong(ctx, 3); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// pingPong sends one message at a time and returns how long each took, sorted.
func (p *pair) pingPong(ctx context.Context, count int) ([]time.Duration, error) {
	from, to := p.list[0], p.list[1]
	list := make([]time.Duration, 0, count)
	for range count {
		n := p.next
		p.next++
		began := time.Now()
		if err := errors.Join(from.tell("DM", to.addr, payload(n)), from.flush()); err != nil {
			return nil, err
		}
		if err := to.wait(ctx, n, 1, quietTime); err != nil {
			return nil, err
		}
		at, _ := to.at(n)
		list = append(list, at.Sub(began))
	}
	slices.Sort(list)
	return list, nil
}

// flood sends many at once and returns how long it took until the last was there, and the processor
// time that both processes used meanwhile.
func (p *pair) flood(ctx context.Context, count int) (took, cpu time.Duration, err error) {
	from, to := p.list[0], p.list[1]
	before, err := p.usage(ctx)
	if err != nil {
		return 0, 0, err
	}
	first := p.next
	p.next += count
	began := time.Now()
	for n := first; n < p.next; n++ {
		if err := from.tell("DM", to.addr, payload(n)); err != nil {
			return 0, 0, err
		}
	}
	if err := from.flush(); err != nil {
		return 0, 0, err
	}
	if err := to.wait(ctx, first, count, quietTime); err != nil {
		return 0, 0, err
	}
	took = time.Since(began)
	after, err := p.usage(ctx)
	return took, after.CPU - before.CPU, err
}

func directExperiment() experiment {
	return experiment{
		name: "dm",
		targets: []target{
			{id: "dm-latency", what: "one direct message, p50", unit: "us", limit: 1.3, clock: true, says: "<= 1.3"},
			{id: "dm-throughput", what: "direct messages a second", unit: "1/s", limit: 1, atLeast: true, clock: true, says: ">= 1.0"},
			{id: "dm-cpu", what: "processor time per 1,000, both sides", unit: "ms", limit: 1.5, says: "<= 1.5"},
		},
		note: "dm: 300 bytes from line to line through both processes; ours is decrypted, stored and acknowledged by then; anchor: bare libp2p stream",
		begin: func(ctx context.Context, s *Suite) (func(context.Context) ([]sample, error), func(), error) {
			ours, err := s.startPair(ctx)
			if err != nil {
				return nil, nil, err
			}
			anchor, err := s.startPair(ctx, "--bare")
			if err != nil {
				return nil, ours.stop, err
			}
			round := func(ctx context.Context) ([]sample, error) {
				var latency, rate, cpu sample
				for _, k := range []struct {
					p *pair
					f func(*sample) *float64
				}{
					{anchor, func(s *sample) *float64 { return &s.anchor }},
					{ours, func(s *sample) *float64 { return &s.ours }},
				} {
					each, err := k.p.pingPong(ctx, s.some(300, 5))
					if err != nil {
						return nil, err
					}
					count := s.some(4000, 20)
					took, used, err := k.p.flood(ctx, count)
					if err != nil {
						return nil, err
					}
					*k.f(&latency) = percentile(each, 0.5)
					*k.f(&rate) = float64(count) / took.Seconds()
					*k.f(&cpu) = used.Seconds() * 1e3 / float64(count) * 1e3
				}
				return []sample{latency, rate, cpu}, nil
			}
			return round, func() { ours.stop(); anchor.stop() }, nil
		},
	}
}
