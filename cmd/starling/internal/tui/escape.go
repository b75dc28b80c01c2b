package tui

import "github.com/starling-chat/starling/node/api"

// This file is where text from outside becomes text that may stand on the screen. Everything that
// comes from a peer or the node passes one of these three, which escape it as package api says and
// then settle how many cells it takes. A test feeds hostile text into every field of every
// shape of the API and looks at what is drawn.

// line makes one line of s.
func (w metric) line(s string) string { return w.settle(api.Escape(s)) }

// body keeps the line breaks of s.
func (w metric) body(s string) string { return w.settle(api.EscapeText(s)) }

// name makes s fit to name somebody or something.
func (w metric) name(s string) string { return w.settle(api.EscapeNick(s)) }
