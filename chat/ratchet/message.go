package ratchet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	// Version is the first byte of a Sealed DM and of the message inside it.
	Version = 1
	// MaxSealed is the largest Sealed DM, in bytes.
	MaxSealed = 59 << 10
	// MaxContent is the longest content of one message, in bytes: it fits beside the largest init part.
	MaxContent = MaxSealed - outerSize - maxInit - headerSize - contentPrefix - chacha20poly1305.Overhead
	// MaxAD is the longest associated data a caller may add, in bytes.
	MaxAD = 1024

	smallestSealed = 256
	outerSize      = 1 + 1 + 32 + 32 + 16
	headerSize     = 1 + 32 + 4 + 4 + chacha20poly1305.NonceSizeX
	contentPrefix  = 2
	maxInit        = 32 + 32 + 4 + 4 + 2 + maxReplaces*16 + kemCiphertextSize

	flagInit    = 1 << 0
	flagOneTime = 1 << 1
)

// What can be wrong with a message or a request. Section 6 of the specification says what each is
// answered with.
var (
	// ErrMalformed: the bytes are no Sealed DM of a version known here, or no envelope.
	ErrMalformed = errors.New("malformed message")
	// ErrWrongPeer: the message names another sender than the peer of this Set.
	ErrWrongPeer = errors.New("message of another sender")
	// ErrDuplicate: this message was opened before; acknowledge it again.
	ErrDuplicate = errors.New("message was already opened")
	// ErrUnknownSession: the session is not held here.
	ErrUnknownSession = errors.New("message of a session not held here")
	// ErrUnknownPrekey: the message begins a session with a prekey or one-time key that is gone.
	ErrUnknownPrekey = errors.New("message for a prekey not held here")
	// ErrTooFarAhead: more than [MaxSkip] earlier messages are missing; it may open after them.
	ErrTooFarAhead = errors.New("too many earlier messages are missing")
	// ErrUndecryptable: it does not open: altered, its key used up, or state lost on one side.
	ErrUndecryptable = errors.New("message does not open")
	// ErrNoSession: there is no session to seal on, or it has used up its numbers.
	ErrNoSession = errors.New("no session to seal on: initiate one from the device's prekeys first")
	// ErrTooLarge: the content exceeds [MaxContent], or the associated data [MaxAD].
	ErrTooLarge = errors.New("content is too large for one message")
)

// SessionID names a session on the wire: the first half of its transcript hash.
type SessionID [16]byte

// place is where a message stands in a session: the sender's ratchet key, how many messages the
// sender's chain before it had, and the number in this one.
type place struct {
	key              key
	previous, number uint32
}

// sealedDM is a Sealed DM in parts (section 5).
type sealedDM struct {
	account, device key
	session         SessionID
	init            *initPart // nil without one
	at              place
	nonce           [chacha20poly1305.NonceSizeX]byte

	prefix, ciphertext []byte // when parsed: parts of the bytes given
}

// initPart is what the recipient of a first flight needs to compute the handshake. It is not
// changed once made.
type initPart struct {
	identity, ephemeral key
	prekey              uint32
	oneTime             *uint32
	replaces            []SessionID
	ciphertext          [kemCiphertextSize]byte
}

// header codes everything before the ciphertext.
func (m *sealedDM) header(c *codec) {
	outer, inner, flags := byte(Version), byte(Version), m.init.flags()
	c.u8(&outer)
	c.u8(&flags)
	if flags != 0 && flags != flagInit && flags != flagInit|flagOneTime {
		c.bad = true
		return
	}
	c.raw(m.account[:])
	c.raw(m.device[:])
	c.raw(m.session[:])
	if flags != 0 {
		if c.reading {
			m.init = &initPart{}
		}
		m.init.code(c, flags)
	}
	c.u8(&inner)
	c.raw(m.at.key[:])
	c.u32(&m.at.previous)
	c.u32(&m.at.number)
	c.raw(m.nonce[:])
	c.bad = c.bad || outer != Version || inner != Version || m.at.number == math.MaxUint32
}

func (p *initPart) flags() byte {
	switch {
	case p == nil:
		return 0
	case p.oneTime == nil:
		return flagInit
	}
	return flagInit | flagOneTime
}

func (p *initPart) code(c *codec, flags byte) {
	c.raw(p.identity[:])
	c.raw(p.ephemeral[:])
	c.u32(&p.prekey)
	if flags&flagOneTime != 0 {
		if c.reading {
			p.oneTime = new(uint32)
		}
		c.u32(p.oneTime)
	}
	codeReplaces(c, &p.replaces)
	c.raw(p.ciphertext[:])
}

// codeReplaces codes a list of distinct session ids.
func codeReplaces(c *codec, ids *[]SessionID) {
	list(c, ids, maxReplaces, 16, func(id *SessionID) { c.raw(id[:]) })
	for i, id := range *ids {
		c.bad = c.bad || slices.Contains((*ids)[:i], id)
	}
}

// sealedSize is the smallest allowed size of a Sealed DM not below n, or 0.
func sealedSize(n int) int {
	for size := smallestSealed; size < MaxSealed; size *= 2 {
		if n <= size {
			return size
		}
	}
	if n <= MaxSealed {
		return MaxSealed
	}
	return 0
}

func parseSealed(raw []byte) (*sealedDM, error) {
	if len(raw) < smallestSealed || sealedSize(len(raw)) != len(raw) {
		return nil, fmt.Errorf("%w: %d bytes is no size of a sealed message", ErrMalformed, len(raw))
	}
	if raw[0] != Version {
		return nil, fmt.Errorf("%w: version %d is not known here; a newer release may read it", ErrMalformed, raw[0])
	}
	c, m := codec{b: raw, reading: true}, &sealedDM{}
	m.header(&c)
	if c.bad || len(c.b) < contentPrefix+chacha20poly1305.Overhead {
		return nil, fmt.Errorf("%w: its parts do not add up", ErrMalformed)
	}
	m.prefix, m.ciphertext = raw[:len(raw)-len(c.b)], c.b
	return m, nil
}

// Header is what a Sealed DM claims before it is opened. None of it is proved until then.
type Header struct {
	Account [32]byte // sender's account key
	Device  [32]byte // sender's device key
	Session SessionID
	// Init says that the message can begin a session; Identity is then the sender's claimed
	// X25519 identity key, which must be tied to Device by a signed record.
	Init     bool
	Identity [32]byte
	Prekey   uint32 // with Init: which prekey of the recipient it was sealed for
}

// ReadHeader reads who a Sealed DM claims to be from, so that the caller can find the [Set].
func ReadHeader(sealed []byte) (Header, error) {
	m, err := parseSealed(sealed)
	if err != nil {
		return Header{}, fmt.Errorf("reading a message's header: %w", err)
	}
	h := Header{Account: m.account, Device: m.device, Session: m.session, Init: m.init != nil}
	if h.Init {
		h.Identity, h.Prekey = m.init.identity, m.init.prekey
	}
	return h, nil
}

// seal builds the next Sealed DM of a session, and changes the session only if that succeeds.
func (s *session) seal(rand io.Reader, receipt bool, self *Party, content, ad []byte) ([]byte, error) {
	if len(content) > MaxContent || len(ad) > MaxAD {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, max(len(content), len(ad)))
	}
	next := *s
	message, at, err := next.nextSending(rand, receipt)
	if err != nil {
		return nil, err
	}
	m := sealedDM{account: self.Account, device: self.Device, session: s.id(), init: s.init, at: at}
	if _, err := io.ReadFull(rand, m.nonce[:]); err != nil {
		return nil, fmt.Errorf("reading randomness for a nonce: %w", err)
	}
	aead, err := chacha20poly1305.NewX(message[:])
	if err != nil {
		return nil, fmt.Errorf("preparing a message key: %w", err)
	}
	c := codec{b: make([]byte, 0, outerSize+headerSize)}
	m.header(&c)
	size := sealedSize(len(c.b) + contentPrefix + len(content) + aead.Overhead())
	sealed := append(make([]byte, 0, size), c.b...)
	padded := sealed[len(sealed) : size-aead.Overhead()] // zeros up to the size; sealed in place
	binary.BigEndian.PutUint16(padded, uint16(len(content)))
	copy(padded[contentPrefix:], content)
	sealed = aead.Seal(sealed, m.nonce[:], padded, associatedData(s.transcript, ad, sealed))
	*s = next
	return sealed, nil
}

// open decrypts and unpads the message.
func (m *sealedDM) open(message key, aad []byte) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(message[:])
	if err != nil {
		return nil, fmt.Errorf("preparing a message key: %w", err)
	}
	padded, err := aead.Open(nil, m.nonce[:], m.ciphertext, aad)
	if err != nil {
		return nil, ErrUndecryptable
	}
	n := contentPrefix + int(binary.BigEndian.Uint16(padded))
	if n > len(padded) || slices.ContainsFunc(padded[n:], func(b byte) bool { return b != 0 }) {
		return nil, fmt.Errorf("%w: its padding is wrong", ErrUndecryptable)
	}
	return padded[contentPrefix:n:n], nil
}

func associatedData(transcript key, ad, prefix []byte) []byte {
	b := make([]byte, 0, 64+len(transcript)+len(ad)+len(prefix))
	b = append(b, "starling/dm-message/1"...)
	b = append(b, transcript[:]...)
	return append(appendLP(b, ad), prefix...)
}

// appendLP appends a part after its length.
func appendLP(b, part []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(part))), part...)
}
