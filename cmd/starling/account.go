package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/starling-chat/starling/chat/identity"
)

func (a *app) accountCommand() *cobra.Command {
	return group("account", "Your account", a.accountRestoreCommand())
}

func (a *app) accountRestoreCommand() *cobra.Command {
	var f startFlags
	var phraseFile string
	cmd := &cobra.Command{
		Use: "restore", Short: "Bring an account back from its 24 words, as a new device", Args: noArgs,
		Long: "Make the keys of a new device for the account of a recovery phrase, in an empty home. The words are\n" +
			"asked for without being shown, or read from a file; never from the command line. They bring back the\n" +
			"account alone: contacts and rooms are in a backup.",
		RunE: func(*cobra.Command, []string) error {
			if err := a.emptyHome(); err != nil {
				return err
			}
			account, err := a.readPhrase(phraseFile)
			if err != nil {
				return err
			}
			if err := a.newHome(f, account, nil); err != nil {
				return err
			}
			a.note("restored %s in %s, as a new device", account.ID(), a.place.Home)
			return nil
		},
	}
	keyFlags(cmd.Flags(), &f)
	cmd.Flags().StringVar(&phraseFile, "phrase-file", "", "read the words from `FILE`, or from standard input with -")
	return cmd
}

// readPhrase takes a recovery phrase from a file, in any number of lines, or from the terminal.
func (a *app) readPhrase(file string) (*identity.Account, error) {
	if file == "" {
		if !a.interactive() {
			return nil, usagef("nobody can be asked for the words: give --phrase-file FILE, or - for standard input")
		}
		for try := 1; ; try++ {
			text, err := a.askSecret("the 24 words: ")
			if err != nil {
				return nil, err
			}
			account, err := identity.AccountFromPhrase(text)
			if err == nil || try == passphraseTries {
				return account, phraseError(err)
			}
			fmt.Fprintln(a.stderr, err)
		}
	}
	var in io.Reader = a.stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("reading the words: %w", err)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxSecret))
	if err != nil {
		return nil, fmt.Errorf("reading the words: %w", err)
	}
	account, err := identity.AccountFromPhrase(string(bytes.TrimSpace(text)))
	return account, phraseError(err)
}

// phraseError makes a wrong phrase an error of usage.
func phraseError(err error) error {
	if errors.Is(err, identity.ErrPhrase) {
		return usagef("%v", err)
	}
	return err
}
