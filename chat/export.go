package chat

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/starling-chat/starling/chat/backup"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// This file says what of a store goes into a backup, and puts it into an empty one. docs/spec/backup.md
// lists the sections. Session states, prekeys and whatever belongs to this device stay out: a backup is
// for another device of the same account.

// Sections of a backup, and the newest version of each.
const (
	sectionProfile  = "profile"
	sectionSettings = "settings"
	sectionContacts = "contacts"
	sectionRooms    = "rooms"
	sectionRoomKeys = "room-keys"
	sectionRoomLog  = "room-log"
	sectionHistory  = "history"

	sectionVersion = 1
	// historyChunk bounds the records of one history section.
	historyChunk = 2000
	// restoreOps and restoreBytes bound one transaction of a restore.
	restoreOps   = 512
	restoreBytes = 512 << 10
)

// savedRow is a bucket's row in a backup, under its key.
type savedRow struct {
	Key string          `json:"key"` // hex
	Row json.RawMessage `json:"row"`
}

// savedHistory is a stretch of a direct conversation.
type savedHistory struct {
	Account   string        `json:"account"` // hex
	Records   []savedRecord `json:"records,omitempty"`
	Modifiers []savedValue  `json:"modifiers,omitempty"` // edits, deletions, reactions
	States    []savedValue  `json:"states,omitempty"`    // how far own messages came
}

type savedRecord struct {
	Time    uint64    `json:"time"`
	ID      string    `json:"id"` // hex
	Flags   uint8     `json:"flags"`
	Expires time.Time `json:"expires,omitzero"`
	Value   []byte    `json:"value"`
}

type savedValue struct {
	Key   []byte `json:"key"`
	Value []byte `json:"value"`
}

// savedBuckets are the buckets that go into a backup row by row, and back. A room's row has its secrets.
var savedBuckets = []struct{ section, bucket string }{
	{sectionContacts, bucketContacts},
	{sectionRooms, bucketRooms},
	{sectionRoomKeys, bucketEpochs},
}

// Export returns the sections of a backup of a store, with the direct messages if history is wanted; those
// of rooms come back from their members. It may run while the store is in use.
func Export(ctx context.Context, store *storage.Store, history bool) ([]backup.Section, error) {
	nick, err := store.GetBucket(ctx, bucketProfile, []byte(profileNick))
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return nil, fmt.Errorf("reading the nick: %w", err)
	}
	list, err := appendSection(nil, sectionProfile, map[string]string{"nick": string(nick)})
	if err != nil {
		return nil, err
	}
	settings := make(map[string]string)
	for kv, err := range store.ScanBucket(ctx, bucketSettings, nil) {
		if err != nil {
			return nil, fmt.Errorf("reading settings: %w", err)
		}
		settings[string(kv.Key)] = string(kv.Value)
	}
	if list, err = appendSection(list, sectionSettings, settings); err != nil {
		return nil, err
	}
	for _, saved := range savedBuckets {
		rows := []savedRow{}
		for kv, err := range store.ScanBucket(ctx, saved.bucket, nil) {
			if err != nil {
				return nil, fmt.Errorf("reading %s: %w", saved.section, err)
			}
			rows = append(rows, savedRow{hex.EncodeToString(kv.Key), json.RawMessage(kv.Value)})
		}
		if list, err = appendSection(list, saved.section, rows); err != nil {
			return nil, err
		}
	}
	if list, err = exportRoomLog(ctx, store, list); err != nil {
		return nil, fmt.Errorf("reading who is in private rooms: %w", err)
	}
	if !history {
		return list, nil
	}
	for kv, err := range store.ScanBucket(ctx, bucketDialogs, nil) {
		if err != nil {
			return nil, fmt.Errorf("reading conversations: %w", err)
		}
		if list, err = exportDialog(ctx, store, list, kv.Key); err != nil {
			return nil, fmt.Errorf("reading a conversation: %w", err)
		}
	}
	return list, nil
}

// exportRoomLog adds the membership events of private rooms.
func exportRoomLog(ctx context.Context, store *storage.Store, list []backup.Section) ([]backup.Section, error) {
	var part []savedValue
	for kv, err := range store.ScanBucket(ctx, bucketRoomLog, nil) {
		if err != nil {
			return nil, err
		}
		part = append(part, savedValue{slices.Clone(kv.Key), slices.Clone(kv.Value)})
		if len(part) == historyChunk {
			if list, err = appendSection(list, sectionRoomLog, part); err != nil {
				return nil, err
			}
			part = nil
		}
	}
	if len(part) == 0 {
		return list, nil
	}
	return appendSection(list, sectionRoomLog, part)
}

// restoreRoomLog puts membership events back, which prove their authors themselves.
func restoreRoomLog(ctx context.Context, r *restore, s *backup.Section) error {
	var part []savedValue
	if err := s.Decode(sectionVersion, &part); err != nil {
		return err
	}
	for _, v := range part {
		ev, err := wire.ParseEvent(v.Value)
		if err != nil || len(v.Key) != len(wire.RoomID{})+len(ev.ID) || wire.EventID(v.Key[len(wire.RoomID{}):]) != ev.ID {
			return fmt.Errorf("%w: a membership event of another form", backup.ErrDamaged)
		}
		if err := r.put(ctx, bucketRoomLog, v.Key, v.Value); err != nil {
			return err
		}
	}
	return nil
}

func appendSection(list []backup.Section, name string, v any) ([]backup.Section, error) {
	s, err := backup.Make(name, sectionVersion, v)
	if err != nil {
		return nil, err
	}
	return append(list, s), nil
}

// savedState returns how far an own message came, as bucketOutState has it, or storage.ErrNotFound.
func savedState(ctx context.Context, store *storage.Store, runs outRuns, rec storage.Record) ([]byte, error) {
	if r, err := decodeDMRecord(rec.Value); err == nil && r.Own && r.Content != nil {
		if row, ok := runs.at(r.Content.DeviceSeq); ok {
			return row.encode(), nil
		}
	}
	return store.GetBucket(ctx, bucketOutState, rec.ID[:])
}

// exportDialog appends the history of one direct conversation.
func exportDialog(ctx context.Context, store *storage.Store, list []backup.Section, account []byte) ([]backup.Section, error) {
	stream, err := store.Stream(ctx, "dm/"+string(account))
	if err != nil {
		return nil, err
	}
	runs, err := loadOutRuns(ctx, store, stream)
	if err != nil {
		return nil, err
	}
	part := savedHistory{Account: hex.EncodeToString(account)}
	flush := func() error {
		if len(part.Records)+len(part.Modifiers) == 0 {
			return nil
		}
		list, err = appendSection(list, sectionHistory, part)
		part = savedHistory{Account: part.Account}
		return err
	}
	for rec, err := range store.Scan(ctx, stream, storage.Range{}) {
		if err != nil {
			return nil, err
		}
		part.Records = append(part.Records, savedRecord{rec.Time, hex.EncodeToString(rec.ID[:]), rec.Flags, rec.Expires, rec.Value})
		state, err := savedState(ctx, store, runs, rec)
		if err == nil {
			part.States = append(part.States, savedValue{rec.ID[:], state})
		} else if !errors.Is(err, storage.ErrNotFound) {
			return nil, err
		}
		if len(part.Records) == historyChunk {
			if err := flush(); err != nil {
				return nil, err
			}
		}
	}
	for kv, err := range store.ScanBucket(ctx, bucketModifier, stream[:]) {
		if err != nil {
			return nil, err
		}
		part.Modifiers = append(part.Modifiers, savedValue{kv.Key[len(stream):], kv.Value})
	}
	return list, flush()
}

// Restore puts the sections of a backup into an empty store. Sections that are not chat's are left alone;
// one that is not known at all gives backup.ErrNewer, and nothing is written.
func Restore(ctx context.Context, store *storage.Store, sections []backup.Section, foreign func(name string) bool) error {
	for _, s := range sections {
		if !foreign(s.Name) && restorers[s.Name] == nil {
			return fmt.Errorf("section %.40q: %w", s.Name, backup.ErrNewer)
		}
		var any json.RawMessage
		if !foreign(s.Name) {
			if err := s.Decode(sectionVersion, &any); err != nil {
				return err
			}
		}
	}
	for kv, err := range store.ScanBucket(ctx, bucketProfile, nil) {
		if err != nil || kv.Key != nil {
			return errors.Join(err, errors.New("restoring: the store is not empty"))
		}
	}
	r := &restore{store: store, dialogs: make(map[wire.AccountID]*dialogRow)}
	for i := range sections {
		if do := restorers[sections[i].Name]; do != nil {
			if err := do(ctx, r, &sections[i]); err != nil {
				return fmt.Errorf("restoring the %s: %w", sections[i].Name, err)
			}
		}
	}
	for account, row := range r.dialogs {
		if err := r.put(ctx, bucketDialogs, account[:], encodeRow(row)); err != nil {
			return err
		}
	}
	return r.flush(ctx)
}

// restore is a store on its way to be filled.
type restore struct {
	store   *storage.Store
	batch   storage.Batch
	bytes   int
	dialogs map[wire.AccountID]*dialogRow
}

// restorers know the sections that are chat's.
var restorers = map[string]func(ctx context.Context, r *restore, s *backup.Section) error{
	sectionProfile:  restoreProfile,
	sectionSettings: restoreSettings,
	sectionContacts: restoreRows[contactRow](bucketContacts, len(wire.AccountID{})),
	sectionRooms:    restoreRows[roomRow](bucketRooms, len(wire.RoomID{})),
	sectionRoomKeys: restoreRows[epochRow](bucketEpochs, len(wire.RoomID{})+len(wire.TopicKey{})),
	sectionRoomLog:  restoreRoomLog,
	sectionHistory:  restoreHistory,
}

func (r *restore) put(ctx context.Context, bucket string, key, value []byte) error {
	r.batch.Put(bucket, key, value)
	return r.room(ctx, len(key)+len(value))
}

// room writes what has gathered when there is enough of it.
func (r *restore) room(ctx context.Context, size int) error {
	if r.bytes += size; r.batch.Len() < restoreOps && r.bytes < restoreBytes {
		return nil
	}
	return r.flush(ctx)
}

func (r *restore) flush(ctx context.Context) error {
	if r.batch.Len() == 0 {
		return nil
	}
	_, err := r.store.Commit(ctx, &r.batch, storage.Durable)
	r.batch, r.bytes = storage.Batch{}, 0
	return err
}

func restoreProfile(ctx context.Context, r *restore, s *backup.Section) error {
	var v struct {
		Nick string `json:"nick"`
	}
	if err := s.Decode(sectionVersion, &v); err != nil || v.Nick == "" {
		return err
	}
	if err := wire.CheckNick(v.Nick); err != nil {
		return fmt.Errorf("%w: %w", backup.ErrDamaged, err)
	}
	return r.put(ctx, bucketProfile, []byte(profileNick), []byte(v.Nick))
}

func restoreSettings(ctx context.Context, r *restore, s *backup.Section) error {
	var v map[string]string
	if err := s.Decode(sectionVersion, &v); err != nil {
		return err
	}
	for key, text := range v {
		if key == "" {
			return backup.ErrDamaged
		}
		if err := r.put(ctx, bucketSettings, []byte(key), []byte(text)); err != nil {
			return err
		}
	}
	return nil
}

// restoreRows puts rows back whose form this version knows.
func restoreRows[T any](bucket string, keySize int) func(ctx context.Context, r *restore, s *backup.Section) error {
	return func(ctx context.Context, r *restore, s *backup.Section) error {
		var rows []savedRow
		if err := s.Decode(sectionVersion, &rows); err != nil {
			return err
		}
		for _, row := range rows {
			key, err := hex.DecodeString(row.Key)
			if err != nil || len(key) != keySize {
				return fmt.Errorf("%w: a key of another form", backup.ErrDamaged)
			}
			if _, err := decodeRow[T](s.Name, row.Row); errors.Is(err, storage.ErrNewer) {
				return backup.ErrNewer
			} else if err != nil {
				return fmt.Errorf("%w: %w", backup.ErrDamaged, err)
			}
			if err := r.put(ctx, bucket, key, row.Row); err != nil {
				return err
			}
		}
		return nil
	}
}

func restoreHistory(ctx context.Context, r *restore, s *backup.Section) error {
	var part savedHistory
	if err := s.Decode(sectionVersion, &part); err != nil {
		return err
	}
	key, err := hex.DecodeString(part.Account)
	if err != nil || len(key) != len(wire.AccountID{}) {
		return fmt.Errorf("%w: a conversation with nobody", backup.ErrDamaged)
	}
	account := wire.AccountID(key)
	stream, err := r.store.Stream(ctx, "dm/"+string(account[:]))
	if err != nil {
		return err
	}
	row := r.dialogs[account]
	if row == nil {
		row = &dialogRow{Version: rowVersion}
		r.dialogs[account] = row
	}
	for _, saved := range part.Records {
		id, err := hex.DecodeString(saved.ID)
		if err != nil || len(id) != len(storage.ID{}) {
			return fmt.Errorf("%w: a record of another form", backup.ErrDamaged)
		}
		rec, err := decodeDMRecord(saved.Value)
		if err != nil {
			return fmt.Errorf("%w: %w", backup.ErrDamaged, err)
		}
		row.Arrival++
		row.Read = row.Arrival // it was read long ago
		if rec.Received.After(row.LastAt) {
			row.LastAt = rec.Received
		}
		r.batch.Append(storage.Record{Stream: stream, Time: saved.Time, ID: storage.ID(id), Flags: saved.Flags, Expires: saved.Expires, Value: saved.Value})
		if err := r.room(ctx, len(saved.Value)+256); err != nil {
			return err
		}
	}
	for _, m := range part.Modifiers {
		full := append(stream[:], m.Key...)
		if _, _, err := decodeModifier(full, m.Value); err != nil {
			return fmt.Errorf("%w: %w", backup.ErrDamaged, err)
		}
		if err := r.put(ctx, bucketModifier, full, m.Value); err != nil {
			return err
		}
	}
	for _, st := range part.States {
		if _, err := decodeOutState(st.Value); err != nil || len(st.Key) != len(MessageID{}) {
			return fmt.Errorf("%w: a state of another form", backup.ErrDamaged)
		}
		if err := r.put(ctx, bucketOutState, st.Key, st.Value); err != nil {
			return err
		}
	}
	return nil
}
