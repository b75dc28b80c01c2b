package tui

import (
	"cmp"
	"slices"
	"time"

	"github.com/starling-chat/starling/node/api"
)

// Sizes of the window of messages that is held for each conversation. What lies outside is loaded
// from the node when it is scrolled to, so the cost follows what is looked at.
const (
	pageSize  = 100
	maxLoaded = 500
)

// room is what the UI holds of one conversation: a window of its messages and where the reader is.
type room struct {
	entries []*entry // in display order
	byID    map[string]*entry

	loaded  bool          // the newest page was asked for and came
	loading bool          // a page is on its way
	early   []api.Message // arrived while the newest page was on its way
	atStart bool          // nothing older exists
	atEnd   bool          // the window reaches the newest message

	// The view ends at entries[bottom], skipping the last skip lines of its block; following means
	// that it stays at the newest message.
	following bool
	bottom    int
	skip      int

	unreadFrom uint64 // seq of the first message that was unread when the conversation was opened; 0: none
	draft      string
	editing    string // id of the own message being edited
	replyTo    string
	members    []api.Member
	typing     map[string]typist // by account
}

// typist is somebody who writes, by escaped nick, and until when that is believed.
type typist struct {
	nick  string
	until time.Time
}

// entry is one message and its lines at one width.
type entry struct {
	msg   api.Message
	lines []string
	width int
	style int // the generation of theme and language the lines were made with
}

func newRoom() *room {
	return &room{byID: map[string]*entry{}, following: true, typing: map[string]typist{}}
}

func order(a, b *entry) int {
	return cmp.Or(a.msg.SentAt.Compare(b.msg.SentAt.Time), cmp.Compare(a.msg.Seq, b.msg.Seq))
}

// put adds a message or replaces what is known of it; fresh says that it was not here.
func (r *room) put(msg api.Message) (fresh bool) {
	if e := r.byID[msg.ID]; e != nil {
		e.msg, e.lines = msg, nil
		return false
	}
	e := &entry{msg: msg}
	at, _ := slices.BinarySearchFunc(r.entries, e, func(have, want *entry) int {
		if order(have, want) <= 0 {
			return -1
		}
		return 1
	})
	r.byID[msg.ID] = e
	r.entries = slices.Insert(r.entries, at, e)
	if !r.following && at <= r.bottom {
		r.bottom++
	}
	return true
}

// arrived takes a live message. A window that does not reach the newest message stays as it is:
// the message is loaded when the reader comes there.
func (r *room) arrived(msg api.Message) {
	if !r.loaded {
		r.early = append(r.early, msg)
	}
	if !r.loaded || !r.atEnd {
		return
	}
	r.put(msg)
	if r.following {
		r.trimOld()
	}
}

// older takes a page that ends where the window begins.
func (r *room) older(page []api.Message) {
	r.loading = false
	r.atStart = len(page) < pageSize
	if r.following {
		r.bottom, r.skip = len(r.entries)-1, 0
	}
	for _, m := range page {
		r.put(m)
	}
	if over := len(r.entries) - maxLoaded; over > 0 && !r.following && r.bottom < len(r.entries)-over {
		for _, e := range r.entries[len(r.entries)-over:] {
			delete(r.byID, e.msg.ID)
		}
		r.entries = r.entries[:len(r.entries)-over]
		r.atEnd = false
	}
}

// newer takes a page that begins where the window ends.
func (r *room) newer(page []api.Message) {
	r.loading = false
	r.atEnd = len(page) < pageSize
	for _, m := range page {
		r.put(m)
	}
	r.trimOld()
}

// newest replaces the window by the newest page.
func (r *room) newest(page []api.Message) {
	r.reset(page)
	r.atEnd, r.following = true, true
	r.atStart = len(page) < pageSize
	for _, msg := range r.early {
		r.put(msg)
	}
	r.early = nil
}

// around replaces the window by a page somewhere in the past and shows the message at its end.
func (r *room) around(page []api.Message) {
	r.reset(page)
	r.atEnd, r.following = false, false
	r.bottom, r.skip = max(0, len(r.entries)-1), 0
}

func (r *room) reset(page []api.Message) {
	r.entries, r.byID = nil, map[string]*entry{}
	r.loaded, r.loading, r.atStart = true, false, false
	for _, m := range page {
		r.put(m)
	}
}

func (r *room) trimOld() {
	over := len(r.entries) - maxLoaded
	if over <= 0 {
		return
	}
	for _, e := range r.entries[:over] {
		delete(r.byID, e.msg.ID)
	}
	r.entries = slices.Delete(r.entries, 0, over)
	r.bottom = max(0, r.bottom-over)
	r.atStart = false
}

func (r *room) first() string {
	if len(r.entries) == 0 {
		return ""
	}
	return r.entries[0].msg.ID
}

func (r *room) lastID() string {
	if len(r.entries) == 0 {
		return ""
	}
	return r.entries[len(r.entries)-1].msg.ID
}

// lastSeq is the highest arrival number in the window.
func (r *room) lastSeq() (seq uint64) {
	for _, e := range r.entries {
		seq = max(seq, e.msg.Seq)
	}
	return seq
}

// nth returns the nth last message that somebody wrote, 1 being the last; own restricts it to ours.
func (r *room) nth(n int, own bool) (api.Message, bool) {
	for _, e := range slices.Backward(r.entries) {
		if e.msg.Kind != api.KindMessage || e.msg.Redacted || own && !e.msg.Own {
			continue
		}
		if n--; n == 0 {
			return e.msg, true
		}
	}
	return api.Message{}, false
}
