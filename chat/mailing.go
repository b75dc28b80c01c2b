package chat

import (
	"context"
	"crypto/ecdh"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/starling-chat/starling/chat/ratchet"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

const (
	// maxMailings bounds the contacts whose mailboxes are written to at once.
	maxMailings = 8
	// collectPatience is how long a contact who has just come back is left to collect what lies in the
	// mailboxes, before it is sent once more.
	collectPatience = 2 * time.Minute
	// freshMail is how young mail is sent all the same: they were hardly away, and may have looked into the
	// mailbox before it was there.
	freshMail = 20 * time.Second
)

// mailing is a batch of sealed messages on its way to the mailboxes of an account's devices.
type mailing struct {
	messages []*outgoingDM
	legs     []*mailLeg
}

// mailLeg is the part of a mailing that goes to one mailbox.
type mailLeg struct {
	device   wire.DeviceID
	envelope [32]byte // the device's envelope key
	box      wire.Mailbox
	messages []*outgoingDM // nil for our own records, in front
	sealed   [][]byte
	skip     bool // it was in trouble a moment ago

	kept []bool
	err  error
}

// away notes that an account could not be reached: its mail goes to mailboxes until it can.
func (d *dialogs) away(ctx context.Context, g *dialog) {
	if g.connected || g.unreached {
		return
	}
	g.unreached = true
	for _, o := range g.out {
		if o.row.State != StateStored {
			o.next = time.Time{}
		}
	}
	d.mail(ctx, g)
}

// mail deposits the first messages that wait for an account that is away. Messages go in order, one
// batch after the other, so that whoever collects them passes over few that are missing.
func (d *dialogs) mail(ctx context.Context, g *dialog) {
	if !g.unreached || d.s.people.suspended(g.account) || g.mailing || d.mailings >= maxMailings || ctx.Err() != nil {
		return
	}
	var b storage.Batch
	m := d.pickMail(ctx, g, &b)
	if len(m.messages) == 0 {
		return
	}
	d.sealer.store(&b)
	if _, err := d.s.store.Commit(ctx, &b, storage.Durable); err != nil {
		d.sealer.rollback()
		for _, o := range m.messages {
			o.copies, o.next = make(map[wire.DeviceID]*sealedCopy), d.s.cfg.Clock.Now().Add(retryPauses[0])
		}
		if ctx.Err() == nil {
			d.s.log.Warn("storing session states failed; nothing was deposited", "error", err)
		}
		return
	}
	d.sealer.committed()
	if len(m.legs) == 0 {
		return
	}
	g.mailing = true
	d.mailings++
	d.s.running.Go(func() { // ends with ctx or the requests' time-outs; Run waits for it
		d.s.post(ctx, m)
		d.later(func() {
			g.mailing = false
			d.mailings--
			d.mailed(ctx, g, m)
		})
	})
}

// pickMail chooses what to deposit now, where, and seals what has no sealed form.
func (d *dialogs) pickMail(ctx context.Context, g *dialog, b *storage.Batch) *mailing {
	m := &mailing{}
	first := make(map[wire.DeviceID]bool) // needs our records to open what it gets
	devices, legs := d.mailLegs(ctx, g)
	if len(devices) == 0 {
		return m
	}
	now, size := d.s.cfg.Clock.Now(), 0
	for _, o := range g.out {
		if o.row.State == StateFailed || o.row.State == StateStored && !o.again {
			continue
		}
		due := !now.Before(o.next) || o.next.Sub(now) > 2*retryPauses[len(retryPauses)-1]
		if o.again && (!due || !lacks(o, legs)) {
			continue
		}
		if len(m.messages) >= sealBatch || size >= sealBytes || !due {
			break
		}
		o.sends = 0 // bytes at rest open as well after many attempts
		work, n := d.sealFor(ctx, g, o, devices)
		if len(work) == 0 {
			break
		}
		for _, w := range work {
			for _, leg := range legs[w.dev] {
				if !slices.Contains(o.kept, leg.box.ID) {
					leg.messages, leg.sealed = append(leg.messages, o), append(leg.sealed, w.copy.envelope)
				}
			}
		}
		size += n
		o.row.Attempts++
		o.next = now.Add(d.s.retryPause(o.row.Attempts))
		m.messages = append(m.messages, o)
		for _, w := range work {
			first[w.dev] = first[w.dev] || w.copy.first
		}
	}
	for _, dev := range devices {
		var introduction []byte
		if first[dev] {
			introduction = d.introduce(ctx, g, dev, b)
		}
		for _, leg := range legs[dev] {
			if len(leg.messages) == 0 {
				continue
			}
			if introduction != nil {
				leg.messages, leg.sealed = slices.Insert(leg.messages, 0, nil), slices.Insert(leg.sealed, 0, introduction)
			}
			m.legs = append(m.legs, leg)
		}
	}
	return m
}

// introduce seals our records for a device that may not have them: without them it cannot open what begins
// a session. It returns nil if it cannot, and the messages wait at the other side until the records come.
func (d *dialogs) introduce(ctx context.Context, g *dialog, dev wire.DeviceID, b *storage.Batch) []byte {
	body, err := d.recordsBody(ctx, nil)
	var c *wire.DMContent
	if err == nil {
		c, err = d.content(ctx, g, said{kind: wire.Kind(wire.DMRecords), content: body}, d.s.cfg.Clock.Now())
	}
	var content []byte
	if err == nil {
		d.putRow(b, g)
		content, err = c.Encode()
	}
	var sealed sealedCopy
	if err == nil {
		sealed, err = d.sealer.seal(ctx, dev, content)
	}
	if err != nil {
		d.s.log.Warn("sealing own records failed", "error", err)
		return nil
	}
	return sealed.envelope
}

// lacks says whether a mailbox that can be tried now does not have a message.
func lacks(o *outgoingDM, legs map[wire.DeviceID][]*mailLeg) bool {
	for _, list := range legs {
		for _, leg := range list {
			if !leg.skip && !slices.Contains(o.kept, leg.box.ID) {
				return true
			}
		}
	}
	return false
}

// mailLegs returns an account's devices that have a mailbox which can be tried now, and all their mailboxes.
func (d *dialogs) mailLegs(ctx context.Context, g *dialog) (devices []wire.DeviceID, legs map[wire.DeviceID][]*mailLeg) {
	legs = make(map[wire.DeviceID][]*mailLeg)
	for _, dev := range d.s.people.devicesOf(g.account) {
		if dev == d.s.self.device || len(devices) >= maxRecipients {
			continue
		}
		p, err := d.sealer.peer(ctx, dev)
		if err != nil || p == nil || len(p.record.Mailboxes) == 0 {
			continue
		}
		var list []*mailLeg
		open := false
		for _, box := range p.record.Mailboxes {
			skip := time.Now().Before(d.troubles[box.ID].until)
			open = open || !skip
			list = append(list, &mailLeg{device: dev, envelope: p.record.Envelope, box: box, skip: skip})
		}
		if open {
			devices, legs[dev] = append(devices, dev), list
		}
	}
	return devices, legs
}

// post deposits a mailing, at all mailboxes at once.
func (s *Service) post(ctx context.Context, m *mailing) {
	var legs sync.WaitGroup
	for _, leg := range m.legs {
		leg.kept = make([]bool, len(leg.messages))
		legs.Go(func() { leg.err = s.postLeg(ctx, leg) }) // waited for below
	}
	legs.Wait()
}

func (s *Service) postLeg(ctx context.Context, leg *mailLeg) error {
	if leg.skip {
		return errMailTrouble
	}
	key, err := ecdh.X25519().NewPublicKey(leg.envelope[:])
	if err != nil {
		return err
	}
	envelopes := make([][]byte, len(leg.sealed))
	for i, sealed := range leg.sealed {
		if envelopes[i], err = ratchet.Wrap(leg.device, key, sealed); err != nil {
			return err
		}
	}
	leg.kept, err = s.depositAll(ctx, leg.box, envelopes)
	return err
}

// errMailTrouble says that a mailbox was not tried because it failed a moment ago.
var errMailTrouble = errors.New("mailbox failed a moment ago")

// trouble is how often a mailbox failed in a row, and until when it is left alone, so that one that is
// gone does not hold up the others.
type trouble struct {
	failures int
	until    time.Time
}

// maxTroubles bounds the mailboxes that are remembered for having failed.
const maxTroubles = 1024

// troubled notes how a mailbox fared.
func (d *dialogs) troubled(leg *mailLeg) {
	switch {
	case leg.skip:
	case leg.err == nil:
		delete(d.troubles, leg.box.ID)
	default:
		if len(d.troubles) >= maxTroubles {
			clear(d.troubles)
		}
		t := d.troubles[leg.box.ID]
		t.failures++
		t.until = time.Now().Add(d.s.retryPause(t.failures))
		d.troubles[leg.box.ID] = t
	}
}

// mailed notes what came of a mailing, and goes on.
func (d *dialogs) mailed(ctx context.Context, g *dialog, m *mailing) {
	reason := ""
	missed := make(map[*outgoingDM]bool)
	for _, leg := range m.legs {
		d.troubled(leg)
		for i, o := range leg.messages {
			if o == nil {
				continue // our records
			}
			if leg.kept[i] {
				o.kept = append(o.kept, leg.box.ID)
			} else {
				missed[o] = true
			}
		}
		switch {
		case leg.err == nil:
		case errors.Is(leg.err, errMailFull):
			reason = "the recipient's mailbox is full"
		default:
			if reason == "" {
				reason = "no mailbox could be reached"
			}
			if ctx.Err() == nil {
				d.s.log.Debug("depositing messages failed", "error", leg.err)
			}
		}
	}
	var b storage.Batch
	var shown []*outgoingDM
	gone := make(map[*outgoingDM]bool)
	went := false
	for _, o := range m.messages {
		if !slices.Contains(g.out, o) || o.row.State == StateFailed {
			continue // acknowledged, cancelled or given up meanwhile
		}
		state, why := o.row.State, reason
		o.again = missed[o]
		if len(o.kept) > 0 {
			state, why, went = StateStored, "", true
			o.stored = d.s.cfg.Clock.Now()
		}
		if !o.again {
			o.copies = make(map[wire.DeviceID]*sealedCopy) // nobody will need them again
			if o.row.Receipt {
				b.Release(outboxQueue, storage.ID(o.id))
				gone[o] = true
				continue
			}
		}
		if state != o.row.State || why != o.row.Reason {
			o.row.State, o.row.Reason = state, why
			o.keep(&b)
			shown = append(shown, o)
		}
	}
	if b.Len() > 0 {
		if _, err := d.s.store.Commit(ctx, &b, storage.Durable); err != nil && ctx.Err() == nil {
			d.s.log.Warn("noting what was deposited failed", "error", err) // it will be deposited again
		}
	}
	if len(gone) > 0 {
		d.unqueue(g, func(o *outgoingDM) bool { return gone[o] })
	}
	for _, o := range shown {
		d.setLive(o)
		d.show(ctx, o.id)
	}
	if went {
		d.mail(ctx, g)
	}
}
