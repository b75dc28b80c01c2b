package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// meshTime is how long members of a room get to find each other before anything is measured: three
	// heartbeats of gossipsub.
	meshTime = 3 * time.Second
	// window is how many messages of a room are under way at once when its rate is measured: enough to
	// keep everybody busy, and less than the anchor's queues, which drop what they do not hold.
	window = 24
	// receivers is the number of members that a room's one author writes to.
	receivers = 8
)

// crowd is a room with one author, who is the first of the list.
type crowd struct {
	*group
	room string
	next int
}

func (s *Suite) startCrowd(ctx context.Context, args ...string) (*crowd, error) {
	g, err := s.startGroup(ctx, receivers+1, args...)
	if err != nil {
		return nil, err
	}
	c := &crowd{group: g, room: "crowd"}
	if err := c.join(ctx); err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

func (c *crowd) join(ctx context.Context) error {
	for _, p := range c.list {
		if _, err := p.ask(ctx, "JOINED ", "JOIN", c.room); err != nil {
			return err
		}
	}
	return pause(ctx, meshTime)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// publish sends count messages, at most window of them under way, and returns how long it took until
// everybody had everything, and what all processes used.
func (c *crowd) publish(ctx context.Context, count int) (took time.Duration, used Usage, err error) {
	before, err := c.usage(ctx)
	if err != nil {
		return 0, used, err
	}
	author, rest := c.list[0], c.list[1:]
	first := c.next
	c.next += count
	began := time.Now()
	for n := first; n < c.next; n++ {
		if open := n - window; open >= first {
			for _, p := range rest {
				if err := p.wait(ctx, open, 1, quietTime); err != nil {
					return 0, used, err
				}
			}
		}
		if err := errors.Join(author.tell("PUB", c.room, payload(n)), author.flush()); err != nil {
			return 0, used, err
		}
	}
	for _, p := range rest {
		if err := p.wait(ctx, first, count, quietTime); err != nil {
			return 0, used, err
		}
	}
	took = time.Since(began)
	after, err := c.usage(ctx)
	used.CPU = after.CPU - before.CPU
	used.Duplicates = after.Duplicates - before.Duplicates
	return took, used, err
}

// overload publishes at a rate for a time, and returns the share of deliveries that never came.
func (c *crowd) overload(ctx context.Context, rate float64, during, grace time.Duration) (float64, error) {
	author, rest := c.list[0], c.list[1:]
	count := int(rate * during.Seconds())
	first := c.next
	c.next += count
	began := time.Now()
	for n := first; n < c.next; n++ {
		due := began.Add(time.Duration(float64(n-first) / rate * float64(time.Second)))
		if ahead := time.Until(due); ahead > 2*time.Millisecond {
			if err := author.flush(); err != nil {
				return 0, err
			}
			if err := pause(ctx, ahead); err != nil {
				return 0, err
			}
		}
		if err := author.tell("PUB", c.room, payload(n)); err != nil {
			return 0, err
		}
	}
	if err := author.flush(); err != nil {
		return 0, err
	}
	lost := 0
	for i, err := range waitAll(ctx, rest, first, count, grace) {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if err != nil {
			lost += rest[i].missing(first, count)
		}
	}
	return float64(lost) / float64(count*len(rest)), nil
}

// waitAll waits for the same messages at several processes at once.
func waitAll(ctx context.Context, list []*process, first, count int, quiet time.Duration) []error {
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for i, p := range list {
		wg.Go(func() { errs[i] = p.wait(ctx, first, count, quiet) })
	}
	wg.Wait()
	return errs
}

func roomExperiment() experiment {
	return experiment{
		name: "room",
		targets: []target{
			{id: "room-cpu", what: "processor time per 1,000 deliveries, 1 to 8", unit: "ms", limit: 0.35, says: "<= 0.35"},
			{id: "room-rate", what: "deliveries a second, 1 to 8", unit: "1/s", limit: 3, atLeast: true, clock: true, says: ">= 3"},
			{id: "room-copies", what: "copies that a member receives of a message", unit: "copies", limit: 1, says: "<= 1.0"},
			{id: "overload", what: "lost at twice the sustainable rate, after sync", unit: "%", limit: 0, says: "0 lost"},
		},
		note: "room: 9 processes, all connected, 300 bytes, 24 under way; anchor: bare gossipsub with its defaults (signed); overload: each at twice its own rate of the round, what has not come 45 s (anchor: 5 s) after the last arrival is lost",
		begin: func(ctx context.Context, s *Suite) (func(context.Context) ([]sample, error), func(), error) {
			ours, err := s.startCrowd(ctx)
			if err != nil {
				return nil, nil, err
			}
			anchor, err := s.startCrowd(ctx, "--bare")
			if err != nil {
				return nil, ours.stop, err
			}
			round := func(ctx context.Context) ([]sample, error) {
				a, err := anchor.measure(ctx, s, 5*time.Second)
				if err != nil {
					return nil, fmt.Errorf("anchor: %w", err)
				}
				o, err := ours.measure(ctx, s, 45*time.Second)
				if err != nil {
					return nil, err
				}
				list := make([]sample, len(o))
				for i := range o {
					list[i] = sample{ours: o[i], anchor: a[i]}
				}
				list[3].anchor = 1 // the target is absolute: the ratio is the share itself
				return list, nil
			}
			return round, func() { ours.stop(); anchor.stop() }, nil
		},
	}
}

// measure returns one round's figures, in the order of the experiment's targets.
// What has not come a time after the last arrival is lost: a node gets as much as a sync or two takes,
// the anchor, which has none, a few heartbeats.
func (c *crowd) measure(ctx context.Context, s *Suite, grace time.Duration) ([]float64, error) {
	count := s.some(400, 10)
	took, used, err := c.publish(ctx, count)
	if err != nil {
		return nil, err
	}
	deliveries := float64(count * receivers)
	rate := float64(count) / took.Seconds()
	lost, err := c.overload(ctx, 2*rate, time.Duration(s.some(3000, 200))*time.Millisecond, grace)
	if err != nil {
		return nil, err
	}
	return []float64{
		used.CPU.Seconds() * 1e3 / deliveries * 1e3,
		rate * receivers,
		1 + float64(used.Duplicates)/deliveries,
		100 * lost,
	}, nil
}

const (
	manyLeaves = 31
	fewLeaves  = 8
	// hubPace is the time between two messages of the hub's rooms: it is latency that is measured
	// there, not rate.
	hubPace = 40 * time.Millisecond
)

// hub is leaves that reach each other through one relay alone.
type hub struct {
	*group // the leaves
	relay  *process
	next   int
}

func (s *Suite) startHub(ctx context.Context, leaves int) (*hub, error) {
	relay, err := s.start(ctx, "--hub")
	if err != nil {
		return nil, err
	}
	h := &hub{relay: relay, group: &group{}}
	for range leaves {
		p, err := s.start(ctx, "--relay", relay.addr)
		if err != nil {
			h.stop()
			return nil, err
		}
		h.list = append(h.list, p)
		if _, err := p.ask(ctx, "JOINED ", "JOIN", "many"); err != nil {
			h.stop()
			return nil, err
		}
		if len(h.list) > min(fewLeaves, leaves/2) {
			continue
		}
		if _, err := p.ask(ctx, "JOINED ", "JOIN", "few"); err != nil {
			h.stop()
			return nil, err
		}
	}
	if err := pause(ctx, 2*meshTime); err != nil {
		h.stop()
		return nil, err
	}
	return h, nil
}

func (h *hub) stop() {
	h.group.stop()
	h.relay.stop()
}

// spread publishes to a room that the first leaves take part in, and returns the latency at the
// hundredth part that was slowest, in microseconds, and how many deliveries were lost.
func (h *hub) spread(ctx context.Context, room string, leaves, count int) (p99 float64, lost int, err error) {
	author, rest := h.list[0], h.list[1:leaves]
	first := h.next
	h.next += count
	sent := make([]time.Time, count)
	for i := range count {
		sent[i] = time.Now()
		if err := errors.Join(author.tell("PUB", room, payload(first+i)), author.flush()); err != nil {
			return 0, 0, err
		}
		if err := pause(ctx, hubPace); err != nil {
			return 0, 0, err
		}
	}
	var all []time.Duration
	_ = waitAll(ctx, rest, first, count, quietTime) // what is missing is counted below
	if err := ctx.Err(); err != nil {
		return 0, 0, err
	}
	for _, p := range rest {
		lost += p.missing(first, count)
		for i := range count {
			if at, ok := p.at(first + i); ok {
				all = append(all, at.Sub(sent[i]))
			}
		}
	}
	slices.Sort(all)
	return percentile(all, 0.99), lost, nil
}

func hubExperiment() experiment {
	return experiment{
		name: "hub",
		targets: []target{
			{id: "hub", what: "31 leaves of one relay, p99; anchor: 8 leaves of it", unit: "us", limit: 3, clock: true, says: "<= 3"},
			{id: "hub-lost", what: "lost of those", unit: "deliveries", limit: 0, says: "0 lost"},
		},
		note: "hub: the relay's leaves know each other by it alone; 25 messages a second; the anchor is a room of 8 of the same leaves",
		begin: func(ctx context.Context, s *Suite) (func(context.Context) ([]sample, error), func(), error) {
			many := s.some(manyLeaves, 4)
			few := min(fewLeaves, many/2)
			h, err := s.startHub(ctx, many)
			if err != nil {
				return nil, nil, err
			}
			return func(ctx context.Context) ([]sample, error) {
				count := s.some(100, 5)
				anchor, lostFew, err := h.spread(ctx, "few", few, count)
				if err != nil {
					return nil, err
				}
				ours, lost, err := h.spread(ctx, "many", many, count)
				return []sample{{ours, anchor}, {float64(lost + lostFew), 1}}, err
			}, h.stop, nil
		},
	}
}
