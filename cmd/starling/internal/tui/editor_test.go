package tui

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestEditorKeys(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps []string // keys, or "=text|cursor" to check
	}{
		{"typing", []string{"a", "b", "=ab|2"}},
		{"in the middle", []string{"a", "c", "left", "b", "=abc|2"}},
		{"home and end", []string{"a", "b", "home", "x", "end", "y", "=xaby|4"}},
		{"ctrl+k and ctrl+y", []string{"a", "b", "ctrl+a", "ctrl+k", "=|0", "ctrl+y", "ctrl+y", "=abab|4"}},
		{"ctrl+k with nothing to take keeps what was taken", []string{"a", "ctrl+u", "ctrl+k", "ctrl+y", "=a|1"}},
		{"ctrl+w", []string{"o", "n", "e", " ", "t", "w", "o", " ", "ctrl+w", "=one |4"}},
		{"alt+b and alt+d", []string{"a", " ", "b", "b", "alt+b", "alt+d", "=a |2"}},
		{"ctrl+t at the end", []string{"a", "b", "ctrl+t", "=ba|2"}},
		{"ctrl+t in the middle", []string{"a", "b", "c", "left", "ctrl+t", "=acb|3"}},
		{"an accent joins", []string{"e", "\u0301", "=e\u0301|1", "backspace", "=|0"}},
		{"lines", []string{"a", "alt+enter", "b", "home", "=a\nb|2", "backspace", "=ab|1"}},
		{"a family is one character", []string{"👨", "\u200d", "👩", "=👨\u200d👩|1", "left", "=👨\u200d👩|0", "delete", "=|0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var e editor
			for _, s := range c.steps {
				if want, ok := strings.CutPrefix(s, "="); ok {
					text, cursor, _ := strings.Cut(want, "|")
					if e.String() != text || string(rune('0'+e.cursor)) != cursor {
						t.Errorf("%q at %d, want %q at %s", e.String(), e.cursor, text, cursor)
					}
				} else if f := edits[s]; f != nil {
					f(&e)
				} else {
					e.insert(s)
				}
			}
		})
	}
}

func TestEditorHistory(t *testing.T) {
	var e editor
	for _, s := range []string{"one", "two", "two"} {
		e.set(s)
		e.remember()
	}
	e.insert("draft")
	for _, want := range []string{"two", "one", "one"} {
		e.browse(-1)
		if e.String() != want {
			t.Errorf("%q, want %q", e.String(), want)
		}
	}
	e.browse(1)
	e.browse(1)
	if e.String() != "draft" {
		t.Errorf("what was being written came back as %q", e.String())
	}
}

// TestEditorAgainstRunes compares the editor with a slice of runes and a cursor, for text in which
// every rune is a cluster.
func TestEditorAgainstRunes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var e editor
		var text []rune
		at := 0
		keys := []string{"left", "right", "home", "end", "backspace", "delete", "ctrl+k", "ctrl+u"}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			k := rapid.OneOf(rapid.SampledFrom(keys), rapid.StringMatching(`[a-c你 \n]{1,3}`)).Draw(t, "key")
			start, end := at, at
			for start > 0 && text[start-1] != '\n' {
				start--
			}
			for end < len(text) && text[end] != '\n' {
				end++
			}
			remove := func(from, to int) { text, at = append(append([]rune{}, text[:from]...), text[to:]...), from }
			switch k {
			case "left":
				at = max(0, at-1)
			case "right":
				at = min(len(text), at+1)
			case "home":
				at = start
			case "end":
				at = end
			case "backspace":
				if at > 0 {
					remove(at-1, at)
				}
			case "delete":
				if at < len(text) {
					remove(at, at+1)
				}
			case "ctrl+k":
				remove(at, end)
			case "ctrl+u":
				remove(start, at)
			default:
				r := []rune(k)
				text, at = append(append(append([]rune{}, text[:at]...), r...), text[at:]...), at+len(r)
				e.insert(k)
				k = ""
			}
			if f := edits[k]; f != nil {
				f(&e)
			}
			if e.String() != string(text) || e.cursor != at {
				t.Fatalf("%q at %d, want %q at %d", e.String(), e.cursor, string(text), at)
			}
		}
	})
}

// TestEditorHoldsAnyText holds that whatever is inserted anywhere stays, in clusters.
func TestEditorHoldsAnyText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := editor{metric: rapid.SampledFrom([]metric{byRune, byCluster}).Draw(t, "metric")}
		want := ""
		for range rapid.IntRange(1, 8).Draw(t, "inserts") {
			s := clean(texts(t, "text"))
			before := strings.Join(e.text[:e.cursor], "")
			want = before + s + want[len(before):]
			e.insert(s)
			if e.String() != want {
				t.Fatalf("%q, want %q", e.String(), want)
			}
			if got := strings.Join(e.text[:e.cursor], ""); !strings.HasPrefix(got, before+s) && s != "" {
				t.Fatalf("the cursor stands after %q, not after %q", got, before+s)
			}
			e.cursor = rapid.IntRange(0, len(e.text)).Draw(t, "cursor")
		}
	})
}

func TestInputLayout(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := editor{metric: rapid.SampledFrom([]metric{byRune, byCluster}).Draw(t, "metric")}
		e.set(clean(texts(t, "text")))
		width := rapid.IntRange(6, 60).Draw(t, "width")
		rows, places := e.layout(width)
		if len(places) != len(e.text)+1 {
			t.Fatalf("%d places for %d clusters", len(places), len(e.text))
		}
		for _, r := range rows {
			if e.width(r) > width-1 {
				t.Fatalf("row %q takes %d of %d cells", r, e.width(r), width)
			}
		}
		for i, p := range places {
			if p.row >= len(rows) || p.col > e.width(rows[p.row]) || i > 0 && (p.row < places[i-1].row || p.row == places[i-1].row && p.col < places[i-1].col) {
				t.Fatalf("cluster %d is at %+v", i, p)
			}
		}
	})
}

func TestPastAcrossRuns(t *testing.T) {
	n := newFakeNode(t)
	d := newDriver(t, n, 80, 24)
	d.enter("/join #den secret")
	d.enter("first")
	d.typed("cleared")
	d.keys("ctrl+c")
	d.second()
	if kept := n.setting(settingPast); kept != `["/join #den","first","cleared"]` {
		t.Errorf("the node keeps %s", kept)
	}
	d.typed("left at once")
	d.keys("ctrl+c")
	if left := d.finish(t.Context()); left != 0 {
		t.Errorf("%d messages were left", left)
	}

	d = newDriver(t, n, 80, 24)
	for _, want := range []string{"left at once", "cleared", "first", "/join #den"} {
		d.keys("up")
		if got := d.input.String(); got != want {
			t.Errorf("recalled %q, want %q", got, want)
		}
	}
	d.keys("down", "down", "down", "down")
	if got := d.input.String(); got != "" {
		t.Errorf("at the end there is %q", got)
	}
	// What cannot be read, or would be too much, is no harm.
	for _, kept := range []string{"{", `["a\u001b[2Jb"]`, `[]`} {
		if err := d.api.SetSetting(t.Context(), settingPast, kept); err != nil {
			t.Fatal(err)
		}
		newDriver(t, n, 80, 24).keys("up", "up")
	}
	if text := pastText([]string{"old", strings.Repeat("<", 20<<10), "newer", "new"}); text != `["newer","new"]` {
		t.Errorf("kept is %.100s", text)
	}
}

// TestLeftWhileADraftIsSaved leaves while an older state of the draft is on its way to the node. What
// was saved must be what stood there last: once "/quit" came back as a draft.
func TestLeftWhileADraftIsSaved(t *testing.T) {
	n := newFakeNode(t)
	d := newDriver(t, n, 80, 24)
	d.typed("/quit")
	save := d.keepDraft() // what a tick does
	if save == nil {
		t.Fatal("nothing is saved")
	}
	d.send(keyPress("enter"))
	if left := d.finish(t.Context()); left != 0 {
		t.Errorf("%d messages were left", left)
	}
	save() // comes too late
	if kept := n.setting(draftKey(d.current)); kept != "" {
		t.Errorf("the node keeps %s", kept)
	}
}
