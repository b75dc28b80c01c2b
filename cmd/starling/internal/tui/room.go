package tui

import (
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

// room is what the UI holds of one conversation: a window of its messages, where the reader is, and
// what is being written.
type room struct {
	entries []*entry // as the node orders them
	byID    map[string]*entry
	quoted  map[string]api.Message // answered messages outside of the window, by id

	loaded  bool          // a page came, and the window is as good as the stream of events
	loading bool          // a page is on its way
	since   time.Time     // since when
	asked   time.Time     // when what is older was last asked for
	early   []api.Message // arrived while the newest page was on its way
	atStart bool          // nothing older exists
	atEnd   bool          // the window reaches the newest message

	// The view ends in the block of entries[bottom], skip lines before its end; following means
	// that it stays at the newest message.
	following bool
	bottom    int
	skip      int

	unreadFrom uint64 // seq of the first message that was unread when the conversation was opened; 0: none
	unreadAt   int    // its index; set for each drawing
	hit        string // id of the message that was jumped to
	gaps       map[string][]api.Gap

	writing draft
	members []api.Member      // those who are here first
	typing  map[string]typist // by account
	stale   bool              // members changed since they were loaded
	reading bool              // a read mark is on its way
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
	return &room{
		byID: map[string]*entry{}, quoted: map[string]api.Message{}, gaps: map[string][]api.Gap{}, typing: map[string]typist{},
		following: true, unreadAt: -1,
	}
}

// update takes the new state of a message that is in the window.
func (r *room) update(msg api.Message) bool {
	if _, ok := r.quoted[msg.ID]; ok {
		r.quoted[msg.ID] = msg
	}
	e := r.byID[msg.ID]
	if e != nil {
		e.msg, e.lines = msg, nil
	}
	return e != nil
}

// fresh makes entries of the messages that are not in the window, and updates the others.
func (r *room) fresh(page []api.Message) []*entry {
	var out []*entry
	for _, msg := range page {
		if r.update(msg) {
			continue
		}
		e := &entry{msg: msg}
		r.byID[msg.ID] = e
		out = append(out, e)
	}
	return out
}

// insert puts a live message where its time says. One that belongs before the window is left to the
// page that will bring it.
func (r *room) insert(msg api.Message) {
	if r.update(msg) {
		return
	}
	at := len(r.entries)
	for at > 0 && msg.SentAt.Before(r.entries[at-1].msg.SentAt.Time) {
		at--
	}
	if at == 0 && len(r.entries) > 0 && !r.atStart {
		return
	}
	e := &entry{msg: msg}
	r.byID[msg.ID] = e
	r.entries = slices.Insert(r.entries, at, e)
	if !r.following && at <= r.bottom {
		r.bottom++
	}
}

// arrived takes a live message. A window that does not reach the newest message stays as it is: the
// message is loaded when the reader comes there. A page that is on its way may be older than the
// message, which is therefore kept until the page is here.
func (r *room) arrived(msg api.Message) {
	if r.loading {
		r.early = append(r.early, msg)
		if len(r.early) > maxLoaded {
			r.early = slices.Delete(r.early, 0, len(r.early)-maxLoaded)
		}
	}
	switch {
	case !r.loaded || !r.atEnd:
	case !r.following && len(r.entries) >= maxLoaded:
		r.atEnd = false
	default:
		r.insert(msg)
		if r.following {
			r.trimOld()
		}
	}
}

// caughtUp adds what arrived while a page was on its way.
func (r *room) caughtUp() {
	for _, msg := range r.early {
		if r.atEnd {
			r.insert(msg)
		}
	}
	r.early = nil
}

// older takes a page that ends where the window begins.
func (r *room) older(page []api.Message) {
	r.atStart = len(page) < pageSize
	add := r.fresh(page)
	r.entries = slices.Insert(r.entries, 0, add...)
	r.bottom += len(add)
	if over := len(r.entries) - maxLoaded; over > 0 && !r.following && r.bottom < len(r.entries)-over {
		r.forget(r.entries[len(r.entries)-over:])
		r.entries = r.entries[:len(r.entries)-over]
		r.atEnd = false
	}
}

// newer takes a page that begins where the window ends.
func (r *room) newer(page []api.Message) {
	r.atEnd = len(page) < pageSize
	r.entries = append(r.entries, r.fresh(page)...)
	r.trimOld()
}

// newest replaces the window by the newest page.
func (r *room) newest(page []api.Message) {
	r.reset(page)
	r.atEnd, r.following = true, true
	r.atStart = len(page) < pageSize
}

// around replaces the window by pages somewhere in the past.
func (r *room) around(page []api.Message) {
	r.reset(page)
	r.atStart, r.atEnd, r.following = false, false, false
	r.bottom, r.skip = max(0, len(r.entries)-1), 0
}

func (r *room) reset(page []api.Message) {
	r.entries, r.byID, r.hit = nil, map[string]*entry{}, ""
	r.loaded, r.loading = true, false
	r.entries = r.fresh(page)
}

func (r *room) trimOld() {
	over := len(r.entries) - maxLoaded
	if over <= 0 || !r.following && r.bottom < over {
		return
	}
	r.forget(r.entries[:over])
	r.entries = slices.Delete(r.entries, 0, over)
	r.bottom = max(0, r.bottom-over)
	r.atStart = false
}

func (r *room) forget(gone []*entry) {
	for _, e := range gone {
		delete(r.byID, e.msg.ID)
	}
}

// setGaps notes after which messages something is missing.
func (r *room) setGaps(list []api.Gap) {
	clear(r.gaps)
	for _, g := range list {
		r.gaps[g.After] = append(r.gaps[g.After], g)
	}
}

// maxQuoted bounds the answered messages that are kept from outside of the window.
const maxQuoted = 200

// unquoted lists the messages that the window's replies answer and that are not known, the newest
// few of them.
func (r *room) unquoted() []string {
	const most = 20
	var ids []string
	for _, e := range slices.Backward(r.entries) {
		id := e.msg.ReplyTo
		if id == "" || r.byID[id] != nil {
			continue
		}
		if _, ok := r.quoted[id]; !ok && !slices.Contains(ids, id) {
			if ids = append(ids, id); len(ids) == most {
				break
			}
		}
	}
	return ids
}

// quote keeps answered messages.
func (r *room) quote(list []api.Message) {
	if len(r.quoted)+len(list) > maxQuoted {
		clear(r.quoted)
	}
	for _, m := range list {
		r.quoted[m.ID] = m
	}
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

// firstUnread is the index of the first message that was unread when the conversation was opened, or
// -1.
func (r *room) firstUnread() int {
	if r.unreadFrom == 0 {
		return -1
	}
	return slices.IndexFunc(r.entries, func(e *entry) bool {
		return e.msg.Seq >= r.unreadFrom && !e.msg.Own && e.msg.Kind == api.KindMessage
	})
}

func (r *room) index(id string) int {
	return slices.IndexFunc(r.entries, func(e *entry) bool { return e.msg.ID == id })
}
