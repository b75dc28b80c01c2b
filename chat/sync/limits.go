package sync

import "time"

// The limits of docs/spec/sync.md. They belong to the protocol: a peer that exceeds one is in the wrong.
const (
	// MaxFrame is the most bytes of a frame after its length: kind and body.
	MaxFrame = 64 << 10
	// MaxRecord is the most bytes of one record.
	MaxRecord = 64 << 10
	// MaxBatch is the most bytes of a batch of records, before and after decompression.
	MaxBatch = 256 << 10
	// MaxGet is the most claims one Get asks for.
	MaxGet = 256
	// MaxPage is the most items one Page asks for.
	MaxPage = 200
	// MaxRounds is the most rounds of reconciliation, both sides' together. Eight reach single items in a
	// set of 16 million.
	MaxRounds = 8
	// MaxReconcile is the most bytes of Summary and Round frames that one side sends in a session.
	MaxReconcile = 1 << 20
	// MaxRoundFrames is the most Round frames of one side: eight rounds, cut where a frame is full of bytes or of
	// ranges, stay below half of it. It bounds frames that carry nothing, of which MaxReconcile would hold many.
	MaxRoundFrames = 128
	// MaxFetch is how many bytes of batches (decompressed) one side fetches in a session before it asks for no more.
	MaxFetch = 8 << 20
	// MaxRequests is the most Get and Page frames that one side sends in a session.
	MaxRequests = 1024
	// MaxPending is how many requests a side leaves unanswered at most: one batch is being committed
	// while the next one travels. Only the asking side can keep to it.
	MaxPending = 2

	maxPeerID     = 128  // bytes of a peer id in a proof
	maxRanges     = 1024 // ranges of one Round frame
	listAt        = 32   // own items up to which a range that differs is listed, not split
	listRound     = MaxRounds - 1
	maxList       = 4096 // own items up to which a range is listed in listRound
	splitParts    = 16   // parts of a split range
	splitItems    = 16   // own items that a part has at least
	chunkSize     = 32 << 10
	roundPayload  = MaxFrame - 1<<10 // bytes at which a Round frame is sent: leaves room for tags
	hashSize      = 16               // bytes of a fingerprint
	shortSize     = 8                // bytes of a short id
	proofSize     = 64               // bytes of an Ed25519 signature
	maxFetchSlack = MaxPending * MaxBatch
)

// CutDelay is how far behind its clock a side sets its cut: what is younger is probably still on its way by gossip.
const CutDelay = 5 * time.Second

// What a newcomer fetches by default, whichever is less; a room's policy may say otherwise.
const (
	DefaultPageEvents = 2000
	DefaultPageAge    = 7 * 24 * time.Hour
)
