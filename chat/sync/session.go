package sync

import (
	"errors"
	"fmt"
	"slices"
)

// PeerID is a peer id as bytes, at most 128 of them.
type PeerID string

// Link is what a session knows about its stream.
type Link struct {
	Self, Peer PeerID // authenticated by the connection
	Nonce      Nonce  // fresh random bytes, never used before
}

// Room is what a session needs to know about one topic. Functions are called from within the session's methods.
type Room struct {
	Topic Topic
	Set   View // everything this side holds, stubs included
	Floor Time // start of what this side wants; the start of a day unless only a newer part is known
	Cut   Time // the clock minus CutDelay

	// Prove signs a message with the topic key. Nil at a mirror, which has none.
	Prove func(message []byte) ([]byte, error)
	// Proven verifies such a signature.
	Proven func(message, proof []byte) bool
	// AcceptUnproven lets a peer take part that shows no proof: a mirror that was chosen for this topic.
	AcceptUnproven bool
	// Check verifies records exactly as if they had come by gossip and fills in Item and Err of each.
	Check func(records []Record)
}

// Record is one sealed record, at most [MaxRecord] bytes.
type Record struct {
	Bytes []byte
	Item  Item  // what the bytes say
	Err   error // why they are not valid
}

// Pages asks for the newest items of the window instead of reconciling it: what newcomers do, and
// people who scroll back. What the peer claims is not compared with anything: reconcile with another
// peer afterwards.
type Pages struct {
	Before Item // only items below; the zero Item means all
	Events int  // stop after so many items, at least 1
}

// Effect is something the session needs done before it goes on. See [Session.Next].
type Effect interface{ effect() }

// OpenRoom asks for the room of a topic; answer with [Session.Opened] or [Session.Refuse].
type OpenRoom struct{ Topic Topic }

// ReadRecords asks for the bytes of records, in this order; answer with [Session.Read].
type ReadRecords struct {
	Items  []Item
	Enough int // bytes after which reading may stop
}

// CommitRecords asks to make records durable that passed [Room.Check]; answer with [Session.Committed].
type CommitRecords struct{ Records []Record }

// Finished says that the session is over: close the stream.
type Finished struct{ Report Report }

func (OpenRoom) effect()      {}
func (ReadRecords) effect()   {}
func (CommitRecords) effect() {}
func (Finished) effect()      {}

// Outcome is what became of a committed record.
type Outcome uint8

// The outcomes.
const (
	Accepted Outcome = iota // new, and durable now
	Known                   // was there already
	Refused                 // kept as a stub, deferred or dropped
)

// ErrNotAsked is the answer to an answer that no effect asked for.
var ErrNotAsked = errors.New("the session did not ask for this")

// Session is one side of one run of the protocol. Its caller moves bytes and answers effects:
//
//	for {
//		out, effect := s.Next()
//		switch e := effect.(type) {
//		case nil: // write out if there is any, otherwise read from the stream and give it to s.Receive
//		case sync.Finished: // close the stream; e.Report says what came of it
//		default: // do it and answer it
//		}
//	}
//
// Both sides may have a megabyte to send before they read: write from another goroutine than the one
// that reads, or two sessions can wait for each other until the deadline. A session holds at most a few
// megabytes, whatever its peer does.
type Session struct {
	link      Link
	initiator bool
	room      Room
	pages     *Pages // initiator only

	phase  phase
	in     frameBuffer
	out    []byte
	body   []byte // of the frame being encoded, to be used again
	effect Effect

	shortMask  uint64 // of short ids; all ones, but tests provoke collisions
	theirNonce Nonce
	theirHello *hello // responder, until the room is open
	rec        reconciler
	settled    bool // no further round comes from either side
	sentDone   bool
	peerDone   bool
	reconciled int // bytes of Summary and Round frames received
	// roundFrames is the number of Round frames received.
	roundFrames int
	fetch       fetcher
	serve       server
	report      Report
}

type phase uint8

const (
	phaseHello   phase = iota // waiting for the other side's Hello
	phaseOpening              // responder: waiting for the room
	phaseProof                // responder: waiting for the initiator's proof
	phaseRunning
	phaseEnded
)

// NewInitiator begins a session over a stream that this side opened. With pages it fetches pages, otherwise
// it reconciles.
func NewInitiator(link Link, room Room, pages *Pages) *Session {
	s := &Session{link: link, initiator: true, room: room, pages: pages, shortMask: fullMask}
	s.report = Report{Topic: room.Topic, Initiator: true}
	s.send(&hello{
		topic: room.Topic, hasTopic: true, nonce: link.Nonce,
		floor: room.Floor.Milli(), cut: room.Cut.Milli(),
	})
	return s
}

// NewResponder takes part in a session over a stream that the peer opened.
func NewResponder(link Link) *Session { return &Session{link: link, shortMask: fullMask} }

// Receive takes bytes from the stream and returns how many it took. It takes fewer than all only when
// there is output to write or an effect to answer first; call it again with the rest afterwards. Once
// the session is over it takes everything and ignores it.
func (s *Session) Receive(p []byte) int {
	n := 0
	for n < len(p) {
		if s.phase == phaseEnded {
			return len(p)
		}
		if s.effect != nil || len(s.out) > 0 {
			break
		}
		taken, err := s.in.fill(p[n:])
		n += taken
		if err != nil {
			s.violated(faultOf(err))
			continue
		}
		if frame := s.in.whole(); frame != nil {
			s.takeFrame(frame)
			s.in.reset()
		}
	}
	return n
}

// Next says what is to be done now: if out is not empty, write it to the stream; otherwise, if effect is
// not nil, carry it out and answer it (it is returned until then; [Finished] for ever); otherwise the
// session needs more bytes. Out belongs to the caller.
func (s *Session) Next() (out []byte, effect Effect) {
	if len(s.out) > 0 {
		out, s.out = s.out, nil
		return out, nil
	}
	return nil, s.effect
}

// Opened answers [OpenRoom].
func (s *Session) Opened(room Room) error {
	if _, ok := s.effect.(OpenRoom); !ok {
		return fmt.Errorf("opening a room: %w", ErrNotAsked)
	}
	s.effect = nil
	s.room = room
	s.respond()
	return nil
}

// Refuse answers [OpenRoom] with [ReasonRefused] (topic not served here) or [ReasonBusy].
func (s *Session) Refuse(reason Reason) error {
	if _, ok := s.effect.(OpenRoom); !ok {
		return fmt.Errorf("refusing a room: %w", ErrNotAsked)
	}
	s.effect = nil
	s.send(&done{reason})
	end := EndRefused
	if reason == ReasonBusy {
		end = EndBusy
	}
	s.end(end)
	return nil
}

// Close says that the stream ended or that the caller gives up, and returns the report. It is idempotent.
func (s *Session) Close() Report {
	s.end(EndCut)
	return s.Report()
}

// Report returns what happened so far.
func (s *Session) Report() Report {
	r := s.report
	r.Complete = slices.Clone(r.Complete)
	return r
}

// send queues one frame.
func (s *Session) send(m message) {
	before := len(s.out)
	s.body = m.append(s.body[:0])
	s.out = wrapFrame(s.out, m.kind(), s.body)
	s.report.Sent.count(m.kind(), len(s.out)-before)
}

// sendRound queues the frames of one round.
func (s *Session) sendRound(frames [][]byte) {
	for _, f := range frames {
		s.out = append(s.out, f...)
		s.report.Sent.count(kindRound, len(f))
	}
}

// takeFrame decodes and handles one frame.
func (s *Session) takeFrame(frame []byte) {
	m, err := decodeFrame(frame)
	if err != nil {
		s.violated(faultOf(err))
		return
	}
	s.report.Received.count(m.kind(), s.in.head+len(frame))
	if fault := s.handle(m); fault != nil {
		s.violated(fault)
		return
	}
	s.advance()
}

// handle dispatches by phase: a frame that the phase does not know is out of turn.
func (s *Session) handle(m message) *Misbehaviour {
	if d, ok := m.(*done); ok {
		return s.handleDone(d.reason)
	}
	switch s.phase {
	case phaseHello:
		if h, ok := m.(*hello); ok {
			return s.handleHello(h)
		}
	case phaseProof:
		if p, ok := m.(*prove); ok {
			return s.handleProve(p)
		}
		if !s.acceptUnproven() {
			return nil
		}
		return s.handleRunning(m)
	case phaseRunning:
		return s.handleRunning(m)
	case phaseOpening, phaseEnded:
	}
	return misbehave(OutOfTurn, "kind %d", m.kind())
}

func (s *Session) handleRunning(m message) *Misbehaviour {
	switch m := m.(type) {
	case *summary:
		return s.handleSummary(m)
	case *round:
		return s.handleRound(m)
	case *get:
		return s.handleGet(m)
	case *page:
		return s.handlePage(m)
	case *records:
		return s.handleRecords(m)
	}
	return misbehave(OutOfTurn, "kind %d", m.kind())
}

// advance does what can be done without further input.
func (s *Session) advance() {
	if s.phase != phaseRunning || s.effect != nil {
		return
	}
	s.ask()
	s.finish()
}

// finish sends Done when nothing is left to ask, and ends the session when both sides have.
func (s *Session) finish() {
	if s.effect != nil {
		return
	}
	if !s.sentDone && s.settled && s.fetch.idle(s) {
		s.sentDone = true
		s.report.Partial = s.report.Partial || s.rec.partial || len(s.rec.wants) > 0
		reason := ReasonFinished
		if s.report.Partial {
			reason = ReasonPartial
		}
		s.send(&done{reason})
	}
	if s.sentDone && s.peerDone {
		s.end(EndFinished)
	}
}

func (s *Session) handleDone(reason Reason) *Misbehaviour {
	switch reason {
	case ReasonRefused:
		s.end(EndRefused)
		return nil
	case ReasonBusy:
		s.end(EndBusy)
		return nil
	case ReasonViolation:
		s.end(EndAccused)
		return nil
	case ReasonFinished, ReasonPartial:
	}
	if s.phase == phaseProof && !s.acceptUnproven() {
		return nil
	}
	if s.phase != phaseRunning || s.peerDone {
		return misbehave(OutOfTurn, "done in phase %d", s.phase)
	}
	s.peerDone = true
	if reason == ReasonPartial || !s.settled && (s.initiator || s.rec.round > 0) {
		s.report.Partial = true
	}
	s.settled = true // whoever is done sends no round any more
	return nil
}

// violated ends the session because of the peer.
func (s *Session) violated(fault *Misbehaviour) {
	if s.phase == phaseEnded {
		return
	}
	s.report.Fault = fault
	s.send(&done{ReasonViolation})
	s.end(EndViolation)
}

// end makes the report final. The first end counts.
func (s *Session) end(end End) {
	if s.phase == phaseEnded {
		return
	}
	s.phase = phaseEnded
	s.report.End = end
	s.report.Rounds = s.rec.round
	s.report.Unserved = s.fetch.unserved()
	if end == EndFinished && s.pages == nil && s.rec.round > 0 && !s.report.Partial && s.report.Unavailable == 0 {
		s.report.Complete = append(s.report.Complete, Interval{s.report.Floor, s.report.Cut})
	}
	s.effect = Finished{s.Report()}
	s.room, s.rec, s.fetch, s.serve = Room{}, reconciler{}, fetcher{}, server{}
	s.in, s.body = frameBuffer{}, nil
}
