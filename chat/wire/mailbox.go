package wire

import (
	"crypto/ed25519"
	"encoding/binary"
	"time"
)

// MailboxProtocol is the stream protocol of mailboxes at relays. The client
// writes a request (MailboxDeposit, MailboxCollect, MailboxDelete); the relay
// answers a collection with MailboxItems and the others with MailboxReceipt.
const MailboxProtocol = "/starling/mailbox/1"

const (
	mailboxDeposit = 1
	mailboxReceipt = 2
	mailboxCollect = 3
	mailboxItems   = 4
	mailboxDelete  = 5
)

// ParseMailboxFrame decodes the payload of a frame of MailboxProtocol.
func ParseMailboxFrame(payload []byte) (Frame, error) {
	return parseFrame("mailbox", payload, func(t byte) Frame {
		switch t {
		case mailboxDeposit:
			return &MailboxDeposit{}
		case mailboxReceipt:
			return &MailboxReceipt{}
		case mailboxCollect:
			return &MailboxCollect{}
		case mailboxItems:
			return &MailboxItems{}
		case mailboxDelete:
			return &MailboxDelete{}
		default:
			return nil
		}
	})
}

// MailboxDeposit leaves an envelope for the owner of a mailbox. Depositing the
// same envelope again is one deposit.
//
// Encoding: {1 mailbox 32, 2 keep seconds varint, 3 envelope}.
type MailboxDeposit struct {
	Mailbox  MailboxID
	Keep     time.Duration // whole seconds, at most MaxMailboxLife
	Envelope []byte
}

// Deposit returns the id under which the relay keeps the envelope:
// SHA-256("starling/deposit/1" || mailbox || envelope).
func (f *MailboxDeposit) Deposit() DepositID {
	return DepositID(hashDomain(domainDeposit, f.Mailbox[:], f.Envelope))
}

// MailboxReceipt answers a deposit or a deletion.
//
// Encoding: {1 code varint, 2 deposit id 32, 3 expires fixed64 (Unix ms),
// 4 detail, 5 signature 64}.
type MailboxReceipt struct {
	Code      RelayCode
	Deposit   DepositID // of a deposit that was taken; otherwise zero
	Expires   time.Time // when the relay drops it; otherwise zero
	Detail    string    // for a person, which limit was hit
	Signature Signature // see Sign; zero unless a deposit was taken
}

// Sign lets the relay vouch, with its device key, that it keeps the deposit in
// a mailbox until Expires.
func (f *MailboxReceipt) Sign(key ed25519.PrivateKey, box MailboxID) {
	f.Signature = Sign(DomainReceipt, key, f.transcript(box))
}

// Verify says whether the receipt is a relay's word that it keeps the deposit
// in a mailbox.
func (f *MailboxReceipt) Verify(relay DeviceID, box MailboxID, deposit DepositID) bool {
	return f.Code == RelayOK && f.Deposit == deposit && VerifySignature(DomainReceipt, relay, f.transcript(box), f.Signature)
}

// transcript returns mailbox || deposit || expires (Unix ms, 8 bytes
// big-endian).
func (f *MailboxReceipt) transcript(box MailboxID) []byte {
	b := make([]byte, 0, 2*len(box)+8)
	b = append(append(b, box[:]...), f.Deposit[:]...)
	return binary.BigEndian.AppendUint64(b, millis(f.Expires))
}

// MailboxCollect asks for what lies in a mailbox, oldest first.
//
// Encoding: {1 mailbox 32, 2 nonce 32, 3 proof 64, 4 after 32, 5 limit varint}.
type MailboxCollect struct {
	Mailbox MailboxID
	Nonce   [32]byte
	Proof   Signature // see ProveMailbox
	After   DepositID // begin after this deposit; zero: at the oldest
	Limit   uint32    // 1 to MaxCollect
}

// MailboxItem is one deposit handed out.
//
// Encoding: {1 deposit id 32, 2 envelope}.
type MailboxItem struct {
	Deposit  DepositID
	Envelope []byte
}

// MailboxItems answers a MailboxCollect with as many deposits as fit a frame.
//
// Encoding: {1 code varint, 2 items (repeated), 3 more flag}.
type MailboxItems struct {
	Code  RelayCode
	Items []MailboxItem
	More  bool // ask again, after the last item
}

// MailboxDelete drops deposits, after the owner has stored them.
//
// Encoding: {1 mailbox 32, 2 nonce 32, 3 proof 64, 4 deposit ids 32 (repeated)}.
type MailboxDelete struct {
	Mailbox  MailboxID
	Nonce    [32]byte
	Proof    Signature // see ProveMailbox
	Deposits []DepositID
}

func (*MailboxDeposit) frameType() byte { return mailboxDeposit }
func (*MailboxReceipt) frameType() byte { return mailboxReceipt }
func (*MailboxCollect) frameType() byte { return mailboxCollect }
func (*MailboxItems) frameType() byte   { return mailboxItems }
func (*MailboxDelete) frameType() byte  { return mailboxDelete }

func (f *MailboxDeposit) encodeFrame(e *encoder) {
	e.id(1, f.Mailbox[:])
	e.seconds(2, f.Keep)
	e.bytes(3, f.Envelope)
}

func (f *MailboxDeposit) decodeFrame(d *decoder) {
	switch d.num {
	case 1:
		d.id(f.Mailbox[:])
	case 2:
		f.Keep = d.seconds(MaxMailboxLife)
	case 3:
		f.Envelope = d.bytes(MaxEnvelope)
	default:
		d.unknown()
	}
}

func (f *MailboxDeposit) checkFrame() error {
	if f.Mailbox == (MailboxID{}) {
		return invalidf("deposit without a mailbox")
	}
	if err := checkSeconds("keeping", f.Keep, MaxMailboxLife); err != nil {
		return err
	}
	return checkEnvelope(f.Envelope)
}

func (f *MailboxReceipt) encodeFrame(e *encoder) {
	e.uint(1, uint64(f.Code))
	e.id(2, f.Deposit[:])
	e.fixed64(3, millis(f.Expires))
	e.string(4, f.Detail)
	e.id(5, f.Signature[:])
}

func (f *MailboxReceipt) decodeFrame(d *decoder) {
	switch d.num {
	case 1:
		f.Code = RelayCode(d.uint(255))
	case 2:
		d.id(f.Deposit[:])
	case 3:
		f.Expires = d.time()
	case 4:
		f.Detail = d.string(MaxReason)
	case 5:
		d.id(f.Signature[:])
	default:
		d.unknown()
	}
}

func (f *MailboxReceipt) checkFrame() error {
	if f.Code == 0 {
		return invalidf("receipt without a code")
	}
	taken := f.Deposit != DepositID{}
	if taken != (f.Signature != Signature{}) || taken == f.Expires.IsZero() || taken && f.Code != RelayOK {
		return invalidf("receipt that vouches for a deposit in part")
	}
	return checkText("detail", f.Detail, MaxReason)
}

func (f *MailboxCollect) encodeFrame(e *encoder) {
	e.id(1, f.Mailbox[:])
	e.bytes(2, f.Nonce[:])
	e.bytes(3, f.Proof[:])
	e.id(4, f.After[:])
	e.uint(5, uint64(f.Limit))
}

func (f *MailboxCollect) decodeFrame(d *decoder) {
	switch d.num {
	case 1:
		d.id(f.Mailbox[:])
	case 2:
		d.exact(f.Nonce[:])
	case 3:
		d.id(f.Proof[:])
	case 4:
		d.id(f.After[:])
	case 5:
		f.Limit = uint32(d.uint(MaxCollect))
	default:
		d.unknown()
	}
}

func (f *MailboxCollect) checkFrame() error {
	if f.Limit == 0 || f.Limit > MaxCollect {
		return invalidf("collect of %d, want 1 to %d", f.Limit, MaxCollect)
	}
	return checkMailboxProof(f.Mailbox, f.Nonce, f.Proof)
}

func (f *MailboxItems) encodeFrame(e *encoder) {
	e.uint(1, uint64(f.Code))
	for i := range f.Items {
		in := encoder{b: make([]byte, 0, len(f.Items[i].Envelope)+48)}
		in.id(1, f.Items[i].Deposit[:])
		in.bytes(2, f.Items[i].Envelope)
		e.bytes(2, in.b)
	}
	e.flag(3, f.More)
}

func (f *MailboxItems) decodeFrame(d *decoder) {
	switch d.num {
	case 1:
		f.Code = RelayCode(d.uint(255))
	case 2:
		f.Items = d.mailboxItem(f.Items)
	case 3:
		f.More = d.flag()
	default:
		d.unknown()
	}
}

func (d *decoder) mailboxItem(list []MailboxItem) []MailboxItem {
	const limit = MaxEnvelope + 48
	raw := d.item(limit, len(list), MaxCollect)
	if d.err != nil {
		return nil
	}
	var it MailboxItem
	in := newDecoder("item", raw, limit)
	for in.next() {
		switch in.num {
		case 1:
			in.id(it.Deposit[:])
		case 2:
			it.Envelope = in.bytes(MaxEnvelope)
		default:
			in.unknown()
		}
	}
	d.check(in.finish())
	return append(list, it)
}

func (f *MailboxItems) checkFrame() error {
	if f.Code == 0 {
		return invalidf("items without a code")
	}
	if len(f.Items) > MaxCollect {
		return invalidf("%d items, at most %d", len(f.Items), MaxCollect)
	}
	if f.More && len(f.Items) == 0 {
		return invalidf("more announced after nothing")
	}
	for _, it := range f.Items {
		if it.Deposit == (DepositID{}) {
			return invalidf("item without an id")
		}
		if err := checkEnvelope(it.Envelope); err != nil {
			return err
		}
	}
	return nil
}

func (f *MailboxDelete) encodeFrame(e *encoder) {
	e.id(1, f.Mailbox[:])
	e.bytes(2, f.Nonce[:])
	e.bytes(3, f.Proof[:])
	for i := range f.Deposits {
		e.bytes(4, f.Deposits[i][:])
	}
}

func (f *MailboxDelete) decodeFrame(d *decoder) {
	switch d.num {
	case 1:
		d.id(f.Mailbox[:])
	case 2:
		d.exact(f.Nonce[:])
	case 3:
		d.id(f.Proof[:])
	case 4:
		var id DepositID
		v := d.item(len(id), len(f.Deposits), MaxDelete)
		d.copyID(id[:], v)
		f.Deposits = append(f.Deposits, id)
	default:
		d.unknown()
	}
}

func (f *MailboxDelete) checkFrame() error {
	if len(f.Deposits) == 0 || len(f.Deposits) > MaxDelete {
		return invalidf("deletion of %d deposits, want 1 to %d", len(f.Deposits), MaxDelete)
	}
	for i := range f.Deposits {
		if f.Deposits[i] == (DepositID{}) {
			return invalidf("deletion of no deposit")
		}
	}
	return checkMailboxProof(f.Mailbox, f.Nonce, f.Proof)
}

func checkMailboxProof(box MailboxID, nonce [32]byte, proof Signature) error {
	if box == (MailboxID{}) || nonce == [32]byte{} || proof == (Signature{}) {
		return invalidf("mailbox request without mailbox, nonce or proof")
	}
	return nil
}
