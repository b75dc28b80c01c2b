package wire

import (
	"encoding/hex"
	"errors"
	"testing"
	"time"
)

// Where records lie: frozen, since others look there.
func TestRecordKeys(t *testing.T) {
	for name, c := range map[string]struct {
		got  RecordKey
		want string
	}{
		"device list": {DeviceListKey(AccountID(fill("account"))), "7bacfb9e37cefdfff429bcd7254556589074094fbbb82292c70d91aec3e8d4b5"},
		"prekeys":     {PrekeysKey(DeviceID(fill("device"))), "664c19c68fbf76fa0125af677f1f144c6e447a67bd9f610ff2cd60889e5349ee"},
	} {
		if got := hex.EncodeToString(c.got[:]); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestCheckLookup(t *testing.T) {
	list, rawList := testDeviceList(t)
	prekeys, rawPrekeys := testPrekeyRecord(t)
	listKey, listValue := EncodeLookup(&LookupRecord{DeviceList: list, Raw: rawList})
	key, value := EncodeLookup(&LookupRecord{Prekeys: prekeys, Raw: rawPrekeys})
	now := testTime.Add(time.Hour)
	flipped := append([]byte{}, value...)
	flipped[len(flipped)-1] ^= 1
	otherKind := append([]byte{lookupDeviceList}, rawPrekeys...)
	unknown := append([]byte{9}, rawPrekeys...)
	for name, c := range map[string]struct {
		key   RecordKey
		value []byte
		now   time.Time
		want  error
	}{
		"device list":              {listKey, listValue, now, nil},
		"prekeys":                  {key, value, now, nil},
		"under another's key":      {listKey, value, now, ErrInvalid},
		"as another kind":          {key, otherKind, now, ErrInvalid},
		"of a newer kind":          {key, unknown, now, ErrUnsupported},
		"with a flipped bit":       {key, flipped, now, ErrInvalid},
		"expired":                  {key, value, prekeys.Expires, ErrInvalid},
		"expired list":             {listKey, listValue, list.Expires, ErrInvalid},
		"issued tomorrow":          {key, value, testTime.Add(-maxRecordAhead - time.Second), ErrInvalid},
		"issued within the hour":   {key, value, testTime.Add(-time.Hour), nil},
		"cut":                      {key, value[:len(value)-10], now, ErrInvalid},
		"nothing":                  {key, nil, now, ErrInvalid},
		"longer than any record":   {key, make([]byte, MaxLookup+1), now, ErrInvalid},
		"only the kind":            {key, value[:1], now, ErrInvalid},
		"with bytes at the end":    {key, append(append([]byte{}, value...), 0), now, ErrInvalid},
		"list with bytes appended": {listKey, append(append([]byte{}, listValue...), 0), now, ErrInvalid},
	} {
		if _, err := CheckLookup(c.key, c.value, c.now); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// The number decides which of two records stays, and of two with one number everybody chooses the same.
func TestNewerLookup(t *testing.T) {
	make := func(sequence uint64, id uint32) []byte {
		r, _ := testPrekeyRecord(t)
		r.Sequence, r.PrekeyID = sequence, id
		raw, err := r.Sign(testKey("ada/laptop"))
		must(t, err)
		_, value := EncodeLookup(&LookupRecord{Prekeys: r, Raw: raw})
		return value
	}
	old, young, twin := make(3, 5), make(4, 5), make(4, 6)
	if !NewerLookup(young, old) || NewerLookup(old, young) || NewerLookup(old, old) {
		t.Error("the greater number must win")
	}
	if NewerLookup(young, twin) == NewerLookup(twin, young) {
		t.Error("of two records with one number exactly one must win")
	}
}
