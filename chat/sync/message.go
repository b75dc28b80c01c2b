package sync

import (
	"encoding/binary"

	"google.golang.org/protobuf/encoding/protowire"
)

// Nonce is the random number that a side contributes to a session.
type Nonce [16]byte

const helloVersion = 1

type hello struct {
	topic    Topic // of the initiator only
	hasTopic bool
	nonce    Nonce
	floor    uint64 // ms
	cut      uint64 // ms
	proof    []byte // of the responder only, absent from a mirror's
}

func (*hello) kind() kind { return kindHello }

func (m *hello) append(b []byte) []byte {
	b = appendUint(b, 1, helloVersion)
	if m.hasTopic {
		b = appendBytes(b, 2, m.topic[:])
	}
	b = appendBytes(b, 3, m.nonce[:])
	b = appendUint(b, 4, m.floor)
	b = appendUint(b, 5, m.cut)
	if m.proof != nil {
		b = appendBytes(b, 6, m.proof)
	}
	return b
}

func (m *hello) decode(b []byte) error {
	f := fields{rest: b}
	var version uint64
	var hasNonce bool
	for f.next(0) {
		switch f.num {
		case 1:
			version = f.uint(helloVersion)
		case 2:
			f.exact(m.topic[:])
			m.hasTopic = true
		case 3:
			f.exact(m.nonce[:])
			hasNonce = true
		case 4:
			m.floor = f.uint(maxMilli)
		case 5:
			m.cut = f.uint(maxMilli)
		case 6:
			m.proof = f.bytes(proofSize, proofSize, 1)
		default:
			f.unknown()
		}
	}
	if f.err == nil && (version != helloVersion || !hasNonce) {
		return malformed("hello without version or nonce")
	}
	return f.err
}

type prove struct{ proof []byte }

func (*prove) kind() kind { return kindProve }

func (m *prove) append(b []byte) []byte { return appendBytes(b, 1, m.proof) }

func (m *prove) decode(b []byte) error {
	f := fields{rest: b}
	for f.next(0) {
		switch f.num {
		case 1:
			m.proof = f.bytes(proofSize, proofSize, 1)
		default:
			f.unknown()
		}
	}
	if f.err == nil && m.proof == nil {
		return malformed("no proof")
	}
	return f.err
}

type summary struct {
	count  uint64
	digest Digest
}

func (*summary) kind() kind { return kindSummary }

func (m *summary) append(b []byte) []byte {
	return appendBytes(appendUint(b, 1, m.count), 2, m.digest[:])
}

func (m *summary) decode(b []byte) error {
	f := fields{rest: b}
	var hasDigest bool
	for f.next(0) {
		switch f.num {
		case 1:
			m.count = f.uint(1<<64 - 1)
		case 2:
			f.exact(m.digest[:])
			hasDigest = true
		default:
			f.unknown()
		}
	}
	if f.err == nil && !hasDigest {
		return malformed("summary without digest")
	}
	return f.err
}

// span is one range of a round, as it travels: its lower bound relative to the bound before it, and
// what its sender says about it.
type span struct {
	back    uint64 // ms below the millisecond of the bound before
	counter uint16
	id      ID // trailing zeros are not sent
	says    says
	sum     fingerprint
	list    []byte // short ids
}

type says byte

const (
	saysNothing says = iota
	saysSum
	saysList
)

// open reports whether the other side has to answer.
func (s *span) open() bool { return s.says != saysNothing }

func (s *span) append(b []byte) []byte {
	b = appendUint(b, 1, s.back)
	b = appendUint(b, 2, uint64(s.counter))
	b = appendPrefix(b, 3, s.id)
	switch s.says {
	case saysSum:
		sum := s.sum.bytes()
		b = appendBytes(b, 4, sum[:])
	case saysList:
		b = appendBytes(b, 5, s.list)
	case saysNothing:
	}
	return b
}

func (s *span) decode(b []byte) error {
	f := fields{rest: b}
	for f.next(0) {
		switch f.num {
		case 1:
			s.back = f.uint(maxMilli)
		case 2:
			s.counter = uint16(f.uint(1<<counterBits - 1))
		case 3:
			s.id = f.prefix()
		case 4:
			var sum [hashSize]byte
			f.exact(sum[:])
			s.says, s.sum = saysSum, fingerprintOf(sum)
		case 5:
			if s.says != saysNothing {
				return malformed("range with fingerprint and list")
			}
			s.says, s.list = saysList, f.bytes(0, MaxFrame, shortSize)
		default:
			f.unknown()
		}
	}
	return f.err
}

type round struct {
	spans  []span
	claims []byte // short ids
	more   bool
}

func (*round) kind() kind { return kindRound }

func (m *round) append(b []byte) []byte {
	for i := range m.spans {
		b = appendBytes(b, 1, m.spans[i].append(nil))
	}
	if len(m.claims) > 0 {
		b = appendBytes(b, 2, m.claims)
	}
	return appendFlag(b, 3, m.more)
}

func (m *round) decode(b []byte) error {
	f := fields{rest: b}
	for f.next(1) {
		switch f.num {
		case 1:
			if len(m.spans) == maxRanges {
				return malformed("more than %d ranges", maxRanges)
			}
			var s span
			if err := s.decode(f.bytes(0, MaxFrame, 1)); err != nil {
				return err
			}
			m.spans = append(m.spans, s)
		case 2:
			m.claims = f.bytes(shortSize, MaxFrame, shortSize)
		case 3:
			m.more = f.uint(1) == 1
		default:
			f.unknown()
		}
	}
	return f.err
}

// run names consecutive claims: skip some after the run before, take some.
type run struct{ skip, take uint64 }

type get struct{ runs []run }

func (*get) kind() kind { return kindGet }

func (m *get) append(b []byte) []byte {
	var packed []byte
	for _, r := range m.runs {
		packed = protowire.AppendVarint(packed, r.skip)
		packed = protowire.AppendVarint(packed, r.take)
	}
	return appendBytes(b, 1, packed)
}

func (m *get) decode(b []byte) error {
	f := fields{rest: b}
	for f.next(0) {
		switch f.num {
		case 1:
			if err := m.decodeRuns(f.bytes(2, MaxFrame, 1)); err != nil {
				return err
			}
		default:
			f.unknown()
		}
	}
	if f.err == nil && m.runs == nil {
		return malformed("get of nothing")
	}
	return f.err
}

// decodeRuns counts what is asked for while it reads, so that a Get never holds more than [MaxGet] runs.
func (m *get) decodeRuns(b []byte) error {
	f := fields{rest: b}
	var taken uint64
	for len(f.rest) > 0 {
		skip, _ := f.varint()
		take, ok := f.varint()
		if !ok {
			return f.err
		}
		if take == 0 || take > MaxGet-taken {
			return malformed("get of no or more than %d claims", MaxGet)
		}
		taken += take
		m.runs = append(m.runs, run{skip, take})
	}
	return f.err
}

type page struct {
	before Item
	limit  uint64
}

func (*page) kind() kind { return kindPage }

func (m *page) append(b []byte) []byte {
	b = appendUint(b, 1, uint64(m.before.Time))
	b = appendPrefix(b, 2, m.before.ID)
	return appendUint(b, 3, m.limit)
}

func (m *page) decode(b []byte) error {
	f := fields{rest: b}
	for f.next(0) {
		switch f.num {
		case 1:
			m.before.Time = Time(f.uint(1<<64 - 1))
		case 2:
			m.before.ID = f.prefix()
		case 3:
			m.limit = f.uint(MaxPage)
		default:
			f.unknown()
		}
	}
	if f.err == nil && m.limit == 0 {
		return malformed("page without limit")
	}
	return f.err
}

// records is one frame of a batch. Only the first one has more than a chunk.
type records struct {
	answered uint64
	size     uint64
	packed   uint64 // 0: the batch travels as it is
	chunk    []byte
	next     Item // zero: none
	end      bool
}

func (*records) kind() kind { return kindRecords }

func (m *records) append(b []byte) []byte {
	b = appendUint(b, 1, m.answered)
	b = appendUint(b, 2, m.size)
	b = appendUint(b, 3, m.packed)
	if len(m.chunk) > 0 {
		b = appendBytes(b, 4, m.chunk)
	}
	b = appendUint(b, 5, uint64(m.next.Time))
	b = appendPrefix(b, 6, m.next.ID)
	return appendFlag(b, 7, m.end)
}

func (m *records) decode(b []byte) error {
	f := fields{rest: b}
	for f.next(0) {
		switch f.num {
		case 1:
			m.answered = f.uint(MaxGet)
		case 2:
			m.size = f.uint(MaxBatch)
		case 3:
			m.packed = f.uint(MaxBatch)
		case 4:
			m.chunk = f.bytes(1, MaxFrame, 1)
		case 5:
			m.next.Time = Time(f.uint(1<<64 - 1))
		case 6:
			m.next.ID = f.prefix()
		case 7:
			m.end = f.uint(1) == 1
		default:
			f.unknown()
		}
	}
	return f.err
}

// header reports whether the frame has any of the fields of a first frame.
func (m *records) header() bool {
	return m.answered != 0 || m.size != 0 || m.packed != 0 || m.next != Item{} || m.end
}

// Reason is what a side says when it is done.
type Reason uint8

// The reasons of a Done frame.
const (
	ReasonFinished  Reason = iota // nothing is left
	ReasonPartial                 // limits left something for a later session
	ReasonRefused                 // topic not served here, or peer not accepted
	ReasonBusy                    // no room for another session now
	ReasonViolation               // the other side broke the protocol
)

type done struct{ reason Reason }

func (*done) kind() kind { return kindDone }

func (m *done) append(b []byte) []byte { return appendUint(b, 1, uint64(m.reason)) }

func (m *done) decode(b []byte) error {
	f := fields{rest: b}
	for f.next(0) {
		switch f.num {
		case 1:
			m.reason = Reason(f.uint(uint64(ReasonViolation)))
		default:
			f.unknown()
		}
	}
	return f.err
}

// shortAt returns the i-th short id of a list.
func shortAt(list []byte, i int) uint64 {
	return binary.LittleEndian.Uint64(list[i*shortSize:])
}
