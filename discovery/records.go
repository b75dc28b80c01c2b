package discovery

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	ds "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	dhtrecord "github.com/libp2p/go-libp2p-record"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"
)

// Records decide what may lie in the DHT beside the addresses of peers. An implementation is safe for
// concurrent use: strangers' records are checked as they come.
type Records interface {
	// Check says why a value may not lie under a key now, or nil.
	Check(key Key, value []byte) error
	// Newer says whether value a takes the place of b; of two different ones exactly one does.
	Newer(a, b []byte) bool
}

const (
	// recordSpace is the name under which our records lie in the DHT.
	recordSpace = "starling"
	// recordAge is how long a server keeps a record that nobody renews. Records have an expiry of their
	// own, which ends first.
	recordAge = 30 * 24 * time.Hour
	// maxTable and maxTableBytes bound the records that a server keeps: at 1.8 kB a record some 9,000
	// devices. Beyond, those farthest from the server's own place in the table go first: they are others'
	// to keep, and who wants to push one out has to compute keys that lie near.
	maxTable      = 16384
	maxTableBytes = 16 << 20
	// tableProof is how many bytes besides the value an entry costs.
	tableProof = 256

	tablePrefix  = "record/"
	tableVersion = 1
)

// ErrNoRecord says that nobody who was asked has a record.
var ErrNoRecord = errors.New("no such record in the DHT")

// errTableFull refuses a record that lies too far away.
var errTableFull = errors.New("the table of records is full")

// validator lets only good records in. It implements the validator of go-libp2p-record.
type validator struct{ rules Records }

func (v validator) Validate(key string, value []byte) error {
	k, err := recordKey(key)
	if err != nil {
		return err
	}
	return v.rules.Check(k, value)
}

// Select returns the place of the best of several values. They have all been validated.
func (v validator) Select(_ string, values [][]byte) (int, error) {
	if len(values) == 0 {
		return 0, errors.New("choosing among no records")
	}
	best := 0
	for i, value := range values[1:] {
		if v.rules.Newer(value, values[best]) {
			best = i + 1
		}
	}
	return best, nil
}

func recordKey(name string) (Key, error) {
	rest, ok := strings.CutPrefix(name, "/"+recordSpace+"/")
	if !ok || len(rest) != len(Key{}) {
		return Key{}, errors.New("record under a key of another form")
	}
	return Key([]byte(rest)), nil
}

func recordName(key Key) string { return "/" + recordSpace + "/" + string(key[:]) }

// recordOptions make a DHT keep records.
func (d *DHT) recordOptions(ctx context.Context) ([]dht.Option, error) {
	if d.cfg.Records == nil {
		return []dht.Option{dht.DisableValues()}, nil
	}
	t, err := newTable(ctx, d.host.ID(), d.cfg.Store)
	if err != nil {
		return nil, err
	}
	return []dht.Option{
		dht.Validator(dhtrecord.NamespacedValidator{recordSpace: validator{d.cfg.Records}}),
		dht.MaxRecordAge(recordAge),
		dht.Datastore(t),
	}, nil
}

// Put leaves a record with the servers nearest to its key, once. A nil error says that they were asked.
func (d *DHT) Put(ctx context.Context, key Key, value []byte) error {
	kad := d.kad.Load()
	if kad == nil || !d.Ready() {
		return errDHTStopped
	}
	if err := kad.PutValue(ctx, recordName(key), value); err != nil {
		return fmt.Errorf("leaving a record in the DHT: %w", err)
	}
	return nil
}

// Get looks a record up and returns the newest one found. ErrNoRecord: nobody has one.
func (d *DHT) Get(ctx context.Context, key Key) ([]byte, error) {
	kad := d.kad.Load()
	if kad == nil || !d.Ready() {
		return nil, errDHTStopped
	}
	value, err := kad.GetValue(ctx, recordName(key))
	if errors.Is(err, routing.ErrNotFound) {
		return nil, ErrNoRecord
	}
	if err != nil && len(value) == 0 {
		return nil, fmt.Errorf("looking a record up in the DHT: %w", err)
	}
	return value, nil
}

// table keeps the DHT's records, in bounds, and on the disk if there is a store: records of those who are
// away outlive a server's restart. What the DHT keeps of providers goes to the datastore inside.
type table struct {
	ds.Batching
	self  [32]byte
	store Store

	mu    sync.Mutex // guards all below
	held  map[ds.Key][]byte
	bytes int
}

func newTable(ctx context.Context, self peer.ID, store Store) (*table, error) {
	t := &table{
		Batching: dssync.MutexWrap(ds.NewMapDatastore()), self: sha256.Sum256([]byte(self)),
		store: store, held: make(map[ds.Key][]byte),
	}
	if store == nil {
		return t, nil
	}
	var stale [][]byte
	err := store.Each(ctx, []byte(tablePrefix), func(key, value []byte) bool {
		if len(value) < 1 || value[0] != tableVersion {
			stale = append(stale, bytes.Clone(key))
			return true
		}
		t.put(ds.RawKey(string(key[len(tablePrefix):])), bytes.Clone(value[1:]))
		return true
	})
	for _, key := range stale {
		err = errors.Join(err, store.Delete(ctx, key))
	}
	if err != nil {
		return nil, fmt.Errorf("reading the records of the DHT: %w", err)
	}
	return t, nil
}

// isValue tells a record from what the DHT keeps of providers.
func isValue(k ds.Key) bool { return !strings.HasPrefix(k.String(), "/providers/") }

// Get implements ds.Datastore.
func (t *table) Get(ctx context.Context, k ds.Key) ([]byte, error) {
	if !isValue(k) {
		return t.Batching.Get(ctx, k)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if v, ok := t.held[k]; ok {
		return v, nil
	}
	return nil, ds.ErrNotFound
}

// Has implements ds.Datastore.
func (t *table) Has(ctx context.Context, k ds.Key) (bool, error) {
	if !isValue(k) {
		return t.Batching.Has(ctx, k)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.held[k]
	return ok, nil
}

// GetSize implements ds.Datastore.
func (t *table) GetSize(ctx context.Context, k ds.Key) (int, error) {
	if !isValue(k) {
		return t.Batching.GetSize(ctx, k)
	}
	v, err := t.Get(ctx, k)
	return len(v), err
}

// Put implements ds.Datastore.
func (t *table) Put(ctx context.Context, k ds.Key, v []byte) error {
	if !isValue(k) {
		return t.Batching.Put(ctx, k, v)
	}
	pushed := t.put(k, bytes.Clone(v))
	var err error
	full := false
	for _, out := range pushed {
		if full = full || out == k; t.store != nil {
			err = errors.Join(err, t.store.Delete(ctx, []byte(tablePrefix+out.String())))
		}
	}
	if full {
		return errors.Join(errTableFull, err)
	}
	if t.store != nil {
		err = errors.Join(err, t.store.Put(ctx, []byte(tablePrefix+k.String()), append([]byte{tableVersion}, v...)))
	}
	return err
}

// Delete implements ds.Datastore.
func (t *table) Delete(ctx context.Context, k ds.Key) error {
	if !isValue(k) {
		return t.Batching.Delete(ctx, k)
	}
	t.mu.Lock()
	t.drop(k)
	t.mu.Unlock()
	if t.store == nil {
		return nil
	}
	return t.store.Delete(ctx, []byte(tablePrefix+k.String()))
}

// put takes a record in and returns what had to go for it, which may be itself.
func (t *table) put(k ds.Key, v []byte) (pushed []ds.Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(k)
	t.held[k] = v
	t.bytes += len(v) + tableProof
	for len(t.held) > maxTable || t.bytes > maxTableBytes {
		far := t.farthest()
		t.drop(far)
		pushed = append(pushed, far)
	}
	return pushed
}

// drop forgets a record; mu is held.
func (t *table) drop(k ds.Key) {
	if v, ok := t.held[k]; ok {
		delete(t.held, k)
		t.bytes -= len(v) + tableProof
	}
}

// farthest returns the record whose key is farthest from this server; mu is held.
func (t *table) farthest() ds.Key {
	var worst ds.Key
	var most uint64
	for k := range t.held {
		sum := sha256.Sum256([]byte(k.String()))
		if d := binary.BigEndian.Uint64(sum[:]) ^ binary.BigEndian.Uint64(t.self[:]); d >= most {
			worst, most = k, d
		}
	}
	return worst
}
