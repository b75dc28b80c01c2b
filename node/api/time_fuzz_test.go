package api

import (
	"encoding/json"
	"testing"
	"time"
)

// Whatever is read as a time is written so that it is read as the same.
func FuzzTime(f *testing.F) {
	f.Add([]byte(`"2026-01-31T08:00:00.123Z"`))
	f.Add([]byte(`"2026-01-31T08:00:00+09:00"`))
	f.Add([]byte(`null`))
	f.Add([]byte(`""`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var first, second Time
		if json.Unmarshal(b, &first) != nil {
			return
		}
		again, err := json.Marshal(first)
		if err != nil {
			t.Fatal(err)
		}
		if err := second.UnmarshalJSON(again); err != nil || !second.Equal(first.Truncate(time.Millisecond)) {
			t.Errorf("%s is read as %v, written as %s and read as %v, %v", b, first, again, second, err)
		}
	})
}
