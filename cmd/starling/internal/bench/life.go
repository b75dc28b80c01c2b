package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"
)

const (
	lifeRooms    = 10
	lifeMessages = 100_000
	// settleTime is how long a process idles before its memory is read.
	settleTime = 8 * time.Second
)

// runArgs start the program's node as a user does, on loopback and without discovery.
func runArgs(home string) []string {
	return []string{
		"run", "--home", home, "--network", "bench", "--listen", "/ip4/127.0.0.1/tcp/0",
		"--no-mdns", "--no-dht", "--no-passphrase", "--log-level", "warn",
	}
}

// writeHome makes a node's home with messages in several rooms.
func (s *Suite) writeHome(ctx context.Context, home string, rooms, messages int) error {
	p, err := s.start(ctx, "--keep", home)
	if err != nil {
		return err
	}
	defer p.stop()
	for r := range rooms {
		if _, err := p.ask(ctx, "JOINED ", "JOIN", "room"+strconv.Itoa(r)); err != nil {
			return err
		}
	}
	before, err := p.usage(ctx)
	if err != nil {
		return err
	}
	for n := range messages {
		if err := p.tell("PUB", "room"+strconv.Itoa(n%rooms), payload(n)); err != nil {
			return err
		}
	}
	return p.settled(ctx, before.Messages+messages)
}

// settled waits until a process has stored so many messages.
func (p *process) settled(ctx context.Context, messages int) error {
	for {
		u, err := p.usage(ctx)
		if err != nil {
			return err
		}
		if u.Messages >= messages {
			return nil
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

func lifeExperiment() experiment {
	return experiment{
		name: "life",
		targets: []target{
			{id: "start", what: "process start to ready, 100,000 messages", unit: "ms", limit: 1.5, clock: true, says: "<= 1.5"},
			{id: "start-cpu", what: "processor time of that", unit: "ms", limit: 1.5, says: "<= 1.5"},
			{id: "memory", what: "idle memory, 100,000 messages in 10 rooms", unit: "MB", limit: 1.5, says: "<= 1.5"},
		},
		note: "life: `starling run` on a home with 10 rooms; anchor: a bare host and gossipsub from the same program; resident memory after 8 s",
		begin: func(ctx context.Context, s *Suite) (func(context.Context) ([]sample, error), func(), error) {
			home := filepath.Join(s.Dir, "life")
			if err := s.writeHome(ctx, home, lifeRooms, s.some(lifeMessages, 100)); err != nil {
				return nil, nil, err
			}
			return func(ctx context.Context) ([]sample, error) {
				anchor, err := s.life(ctx, "READY ", "bench", "node", "--bare")
				if err != nil {
					return nil, err
				}
				ours, err := s.life(ctx, `{"event":"ready"`, runArgs(home)...)
				if err != nil {
					return nil, err
				}
				list := make([]sample, len(ours))
				for i := range ours {
					list[i] = sample{ours[i], anchor[i]}
				}
				return list, nil
			}, nil, nil
		},
	}
}

// life starts a process and returns milliseconds to ready, processor time then, and megabytes when idle.
func (s *Suite) life(ctx context.Context, prefix string, args ...string) ([]float64, error) {
	began := time.Now()
	p, err := s.spawn(ctx, prefix, args...)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	took := time.Since(began)
	pid := strconv.Itoa(p.cmd.Process.Pid)
	cpu := processorTime(pid)
	if err := pause(ctx, s.rest(settleTime)); err != nil {
		return nil, err
	}
	return []float64{took.Seconds() * 1e3, cpu.Seconds() * 1e3, float64(residentMemory(pid)) / 1e6}, nil
}

func (s *Suite) rest(d time.Duration) time.Duration {
	if s.Quick {
		return d / 20
	}
	return d
}

const (
	idleTime  = 20 * time.Second
	idleLimit = 2.0 // MB an hour: the limit of docs/hardening.md
)

func idleExperiment() experiment {
	return experiment{
		name: "idle",
		targets: []target{
			{id: "idle", what: "idle traffic of a node, 10 shared rooms; anchor: the limit", unit: "MB/h", limit: 1, says: "<= 1"},
		},
		note: "idle: two connected nodes for 20 s, bytes in and out; what happens every few minutes (sync) is not in it",
		begin: func(ctx context.Context, s *Suite) (func(context.Context) ([]sample, error), func(), error) {
			g, err := s.startGroup(ctx, 2)
			if err != nil {
				return nil, nil, err
			}
			for _, p := range g.list {
				for r := range lifeRooms {
					if _, err := p.ask(ctx, "JOINED ", "JOIN", "room"+strconv.Itoa(r)); err != nil {
						return nil, g.stop, err
					}
				}
			}
			// What follows joining, a sync of each room for one, is not idleness.
			if err := pause(ctx, s.rest(idleTime)); err != nil {
				return nil, g.stop, err
			}
			return func(ctx context.Context) ([]sample, error) {
				before, err := g.usage(ctx)
				if err != nil {
					return nil, err
				}
				if err := pause(ctx, s.rest(idleTime)); err != nil {
					return nil, err
				}
				after, err := g.usage(ctx)
				bytes := after.BytesIn + after.BytesOut - before.BytesIn - before.BytesOut
				return []sample{{float64(bytes) / 2 / s.rest(idleTime).Hours() / 1e6, idleLimit}}, err
			}, g.stop, nil
		},
	}
}

const missed = 10_000

func catchUpExperiment() experiment {
	return experiment{
		name: "catch-up",
		targets: []target{
			{id: "catch-up-bytes", what: "bytes received for 10,000 missed messages; anchor: their sealed size", unit: "MB", limit: 1.15, says: "<= 1.15"},
			{id: "catch-up-time", what: "time for them; anchor: their two signatures each, verified one by one on one core", unit: "s", limit: 1.5, clock: true, says: "<= 1.5"},
			{id: "nothing-missing", what: "bytes in and out when nothing is missing; anchor: 1 KB", unit: "KB", limit: 1, says: "<= 1"},
		},
		note: "catch-up: a member that was away connects to one that was not; 300 bytes of text each; time from CONNECT until the last is out; nothing missing: what the next 3 s move, gossip and keep-alive included",
		begin: func(ctx context.Context, s *Suite) (func(context.Context) ([]sample, error), func(), error) {
			stays, err := s.start(ctx, "--keep", filepath.Join(s.Dir, "stays"))
			if err != nil {
				return nil, nil, err
			}
			turn := 0
			return func(ctx context.Context) ([]sample, error) {
				turn++
				return s.catchUp(ctx, stays, turn)
			}, stays.stop, nil
		},
	}
}

// catchUp is one round, in a room and with a member of its own.
func (s *Suite) catchUp(ctx context.Context, stays *process, turn int) ([]sample, error) {
	count, room := s.some(missed, 50), "away"+strconv.Itoa(turn)
	home := filepath.Join(s.Dir, "away"+strconv.Itoa(turn))
	goes, err := s.start(ctx, "--keep", home)
	if err != nil {
		return nil, err
	}
	for _, p := range []*process{stays, goes} {
		if _, err := p.ask(ctx, "JOINED ", "JOIN", room); err != nil {
			goes.stop()
			return nil, err
		}
	}
	_, err = goes.ask(ctx, "CONNECTED", "CONNECT", stays.addr)
	if err == nil {
		err = pause(ctx, meshTime)
	}
	goes.stop()
	if err != nil {
		return nil, err
	}
	before, err := stays.usage(ctx)
	if err != nil {
		return nil, err
	}
	first := turn * missed
	for n := first; n < first+count; n++ {
		if err := stays.tell("PUB", room, payload(n)); err != nil {
			return nil, err
		}
	}
	if err := stays.settled(ctx, before.Messages+count); err != nil {
		return nil, err
	}
	if err := pause(ctx, s.rest(6*time.Second)); err != nil { // sync leaves out the newest five seconds
		return nil, err
	}
	return s.comeBack(ctx, stays, home, first, count)
}

func (s *Suite) comeBack(ctx context.Context, stays *process, home string, first, count int) ([]sample, error) {
	back, err := s.start(ctx, "--keep", home)
	if err != nil {
		return nil, err
	}
	defer back.stop()
	began := time.Now()
	if err := errors.Join(back.tell("CONNECT", stays.addr), back.flush()); err != nil {
		return nil, err
	}
	if err := back.wait(ctx, first, count, 60*time.Second); err != nil {
		return nil, fmt.Errorf("catching up: %w", err)
	}
	took := time.Since(began)
	after, err := back.usage(ctx)
	if err != nil {
		return nil, err
	}
	size, verify, err := sealedCost()
	if err != nil {
		return nil, err
	}
	if err := pause(ctx, 3*time.Second); err != nil {
		return nil, err
	}
	later, err := back.usage(ctx)
	if err != nil {
		return nil, err
	}
	quiet := float64(later.BytesIn+later.BytesOut-after.BytesIn-after.BytesOut) / 1e3
	return []sample{
		{float64(after.BytesIn) / 1e6, float64(size*count) / 1e6},
		{took.Seconds(), (verify * time.Duration(count)).Seconds()},
		{quiet, 1},
	}, nil
}
