package api

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// shapes holds one of each object that crosses the API.
func shapes() []any {
	return []any{
		Me{},
		Status{},
		Peer{},
		PingResult{},
		Doctor{},
		CheckReport{},
		Conversation{},
		Member{},
		Contact{},
		Verification{},
		OutboxEntry{},
		Invite{},
		Message{},
		Digest{},
		Event{},
		SendResult{},
		Error{},
		JoinRequest{},
		SendRequest{},
		BatchItem{},
		ContactRequest{},
		ContactChange{},
		InviteRequest{},
		NickRequest{},
		PingRequest{},
		TargetRequest{},
		TopicRequest{},
		ReadRequest{},
		MuteRequest{},
		CreateRoomRequest{},
		PolicyRequest{},
		MemberChange{},
		TrustRequest{},
		OutboxChange{},
		Setting{},
		Retention{},
		Imported{},
	}
}

// fill gives every field a value that shows in JSON, so that a renamed, dropped or retyped field
// changes the golden file.
func fill(v reflect.Value, field string, depth int) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(strings.ToLower(field))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint64:
		v.SetUint(8)
	case reflect.Float64:
		v.SetFloat(1.5)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), field, depth)
	case reflect.Pointer:
		if depth > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem(), field, depth-1)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[Time]() {
			v.Set(reflect.ValueOf(Time{time.Date(2026, 1, 2, 3, 4, 5, 678_900_000, time.FixedZone("", 3600))}))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), v.Type().Field(i).Name, depth)
		}
	}
}

func render(t *testing.T, full bool) []byte {
	t.Helper()
	out := map[string]any{}
	for _, s := range shapes() {
		v := reflect.New(reflect.TypeOf(s)).Elem()
		if full {
			fill(v, v.Type().Name(), 1)
		}
		out[v.Type().Name()] = v.Interface()
	}
	b, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

// TestShapes keeps the JSON of every object as it was: scripts and other people's clients read it.
// A field may be added (run with -update); one that is renamed or dropped breaks them.
func TestShapes(t *testing.T) {
	for _, c := range []struct {
		file string
		full bool
	}{{"testdata/shapes.golden.json", true}, {"testdata/shapes-empty.golden.json", false}} {
		got := render(t, c.full)
		if *update {
			if err := os.WriteFile(c.file, got, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(c.file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("the JSON shapes differ from %s; if only fields were added, run with -update and read the diff.\ngot:\n%s", c.file, got)
		}
	}
}

// TestShapesReadBack checks that reading a shape gives the value that was written.
func TestShapesReadBack(t *testing.T) {
	for _, s := range shapes() {
		v := reflect.New(reflect.TypeOf(s))
		fill(v.Elem(), v.Elem().Type().Name(), 1)
		b, err := json.Marshal(v.Interface())
		if err != nil {
			t.Fatal(err)
		}
		back := reflect.New(reflect.TypeOf(s))
		dec := json.NewDecoder(bytes.NewReader(b))
		dec.DisallowUnknownFields()
		if err := dec.Decode(back.Interface()); err != nil {
			t.Fatalf("%T: %v", s, err)
		}
		again, err := json.Marshal(back.Interface())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b, again) {
			t.Errorf("%T: wrote %s, read back %s", s, b, again)
		}
	}
}

func TestTime(t *testing.T) {
	tests := []struct{ in, want string }{
		{`null`, `null`},
		{`""`, `null`},
		{`"2026-01-02T03:04:05Z"`, `"2026-01-02T03:04:05.000Z"`},
		{`"2026-01-02T03:04:05.6789+01:00"`, `"2026-01-02T02:04:05.678Z"`},
	}
	for _, tt := range tests {
		var v Time
		if err := json.Unmarshal([]byte(tt.in), &v); err != nil {
			t.Fatalf("%s: %v", tt.in, err)
		}
		got, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != tt.want {
			t.Errorf("%s is written back as %s, want %s", tt.in, got, tt.want)
		}
	}
	for _, bad := range []string{`"yesterday"`, `5`, `"2026-01-02"`} {
		var v Time
		if err := json.Unmarshal([]byte(bad), &v); err == nil {
			t.Errorf("%s was accepted as %v", bad, v)
		}
	}
}
