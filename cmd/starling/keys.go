package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/starling-chat/starling/chat/identity"
	"github.com/starling-chat/starling/node/api"
)

// passphraseTries is how often a person may mistype.
const passphraseTries = 3

// opened is the open keys file, and whether this run made it.
type opened struct {
	*identity.Keys
	made bool
	nick string // what a person asked for when the keys were made
}

// openKeys opens the keys file, or makes one on the first run.
func (a *app) openKeys(f startFlags) (opened, error) {
	protected, err := identity.KeysProtected(a.place.Keys)
	if errors.Is(err, fs.ErrNotExist) {
		return a.makeKeys(f)
	}
	if err != nil {
		return opened{}, err
	}
	pass, given, err := a.givenPassphrase(f)
	switch {
	case err != nil:
		return opened{}, err
	case !protected && !given:
		pass = identity.NoPassphrase()
	case protected && !given && a.interactive():
		keys, err := a.tryPassphrases()
		return opened{Keys: keys}, err
	case protected && !given:
		return opened{}, fmt.Errorf("opening %s: %w", a.place.Keys, identity.ErrPassphraseNeeded)
	}
	keys, err := identity.OpenKeys(a.place.Keys, pass, rand.Reader)
	return opened{Keys: keys}, err
}

// givenPassphrase takes the passphrase from a file or the environment; never from the command line.
func (a *app) givenPassphrase(f startFlags) (pass identity.Passphrase, given bool, err error) {
	file := f.passphraseFile
	if file == "" {
		file = a.getenv("STARLING_PASSPHRASE_FILE")
	}
	switch text := a.getenv("STARLING_PASSPHRASE"); {
	case f.noPassphrase && f.passphraseFile != "":
		return pass, false, usagef("give either --passphrase-file or --no-passphrase")
	case f.noPassphrase:
		return identity.NoPassphrase(), true, nil
	case file != "":
		if text, err = a.readSecret(file); err != nil {
			return pass, false, err
		}
		pass, err = identity.NewPassphrase(text)
		return pass, true, err
	case text != "":
		pass, err = identity.NewPassphrase(text)
		return pass, true, err
	}
	return pass, false, nil
}

func (a *app) tryPassphrases() (*identity.Keys, error) {
	for try := 1; ; try++ {
		text, err := a.askSecret("passphrase: ")
		if err != nil {
			return nil, err
		}
		pass, err := identity.NewPassphrase(text)
		var keys *identity.Keys
		if err == nil {
			keys, err = identity.OpenKeys(a.place.Keys, pass, rand.Reader)
		}
		wrong := errors.Is(err, identity.ErrWrongPassphrase) || errors.Is(err, identity.ErrPassphrase)
		if !wrong || try == passphraseTries {
			return keys, err
		}
		fmt.Fprintln(a.stderr, "that is not it")
	}
}

// makeKeys makes an account and a device. On a terminal it asks for a nick and a passphrase;
// elsewhere it makes keys without a passphrase and says so.
func (a *app) makeKeys(f startFlags) (opened, error) {
	out := opened{made: true}
	if entries, err := os.ReadDir(a.place.Store); err == nil && len(entries) > 0 {
		if _, err := os.Lstat(a.place.Keys); err == nil {
			return a.openKeys(f) // another terminal was quicker
		}
		return out, &api.Error{
			Code: api.CodeConflict, Message: fmt.Sprintf("the keys file %s is gone, and what lies in %s opens with nothing else", a.place.Keys, a.place.Store),
			Hint: "put a copy of the keys file back; or, to begin anew, from a backup too, move the store away",
		}
	}
	pass, given, err := a.givenPassphrase(f)
	if err != nil {
		return out, err
	}
	if err := os.MkdirAll(filepath.Dir(a.place.Keys), 0o700); err != nil {
		return out, fmt.Errorf("making the home directory: %w", err)
	}
	var account *identity.Account
	restored := false
	if a.interactive() {
		var text string
		if account, restored, out.nick, text, err = a.welcome(given); err != nil {
			return out, err
		}
		if !given {
			if pass, err = passphraseOf(text); err != nil {
				return out, err
			}
		}
	} else {
		if account, err = identity.NewAccount(rand.Reader); err != nil {
			return out, err
		}
		if !given {
			pass = identity.NoPassphrase()
			a.note("starling: keys made without a passphrase in %s; set one with `starling passphrase`", a.place.Keys)
		}
	}
	out.Keys, err = identity.CreateKeys(a.place.Keys, account, pass, rand.Reader)
	if errors.Is(err, fs.ErrExist) { // another terminal was quicker
		return a.openKeys(f)
	}
	if err == nil && a.interactive() && !restored {
		err = a.showPhrase(account)
	}
	return out, err
}

// passphraseOf is what somebody typed; nothing means none.
func passphraseOf(text string) (identity.Passphrase, error) {
	if text == "" {
		return identity.NoPassphrase(), nil
	}
	return identity.NewPassphrase(text)
}

func (a *app) askNewPassphrase() (identity.Passphrase, error) {
	for {
		text, err := a.askSecret("passphrase for the keys (Enter for none): ")
		if err != nil {
			return identity.Passphrase{}, err
		}
		if text == "" {
			return passphraseOf(text)
		}
		again, err := a.askSecret("once more: ")
		if err != nil {
			return identity.Passphrase{}, err
		}
		if text != again {
			fmt.Fprintln(a.stderr, "the two differ")
			continue
		}
		return passphraseOf(text)
	}
}

func (a *app) passphraseCommand() *cobra.Command {
	var f startFlags
	var newFile string
	var remove bool
	cmd := &cobra.Command{
		Use: "passphrase", Short: "Set, change or remove the passphrase of the keys file", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			keys, err := a.openKeys(f)
			if err != nil {
				return err
			}
			if keys.made {
				return nil // it was just asked for, or given
			}
			pass := identity.NoPassphrase()
			switch {
			case newFile != "" && remove:
				return usagef("give either --new-passphrase-file or --remove")
			case newFile != "":
				text, err := a.readSecret(newFile)
				if err != nil {
					return err
				}
				if pass, err = identity.NewPassphrase(text); err != nil {
					return err
				}
			case remove:
			case !a.interactive():
				return usagef("nobody can be asked: give --new-passphrase-file FILE, or --remove")
			default:
				if pass, err = a.askNewPassphrase(); err != nil {
					return err
				}
			}
			if err := keys.ChangePassphrase(pass); err != nil {
				return err
			}
			a.note("the passphrase is changed")
			return nil
		},
	}
	keyFlags(cmd.Flags(), &f)
	cmd.Flags().StringVar(&newFile, "new-passphrase-file", "", "take the new passphrase from `FILE`")
	cmd.Flags().BoolVar(&remove, "remove", false, "leave the keys without a passphrase")
	return cmd
}
