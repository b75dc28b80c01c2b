package tui

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
)

// Welcome is what a first run says and asks, line by line: it works on every terminal, before there
// is a node. Each question is answered by Enter alone.
type Welcome struct {
	Out io.Writer
	// Line and Secret ask one question and return the answer; Secret does not show it.
	Line, Secret func(question string) (string, error)
	// Width is that of the terminal, in cells; 0 is 80.
	Width int
	// Erase says that the terminal understands the sequences that take lines back.
	Erase bool
	// Environ chooses the language, as os.Environ returns it.
	Environ []string
	// Restore takes a recovery phrase that was given in place of a nick, or says why it cannot.
	Restore func(phrase string) error
	// MaxNick is how long a nick may be, in bytes.
	MaxNick int
	// Pick chooses the words that are asked for, below n; nil is at random.
	Pick func(n int) int
	// NoPassphrase leaves out the question for one: it is decided already.
	NoPassphrase bool
}

// Answers are what somebody said on the first run.
type Answers struct {
	Nick       string
	Restored   bool   // a phrase was given in place of a nick, and Restore took it
	Passphrase string // empty for none
}

// phraseWords is from how many words on an answer is taken for a recovery phrase.
const phraseWords = 12

func (w *Welcome) words() catalog { return newCatalog(pickLanguage("", "", w.Environ)) }

func (w *Welcome) width() int {
	if w.Width <= 0 {
		return 80
	}
	return w.Width
}

// say prints a text, broken to the terminal's width, and counts its lines.
func (w *Welcome) say(key string, args ...any) (lines int) {
	out := byRune.lines(w.words().text(key, args...), min(w.width(), 80)-2)
	for _, line := range out {
		fmt.Fprintln(w.Out, strings.TrimRight("  "+line, " "))
	}
	return len(out)
}

// Ask says where keys are made and what others can see, and asks for a nick and a passphrase.
func (w *Welcome) Ask(keys string) (Answers, error) {
	var a Answers
	t := w.words()
	fmt.Fprintln(w.Out)
	w.say("welcome", keys)
	fmt.Fprintln(w.Out)
	for {
		answer, err := w.Line("  " + t.text("ask nick"))
		if err != nil {
			return a, err
		}
		answer = strings.TrimSpace(answer)
		switch {
		case len(strings.Fields(answer)) >= phraseWords:
			err = w.Restore(answer)
			a.Restored = err == nil
		case len(answer) > w.MaxNick:
			err = errors.New(t.text("long nick", w.MaxNick))
		default:
			a.Nick = answer
		}
		if err == nil {
			break
		}
		w.say("not taken", byRune.line(err.Error()))
	}
	if w.NoPassphrase {
		return a, nil
	}
	for {
		first, err := w.Secret("  " + t.text("ask passphrase"))
		if err != nil || first == "" {
			return a, err
		}
		second, err := w.Secret("  " + t.text("ask again"))
		if err != nil {
			return a, err
		}
		if first == second {
			a.Passphrase = first
			return a, nil
		}
		w.say("they differ")
	}
}

// ShowPhrase shows the words of a new account, takes them off the screen, and asks for two of them: who
// wrote them down knows that now, and who did not sees them again. Enter alone skips the questions.
func (w *Welcome) ShowPhrase(phrase string) error {
	words := strings.Fields(phrase)
	for {
		if err := w.showWords(words); err != nil {
			return err
		}
		known, err := w.askWords(words)
		if known || err != nil {
			return err
		}
	}
}

func (w *Welcome) showWords(words []string) error {
	fmt.Fprintln(w.Out)
	lines := 3 + w.say("the phrase")
	fmt.Fprintln(w.Out)
	columns := max(1, min(4, (w.width()-2)/15))
	rows := (len(words) + columns - 1) / columns
	for row := range rows {
		var b strings.Builder
		for column := range columns {
			if i := column*rows + row; i < len(words) {
				fmt.Fprintf(&b, "  %3d %-9s", i+1, words[i])
			}
		}
		fmt.Fprintln(w.Out, strings.TrimRight(b.String(), " "))
	}
	fmt.Fprintln(w.Out)
	_, err := w.Line("  " + w.words().text("phrase seen"))
	w.erase(lines + rows + 1)
	return err
}

// askWords says whether two words, chosen at random, are known, or nobody wants to be asked.
func (w *Welcome) askWords(words []string) (bool, error) {
	first := w.pick(len(words))
	second := (first + 1 + w.pick(len(words)-1)) % len(words)
	for _, i := range []int{min(first, second), max(first, second)} {
		answer, err := w.Line("  " + w.words().text("ask word", i+1))
		w.erase(1)
		answer = strings.TrimSpace(answer)
		switch {
		case err != nil:
			return false, err
		case answer == "":
			w.say("phrase unchecked")
			return true, nil
		case !strings.EqualFold(answer, words[i]):
			w.say("wrong word", i+1)
			return false, nil
		}
	}
	w.say("phrase known")
	return true, nil
}

func (w *Welcome) pick(n int) int {
	if w.Pick != nil {
		return w.Pick(n)
	}
	return rand.IntN(n)
}

// erase takes the last lines off the screen, where that can be done.
func (w *Welcome) erase(lines int) {
	if w.Erase {
		fmt.Fprintf(w.Out, "\x1b[%dA\x1b[J", lines)
	}
}
