package wire

import (
	"crypto/ed25519"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// RelayProtocol is the stream protocol by which clients attach topics to a
// relay. The client writes RelayAttach or RelayDetach frames; the relay answers
// each with one RelayAttached.
const RelayProtocol = "/starling/relay/1"

const (
	relayAttach   = 1
	relayAttached = 2
	relayDetach   = 3
)

// ParseRelayFrame decodes the payload of a frame of RelayProtocol: *RelayAttach,
// *RelayAttached or *RelayDetach.
func ParseRelayFrame(payload []byte) (Frame, error) {
	return parseFrame("relay", payload, func(t byte) Frame {
		switch t {
		case relayAttach:
			return &RelayAttach{}
		case relayAttached:
			return &RelayAttached{}
		case relayDetach:
			return &RelayDetach{}
		default:
			return nil
		}
	})
}

// RelayWant says what a relay is asked to do for a topic.
type RelayWant uint8

const (
	// WantForward: take part in the topic and pass its events on.
	WantForward RelayWant = 1
	// WantMirror: also keep them for members who were away.
	WantMirror RelayWant = 2
)

// RelayTopic is one topic of a RelayAttach with the proof that the client holds
// its key.
//
// Encoding: {1 topic key 32, 2 proof 64}.
type RelayTopic struct {
	Topic TopicKey
	Proof Signature // see RoomKeys.ProveAttach
}

// RelayAttach asks for leases on topics. The same topic again renews its lease.
//
// Encoding: {1 want varint, 2 lease seconds varint, 3 nonce 32, 4 topics
// (repeated, ascending by key)}.
type RelayAttach struct {
	Want   RelayWant
	Lease  time.Duration // whole seconds, at most MaxLease
	Nonce  [32]byte      // random
	Topics []RelayTopic  // 1 to MaxAttachTopics
}

// RelayCode says how a request to a relay ended.
type RelayCode uint8

// Codes of relays. An unknown one counts as a refusal.
const (
	RelayOK           RelayCode = 1
	RelayBadProof     RelayCode = 2
	RelayTopicLimit   RelayCode = 3 // this client has too many topics here
	RelayFull         RelayCode = 4 // the relay has too many topics or clients
	RelayRateLimit    RelayCode = 5 // too many requests
	RelayDenied       RelayCode = 6 // by the operator's lists
	RelayNotOffered   RelayCode = 7 // for example mirroring
	RelayQuota        RelayCode = 8 // the mailbox or topic is full
	RelayUnknownBox   RelayCode = 9 // nothing is kept under this mailbox id
	RelayShuttingDown RelayCode = 10
)

// RelayGrant is the answer for one topic.
//
// Encoding: {1 topic key 32, 2 code varint, 3 lease seconds varint}.
type RelayGrant struct {
	Topic TopicKey
	Code  RelayCode
	Lease time.Duration // whole seconds; zero unless granted
}

// RelayLimits tells a client what it may count on. Zero: not said.
//
// Encoding: {1 topics varint, 2 events per second varint, 3 bytes per second
// varint, 4 mirrored events varint, 5 mirrored seconds varint}.
type RelayLimits struct {
	Topics          uint32 // per client
	EventsPerSecond uint32 // per topic
	BytesPerSecond  uint32 // per topic
	MirrorEvents    uint32 // per topic
	MirrorSeconds   uint32 // how long an event is kept
}

// RelayAttached answers a RelayAttach or RelayDetach.
//
// Encoding: {1 code varint, 2 grants (repeated), 3 limits, 4 detail}.
type RelayAttached struct {
	Code   RelayCode // for the request as a whole
	Grants []RelayGrant
	Limits RelayLimits
	Detail string // for a person, which limit was hit; at most MaxReason bytes
}

// RelayDetach gives leases back.
//
// Encoding: {1 topic keys 32 (repeated, ascending)}.
type RelayDetach struct{ Topics []TopicKey }

// attachTranscript is what an attachment's proof signs: relay || client ||
// nonce.
func attachTranscript(relay, client DeviceID, nonce [32]byte) []byte {
	b := make([]byte, 0, 96)
	b = append(b, relay[:]...)
	b = append(b, client[:]...)
	return append(b, nonce[:]...)
}

// ProveAttach shows a relay that the client holds the topic's key. The proof is
// good at this relay, for this client and nonce only.
func (k *RoomKeys) ProveAttach(relay, client DeviceID, nonce [32]byte) Signature {
	return Sign(DomainAttach, k.signer, attachTranscript(relay, client, nonce))
}

// VerifyAttach answers for each topic of the request whether its proof holds.
// The caller passes the identities that the transport authenticated.
func (f *RelayAttach) VerifyAttach(relay, client DeviceID) []bool {
	transcript := attachTranscript(relay, client, f.Nonce)
	out := make([]bool, len(f.Topics))
	b := newBatch(len(f.Topics))
	index := make([]int, 0, len(f.Topics))
	for i, t := range f.Topics {
		if key, err := expand(t.Topic); err == nil {
			b.add(DomainAttach, key, transcript, t.Proof)
			index = append(index, i)
		}
	}
	for k, ok := range b.verify() {
		out[index[k]] = ok
	}
	return out
}

func (*RelayAttach) frameType() byte   { return relayAttach }
func (*RelayAttached) frameType() byte { return relayAttached }
func (*RelayDetach) frameType() byte   { return relayDetach }

func (f *RelayAttach) encodeFrame(e *encoder) {
	e.uint(1, uint64(f.Want))
	e.seconds(2, f.Lease)
	e.bytes(3, f.Nonce[:])
	for i := range f.Topics {
		var t encoder
		t.id(1, f.Topics[i].Topic[:])
		t.bytes(2, f.Topics[i].Proof[:])
		e.bytes(4, t.b)
	}
}

func (f *RelayAttach) decodeFrame(d *decoder) {
	switch d.num {
	case 1:
		f.Want = RelayWant(d.uint(uint64(WantMirror)))
	case 2:
		f.Lease = d.seconds(MaxLease)
	case 3:
		d.exact(f.Nonce[:])
	case 4:
		f.Topics = d.relayTopic(f.Topics)
	default:
		d.unknown()
	}
}

func (d *decoder) relayTopic(list []RelayTopic) []RelayTopic {
	const limit = 128
	raw := d.item(limit, len(list), MaxAttachTopics)
	if d.err != nil {
		return nil
	}
	var t RelayTopic
	proved := false
	in := newDecoder("topic", raw, limit)
	for in.next() {
		switch in.num {
		case 1:
			in.id(t.Topic[:])
		case 2:
			in.exact(t.Proof[:])
			proved = true
		default:
			in.unknown()
		}
	}
	in.require(proved, "proof")
	d.check(in.finish())
	return append(list, t)
}

func (f *RelayAttach) checkFrame() error {
	switch {
	case f.Want < WantForward || f.Want > WantMirror:
		return invalidf("relay asked for %d", f.Want)
	case f.Nonce == [32]byte{}:
		return invalidf("attach without a nonce")
	}
	if err := checkSeconds("lease", f.Lease, MaxLease); err != nil {
		return err
	}
	keys := make([]TopicKey, len(f.Topics))
	for i := range f.Topics {
		keys[i] = f.Topics[i].Topic
	}
	return checkTopics(keys)
}

func (f *RelayAttached) encodeFrame(e *encoder) {
	e.uint(1, uint64(f.Code))
	for i := range f.Grants {
		var g encoder
		g.id(1, f.Grants[i].Topic[:])
		g.uint(2, uint64(f.Grants[i].Code))
		g.seconds(3, f.Grants[i].Lease)
		e.bytes(2, g.b)
	}
	var l encoder
	for i, v := range f.Limits.fields() {
		l.uint(protowire.Number(i+1), uint64(*v))
	}
	e.bytes(3, l.b)
	e.string(4, f.Detail)
}

func (l *RelayLimits) fields() [5]*uint32 {
	return [5]*uint32{&l.Topics, &l.EventsPerSecond, &l.BytesPerSecond, &l.MirrorEvents, &l.MirrorSeconds}
}

func (f *RelayAttached) decodeFrame(d *decoder) {
	switch d.num {
	case 1:
		f.Code = RelayCode(d.uint(255))
	case 2:
		f.Grants = d.relayGrant(f.Grants)
	case 3:
		const limit = 64
		in := newDecoder("limits", d.bytes(limit), limit)
		for d.err == nil && in.next() {
			if int(in.num) > len(f.Limits.fields()) {
				in.unknown()
				break
			}
			*f.Limits.fields()[in.num-1] = uint32(in.uint(1<<32 - 1))
		}
		d.check(in.finish())
	case 4:
		f.Detail = d.string(MaxReason)
	default:
		d.unknown()
	}
}

func (d *decoder) relayGrant(list []RelayGrant) []RelayGrant {
	const limit = 64
	raw := d.item(limit, len(list), MaxAttachTopics)
	if d.err != nil {
		return nil
	}
	var g RelayGrant
	in := newDecoder("grant", raw, limit)
	for in.next() {
		switch in.num {
		case 1:
			in.id(g.Topic[:])
		case 2:
			g.Code = RelayCode(in.uint(255))
		case 3:
			g.Lease = in.seconds(MaxLease)
		default:
			in.unknown()
		}
	}
	d.check(in.finish())
	return append(list, g)
}

func (f *RelayAttached) checkFrame() error {
	if f.Code == 0 {
		return invalidf("answer without a code")
	}
	if len(f.Grants) > MaxAttachTopics {
		return invalidf("%d grants, at most %d", len(f.Grants), MaxAttachTopics)
	}
	for _, g := range f.Grants {
		switch {
		case g.Topic.IsZero() || g.Code == 0:
			return invalidf("grant without a topic or code")
		case (g.Code == RelayOK) != (g.Lease > 0):
			return invalidf("a lease is given exactly with a granted topic")
		case g.Lease > 0:
			if err := checkSeconds("lease", g.Lease, MaxLease); err != nil {
				return err
			}
		}
	}
	return checkText("detail", f.Detail, MaxReason)
}

func (f *RelayDetach) encodeFrame(e *encoder) {
	for i := range f.Topics {
		e.bytes(1, f.Topics[i][:])
	}
}

func (f *RelayDetach) decodeFrame(d *decoder) {
	if d.num != 1 {
		d.unknown()
		return
	}
	var k TopicKey
	v := d.item(len(k), len(f.Topics), MaxAttachTopics)
	d.copyID(k[:], v)
	f.Topics = append(f.Topics, k)
}

func (f *RelayDetach) checkFrame() error { return checkTopics(f.Topics) }

func checkTopics(keys []TopicKey) error {
	if len(keys) == 0 || len(keys) > MaxAttachTopics {
		return invalidf("%d topics, want 1 to %d", len(keys), MaxAttachTopics)
	}
	for i := range keys {
		if keys[i].IsZero() || i > 0 && string(keys[i-1][:]) >= string(keys[i][:]) {
			return invalidf("topics not ascending")
		}
	}
	return nil
}

// VerifyMailbox says whether proof is by the holder of the mailbox key for this
// relay and nonce.
func VerifyMailbox(box MailboxID, relay DeviceID, nonce [32]byte, proof Signature) bool {
	return VerifySignature(DomainMailbox, box, append(relay[:], nonce[:]...), proof)
}

// ProveMailbox shows a relay that the client holds the mailbox key.
func ProveMailbox(key ed25519.PrivateKey, relay DeviceID, nonce [32]byte) Signature {
	return Sign(DomainMailbox, key, append(relay[:], nonce[:]...))
}

// seconds appends a duration as whole seconds.
func (e *encoder) seconds(num protowire.Number, t time.Duration) {
	e.uint(num, uint64(t/time.Second))
}

// seconds reads a duration of at least one second and at most limit.
func (d *decoder) seconds(limit time.Duration) time.Duration {
	return time.Duration(d.uint(uint64(limit/time.Second))) * time.Second
}

func checkSeconds(what string, t, limit time.Duration) error {
	if t < time.Second || t > limit || t%time.Second != 0 {
		return invalidf("%s of %s, want whole seconds up to %s", what, t, limit)
	}
	return nil
}
