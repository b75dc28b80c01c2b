package sync

import (
	"errors"
	"fmt"
)

// Fault says which rule of the protocol a peer broke.
type Fault uint8

// The faults. All of them are provable: no honest peer commits one, whatever the network does.
const (
	Malformed     Fault = iota + 1 // a frame or batch that does not decode, or not canonically
	OutOfTurn                      // a frame that is not allowed at this point
	BadProof                       // a proof of membership that does not verify
	LimitExceeded                  // more rounds, bytes or requests than the protocol allows
	BadRange                       // bounds outside the window or not descending
	Unclaimed                      // a record that was not asked for, or a claim that was never made
	InvalidRecord                  // a record that does not verify
)

var faultNames = map[Fault]string{
	Malformed: "malformed", OutOfTurn: "out of turn", BadProof: "bad proof", LimitExceeded: "limit exceeded",
	BadRange: "bad range", Unclaimed: "unclaimed", InvalidRecord: "invalid record",
}

// String returns the fault in words.
func (f Fault) String() string {
	if name, ok := faultNames[f]; ok {
		return name
	}
	return fmt.Sprintf("fault %d", uint8(f))
}

// Misbehaviour is a proof that the peer broke the protocol: reason to disconnect and to score it.
type Misbehaviour struct {
	Fault  Fault
	Detail string // for the log; holds nothing the peer chose but numbers
}

// Error implements error.
func (m *Misbehaviour) Error() string { return m.Fault.String() + ": " + m.Detail }

func misbehave(f Fault, format string, args ...any) *Misbehaviour {
	return &Misbehaviour{f, fmt.Sprintf(format, args...)}
}

// faultOf returns the fault that a decoder found.
func faultOf(err error) *Misbehaviour {
	var m *Misbehaviour
	if errors.As(err, &m) {
		return m
	}
	return misbehave(Malformed, "%v", err)
}

// End says how a session ended.
type End uint8

// The ends of a session.
const (
	EndCut       End = iota // the stream ended before both sides were done; what was committed stays
	EndFinished             // both sides are done
	EndRefused              // the peer does not serve the topic, or one side did not accept the other without a proof
	EndBusy                 // the peer has no room for another session now
	EndViolation            // the peer broke the protocol, see Report.Fault
	EndAccused              // the peer says that this side broke the protocol
)

// Traffic counts bytes of whole frames by purpose.
type Traffic struct {
	Hello     int // Hello, Prove
	Reconcile int // Summary, Round, Done
	Requests  int // Get, Page
	Records   int // Records
}

// Total returns the sum.
func (t Traffic) Total() int { return t.Hello + t.Reconcile + t.Requests + t.Records }

func (t *Traffic) count(k kind, n int) {
	switch k {
	case kindHello, kindProve:
		t.Hello += n
	case kindGet, kindPage:
		t.Requests += n
	case kindRecords:
		t.Records += n
	case kindSummary, kindRound, kindDone:
		t.Reconcile += n
	}
}

// Report says what came of a session. It is complete once the session ended, and true so far before.
type Report struct {
	Topic     Topic
	Initiator bool // this side began
	End       End
	Fault     *Misbehaviour // of the peer, with EndViolation

	Floor, Cut Time // the window both agreed on
	Equal      bool // nothing was missing on either side
	Rounds     int  // of reconciliation, both sides' together
	Partial    bool // limits left something out: sync again soon
	PeerCount  uint64

	Accepted    int // records committed that were new
	Known       int // records that had come some other way meanwhile
	Refused     int // records that verify but that this side does not keep
	Unavailable int // claims that the peer answered as unavailable
	Unserved    int // claims this side asked for that were never answered
	Served      int // records sent

	Sent, Received Traffic

	// Complete lists stretches for which this side now holds all that the peer holds. Newest first.
	Complete []Interval
	// PageEnd says that pages reached the beginning of the window.
	PageEnd bool
}

// maxUnavailable is how many claims without a record are believed to be honest stubs in a session
// that brings nothing else.
const maxUnavailable = 1024

// Strike reports whether the session counts against the peer without being a proof: it claimed ids and
// did not serve them. A connection that breaks in the middle is no strike when something had arrived.
func (r *Report) Strike() bool {
	arrived := r.Accepted + r.Known + r.Refused
	if r.Unserved > 0 && (r.End != EndCut || arrived == 0) {
		return true
	}
	return arrived == 0 && r.Unavailable > maxUnavailable
}
