package node

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/starling-chat/starling/chat"
)

// registerMetrics adds the node's own counters to a registry. No label names a peer, a topic or an
// address.
func (n *Node) registerMetrics(reg prometheus.Registerer) error {
	var errs []error
	counter := func(name, help string, f func() float64) {
		errs = append(errs, reg.Register(prometheus.NewCounterFunc(
			prometheus.CounterOpts{Namespace: "starling", Name: name, Help: help}, f,
		)))
	}
	c := &n.gossip.counters
	for _, m := range []struct {
		name, help string
		load       func() uint64
	}{
		{"gossip_published_total", "Own messages published.", c.published.Load},
		{"gossip_delivered_total", "Messages accepted from neighbours and passed on.", c.delivered.Load},
		{"gossip_duplicates_total", "Copies of known messages.", c.duplicates.Load},
		{"gossip_rejected_total", "Invalid messages.", c.rejected.Load},
		{"gossip_ignored_total", "Messages neither accepted nor held against anybody.", c.ignored.Load},
		{"gossip_dropped_total", "Messages that found a queue full.", c.dropped},
	} {
		counter(m.name, m.help, func() float64 { return float64(m.load()) })
	}
	counter("received_bytes_total", "Bytes received on streams.", func() float64 { return float64(n.bandwidth.in.Load()) })
	counter("sent_bytes_total", "Bytes sent on streams.", func() float64 { return float64(n.bandwidth.out.Load()) })
	for _, path := range []chat.Path{chat.PathLAN, chat.PathDirect, chat.PathPunched, chat.PathRelayed} {
		errs = append(errs, reg.Register(prometheus.NewGaugeFunc(
			prometheus.GaugeOpts{
				Namespace: "starling", Name: "peers", Help: "Connected peers by path.",
				ConstLabels: prometheus.Labels{"path": string(path)},
			},
			func() float64 { return float64(n.paths.count(path)) },
		)))
	}
	errs = append(errs, reg.Register(collectors.NewGoCollector()),
		reg.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})))
	return errors.Join(errs...)
}
