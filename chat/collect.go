package chat

import (
	"context"
	"crypto/ecdh"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/starling-chat/starling/chat/ratchet"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

const (
	// collectEvery is how often mailboxes are looked into, with a random spread of a fifth.
	collectEvery = 5 * time.Minute
	// mailPause is the least time between two looks because a contact came back.
	mailPause = 5 * time.Second
	// collectAgain is the pause after a look that left something which another look may open.
	collectAgain = 15 * time.Second
	// maxCollectRelays bounds the relays that are asked. Besides those of the own record there are such
	// as were, and may hold mail still.
	maxCollectRelays = 8
	// maxCollectPages bounds the pages of one look into one mailbox: a full one, in pieces of any size.
	maxCollectPages = 20_000
	// leftPatience is how long an envelope stays that may open once something else has arrived, and maxLeft
	// how many such are told apart from those that are new.
	leftPatience = 24 * time.Hour
	maxLeft      = 4096
)

// collector looks into this device's mailboxes. One goroutine runs it.
type collector struct {
	s        *Service
	envelope *ecdh.PrivateKey
	left     map[wire.DepositID]time.Time // since when it lies there unopened
	again    bool                         // another look may open something
}

// collectMail looks into the mailboxes at the start, when a relay appears, after a wake-up and every few
// minutes, until ctx ends. It also sees to where the mailboxes are.
func (s *Service) collectMail(ctx context.Context) {
	c := &collector{s: s, left: make(map[wire.DepositID]time.Time)}
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	var known []wire.DeviceID
	var next time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.dialogs.mailWake:
			next = time.Time{}
		case <-s.dialogs.relayWake:
		case <-tick.C:
		}
		relays := s.cfg.Relays.Relays()
		err := s.dialogs.do(ctx, func() error { return s.dialogs.place(ctx, relays) })
		if err != nil && ctx.Err() == nil {
			s.log.Warn("placing mailboxes failed", "error", err)
		}
		ask := without(relays, known)
		known = slices.Clone(relays)
		if !time.Now().Before(next) {
			ask = relays
			next = time.Now().Add(s.spread(collectEvery))
		}
		c.again = false
		for _, r := range ask[:min(len(ask), maxCollectRelays)] {
			if err := c.collect(ctx, r); err != nil && ctx.Err() == nil {
				s.log.Debug("looking into a mailbox failed", "error", err)
			}
		}
		if c.again {
			next = earlierOf(next, time.Now().Add(collectAgain))
		}
	}
}

func earlierOf(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// spread varies a pause by a fifth.
func (s *Service) spread(pause time.Duration) time.Duration {
	var b [1]byte
	if _, err := io.ReadFull(s.cfg.Rand, b[:]); err != nil {
		return pause
	}
	return time.Duration(float64(pause) * (0.8 + 0.4*float64(b[0])/255))
}

// collect empties this device's mailbox at a relay, oldest first. An envelope is deleted there once its
// message is durable here, or when it is certain that it will never be taken.
func (c *collector) collect(ctx context.Context, relay wire.DeviceID) error {
	key, err := c.s.mailboxKey(relay)
	if err != nil {
		return err
	}
	var nonce [32]byte
	if _, err := io.ReadFull(c.s.cfg.Rand, nonce[:]); err != nil {
		return fmt.Errorf("reading randomness: %w", err)
	}
	if err := c.openKey(ctx); err != nil || c.envelope == nil {
		return err
	}
	st, err := c.s.openRelay(ctx, relay, "")
	if err != nil {
		return err
	}
	defer closeStream(ctx, st)()
	box, proof := mailboxID(key), wire.ProveMailbox(key, relay, nonce)
	var after wire.DepositID // the last that was left
	tries := 0
	for range maxCollectPages {
		items, err := ask[*wire.MailboxItems](st, &wire.MailboxCollect{Mailbox: box, Nonce: nonce, Proof: proof, After: after, Limit: wire.MaxCollect})
		if err != nil {
			return err
		}
		switch err := refusal(items.Code); {
		case items.Code == wire.RelayUnknownBox || err == nil && len(items.Items) == 0:
			return nil
		case errors.Is(err, errRelayBusy) && tries < rateTries:
			tries++
			if !pauseFor(ctx, ratePause) {
				return ctx.Err()
			}
			continue
		case err != nil:
			return err
		}
		done, err := c.take(ctx, items.Items)
		if err != nil {
			return err
		}
		for i, it := range items.Items {
			if !slices.Contains(done, it.Deposit) {
				after = items.Items[i].Deposit
			}
		}
		if len(done) > 0 {
			receipt, err := ask[*wire.MailboxReceipt](st, &wire.MailboxDelete{Mailbox: box, Nonce: nonce, Proof: proof, Deposits: done})
			if err == nil && receipt.Code != wire.RelayRateLimit { // those come again, and are known by then
				err = refusal(receipt.Code)
			}
			if err != nil {
				return err
			}
		}
		if !items.More {
			return nil
		}
	}
	return nil
}

// ask sends one request to a relay and reads the answer.
func ask[F wire.Frame](st Stream, f wire.Frame) (F, error) {
	var none F
	if err := st.SetDeadline(time.Now().Add(mailTimeout)); err != nil {
		return none, err
	}
	if err := writeFrame(st, f); err != nil {
		return none, err
	}
	return readMail[F](st)
}

// openKey reads the envelope key; there is none before the first prekeys are made.
func (c *collector) openKey(ctx context.Context) error {
	if c.envelope != nil {
		return nil
	}
	raw, err := c.s.store.GetEphemeral(ctx, bucketPrekeys, []byte(envelopeName))
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err == nil {
		c.envelope, err = ecdh.X25519().NewPrivateKey(raw)
	}
	return err
}

// take hands what was collected to the owner of the direct messages and returns what may be deleted.
func (c *collector) take(ctx context.Context, items []wire.MailboxItem) (done []wire.DepositID, err error) {
	var mail []mailIn
	for _, it := range items {
		sealed, err := ratchet.Unwrap(c.s.self.device, c.envelope, it.Envelope)
		if err != nil {
			done = append(done, it.Deposit) // not for this device: nobody will ever open it
			continue
		}
		mail = append(mail, mailIn{deposit: it.Deposit, sealed: sealed})
	}
	if err := c.s.dialogs.do(ctx, func() error { return c.s.dialogs.takeMail(ctx, mail) }); err != nil {
		return nil, err
	}
	now := time.Now()
	for _, m := range mail {
		since, known := c.left[m.deposit]
		switch {
		case !m.wait || known && now.Sub(since) >= leftPatience:
			delete(c.left, m.deposit)
			done = append(done, m.deposit)
		case !known:
			if len(c.left) >= maxLeft {
				clear(c.left)
			}
			c.left[m.deposit], c.again = now, true
		}
	}
	return done, nil
}

// mailIn is a sealed message from a mailbox.
type mailIn struct {
	deposit wire.DepositID
	sealed  []byte
	wait    bool // it may open later
}

// errMailRefused says that a message by mail is not taken, now or later; its sender keeps it.
var errMailRefused = errors.New("message is not taken")

// errMailLater says that a message by mail may be taken later.
var errMailLater = errors.New("message is not taken now")

// mailRefusal turns the reason for which a stranger's message is not opened into an error.
func mailRefusal(reason wire.RejectReason) error {
	if reason == wire.RejectBusy {
		return errMailLater
	}
	return errMailRefused
}

// takeMail takes messages from a mailbox in, as if they had come on a stream from the device that each
// names: the ratchet proves that it did, the relay proves nothing. They are durable when it returns nil.
func (d *dialogs) takeMail(ctx context.Context, mail []mailIn) error {
	in := d.newReceiving()
	for i := range mail {
		h, err := ratchet.ReadHeader(mail[i].sealed)
		if err == nil {
			err = d.takeData(ctx, in, frameIn{from: wire.DeviceID(h.Device), mail: true}, mail[i].sealed)
		}
		if err != nil && ctx.Err() == nil {
			d.s.log.Debug("a message from a mailbox was not taken", "error", err)
		}
		mail[i].wait = ctx.Err() != nil || errors.Is(err, errNoKeys) || errors.Is(err, errMailLater) || errors.Is(err, ratchet.ErrTooFarAhead)
	}
	if err := d.oweReceipts(ctx, in); err != nil {
		in.lines.rollback()
		d.sealer.rollback()
		d.forgetOwed(in)
		return err
	}
	pending, ok := d.keepTaken(ctx, in)
	if !ok {
		return fmt.Errorf("storing messages from a mailbox: %w", ErrReadOnly)
	}
	return d.s.storeError(pending.Wait(ctx)) // the mailbox forgets them then
}

// oweReceipts turns the acknowledgements for devices that are away into messages that go to their
// mailboxes, stored in the transaction that stores what they acknowledge.
func (d *dialogs) oweReceipts(ctx context.Context, in *receiving) error {
	now := d.s.cfg.Clock.Now()
	for dev, ids := range in.acks {
		account, ok := d.s.people.account(dev)
		if !ok || d.s.people.online(dev) != PathNone {
			continue
		}
		g, err := d.with(ctx, account)
		if err != nil {
			return err
		}
		in.lines.touch(g)
		c, err := d.content(ctx, g, said{kind: wire.Kind(wire.DMReceipt)}, now)
		if err != nil {
			return err
		}
		c.Acks = ids // at most a page of a mailbox
		content, err := c.Encode()
		if err != nil {
			return err
		}
		o := &outgoingDM{id: directID(g.conversation, c.ID), copies: make(map[wire.DeviceID]*sealedCopy), row: outboxRow{
			Version: rowVersion, Account: account, Msg: c.ID, Seq: c.DeviceSeq, Created: now, State: StateQueued,
			Hidden: true, Receipt: true, Content: content,
		}}
		d.queue(&in.batch, g, o)
		in.owed = append(in.owed, o)
		delete(in.acks, dev)
	}
	return nil
}

// forgetOwed takes receipts back whose transaction failed.
func (d *dialogs) forgetOwed(in *receiving) {
	for _, o := range in.owed {
		if g := d.find(o.row.Account); g != nil {
			d.unqueue(g, func(q *outgoingDM) bool { return q == o })
		}
	}
}
