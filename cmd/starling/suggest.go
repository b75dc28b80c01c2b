package main

import "fmt"

// orSee ends an error about an unknown word: with the candidate nearest to what was typed, or with
// where to look when none is near.
func orSee(typed string, candidates []string, see string) string {
	if s := suggest(typed, candidates); s != "" {
		return s
	}
	return "; see `" + see + "`"
}

// suggest returns `; did you mean "x"?` for the candidate nearest to what was typed, or nothing
// when none is near: at most two slips, fewer in a short word.
func suggest(typed string, candidates []string) string {
	best, nearest := "", min(2, len(typed)/2)+1
	for _, c := range candidates {
		if d := distance(typed, c); d < nearest {
			best, nearest = c, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance counts the slips between two words: a letter left out, put in, mistaken, or two
// neighbours exchanged (optimal string alignment).
func distance(a, b string) int {
	s, t := []rune(a), []rune(b)
	before, last, row := make([]int, len(t)+1), make([]int, len(t)+1), make([]int, len(t)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(s); i++ {
		row[0] = i
		for j := 1; j <= len(t); j++ {
			cost := 1
			if s[i-1] == t[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && s[i-1] == t[j-2] && s[i-2] == t[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(t)]
}
