package api

import (
	"encoding/json"
	"fmt"
	"time"
)

// Time is RFC 3339 in UTC with milliseconds.
type Time struct{ time.Time }

const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// MarshalJSON implements json.Marshaler; the zero time is null.
func (t Time) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	return json.Marshal(t.UTC().Format(timeLayout))
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *Time) UnmarshalJSON(b []byte) error {
	var s *string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	if s == nil || *s == "" {
		t.Time = time.Time{}
		return nil
	}
	v, err := time.Parse(time.RFC3339Nano, *s)
	if err != nil {
		return fmt.Errorf("time %q is not RFC 3339", *s)
	}
	t.Time = v.UTC()
	return nil
}

// Me is who this node is.
type Me struct {
	Account     string   `json:"account"`
	Device      string   `json:"device"`
	PeerID      string   `json:"peer_id"`
	Nick        string   `json:"nick"`
	Fingerprint string   `json:"fingerprint"`
	Link        string   `json:"link"` // contact link with addresses
	Addrs       []string `json:"addrs"`
}

// Status is the state of the node in one object. Problems holds one sentence for each thing the
// user should know, worst first; empty when all is well.
type Status struct {
	Schema       int       `json:"schema"`
	Version      string    `json:"version"`
	PeerID       string    `json:"peer_id"`
	Account      string    `json:"account"`
	Nick         string    `json:"nick"`
	Network      string    `json:"network"`
	Home         string    `json:"home"`
	StartedAt    Time      `json:"started_at"`
	Ready        bool      `json:"ready"`
	Addrs        []string  `json:"addrs"`
	Reachability string    `json:"reachability"` // unknown, public, private
	Peers        PathCount `json:"peers"`
	Relays       []Relay   `json:"relays"`
	Away         Away      `json:"away"`
	Rooms        int       `json:"rooms"`
	Outbox       int       `json:"outbox"`
	Gaps         int       `json:"gaps"`
	Unread       int       `json:"unread"`
	Storage      Storage   `json:"storage"`
	Gossip       Gossip    `json:"gossip"`
	Encrypted    bool      `json:"encrypted"` // the keys file has a passphrase
	ClockSkewMS  int64     `json:"clock_skew_ms,omitempty"`
	MemoryBytes  uint64    `json:"memory_bytes"`
	BytesIn      int64     `json:"bytes_in"`
	BytesOut     int64     `json:"bytes_out"`
	Problems     []string  `json:"problems"`
}

// Away says how others can write to this node while it is away.
type Away struct {
	Mailboxes int  `json:"mailboxes"` // relays that keep mail for it
	Findable  bool `json:"findable"`  // its keys were left in the network's lookup table
}

// PathCount counts connected peers by path.
type PathCount struct {
	Total   int `json:"total"`
	LAN     int `json:"lan"`
	Direct  int `json:"direct"`
	Punched int `json:"punched"`
	Relayed int `json:"relayed"`
}

// Relay is one configured or found relay and how this node stands with it.
type Relay struct {
	PeerID    string `json:"peer_id"`
	Connected bool   `json:"connected"`
	Reserved  bool   `json:"reserved"` // a circuit reservation stands
	Topics    int    `json:"topics"`   // rooms it forwards for us
	Error     string `json:"error,omitempty"`
}

// States of [Storage].
const (
	StorageOK        = "ok"
	StorageNoHistory = "no_history" // the disk is nearly full: own messages only
	StorageReadOnly  = "read_only"  // the disk is full: nothing is accepted
	StorageFailed    = "failed"     // the disk failed: nothing is accepted until a restart
)

// Storage is the state of the disk.
type Storage struct {
	State     string `json:"state"` // see StorageOK
	FreeBytes uint64 `json:"free_bytes"`
	Messages  int    `json:"messages"`
	Bytes     int64  `json:"bytes"`
}

// Gossip counts what the fast path did and lost since the start.
type Gossip struct {
	Published  uint64 `json:"published"`
	Delivered  uint64 `json:"delivered"`
	Duplicates uint64 `json:"duplicates"`
	Rejected   uint64 `json:"rejected"`
	Ignored    uint64 `json:"ignored"`
	Dropped    uint64 `json:"dropped"` // outbound, inbound and subscription queues together
}

// Peer is one connected peer.
type Peer struct {
	PeerID  string  `json:"peer_id"`
	Account string  `json:"account,omitempty"`
	Nick    string  `json:"nick,omitempty"`
	Path    string  `json:"path"`
	Addr    string  `json:"addr"`
	RTTMS   float64 `json:"rtt_ms"`
	Relay   bool    `json:"relay,omitempty"` // it is a relay node
	Rooms   int     `json:"rooms"`           // rooms shared
	Agent   string  `json:"agent,omitempty"`
}

// PingResult is one round trip to a peer.
type PingResult struct {
	PeerID string  `json:"peer_id"`
	Path   string  `json:"path"`
	Addr   string  `json:"addr"`
	RTTMS  float64 `json:"rtt_ms"`
}

// Doctor is a report of reachability: what works, what does not, and what to do about it.
type Doctor struct {
	Schema int     `json:"schema"`
	OK     bool    `json:"ok"`
	Checks []Check `json:"checks"`
}

// Check is one finding of [Doctor].
type Check struct {
	Name   string `json:"name"`
	Status string `json:"status"` // ok, warn, fail, skip
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
}
