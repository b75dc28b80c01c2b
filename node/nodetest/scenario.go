package nodetest

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/node"
)

// Scenario is a run of many nodes in one room. The zero value of a field is its default.
type Scenario struct {
	Nodes int // (100)
	// Neighbours is how many of those that started earlier each node knows and keeps connected, chosen at
	// random (6): the average node has twice as many.
	Neighbours int
	// Messages is how many are said in all (20), one each Pause (200 ms), by random nodes that stay.
	Messages int
	Pause    time.Duration
	Latency  time.Duration // one way; see [Options]
	Jitter   time.Duration
	Loss     float64 // share of packets, 0 to 1
	// Churn is the share of the nodes that stop, one after the other while messages are said, and come
	// back half a minute later.
	Churn float64
	// Die is the share of the nodes that stop for good at the middle message, all at once.
	Die float64
	// Partition is how long the network falls into two halves, from a quarter of the messages on.
	Partition time.Duration
	Seed      uint64 // of everything that is random (1)
	// Patience is how long, in virtual time after the last message and event, everybody may take to have
	// everything (10 min).
	Patience time.Duration

	// CPU reads what the process has used of the processor; nil leaves that out.
	CPU func() time.Duration `json:"-"`
	// Progress gets a line for each step; nil for none.
	Progress func(format string, args ...any) `json:"-"`
}

const (
	simRoom = "simulation"
	// away is how long a node of the churn is gone.
	away = 30 * time.Second
	// settle is the time between the last start and the first message.
	settle = 10 * time.Second
	// together is how many nodes start between two looks at the clock of the network.
	together = 10
)

func (s *Scenario) fill() {
	set := func(v *int, def int) {
		if *v <= 0 {
			*v = def
		}
	}
	set(&s.Nodes, 100)
	set(&s.Neighbours, 6)
	set(&s.Messages, 20)
	if s.Pause <= 0 {
		s.Pause = 200 * time.Millisecond
	}
	if s.Seed == 0 {
		s.Seed = 1
	}
	if s.Patience <= 0 {
		s.Patience = 10 * time.Minute
	}
	if s.Progress == nil {
		s.Progress = func(string, ...any) {}
	}
}

// Result is what a scenario came to. Times are virtual, but for CPU. A delivery is one message at one
// node that lives at the end, the author's own left out.
type Result struct {
	Seed       uint64  `json:"seed"`
	Nodes      int     `json:"nodes"`
	Living     int     `json:"living"` // at the end
	Messages   int     `json:"messages"`
	Deliveries int     `json:"deliveries"` // that were due
	Lost       int     `json:"lost"`
	Duplicates int     `json:"duplicates"` // messages shown twice
	Delivered  float64 `json:"delivered"`  // share of the deliveries

	// P50, P99 and Max are from the author's call until the message is shown elsewhere, of those that
	// arrived while the node ran.
	P50     time.Duration `json:"p50_ns"`
	P99     time.Duration `json:"p99_ns"`
	Max     time.Duration `json:"max_ns"`
	ByTopic float64       `json:"by_topic"` // share that came by the topic layer, and not by sync
	Hops    float64       `json:"hops"`     // mean, of those by the topic layer
	MaxHops int           `json:"max_hops"`
	// Copies is how often a node received a message by the topic layer, for each that it received.
	Copies float64 `json:"copies"`
	// Packets and Bytes were sent from the first message until all was settled, by all nodes, headers
	// and everything that is not messages included.
	Packets       uint64        `json:"packets"`
	Bytes         uint64        `json:"bytes"`
	BytesDelivery float64       `json:"bytes_per_delivery"`
	Settled       time.Duration `json:"settled_ns"` // from the last message or event until everybody had everything
	Virtual       time.Duration `json:"virtual_ns"` // the whole run

	CPUStart   time.Duration `json:"cpu_start_ns"` // of the process, for starting and joining
	CPURun     time.Duration `json:"cpu_run_ns"`   // for the rest, without stopping
	Memory     uint64        `json:"memory_bytes"` // live heap at the end of the run
	Neighbours float64       `json:"neighbours"`   // connections of a living node, mean
}

// play is a scenario under way.
type play struct {
	s      *Scenario
	n      *Network
	random *rand.Rand
	rooms  []chat.Target
	wg     sync.WaitGroup // the readers of events

	mu     sync.Mutex // guards all below
	began  time.Time  // of the measurement
	said   []utterance
	number map[chat.MessageID]int // in said
	shown  []map[chat.MessageID]time.Time
	twice  int
	first  []map[string]peer.ID // by node: topic layer's id -> from whom it came first
	index  map[peer.ID]int
	back   []comeback
	dead   []bool
}

type utterance struct {
	id     chat.MessageID
	author int
	at     time.Time
}

// comeback is a node that is away for a while.
type comeback struct {
	node int
	at   time.Time
}

// Simulate plays a scenario inside the calling bubble of testing/synctest, with whole nodes. It fails
// t when a node does not work; what is lost is a figure.
func Simulate(t testing.TB, s Scenario) Result {
	t.Helper()
	s.fill()
	p := &play{
		s: &s, random: rand.New(rand.NewPCG(s.Seed, 2)), number: make(map[chat.MessageID]int),
		shown: make([]map[chat.MessageID]time.Time, s.Nodes), first: make([]map[string]peer.ID, s.Nodes),
		index: make(map[peer.ID]int), rooms: make([]chat.Target, s.Nodes), dead: make([]bool, s.Nodes),
	}
	for i := range s.Nodes {
		p.shown[i], p.first[i] = make(map[chat.MessageID]time.Time), make(map[string]peer.ID)
	}
	r := Result{Seed: s.Seed, Nodes: s.Nodes, Messages: s.Messages}
	start, cpu := time.Now(), p.cpu()
	p.n = Start(t, Options{
		Nodes: s.Nodes, Latency: s.Latency, Jitter: s.Jitter, Loss: s.Loss, Seed: s.Seed,
		Neighbours: s.Neighbours, Durable: true, Asleep: true, Heard: p.heard,
	})
	p.gather(t)
	r.CPUStart = p.cpu() - cpu
	cpu = p.cpu()
	before := p.traffic()
	p.mu.Lock()
	p.began = time.Now()
	p.mu.Unlock()
	p.talk(t)
	r.Settled = p.wait()
	after := p.traffic()
	r.CPURun, r.Virtual, r.Memory = p.cpu()-cpu, time.Since(start), heap()
	r.Packets, r.Bytes = after.packets-before.packets, after.bytes-before.bytes
	p.count(&r, after, before)
	s.Progress("stopping")
	p.n.Stop()
	p.wg.Wait()
	return r
}

func (p *play) cpu() time.Duration {
	if p.s.CPU == nil {
		return 0
	}
	return p.s.CPU()
}

// heap measures what is really held.
func heap() uint64 {
	runtime.GC()
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// heard notes by which way a message came first.
func (p *play) heard(i int, id string, from peer.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.began.IsZero() {
		p.first[i][id] = from
	}
}

// gather starts the nodes and lets them join.
func (p *play) gather(t testing.TB) {
	for i, l := range p.n.Nodes {
		p.start(l)
		p.index[l.peerID(t)] = i
		p.rooms[i] = l.Join(simRoom)
		if (i+1)%together == 0 {
			time.Sleep(100 * time.Millisecond)
		}
		if (i+1)%100 == 0 || i+1 == p.s.Nodes {
			p.s.Progress("%d of %d nodes have joined", i+1, p.s.Nodes)
		}
	}
	time.Sleep(settle)
}

// start runs a node and reads its events until it stops.
func (p *play) start(l *Node) {
	l.Start()
	sub := l.Chat().Events(0)
	ctx := p.n.t.Context()
	p.wg.Go(func() { // ends with the node's chat service; Simulate waits for it
		defer sub.Close()
		for {
			e, err := sub.Next(ctx)
			if err != nil {
				return
			}
			if e.Type != chat.EventMessage || e.Message.Kind != chat.KindMessage || e.Message.Own {
				continue
			}
			p.mu.Lock()
			if _, again := p.shown[l.index][e.Message.ID]; again {
				p.twice++
			} else {
				p.shown[l.index][e.Message.ID] = time.Now()
			}
			p.mu.Unlock()
		}
	})
}

// talk says the messages and lets happen what the scenario wants meanwhile.
func (p *play) talk(t testing.TB) {
	s := p.s
	order := p.random.Perm(s.Nodes)
	dying := order[:int(s.Die*float64(s.Nodes))]
	rest := order[len(dying):]
	leaving := rest[:min(int(s.Churn*float64(s.Nodes)), len(rest)-1)]
	stay := rest[len(leaving):]
	gone := 0
	var heal time.Time
	for k := range s.Messages {
		if s.Partition > 0 && k == s.Messages/4 {
			half := order[s.Nodes/2:]
			p.n.Split(p.n.Nodes, pick(p.n.Nodes, half))
			heal = time.Now().Add(s.Partition)
			s.Progress("the network falls apart for %s", s.Partition)
		}
		if len(dying) > 0 && k == s.Messages/2 {
			p.kill(dying)
		}
		for ; gone < len(leaving)*(k+1)/s.Messages; gone++ {
			i := leaving[gone]
			p.n.Nodes[i].Stop()
			p.back = append(p.back, comeback{i, time.Now().Add(away)})
		}
		p.comeBack(time.Now())
		if !heal.IsZero() && !time.Now().Before(heal) {
			p.n.Heal()
			heal = time.Time{}
		}
		author := stay[p.random.IntN(len(stay))]
		u := utterance{author: author, at: time.Now()}
		u.id = p.n.Nodes[author].Say(p.rooms[author], fmt.Sprintf("message %d", k)).ID
		p.mu.Lock()
		p.number[u.id], p.said = len(p.said), append(p.said, u)
		p.mu.Unlock()
		time.Sleep(s.Pause)
	}
	s.Progress("%d messages said", s.Messages)
	for !heal.IsZero() || len(p.back) > 0 {
		time.Sleep(100 * time.Millisecond)
		p.comeBack(time.Now())
		if !heal.IsZero() && !time.Now().Before(heal) {
			p.n.Heal()
			heal = time.Time{}
		}
	}
}

func pick(list []*Node, which []int) []*Node {
	var out []*Node
	for _, i := range which {
		out = append(out, list[i])
	}
	return out
}

// kill stops nodes for good: without a farewell, as a power cut does.
func (p *play) kill(which []int) {
	lonely := make([][]*Node, 0, len(which)+1)
	lonely = append(lonely, nil)
	for _, i := range which {
		p.dead[i] = true
		lonely = append(lonely, []*Node{p.n.Nodes[i]})
	}
	p.n.Split(lonely...)
	for _, i := range which {
		p.n.Nodes[i].Stop()
	}
	p.n.Heal()
	p.s.Progress("%d nodes died", len(which))
}

// comeBack starts the nodes again whose time has come.
func (p *play) comeBack(now time.Time) {
	for len(p.back) > 0 && !now.Before(p.back[0].at) {
		p.start(p.n.Nodes[p.back[0].node])
		p.back = p.back[1:]
	}
}

// wait returns once everybody who lives has everything, or patience is at its end, and how long that
// took.
func (p *play) wait() time.Duration {
	began := time.Now()
	for p.missing() > 0 && time.Since(began) < p.s.Patience {
		time.Sleep(100 * time.Millisecond)
	}
	return time.Since(began)
}

// missing counts the deliveries that are due.
func (p *play) missing() int {
	p.mu.Lock()
	said := slices.Clone(p.said)
	var due []comeback
	for i := range p.n.Nodes {
		for k := range said {
			if _, ok := p.shown[i][said[k].id]; !ok && !p.dead[i] && said[k].author != i {
				due = append(due, comeback{node: i, at: said[k].at})
			}
		}
	}
	p.mu.Unlock()
	if len(due) > p.s.Nodes {
		return len(due) // not worth a look into the stores
	}
	n := 0
	for i, l := range p.n.Nodes {
		if p.dead[i] {
			continue
		}
		for k := range said {
			if said[k].author != i && !p.has(l, said[k].id) {
				n++
			}
		}
	}
	return n
}

// has says whether a node has a message: it was shown, or came while nobody watched.
func (p *play) has(l *Node, id chat.MessageID) bool {
	p.mu.Lock()
	_, ok := p.shown[l.index][id]
	p.mu.Unlock()
	if ok || l.stop == nil {
		return ok
	}
	_, err := l.Chat().Message(p.n.t.Context(), id)
	return err == nil
}

// traffic is what the network and the running nodes have counted.
type traffic struct {
	packets, bytes uint64
	nodes          map[*node.Node]copies
	peers          int
}

// copies is what a node received by the topic layer in this run of it.
type copies struct{ delivered, duplicates uint64 }

func (p *play) traffic() traffic {
	v := traffic{packets: p.n.packets.Load(), bytes: p.n.bytes.Load(), nodes: make(map[*node.Node]copies)}
	for _, l := range p.n.Nodes {
		if l.stop == nil {
			continue
		}
		if st, err := l.Status(p.n.t.Context()); err == nil {
			v.nodes[l.Node] = copies{st.Gossip.Delivered - st.Gossip.Published, st.Gossip.Duplicates}
			v.peers += st.Peers.Total
		}
	}
	return v
}

// copiesSince is how many copies nodes received for each message, from before to v. Nodes that died
// took their counts with them, and those that came back began anew: the rest stands for all.
func (v traffic) copiesSince(before traffic) float64 {
	var sum copies
	for n, now := range v.nodes {
		if then, ok := before.nodes[n]; ok {
			sum.delivered += now.delivered - then.delivered
			sum.duplicates += now.duplicates - then.duplicates
		}
	}
	if sum.delivered == 0 {
		return 0
	}
	return 1 + float64(sum.duplicates)/float64(sum.delivered)
}

// count sums up.
func (p *play) count(r *Result, after, before traffic) {
	var all []time.Duration
	for i, l := range p.n.Nodes {
		if p.dead[i] {
			continue
		}
		r.Living++
		for k := range p.said {
			u := &p.said[k]
			if u.author == i {
				continue
			}
			r.Deliveries++
			if !p.has(l, u.id) {
				r.Lost++
			}
			p.mu.Lock()
			if at, ok := p.shown[i][u.id]; ok {
				all = append(all, at.Sub(u.at))
			}
			p.mu.Unlock()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	r.Duplicates = p.twice
	slices.Sort(all)
	if n := len(all); n > 0 {
		r.P50, r.P99, r.Max = all[n/2], all[n*99/100], all[n-1]
	}
	if r.Deliveries > 0 {
		r.Delivered = 1 - float64(r.Lost)/float64(r.Deliveries)
		r.BytesDelivery = float64(r.Bytes) / float64(r.Deliveries)
	}
	r.Copies = after.copiesSince(before)
	if r.Living > 0 {
		r.Neighbours = float64(after.peers) / float64(r.Living)
	}
	p.hops(r)
}

// hops follows each message back to its author.
func (p *play) hops(r *Result) {
	arrivals, sum := 0, 0
	for i := range p.first {
		if p.dead[i] {
			continue
		}
		for id := range p.first[i] {
			n, at := 0, i
			for from, ok := p.first[at][id]; ok && p.index[from] != at && n <= len(p.first); from, ok = p.first[at][id] {
				n, at = n+1, p.index[from]
			}
			if n > 0 {
				arrivals, sum = arrivals+1, sum+n
				r.MaxHops = max(r.MaxHops, n)
			}
		}
	}
	if arrivals > 0 {
		r.Hops = float64(sum) / float64(arrivals)
	}
	if r.Deliveries > 0 {
		r.ByTopic = min(float64(arrivals)/float64(r.Deliveries), 1)
	}
}
