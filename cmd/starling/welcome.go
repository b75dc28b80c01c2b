package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/charmbracelet/x/term"

	"github.com/starling-chat/starling/chat/identity"
	"github.com/starling-chat/starling/cmd/starling/internal/tui"
)

// maxNick is how long a nick may be; the node checks it again.
const maxNick = 64 // bytes

// welcome greets somebody on the first run and gives the account, the nick and the passphrase that
// follow from the answers; restored says that the account was there before. With given, the
// passphrase is decided already.
func (a *app) welcome(given bool) (account *identity.Account, restored bool, nick, pass string, err error) {
	w := a.welcomer(given)
	w.Restore = func(phrase string) (err error) {
		account, err = identity.AccountFromPhrase(phrase)
		return err
	}
	answers, err := w.Ask(a.place.Keys)
	if err == nil && !answers.Restored {
		account, err = identity.NewAccount(rand.Reader)
	}
	return account, answers.Restored, answers.Nick, answers.Passphrase, err
}

// showPhrase shows the words that bring an account back, once.
func (a *app) showPhrase(account *identity.Account) error {
	w := a.welcomer(true)
	return w.ShowPhrase(account.Phrase())
}

func (a *app) welcomer(noPassphrase bool) *tui.Welcome {
	w := &tui.Welcome{
		Out: a.stderr, Line: a.askLine, Secret: a.askSecret, Environ: os.Environ(), NoPassphrase: noPassphrase, MaxNick: maxNick,
		Erase: a.getenv("TERM") != "dumb" && a.getenv("TERM") != "",
	}
	if f, ok := a.stderr.(*os.File); ok {
		if width, _, err := term.GetSize(f.Fd()); err == nil {
			w.Width = width
		}
	}
	return w
}

func (a *app) askLine(question string) (string, error) {
	fmt.Fprint(a.stderr, question)
	return a.answered(func() (string, error) {
		line, err := bufio.NewReader(a.stdin).ReadString('\n')
		if err != nil && line == "" {
			return "", err
		}
		return strings.TrimSpace(line), nil
	})
}

// askSecret reads a line from the terminal without showing it.
func (a *app) askSecret(question string) (string, error) {
	fmt.Fprint(a.stderr, question)
	defer fmt.Fprintln(a.stderr)
	f, ok := a.stdin.(*os.File)
	if !ok {
		return "", errors.New("reading the passphrase: standard input is not a terminal")
	}
	return a.answered(func() (string, error) {
		b, err := term.ReadPassword(f.Fd())
		return string(b), err
	})
}

// answered waits for an answer. A signal ends the wait and leaves the terminal as it was: reading a
// password has switched off its echo.
func (a *app) answered(read func() (string, error)) (string, error) {
	if f, ok := a.stdin.(*os.File); ok {
		if state, err := term.GetState(f.Fd()); err == nil {
			defer func() { _ = term.Restore(f.Fd(), state) }() // the terminal is gone
		}
	}
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(interrupts)
	type answer struct {
		text string
		err  error
	}
	got := make(chan answer, 1)
	// A read of a terminal cannot be interrupted: this goroutine ends with an answer or the process.
	go func() {
		text, err := read()
		got <- answer{text, err}
	}()
	select {
	case g := <-got:
		if g.err != nil {
			return "", fmt.Errorf("reading the answer: %w", g.err)
		}
		return g.text, nil
	case <-interrupts:
		fmt.Fprintln(a.stderr)
		return "", fmt.Errorf("reading the answer: %w", context.Canceled)
	}
}
