package ratchet

import (
	"bytes"
	"crypto/mlkem"
	"errors"
	"fmt"
	"io"
	"slices"
)

const (
	// MaxSessions is how many sessions with one device open messages at a time.
	MaxSessions = 3
	// FailuresBeforeRestart is how many messages in a row may fail to open before a new session is due.
	FailuresBeforeRestart = 3
	// AstrayBeforeRestart is how many messages in a row may open on other sessions than the one that
	// seals, before a new session is due: the two sides seem to choose differently, and do not heal.
	AstrayBeforeRestart = 64

	maxLost     = 4                     // ids of sessions the peer uses and this device lacks
	maxReplaces = MaxSessions + maxLost // ids an init part names
	maxEnded    = 1024                  // ended sessions remembered, so that a replay cannot begin one again
	maxRecent   = 128                   // opened messages remembered, to tell a duplicate from a failure
)

// fingerprint is the first 8 bytes of a session id or of a nonce.
type fingerprint [8]byte

// Set is all state between this device and one other: up to [MaxSessions] sessions and what it
// takes to refuse replays. Create it with [NewSet] or [UnmarshalSet].
type Set struct {
	self, peer Party
	sessions   []*session    // in order of arrival here
	ended      []fingerprint // of session ids, oldest first
	recent     []fingerprint // of nonces, oldest first

	// What follows is advice, kept in memory only: a message that does not open changes no state.
	failures int
	astray   int
	restart  bool
	lost     []SessionID
}

// Opened is what came out of one Sealed DM.
type Opened struct {
	Content []byte
	Session SessionID
	// Started says that this message began the session. The caller erases the one-time key
	// OneTime, if not nil, in the transaction that stores the Set.
	Started bool
	OneTime *uint32
	// Replaced lists sessions held here that the new one takes the place of: what was sent on them
	// and is not acknowledged must be sealed again.
	Replaced []SessionID
}

// NewSet returns the empty state between two devices: nothing can be sealed on it until
// [Set.Initiate], or until a message of the peer has begun a session.
func NewSet(self, peer Party) *Set { return &Set{self: self, peer: peer} }

// Holds says whether a session is live. What was sealed on one that is not, and was never
// acknowledged, has to be sealed again.
func (s *Set) Holds(id SessionID) bool { return s.find(id) != nil }

// NeedsRestart says that the peer seals messages which this Set cannot open, or on a session that
// this Set would not choose, and that a new session would cure it (section 7). The caller initiates one, at most once an hour per contact.
// The answer is not part of the stored state: it needs a Set that stays in memory for a while.
func (s *Set) NeedsRestart() bool {
	return s.restart || s.failures >= FailuresBeforeRestart || s.astray >= AstrayBeforeRestart
}

// Initiate begins a new session with the peer, which takes the place of all held so far, and
// returns its id. rand supplies the key pairs; ML-KEM draws from the system. The bundle must be
// the peer's. The Set is unchanged if an error is returned.
func (s *Set) Initiate(rand io.Reader, secrets *Secrets, bundle *Bundle) (SessionID, error) {
	return s.initiate(rand, (*mlkem.EncapsulationKey768).Encapsulate, secrets, bundle)
}

func (s *Set) initiate(rand io.Reader, encapsulate encapsulator, secrets *Secrets, bundle *Bundle) (SessionID, error) {
	if bundle.Owner != s.peer {
		return SessionID{}, errors.New("initiating a session: the bundle belongs to another device")
	}
	if s.peer.Device == s.self.Device {
		return SessionID{}, errors.New("initiating a session: the bundle is this device's own")
	}
	var replaces []SessionID
	for _, held := range s.sessions {
		replaces = append(replaces, held.id())
	}
	started, err := initiate(rand, encapsulate, &s.self, secrets.Identity, bundle, append(replaces, s.lost...))
	if err != nil {
		return SessionID{}, fmt.Errorf("initiating a session: %w", err)
	}
	s.add(started)
	s.settle()
	s.astray = 0
	return started.id(), nil
}

// Seal encrypts content on the chosen session and returns the Sealed DM, whose size is a step of
// section 5, and the session's id. ad is authenticated with it and must be given to Open alike.
// The Set is unchanged if an error is returned; [ErrNoSession] asks for [Set.Initiate].
func (s *Set) Seal(rand io.Reader, content, ad []byte) ([]byte, SessionID, error) {
	return s.seal(rand, false, content, ad)
}

// SealReceipt is Seal for what machines tell each other, such as acknowledgements. A change of
// direction normally brings a new ratchet key, which heals a stolen state and costs three X25519
// operations; at most [MaxReceipts] receipts in a row go without, so that acknowledging every
// message does not cost more than the message. To the recipient there is no difference.
func (s *Set) SealReceipt(rand io.Reader, content, ad []byte) ([]byte, SessionID, error) {
	return s.seal(rand, true, content, ad)
}

func (s *Set) seal(rand io.Reader, receipt bool, content, ad []byte) ([]byte, SessionID, error) {
	chosen := s.sealing()
	if chosen == nil {
		return nil, SessionID{}, ErrNoSession
	}
	sealed, err := chosen.seal(rand, receipt, &s.self, content, ad)
	if err != nil {
		return nil, SessionID{}, fmt.Errorf("sealing a message: %w", err)
	}
	return sealed, chosen.id(), nil
}

// Open decrypts one Sealed DM, beginning the session if the message carries the means. secrets is
// needed for that only. On an error, which wraps one of the values that begin with Err, no stored
// state has changed, and [Set.NeedsRestart] may have become true.
func (s *Set) Open(secrets *Secrets, sealed, ad []byte) (Opened, error) {
	m, err := parseSealed(sealed)
	if err != nil {
		return Opened{}, fmt.Errorf("opening a message: %w", err)
	}
	if m.account != s.peer.Account || m.device != s.peer.Device || m.init != nil && m.init.identity != s.peer.Identity {
		return Opened{}, fmt.Errorf("opening a message: %w", ErrWrongPeer)
	}
	nonce := fingerprint(m.nonce[:8])
	if slices.Contains(s.recent, nonce) {
		return Opened{}, fmt.Errorf("opening a message: %w", ErrDuplicate)
	}
	opened, err := s.open(secrets, m, ad)
	if err != nil {
		s.note(m.session, err)
		return Opened{}, fmt.Errorf("opening a message: %w", err)
	}
	s.recent = push(s.recent, nonce, maxRecent)
	s.settle()
	if s.astray++; s.find(m.session) == s.sealing() {
		s.astray = 0
	}
	return opened, nil
}

// Fresh says, without opening it, that a message stands where none was opened: on a session that is
// held, in its present chain at a number that was not reached, or at one that was passed over. It is
// false where that cannot be told, and says nothing of who made the message.
func (s *Set) Fresh(sealed []byte) bool {
	m, err := parseSealed(sealed)
	if err != nil {
		return false
	}
	held := s.find(m.session)
	return held != nil && held.fresh(m.at)
}

func (s *Set) open(secrets *Secrets, m *sealedDM, ad []byte) (Opened, error) {
	opened := Opened{Session: m.session}
	var err error
	if held := s.find(m.session); held != nil {
		opened.Content, err = held.open(m, ad)
		return opened, err
	}
	if m.init == nil || slices.Contains(s.ended, fingerprint(m.session[:8])) {
		return Opened{}, ErrUnknownSession
	}
	started, err := respond(&s.self, &s.peer, secrets, m.init)
	if err != nil {
		return Opened{}, err
	}
	if started.id() != m.session {
		return Opened{}, ErrUndecryptable
	}
	if opened.Content, err = started.open(m, ad); err != nil {
		return Opened{}, err
	}
	opened.Started, opened.OneTime = true, m.init.oneTime
	opened.Replaced = s.add(started)
	return opened, nil
}

// add takes in a new session, evicts a fourth, and returns the held sessions that the new one
// replaces.
func (s *Set) add(started *session) (replaced []SessionID) {
	for _, held := range s.sessions {
		if slices.Contains(started.replaces, held.id()) {
			replaced = append(replaced, held.id())
		}
	}
	s.sessions = append(s.sessions, started)
	if len(s.sessions) > MaxSessions {
		s.evict()
	}
	return replaced
}

// evict ends one session: the oldest replaced one, or else the oldest, but neither the newest nor
// the one that seals.
func (s *Set) evict() {
	sealing := s.sealing()
	victim := -1
	for i, held := range s.sessions[:len(s.sessions)-1] {
		if held != sealing && (victim < 0 || s.replaced(held) && !s.replaced(s.sessions[victim])) {
			victim = i
		}
	}
	id := s.sessions[victim].id()
	s.ended = push(s.ended, fingerprint(id[:8]), maxEnded)
	s.sessions = slices.Delete(s.sessions, victim, victim+1)
}

// sealing chooses the session to send on: of those not replaced, the one with the smallest
// ephemeral key, which is the same on both sides once both hold the same sessions.
func (s *Set) sealing() *session {
	var chosen *session
	for _, held := range s.sessions {
		if !s.replaced(held) && (chosen == nil || bytes.Compare(held.ephemeral[:], chosen.ephemeral[:]) < 0) {
			chosen = held
		}
	}
	return chosen
}

// replaced says whether a session held here names this one, whichever came first. Only what is
// held counts: both sides forget alike.
func (s *Set) replaced(x *session) bool {
	return slices.ContainsFunc(s.sessions, func(held *session) bool { return slices.Contains(held.replaces, x.id()) })
}

func (s *Set) find(id SessionID) *session {
	for _, held := range s.sessions {
		if held.id() == id {
			return held
		}
	}
	return nil
}

// note counts a failure, and remembers a session that the peer uses and this device lacks.
func (s *Set) note(id SessionID, err error) {
	s.failures = min(s.failures+1, FailuresBeforeRestart)
	if s.find(id) != nil {
		return
	}
	if errors.Is(err, ErrUnknownPrekey) || errors.Is(err, ErrUnknownSession) && !slices.Contains(s.ended, fingerprint(id[:8])) {
		s.restart = true
	}
	if !slices.Contains(s.lost, id) {
		s.lost = push(s.lost, id, maxLost)
	}
}

// settle forgets the failures: a message has opened, or a new session answers them.
func (s *Set) settle() { s.failures, s.restart, s.lost = 0, false, nil }

// push appends to a list of bounded length; the oldest entry falls out.
func push[T any](list []T, v T, limit int) []T {
	if len(list) == limit {
		list = slices.Delete(list, 0, 1)
	}
	return append(list, v)
}
