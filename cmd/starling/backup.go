package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/starling-chat/starling/chat/backup"
	"github.com/starling-chat/starling/chat/identity"
	"github.com/starling-chat/starling/node"
	"github.com/starling-chat/starling/node/api"
)

// Sections of a backup that this command makes and reads; the others are the node's.
const (
	sectionAccount = "account"
	sectionConfig  = "config"

	backupVersion = 1
)

// minBackupPassphrase is how short the passphrase of a backup may be, in bytes: unlike the keys file it is
// meant to lie where others may copy it.
const minBackupPassphrase = 8

// maxIdentityFile bounds a file of age identities.
const maxIdentityFile = 1 << 20

type savedAccount struct {
	Account string `json:"account"`
	Phrase  string `json:"phrase"`
}

type savedConfig struct {
	TOML string `json:"toml"`
}

// isOurs says whether a section is read here.
func isOurs(name string) bool { return name == sectionAccount || name == sectionConfig }

// backupKey is how a backup is locked and opened.
type backupKey struct {
	passphraseFile string
	recipients     []string
	identity       string
}

func (a *app) backupCommand() *cobra.Command {
	return group("backup", "Save the account, and bring it back", a.backupCreateCommand(), a.backupRestoreCommand(), a.backupVerifyCommand())
}

func (a *app) backupCreateCommand() *cobra.Command {
	var f startFlags
	var key backupKey
	var history, force bool
	cmd := &cobra.Command{
		Use: "create FILE", Short: "Write a backup to FILE, or to standard output with -", Args: takes(1, 1),
		Long: "Write an age file with the account, contacts and verifications, the secrets of rooms, and the\n" +
			"settings; with --history the direct messages too. It is locked with a passphrase that is asked for, or\n" +
			"for the age keys given with --recipient; the stock age tool opens it as well. Ratchet states and this\n" +
			"device's keys are never in it: restoring makes another device of the same account.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.backupCreate(cmd.Context(), f, key, args[0], history, force)
		},
	}
	keyFlags(cmd.Flags(), &f)
	cmd.Flags().StringVar(&key.passphraseFile, "backup-passphrase-file", "", "read the passphrase of the backup from the first line of `FILE`, or of standard input with -")
	cmd.Flags().StringArrayVar(&key.recipients, "recipient", nil, "lock it for this age public `KEY` instead (repeat)")
	cmd.Flags().BoolVar(&history, "history", false, "with the direct messages")
	cmd.Flags().BoolVar(&force, "force", false, "replace FILE if there is one")
	return cmd
}

func (a *app) backupCreate(ctx context.Context, f startFlags, key backupKey, path string, history, force bool) error {
	if _, err := identity.KeysProtected(a.place.Keys); errors.Is(err, fs.ErrNotExist) {
		return usagef("there is nothing to save: no account in %s yet", a.place.Home)
	}
	if path == "-" && isTerminal(a.stdout) {
		return usagef("the backup is not text: give a file, or send standard output to one")
	}
	if _, err := os.Lstat(path); path != "-" && err == nil && !force {
		return usagef("%s is there already: choose another name, or add --force", path)
	}
	cfg, keys, err := a.nodeConfig(f, false, slog.LevelWarn)
	if err != nil {
		return err
	}
	to, err := a.lockWith(key)
	if err != nil {
		return err
	}
	b, err := a.gather(ctx, cfg, keys, history)
	if err != nil {
		return err
	}
	if path == "-" {
		return backup.Write(a.stdout, b, to...)
	}
	if err := writeBackup(path, b, to); err != nil {
		return err
	}
	a.note("%s holds %s", path, summary(b))
	a.note("try `starling backup verify %s`, and keep it where a fire here does not reach", path)
	return nil
}

// gather collects what a backup holds: from the node that runs, or from its store.
func (a *app) gather(ctx context.Context, cfg node.Config, keys opened, history bool) (*backup.Backup, error) {
	b := &backup.Backup{Created: time.Now(), Program: version}
	account := keys.Account()
	s, err := backup.Make(sectionAccount, backupVersion, savedAccount{account.ID().String(), account.Phrase()})
	if err != nil {
		return nil, err
	}
	b.Sections = append(b.Sections, s)
	switch text, err := os.ReadFile(a.place.Config); {
	case err == nil:
		if s, err = backup.Make(sectionConfig, backupVersion, savedConfig{string(text)}); err != nil {
			return nil, err
		}
		b.Sections = append(b.Sections, s)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	c := a.client()
	defer c.Close()
	rest, err := c.Backup(ctx, history)
	var e *api.Error
	if errors.As(err, &e) && e.Code == api.CodeNotRunning {
		rest, err = node.BackupStore(ctx, cfg, history)
	}
	if err != nil {
		return nil, err
	}
	for _, s := range rest.Sections {
		b.Sections = append(b.Sections, backup.Section(s))
	}
	return b, nil
}

// writeBackup puts a backup in place as a whole or not at all.
func writeBackup(path string, b *backup.Backup, to []age.Recipient) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.new")
	if err != nil {
		return fmt.Errorf("writing a backup: %w", err)
	}
	defer os.Remove(f.Name())
	err = backup.Write(f, b, to...)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing a backup: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("writing a backup: %w", err)
	}
	return nil
}

// lockWith returns whom a backup is for.
func (a *app) lockWith(key backupKey) ([]age.Recipient, error) {
	if len(key.recipients) > 0 {
		if key.passphraseFile != "" {
			return nil, usagef("give either --recipient or --backup-passphrase-file: an age file takes a passphrase alone")
		}
		to, err := age.ParseRecipients(strings.NewReader(strings.Join(key.recipients, "\n")))
		if err != nil {
			return nil, usagef("a recipient is an age public key, like age1ql3z7hjy...: %v", err)
		}
		return to, nil
	}
	text, err := a.backupPassphrase(key, true)
	if err != nil {
		return nil, err
	}
	if len(text) < minBackupPassphrase {
		return nil, usagef("the passphrase of a backup has at least %d characters: who copies the file can try for years", minBackupPassphrase)
	}
	r, err := backup.PassphraseRecipient(text)
	return []age.Recipient{r}, err
}

// backupPassphrase takes the passphrase from a file, the environment or the terminal, never from the
// command line.
func (a *app) backupPassphrase(key backupKey, fresh bool) (string, error) {
	if key.passphraseFile != "" {
		return a.readSecret(key.passphraseFile)
	}
	if text := a.getenv("STARLING_BACKUP_PASSPHRASE"); text != "" {
		return text, nil
	}
	if !a.interactive() {
		return "", usagef("nobody can be asked for the passphrase of the backup: give --backup-passphrase-file FILE")
	}
	text, err := a.askSecret("passphrase of the backup: ")
	if err != nil || !fresh {
		return text, err
	}
	again, err := a.askSecret("once more: ")
	if err == nil && again != text {
		err = usagef("the two differ: nothing was written")
	}
	return text, err
}

// readBackup opens a backup.
func (a *app) readBackup(key backupKey, path string) (*backup.Backup, error) {
	var in io.Reader = a.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("reading the backup: %w", err)
		}
		defer f.Close()
		in = f
	}
	with, err := a.openWith(key)
	if err != nil {
		return nil, err
	}
	b, err := backup.Read(in, with...)
	if err != nil {
		return nil, &backupError{path, err}
	}
	return b, nil
}

// backupError says what is wrong with which backup.
type backupError struct {
	path string
	err  error
}

func (e *backupError) Error() string { return e.path + ": " + e.err.Error() }
func (e *backupError) Unwrap() error { return e.err }

func (a *app) openWith(key backupKey) ([]age.Identity, error) {
	if key.identity == "" {
		text, err := a.backupPassphrase(key, false)
		if err != nil {
			return nil, err
		}
		id, err := backup.PassphraseIdentity(text)
		return []age.Identity{id}, err
	}
	if key.passphraseFile != "" {
		return nil, usagef("give either --identity or --backup-passphrase-file")
	}
	f, err := os.Open(key.identity)
	if err != nil {
		return nil, fmt.Errorf("reading the identity: %w", err)
	}
	defer f.Close()
	ids, err := age.ParseIdentities(io.LimitReader(f, maxIdentityFile))
	if err != nil {
		return nil, usagef("%s holds no age identity (a line like AGE-SECRET-KEY-1...): make one with age-keygen", key.identity)
	}
	return ids, nil
}

func (key *backupKey) openFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&key.passphraseFile, "backup-passphrase-file", "", "read the passphrase of the backup from the first line of `FILE`, or of standard input with -")
	cmd.Flags().StringVar(&key.identity, "identity", "", "open it with the age identity in `FILE` instead")
}

func (a *app) backupVerifyCommand() *cobra.Command {
	var key backupKey
	cmd := &cobra.Command{
		Use: "verify FILE", Short: "Open a backup, check all of it, and say what it holds", Args: takes(1, 1),
		Annotations: map[string]string{withoutConfig: "yes"},
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := a.readBackup(key, args[0])
			if err != nil {
				return err
			}
			return a.showBackup(b)
		},
	}
	key.openFlags(cmd)
	return cmd
}

// contents is what `backup verify --json` prints.
type contents struct {
	Created  time.Time      `json:"created"`
	Program  string         `json:"program"`
	Account  string         `json:"account"`
	Sections map[string]int `json:"sections"` // how much of each there is
}

// inside reads what a backup holds, without its secrets.
func inside(b *backup.Backup) (contents, error) {
	out := contents{Created: b.Created, Program: b.Program, Sections: make(map[string]int)}
	for i := range b.Sections {
		s := &b.Sections[i]
		n := 1
		switch s.Name {
		case sectionAccount:
			account, err := accountOf(s)
			if err != nil {
				return out, err
			}
			out.Account = account.ID().String()
		case "history":
			var part struct {
				Records []json.RawMessage `json:"records"`
			}
			if err := json.Unmarshal(s.Data, &part); err != nil {
				return out, fmt.Errorf("%s: %w", s.Name, backup.ErrDamaged)
			}
			n = len(part.Records)
		case sectionConfig, "profile":
		default:
			n = entries(s.Data)
		}
		out.Sections[s.Name] += n
	}
	if out.Account == "" {
		return out, fmt.Errorf("%w: it holds no account", backup.ErrDamaged)
	}
	return out, nil
}

// entries counts the entries of a list or of an object.
func entries(data json.RawMessage) int {
	var list []json.RawMessage
	if json.Unmarshal(data, &list) == nil {
		return len(list)
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(data, &object) == nil {
		return len(object)
	}
	return 1
}

// accountOf reads the account of a backup.
func accountOf(s *backup.Section) (*identity.Account, error) {
	var saved savedAccount
	if err := s.Decode(backupVersion, &saved); err != nil {
		return nil, err
	}
	account, err := identity.AccountFromPhrase(saved.Phrase)
	if err != nil || account.ID().String() != saved.Account {
		return nil, fmt.Errorf("%s: %w", s.Name, backup.ErrDamaged)
	}
	return account, nil
}

func (a *app) showBackup(b *backup.Backup) error {
	c, err := inside(b)
	if err != nil {
		return err
	}
	if a.global.json {
		return a.printJSON(c)
	}
	if err := a.printTable(nil, [][]string{
		{"made", b.Created.Local().Format(time.DateTime) + " by starling " + api.Escape(b.Program)},
		{"account", c.Account},
		{"holds", summary(b)},
	}); err != nil {
		return err
	}
	a.note("the backup is whole; `starling backup restore` brings it to a new home as another device")
	return nil
}

// summary says in words what a backup holds.
func summary(b *backup.Backup) string {
	c, err := inside(b)
	if err != nil {
		return "nothing that can be read"
	}
	words := []string{"the account"}
	add := func(name, one string) {
		if n, ok := c.Sections[name]; ok {
			words = append(words, plural(n, one))
			delete(c.Sections, name)
		}
	}
	add("contacts", "contact")
	add("rooms", "room")
	add("settings", "setting")
	add("history", "message")
	for _, name := range []string{sectionAccount, sectionConfig, "profile"} {
		delete(c.Sections, name)
	}
	for name := range c.Sections {
		add(name, "entry of "+api.Escape(name))
	}
	return strings.Join(words, ", ")
}

func (a *app) backupRestoreCommand() *cobra.Command {
	var f startFlags
	var key backupKey
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Bring a backup back, as a new device, into an empty home", Args: takes(1, 1),
		Long: "Open a backup and fill a home in which there is nothing yet. The account, contacts and rooms are as they\n" +
			"were; this is a new device with keys of its own, and contacts see a line that says so. Messages of rooms\n" +
			"come back from their members.",
		RunE: func(cmd *cobra.Command, args []string) error { return a.backupRestore(cmd.Context(), f, key, args[0]) },
	}
	keyFlags(cmd.Flags(), &f)
	key.openFlags(cmd)
	return cmd
}

func (a *app) backupRestore(ctx context.Context, f startFlags, key backupKey, path string) error {
	if err := a.emptyHome(); err != nil {
		return err
	}
	b, err := a.readBackup(key, path)
	if err != nil {
		return err
	}
	if _, err := inside(b); err != nil {
		return &backupError{path, err}
	}
	var account *identity.Account
	config := ""
	for i := range b.Sections {
		switch s := &b.Sections[i]; s.Name {
		case sectionAccount:
			account, err = accountOf(s)
		case sectionConfig:
			var saved savedConfig
			err = s.Decode(backupVersion, &saved)
			config = saved.TOML
		}
		if err != nil {
			return &backupError{path, err}
		}
	}
	fill := func(cfg node.Config) error {
		if err := node.RestoreStore(ctx, cfg, b.Sections, isOurs); err != nil {
			return &backupError{path, err}
		}
		return nil
	}
	if err := a.newHome(f, account, fill); err != nil {
		return err
	}
	if _, err := os.Lstat(a.place.Config); config != "" && errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(a.place.Config), 0o700); err != nil {
			return fmt.Errorf("writing the configuration: %w", err)
		}
		if err := os.WriteFile(a.place.Config, []byte(config), 0o600); err != nil {
			return fmt.Errorf("writing the configuration: %w", err)
		}
	}
	a.note("restored %s into %s: this is a new device of %s", summary(b), a.place.Home, account.ID())
	return nil
}

// emptyHome refuses a home that holds something: nothing is ever overwritten.
func (a *app) emptyHome() error {
	for _, path := range []string{a.place.Keys, a.place.Store} {
		entries, err := os.ReadDir(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
			continue
		}
		return usagef("%s holds an account already: choose an empty directory with --home, or move that one away", a.place.Home)
	}
	return nil
}

// restoring marks keys and store that are not complete yet.
const restoring = ".restoring"

// newHome makes the keys of a new device of an account, and its store with fill. Both are put in place at
// the end, the keys last: a restore that broke off leaves the home empty.
func (a *app) newHome(f startFlags, account *identity.Account, fill func(node.Config) error) error {
	pass, given, err := a.givenPassphrase(f)
	switch {
	case err != nil:
		return err
	case given:
	case a.interactive():
		if pass, err = a.askNewPassphrase(); err != nil {
			return err
		}
	default:
		pass = identity.NoPassphrase()
		a.note("starling: keys made without a passphrase in %s; set one with `starling passphrase`", a.place.Keys)
	}
	for _, dir := range []string{filepath.Dir(a.place.Keys), filepath.Dir(a.place.Store)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("making the home directory: %w", err)
		}
	}
	staged := *a
	staged.place.Keys += restoring
	staged.place.Store += restoring
	clear := func() error {
		return errors.Join(os.RemoveAll(staged.place.Keys), os.RemoveAll(staged.place.Store))
	}
	if err := clear(); err != nil { // of one that broke off
		return fmt.Errorf("making the home directory: %w", err)
	}
	if err := staged.stage(account, pass, fill); err != nil {
		return errors.Join(err, clear())
	}
	if fill != nil {
		_ = os.Remove(a.place.Store) // an empty directory
		if err := os.Rename(staged.place.Store, a.place.Store); err != nil {
			return errors.Join(fmt.Errorf("putting the store in place: %w", err), clear())
		}
	}
	if err := os.Rename(staged.place.Keys, a.place.Keys); err != nil {
		return errors.Join(fmt.Errorf("putting the keys in place: %w", err), clear())
	}
	return nil
}

// stage makes keys and store where a says.
func (a *app) stage(account *identity.Account, pass identity.Passphrase, fill func(node.Config) error) error {
	keys, err := identity.CreateKeys(a.place.Keys, account, pass, rand.Reader)
	if err != nil || fill == nil {
		return err
	}
	cfg := node.DefaultLaptop()
	cfg.Keys, cfg.StoreDir, cfg.Home = keys, a.place.Store, a.place.Home
	cfg.Logger = a.logger(*a.conf, slog.LevelWarn)
	return fill(cfg)
}
