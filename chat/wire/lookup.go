package wire

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"time"
)

// This file says how records lie in the network's lookup table (docs/spec/identity.md, section 4): under
// a key that follows from whom the record is of, with a byte in front that says which record it is.

// RecordKey is where a record lies in the lookup table. It tells who knows the account or device where to
// look, and others nothing.
type RecordKey [32]byte

// The first byte of a record in the lookup table.
const (
	lookupDeviceList = 1
	lookupPrekeys    = 2
)

// MaxLookup bounds a record in the lookup table, in bytes.
const MaxLookup = 1 + MaxRecord

// maxRecordAhead is how far ahead of the local clock a record may have been issued.
const maxRecordAhead = 24 * time.Hour

// DeviceListKey is where an account's device list lies: SHA-256("starling/record/device-list/1" || account).
func DeviceListKey(a AccountID) RecordKey {
	return recordKey("starling/record/device-list/1", a[:])
}

// PrekeysKey is where a device's prekey record lies: SHA-256("starling/record/prekeys/1" || device).
func PrekeysKey(d DeviceID) RecordKey { return recordKey("starling/record/prekeys/1", d[:]) }

func recordKey(label string, id []byte) RecordKey {
	h := sha256.New()
	h.Write([]byte(label))
	h.Write(id)
	return RecordKey(h.Sum(nil))
}

// LookupRecord is a record as it lies in the lookup table; one of its fields is set.
type LookupRecord struct {
	DeviceList *DeviceList
	Prekeys    *PrekeyRecord
	Raw        []byte // the record as signed
}

// EncodeLookup returns the form in which a signed record lies in the lookup table, and where.
func EncodeLookup(r *LookupRecord) (RecordKey, []byte) {
	kind := byte(lookupPrekeys)
	if r.DeviceList != nil {
		kind = lookupDeviceList
	}
	return r.Key(), append([]byte{kind}, r.Raw...)
}

// Key returns where the record belongs.
func (r *LookupRecord) Key() RecordKey {
	if r.DeviceList != nil {
		return DeviceListKey(r.DeviceList.Account)
	}
	return PrekeysKey(r.Prekeys.Certificate.Device)
}

// Sequence returns the record's number.
func (r *LookupRecord) Sequence() uint64 {
	if r.DeviceList != nil {
		return r.DeviceList.Sequence
	}
	return r.Prekeys.Sequence
}

// ParseLookup reads a record from the lookup table without verifying it.
func ParseLookup(value []byte) (*LookupRecord, error) {
	if len(value) < 2 || len(value) > MaxLookup {
		return nil, invalidf("record of %d bytes in the lookup table", len(value))
	}
	r := &LookupRecord{Raw: bytes.Clone(value[1:])}
	var err error
	switch value[0] {
	case lookupDeviceList:
		r.DeviceList, err = ParseDeviceList(r.Raw)
	case lookupPrekeys:
		r.Prekeys, err = ParsePrekeyRecord(r.Raw)
	default:
		err = fmt.Errorf("%w: record of kind %d in the lookup table", ErrUnsupported, value[0])
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// CheckLookup says whether a value may lie under a key now: it is the record that belongs there, its
// signatures hold, it has been issued and has not expired.
func CheckLookup(key RecordKey, value []byte, now time.Time) (*LookupRecord, error) {
	r, err := ParseLookup(value)
	if err != nil {
		return nil, err
	}
	if r.Key() != key {
		return nil, invalidf("record lies under the key of another")
	}
	issued, current := time.Time{}, false
	if r.DeviceList != nil {
		err, issued, current = r.DeviceList.Verify(), r.DeviceList.Issued, r.DeviceList.Current(now)
	} else {
		err, issued, current = r.Prekeys.Verify(), r.Prekeys.Issued, r.Prekeys.Current(now)
	}
	switch {
	case err != nil:
		return nil, err
	case !current:
		return nil, invalidf("record has expired")
	case issued.After(now.Add(maxRecordAhead)):
		return nil, invalidf("record of the future")
	}
	return r, nil
}

// NewerLookup says whether value a takes the place of b, both of which CheckLookup accepts under one key:
// the greater sequence number does; of two with the same number the smaller bytes, so that all agree.
func NewerLookup(a, b []byte) bool {
	x, err := ParseLookup(a)
	if err != nil {
		return false
	}
	y, err := ParseLookup(b)
	if err != nil {
		return true
	}
	if x.Sequence() != y.Sequence() {
		return x.Sequence() > y.Sequence()
	}
	return bytes.Compare(a, b) < 0
}
