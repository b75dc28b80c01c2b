package tui

import (
	"unicode/utf8"

	"github.com/starling-chat/starling/node/api"
)

// This file is where text from outside becomes text that may stand on the screen. Everything that
// comes from a peer or the node passes one of these three, which escape it as package api says and
// then settle how many cells it takes. A test feeds hostile text into every field of every
// shape of the API and looks at what is drawn.

// maxLine and maxName bound what stands on one line: the node's own limits lie far below, and what is
// longer would cost time for what nobody sees.
const (
	maxLine = 4 << 10 // bytes
	maxName = 1 << 10 // bytes
)

// line makes one line of s.
func (w metric) line(s string) string { return w.settle(api.Escape(bounded(s, maxLine))) }

// body keeps the line breaks of s.
func (w metric) body(s string) string { return w.settle(api.EscapeText(s)) }

// name makes s fit to name somebody or something.
func (w metric) name(s string) string { return w.settle(api.EscapeNick(bounded(s, maxName))) }

// bounded cuts s to n bytes, on a boundary of a character.
func bounded(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
