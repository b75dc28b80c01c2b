package wire

import (
	"crypto/sha256"
	"fmt"
	"sync"
)

// Verifier verifies events and sealed events and remembers what it may reuse:
// certificates that held, and public keys prepared for verification. Both
// caches are bounded. Answers never depend on what is cached. Safe for
// concurrent use; the zero value is not usable, see NewVerifier.
type Verifier struct {
	mu    sync.Mutex // guards certs, keys
	certs *recent[[32]byte, struct{}]
	keys  *recent[[32]byte, *expandedKey]
}

// VerifierLimits bounds a Verifier's caches.
type VerifierLimits struct {
	// Certificates remembered as verified, 80 bytes each.
	Certificates int
	// Keys kept expanded, 1.6 KB each.
	Keys int
}

// DefaultVerifierLimits suits a laptop: at most 0.8 MB.
func DefaultVerifierLimits() VerifierLimits { return VerifierLimits{Certificates: 1024, Keys: 512} }

// NewVerifier returns a Verifier with the given bounds; values below 2 are
// raised to 2.
func NewVerifier(l VerifierLimits) *Verifier {
	return &Verifier{
		certs: newRecent[[32]byte, struct{}](l.Certificates),
		keys:  newRecent[[32]byte, *expandedKey](l.Keys),
	}
}

// VerifyEvent is Event.Verify with the caches.
func (v *Verifier) VerifyEvent(e *Event) error {
	if err := e.checkBody(); err != nil {
		return err
	}
	if err := v.VerifyCertificate(&e.Header.Certificate); err != nil {
		return err
	}
	if err := e.checkDates(); err != nil {
		return err
	}
	if !v.verify(DomainEvent, e.Header.Device(), e.ID[:], e.Signature) {
		return fmt.Errorf("%w on an event", ErrSignature)
	}
	return nil
}

// VerifyCertificate is Certificate.Verify with the cache.
func (v *Verifier) VerifyCertificate(c *Certificate) error {
	key := sha256.Sum256(c.Encode())
	v.mu.Lock()
	_, known := v.certs.get(key)
	v.mu.Unlock()
	if known {
		return nil
	}
	if err := c.Verify(); err != nil {
		return err
	}
	v.mu.Lock()
	v.certs.put(key, struct{}{})
	v.mu.Unlock()
	return nil
}

// VerifyStanding says whether a member of the topic signed a statement about somebody's events; see
// [RoomKeys.ProveStanding].
func (v *Verifier) VerifyStanding(topic TopicKey, statement []byte, proof Signature) bool {
	return v.verify(DomainStanding, topic, statement, proof)
}

// CheckSealed is the package's CheckSealed with the key cache.
func (v *Verifier) CheckSealed(topic TopicKey, raw []byte) (*Sealed, error) {
	s, err := parseSealed(topic, raw)
	if err != nil {
		return nil, err
	}
	if !v.verify(DomainSealed, topic, s.ID[:], s.Signature) {
		return nil, fmt.Errorf("%w on a sealed event", ErrSignature)
	}
	return s, nil
}

// CheckSealedBatch checks many sealed events of one topic at less cost each,
// with the same answers as CheckSealed: for each i either sealed[i] or errs[i]
// is nil.
func (v *Verifier) CheckSealedBatch(topic TopicKey, raws [][]byte) (sealed []*Sealed, errs []error) {
	sealed, errs = make([]*Sealed, len(raws)), make([]error, len(raws))
	key, err := v.expanded(topic)
	if err != nil {
		for i := range errs {
			errs[i] = err
		}
		return sealed, errs
	}
	b := newBatch(len(raws))
	index := make([]int, 0, len(raws))
	for i, raw := range raws {
		if sealed[i], errs[i] = parseSealed(topic, raw); errs[i] == nil {
			b.add(DomainSealed, key, sealed[i].ID[:], sealed[i].Signature)
			index = append(index, i)
		}
	}
	for k, ok := range b.verify() {
		if i := index[k]; !ok {
			sealed[i], errs[i] = nil, fmt.Errorf("%w on a sealed event", ErrSignature)
		}
	}
	return sealed, errs
}

// VerifyEvents is VerifyEvent for many events at less cost each; errs[i] is nil
// where events[i] holds.
func (v *Verifier) VerifyEvents(events []*Event) (errs []error) {
	errs = make([]error, len(events))
	b := newBatch(len(events))
	index := make([]int, 0, len(events))
	for i, e := range events {
		if errs[i] = v.prepare(e, b); errs[i] == nil {
			index = append(index, i)
		}
	}
	for k, ok := range b.verify() {
		if !ok {
			errs[index[k]] = fmt.Errorf("%w on an event", ErrSignature)
		}
	}
	return errs
}

// prepare does all of VerifyEvent but the device signature, which it adds to b.
func (v *Verifier) prepare(e *Event, b *batch) error {
	if err := e.checkBody(); err != nil {
		return err
	}
	if err := v.VerifyCertificate(&e.Header.Certificate); err != nil {
		return err
	}
	if err := e.checkDates(); err != nil {
		return err
	}
	key, err := v.expanded(e.Header.Device())
	if err != nil {
		return err
	}
	b.add(DomainEvent, key, e.ID[:], e.Signature)
	return nil
}

func (v *Verifier) verify(d Domain, key [32]byte, payload []byte, sig Signature) bool {
	k, err := v.expanded(key)
	return err == nil && verifyExpanded(d, k, payload, sig)
}

// expanded returns the prepared form of a key, from the cache if it is there.
func (v *Verifier) expanded(key [32]byte) (*expandedKey, error) {
	v.mu.Lock()
	k, ok := v.keys.get(key)
	v.mu.Unlock()
	if ok {
		return k, nil
	}
	k, err := expand(key)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	v.keys.put(key, k)
	v.mu.Unlock()
	return k, nil
}

// recent is a bounded map that forgets what was not used for long: two
// generations, of which the older is dropped when the newer is full. Not safe
// for concurrent use.
type recent[K comparable, V any] struct {
	half       int // entries per generation
	young, old map[K]V
}

func newRecent[K comparable, V any](limit int) *recent[K, V] {
	return &recent[K, V]{half: max(limit/2, 1), young: make(map[K]V)}
}

func (r *recent[K, V]) get(k K) (V, bool) {
	if v, ok := r.young[k]; ok {
		return v, true
	}
	v, ok := r.old[k]
	if ok {
		r.put(k, v)
	}
	return v, ok
}

func (r *recent[K, V]) put(k K, v V) {
	if _, ok := r.young[k]; !ok && len(r.young) >= r.half {
		r.old, r.young = r.young, make(map[K]V)
	}
	r.young[k] = v
}
