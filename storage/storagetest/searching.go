package storagetest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/starling-chat/starling/storage"
)

// addText appends a record and indexes it.
func (h harness) addText(s storage.StreamID, ms uint64, text string) storage.Record {
	h.t.Helper()
	r := h.add(Record(s, ms, text))[0]
	if err := h.Index(h.ctx, s, r.Arrival, text); err != nil {
		h.t.Fatal(err)
	}
	return r
}

func (h harness) find(query string, limit int, streams ...storage.StreamID) []string {
	h.t.Helper()
	hits, err := h.Search(h.ctx, query, streams, limit, func(r storage.Record) bool {
		return storage.TextMatches(query, string(r.Value))
	})
	if err != nil {
		h.t.Fatal(err)
	}
	var out []string
	for _, r := range hits {
		out = append(out, string(r.Value))
	}
	return out
}

func testSearch(t *testing.T, open Open) {
	h := start(t, open, nil)
	s := h.stream("room")
	texts := []string{
		"Deploy of the API finished", "deploy FAILED again", "今天天气很好", "天今气天", "lunch?", "",
		"ｆｕｌｌ　ｗｉｄｔｈ text", "naïve café", "東京タワーへ行く", "한국어 문장", "v2.1 released", "茶",
	}
	for i, text := range texts {
		h.addText(s, uint64(i+1), text)
	}
	check := func() {
		t.Helper()
		for query, want := range map[string][]string{
			"deploy":      {texts[1], texts[0]},
			"DEPLOY api":  {texts[0]},
			"deploy the":  {texts[0]},
			"deplo":       nil,
			"天气":          {texts[2]},
			"今天 很好":       {texts[2]},
			"天":           {texts[3], texts[2]},
			"full width":  {texts[6]},
			"café":        {texts[7]},
			"cafe\u0301":  {texts[7]},
			"タワー":         {texts[8]},
			"문장":          {texts[9]},
			"v2 1":        {texts[10]},
			"茶":           {texts[11]},
			"nothing":     nil,
			"?!":          nil,
			"api missing": nil,
		} {
			if got := h.find(query, 10, s); !slices.Equal(got, want) {
				t.Errorf("%q found %q, want %q", query, got, want)
			}
		}
	}
	check() // from memory
	if err := h.FlushSearch(h.ctx); err != nil {
		t.Fatal(err)
	}
	check() // as written
	if to, err := h.IndexedTo(h.ctx, s); err != nil || to != uint64(len(texts)) {
		t.Fatalf("indexed to %d, %v", to, err)
	}
	h.equal(h.find("deploy", 1, s), texts[1:2])
	h.addText(s, 100, "deploy, a third")
	h.equal(h.find("deploy", 10, s), []string{"deploy, a third", texts[1], texts[0]})
	h.sound()
}

func testSearchStreams(t *testing.T, open Open) {
	h := start(t, open, nil)
	a, b, c := h.stream("a"), h.stream("b"), h.stream("c")
	for i := range 3000 { // more than one block
		s := a
		if i%3 == 0 {
			s = b
		}
		text := fmt.Sprintf("word n%d", i)
		if i%500 == 0 {
			text += " rare"
		}
		h.addText(s, uint64(i+1), text)
		if i == 1700 {
			if err := h.FlushSearch(h.ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	h.equal(h.find("rare", 4, a, b, c), []string{"word n2500 rare", "word n2000 rare", "word n1500 rare", "word n1000 rare"})
	h.equal(h.find("rare", 100, b), []string{"word n1500 rare", "word n0 rare"})
	h.equal(h.find("word", 3, a, b), []string{"word n2999", "word n2998", "word n2997"})
	h.equal(h.find("n17", 3, a, b), []string{"word n17"})
	h.equal(h.find("rare", 3), nil)
	if err := h.DropStream(h.ctx, b); err != nil {
		t.Fatal(err)
	}
	h.equal(h.find("rare", 2, a, b), []string{"word n2500 rare", "word n2000 rare"})
	h.sound()
}

func testSearchRebuild(t *testing.T, open Open) {
	h := start(t, open, nil)
	s := h.stream("room")
	secret := h.addText(s, 1, "the secret word")
	h.addText(s, 2, "the other word")
	gone := h.addText(s, 3, "a word that goes")
	if err := h.FlushSearch(h.ctx); err != nil {
		t.Fatal(err)
	}
	late := h.addText(s, 4, "the last secret word")
	h.commit(func(b *storage.Batch) {
		b.Replace(secret.ID, 0, []byte("redacted"))
		b.Remove(gone.ID)
	})
	all := func() []string { // what the index itself says
		hits, err := h.Search(h.ctx, "word", []storage.StreamID{s}, 10, func(storage.Record) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, r := range hits {
			out = append(out, string(r.Value))
		}
		return out
	}
	h.equal(all(), []string{"the last secret word", "the other word", "redacted"})
	for _, r := range []storage.Record{secret, late} {
		if err := h.Unindex(h.ctx, s, r.Arrival, string(r.Value)); err != nil {
			t.Fatal(err)
		}
	}
	h.equal(all(), []string{"the other word"})
	if err := h.FlushSearch(h.ctx); err != nil {
		t.Fatal(err)
	}
	h.equal(all(), []string{"the other word"})
	if err := h.DropSearch(h.ctx, s); err != nil {
		t.Fatal(err)
	}
	h.equal(all(), nil)
	if to, err := h.IndexedTo(h.ctx, s); err != nil || to != 0 {
		t.Fatalf("indexed to %d, %v", to, err)
	}
	for range 2 { // giving a text twice is harmless
		for r, err := range h.ScanArrival(h.ctx, s, 0, 0) {
			if err != nil {
				t.Fatal(err)
			}
			if err := h.Index(h.ctx, s, r.Arrival, string(r.Value)); err != nil {
				t.Fatal(err)
			}
		}
	}
	h.equal(all(), []string{"the last secret word", "the other word"})
	h.sound()
}
