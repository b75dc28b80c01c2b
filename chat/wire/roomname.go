package wire

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// CanonicalRoomName returns the one form of a public room's name that its
// secret is made of: NFKC, case folded, one leading '#' dropped. What remains
// must be 1 to MaxRoomName runes: letters, combining marks (not first), decimal
// digits, '-', '_' and '.', among them a letter or digit. The result is its own canonical form. The error says
// what is wrong.
func CanonicalRoomName(name string) (string, error) {
	switch {
	case len(name) > MaxRoomNameInput:
		return "", invalidf("room name of %d bytes is too long: use at most %d characters", len(name), MaxRoomName)
	case !utf8.ValidString(name):
		return "", invalidf("room name is not valid UTF-8")
	}
	s := strings.TrimPrefix(foldName(name), "#")
	if s == "" {
		return "", invalidf("room name is empty: give at least one letter or digit, like #lobby")
	}
	if n := utf8.RuneCountInString(s); n > MaxRoomName {
		return "", invalidf("room name has %d characters: use at most %d", n, MaxRoomName)
	}
	if !strings.ContainsFunc(s, func(r rune) bool { return unicode.IsLetter(r) || unicode.Is(unicode.Nd, r) }) {
		return "", invalidf("room name %q has neither letter nor digit: give at least one, like #lobby", clip(name))
	}
	for i, r := range s {
		switch {
		case r == '-', r == '_', r == '.', unicode.IsLetter(r), unicode.Is(unicode.Nd, r):
		case unicode.IsMark(r) && i > 0:
		case unicode.IsSpace(r):
			return "", invalidf("room name %q has a space: use '-' or '_' instead", clip(name))
		default:
			return "", invalidf("room name %q has the character %q: use letters, digits, '-', '_' and '.'", clip(name), r)
		}
	}
	return s, nil
}

// foldName repeats normalizing and folding until nothing changes, since either
// may give the other something to do.
func foldName(s string) string {
	fold := cases.Fold()
	for range 4 {
		next := norm.NFKC.String(fold.String(norm.NFKC.String(s)))
		if next == s {
			break
		}
		s = next
	}
	return s
}
