package relay

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"
)

// UsageStore keeps the bytes used, so that a restart does not give a new day.
type UsageStore interface {
	// LoadUsage returns what SaveUsage was given last, or nil.
	LoadUsage(ctx context.Context) ([]byte, error)
	SaveUsage(ctx context.Context, b []byte) error
}

// meter counts the bytes this node sends against the operator's caps per UTC day and month. Once one
// is reached, nothing new is granted, and circuits and forwarding stop until the period ends.
type meter struct {
	daily, monthly int64
	sent           func() int64 // since the start of the process
	store          UsageStore
	now            func() time.Time

	mu         sync.Mutex // guards all below
	last       int64      // of sent, when it was read last
	day, month int64      // the periods that the sums are about
	inDay      int64
	inMonth    int64
	over       string // why nothing is granted; empty while within the caps
	checked    time.Time
}

// meterEvery is how often the counters are read, at most: exceeded is called for every message.
const meterEvery = 100 * time.Millisecond

const usageVersion = 1

func newMeter(c Circuits, sent func() int64, store UsageStore, now func() time.Time) *meter {
	if sent == nil {
		sent = func() int64 { return 0 }
	}
	return &meter{daily: c.Daily, monthly: c.Monthly, sent: sent, store: store, now: now}
}

// exceeded returns which cap is used up, in words, or "".
func (m *meter) exceeded() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.read()
	return m.over
}

// used returns the bytes sent in this day and month.
func (m *meter) used() (day, month int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.checked = time.Time{}
	m.read()
	return m.inDay, m.inMonth
}

// read brings the sums up to date. The caller holds mu.
func (m *meter) read() {
	tick := time.Now()
	if !m.checked.IsZero() && tick.Sub(m.checked) < meterEvery {
		return
	}
	m.checked = tick
	day, month := periods(m.now())
	total := m.sent()
	gained := total - m.last
	m.last = total
	if day != m.day {
		m.day, m.inDay = day, 0
	}
	if month != m.month {
		m.month, m.inMonth = month, 0
	}
	m.inDay += gained
	m.inMonth += gained
	switch {
	case m.daily > 0 && m.inDay >= m.daily:
		m.over = "this relay has used up its bytes for today (UTC)"
	case m.monthly > 0 && m.inMonth >= m.monthly:
		m.over = "this relay has used up its bytes for this month (UTC)"
	default:
		m.over = ""
	}
}

func periods(t time.Time) (day, month int64) {
	t = t.UTC()
	return t.Unix() / 86400, int64(t.Year())*12 + int64(t.Month())
}

// load reads the sums of the last run. Damaged ones count as none.
func (m *meter) load(ctx context.Context) error {
	if m.store == nil {
		return nil
	}
	b, err := m.store.LoadUsage(ctx)
	if err != nil {
		return fmt.Errorf("reading the bytes used: %w", err)
	}
	if len(b) != 33 || b[0] != usageVersion {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, v := range []*int64{&m.day, &m.inDay, &m.month, &m.inMonth} {
		*v = int64(binary.BigEndian.Uint64(b[1+8*i:]))
	}
	return nil
}

func (m *meter) save(ctx context.Context) error {
	if m.store == nil {
		return nil
	}
	m.mu.Lock()
	m.read()
	b := []byte{usageVersion}
	for _, v := range []int64{m.day, m.inDay, m.month, m.inMonth} {
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	m.mu.Unlock()
	return m.store.SaveUsage(ctx, b)
}
