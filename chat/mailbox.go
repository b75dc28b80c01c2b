package chat

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/starling-chat/starling/chat/wire"
)

// This file has what both ends of a mailbox need: where this device's mailboxes lie, and the protocol
// with a relay (docs/spec/rooms.md, section 12).

const (
	// ownMailboxes is how many mailboxes a device has: the loss of one relay loses nothing.
	ownMailboxes = 2
	// mailboxAbsence is how long a relay may be away before a mailbox is placed elsewhere.
	mailboxAbsence = time.Hour
	// mailTimeout bounds one request to a relay, opening the stream included.
	mailTimeout = 30 * time.Second
	// mailPipeline is how many deposits are written before their receipts are read.
	mailPipeline = 16
	// ratePause is how long to wait for a relay that says that requests come too fast, and rateTries how
	// often.
	ratePause = time.Second
	rateTries = 30
)

// mailboxKey derives the key of this device's mailbox at a relay: HKDF-SHA256 over the device key's
// seed, info "starling/mailbox-key/1" || relay. Relays cannot tell that two mailboxes belong together.
func (s *Service) mailboxKey(relay wire.DeviceID) (ed25519.PrivateKey, error) {
	seed, err := hkdf.Key(sha256.New, s.cfg.Device.PrivateKey().Seed(), nil, "starling/mailbox-key/1"+string(relay[:]), ed25519.SeedSize)
	if err != nil {
		return nil, fmt.Errorf("deriving a mailbox key: %w", err)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

func mailboxID(key ed25519.PrivateKey) wire.MailboxID {
	return wire.MailboxID(key.Public().(ed25519.PublicKey))
}

// place keeps this device's mailboxes at relays that are there. Where they are changes as seldom as can
// be: contacts learn it only when they meet us.
func (d *dialogs) place(ctx context.Context, relays []wire.DeviceID) error {
	now := time.Now()
	for _, r := range relays {
		d.relaySeen[r] = now
	}
	var boxes []wire.Mailbox
	for _, b := range d.sealer.boxes {
		if _, ok := d.relaySeen[b.Relay]; !ok {
			d.relaySeen[b.Relay] = now // of an earlier run
		}
		if len(relays) < ownMailboxes || now.Sub(d.relaySeen[b.Relay]) < mailboxAbsence {
			boxes = append(boxes, b)
		}
	}
	for _, r := range rendezvousRelays(d.s.self.device, relays) {
		if len(boxes) >= ownMailboxes {
			break
		}
		if slices.ContainsFunc(boxes, func(b wire.Mailbox) bool { return b.Relay == r }) {
			continue
		}
		key, err := d.s.mailboxKey(r)
		if err != nil {
			return err
		}
		boxes = append(boxes, wire.Mailbox{ID: mailboxID(key), Relay: r, Address: d.s.cfg.Relays.Address(r)})
	}
	d.s.boxes.Store(int64(len(boxes)))
	if slices.Equal(boxes, d.sealer.boxes) {
		return nil
	}
	if err := d.sealer.move(ctx, boxes); err != nil {
		return err
	}
	told := d.told
	d.told = make(map[wire.DeviceID]bool)
	for dev, old := range told { // whoever has the record before this one, a contact or not yet
		if old && d.s.people.online(dev) != PathNone {
			d.tellRecord(dev)
		}
	}
	for account, c := range d.s.people.list() {
		if c.State == ContactFriend {
			for _, dev := range d.connectedDevices(account) {
				d.tellRecord(dev)
			}
		}
	}
	return nil
}

// rendezvousRelays sorts relays by a hash with a device (highest random weight), so that the devices of
// many spread evenly.
func rendezvousRelays(dev wire.DeviceID, relays []wire.DeviceID) []wire.DeviceID {
	weight := func(r wire.DeviceID) []byte {
		h := sha256.New()
		h.Write([]byte("starling/mailbox-choice/1"))
		h.Write(dev[:])
		h.Write(r[:])
		return h.Sum(nil)
	}
	return slices.SortedFunc(slices.Values(relays), func(a, b wire.DeviceID) int { return bytes.Compare(weight(a), weight(b)) })
}

// errMailFull says that a mailbox takes no more for the time being.
var errMailFull = errors.New("mailbox is full")

// depositAll leaves envelopes in a mailbox, in order, and returns for each whether the relay signed that
// it keeps it. The error says why it ended early.
func (s *Service) depositAll(ctx context.Context, box wire.Mailbox, envelopes [][]byte) ([]bool, error) {
	kept := make([]bool, len(envelopes))
	st, err := s.openRelay(ctx, box.Relay, box.Address)
	if err != nil {
		return kept, err
	}
	defer closeStream(ctx, st)()
	for i, tries := 0, 0; i < len(envelopes); {
		n := min(mailPipeline, len(envelopes)-i)
		took, err := depositSome(st, box, envelopes[i:i+n], kept[i:i+n])
		i += took
		if errors.Is(err, errRelayBusy) && tries < rateTries {
			tries++
			if !pauseFor(ctx, ratePause) {
				return kept, ctx.Err()
			}
			continue
		}
		if err != nil {
			return kept, err
		}
	}
	return kept, nil
}

// depositSome writes deposits and reads their receipts. It returns how many were taken before the first
// that was not.
func depositSome(st Stream, box wire.Mailbox, envelopes [][]byte, kept []bool) (took int, err error) {
	if err := st.SetDeadline(time.Now().Add(mailTimeout)); err != nil {
		return 0, err
	}
	deposits := make([]*wire.MailboxDeposit, len(envelopes))
	for i, e := range envelopes {
		deposits[i] = &wire.MailboxDeposit{Mailbox: box.ID, Keep: wire.MaxMailboxLife, Envelope: e}
		if err := writeFrame(st, deposits[i]); err != nil {
			return 0, err
		}
	}
	for i, f := range deposits {
		receipt, rerr := readMail[*wire.MailboxReceipt](st)
		if rerr != nil {
			return took, rerr
		}
		rerr = refusal(receipt.Code)
		if rerr == nil && !receipt.Verify(box.Relay, box.ID, f.Deposit()) {
			rerr = errors.New("the relay's receipt does not hold")
		}
		if kept[i] = rerr == nil; !kept[i] {
			if err == nil {
				err = rerr
			}
		} else if err == nil {
			took++
		}
	}
	return took, err
}

// errRelayBusy says that a relay has had enough requests for now.
var errRelayBusy = errors.New("relay wants fewer requests")

// refusal turns a relay's code into an error.
func refusal(code wire.RelayCode) error {
	switch code {
	case wire.RelayOK:
		return nil
	case wire.RelayRateLimit:
		return errRelayBusy
	case wire.RelayQuota, wire.RelayFull:
		return errMailFull
	}
	return fmt.Errorf("relay refused with code %d", code)
}

// openRelay opens a stream for mailboxes to a relay, of which an address may be known.
func (s *Service) openRelay(ctx context.Context, relay wire.DeviceID, address string) (Stream, error) {
	if address != "" {
		s.cfg.Direct.Hint(relay, []string{address})
	}
	ctx, cancel := context.WithTimeout(ctx, mailTimeout)
	defer cancel()
	st, err := s.cfg.Direct.Open(ctx, relay, wire.MailboxProtocol)
	if err != nil {
		return nil, fmt.Errorf("opening a stream to a mailbox: %w", err)
	}
	return st, nil
}

// closeStream resets the stream when ctx ends, until the returned function closes it.
func closeStream(ctx context.Context, st Stream) func() {
	stop := context.AfterFunc(ctx, func() { _ = st.Reset() })
	return func() {
		stop()
		_ = st.Close()
	}
}

func writeFrame(w io.Writer, f wire.Frame) error {
	b, err := wire.AppendFrame(nil, f)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// readMail reads a relay's answer of one kind.
func readMail[F wire.Frame](r io.Reader) (F, error) {
	var none F
	payload, err := wire.ReadFrame(r, wire.MaxFrame)
	if err != nil {
		return none, err
	}
	f, err := wire.ParseMailboxFrame(payload)
	if err != nil {
		return none, err
	}
	answer, ok := f.(F)
	if !ok {
		return none, fmt.Errorf("relay answered with %T", f)
	}
	return answer, nil
}

// pauseFor waits; false says that ctx ended.
func pauseFor(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
