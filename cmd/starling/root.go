package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/starling-chat/starling/node/api"
)

// globalFlags are understood by every command.
type globalFlags struct {
	home      string
	json      bool
	quiet     bool
	timeout   time.Duration
	logLevel  string
	logFormat string
}

// execute runs one command line and gives the exit code.
func (a *app) execute(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	return a.fail(err)
}

func (a *app) root() *cobra.Command {
	var start startFlags
	root := &cobra.Command{
		Use:   "starling",
		Short: "Peer-to-peer chat with no server and no account",
		Long: "Peer-to-peer chat with no server and no account.\n\n" +
			"Without a command it opens the conversations, and starts a node when none is running.",
		Args:          noArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return a.prepare(cmd)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.chat(cmd.Context(), chatOptions{start: start})
		},
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.global.home, "home", "", "keep everything under `DIR` (or STARLING_HOME)")
	flags.BoolVar(&a.global.json, "json", false, "print JSON")
	flags.BoolVarP(&a.global.quiet, "quiet", "q", false, "print nothing that was not asked for")
	flags.DurationVar(&a.global.timeout, "timeout", 0, "give up after `TIME`, such as 10s (default 30s)")
	flags.StringVar(&a.global.logLevel, "log-level", "", "`LEVEL` of the log: debug, info, warn or error")
	flags.StringVar(&a.global.logFormat, "log-format", "", "`FORMAT` of the log: text or json")
	a.startFlags(root.Flags(), &start)
	root.SetFlagErrorFunc(flagError)
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(a.helpCommand())
	for _, cmd := range a.commands() {
		root.AddCommand(cmd)
	}
	return root
}

func (a *app) commands() []*cobra.Command {
	return []*cobra.Command{
		a.chatCommand(), a.runCommand(), a.relayCommand(),
		a.joinCommand(), a.leaveCommand(), a.roomsCommand(), a.membersCommand(),
		a.sendCommand(), a.tailCommand(), a.historyCommand(), a.searchCommand(), a.digestCommand(), a.exportCommand(), a.importCommand(), a.retentionCommand(),
		a.meCommand(), a.nickCommand(), a.contactCommand(), a.inviteCommand(), a.roomCommand(), a.outboxCommand(),
		a.statusCommand(), a.peersCommand(), a.pingCommand(), a.doctorCommand(), a.waitCommand(), a.stopCommand(),
		a.benchCommand(), a.simCommand(), a.checkCommand(), a.configCommand(), a.passphraseCommand(), a.accountCommand(), a.deviceCommand(), a.backupCommand(), a.purgeCommand(), a.pathsCommand(), a.versionCommand(), a.completionCommand(),
	}
}

// prepare reads the configuration before any command works. Commands that must work without
// one (help, version, completion, the repair of a broken configuration) say so by annotation.
func (a *app) prepare(cmd *cobra.Command) error {
	if err := a.checkGlobal(); err != nil {
		return err
	}
	place, err := findPlaces(a.global.home, a.getenv)
	if err != nil {
		return err
	}
	a.place = place
	if cmd.Annotations[withoutConfig] != "" {
		return nil
	}
	a.conf, err = loadConfig(place.Config, a.getenv)
	return err
}

// withoutConfig marks commands that do not read the configuration.
const withoutConfig = "without-config"

func (a *app) checkGlobal() error {
	if a.global.timeout < 0 {
		return usagef("--timeout %s is negative", a.global.timeout)
	}
	if err := oneOf("--log-level", a.global.logLevel, "", "debug", "info", "warn", "error"); err != nil {
		return err
	}
	return oneOf("--log-format", a.global.logFormat, "", "text", "json")
}

func oneOf(what, value string, allowed ...string) error {
	for _, v := range allowed {
		if value == v {
			return nil
		}
	}
	return usagef("%s %q is unknown: use one of %s", what, value, strings.Join(nonEmpty(allowed), ", "))
}

func nonEmpty(in []string) []string {
	var out []string
	for _, s := range in {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}

// client speaks to the node of this home, running or not.
func (a *app) client() *api.Client { return api.NewClient(api.FindSocket(a.place.Runtime)) }

// limited bounds a call by --timeout; without the flag the client's own default holds.
func (a *app) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	if a.global.timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, a.global.timeout)
}

// frontend makes a RunE that calls a running node.
func (a *app) frontend(do func(ctx context.Context, c *api.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, cancel := a.limited(cmd.Context())
		defer cancel()
		c := a.client()
		defer c.Close()
		return do(ctx, c, args)
	}
}

// noArgs refuses arguments of a command that takes none; for a command with subcommands, that is
// an unknown subcommand.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if !cmd.HasSubCommands() {
		return usagef("%q takes no arguments; see `%s --help`", cmd.CommandPath(), cmd.CommandPath())
	}
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			names = append(append(names, sub.Name()), sub.Aliases...)
		}
	}
	return usagef("unknown command %q for %q%s", args[0], cmd.CommandPath(), orSee(args[0], names, cmd.CommandPath()+" --help"))
}

// takes checks the number of arguments and names what is missing.
func takes(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usagef("%q needs %s; usage: %s", cmd.CommandPath(), missing(cmd, len(args)), cmd.UseLine())
		case most >= 0 && len(args) > most:
			return usagef("%q takes fewer arguments (quote a text with spaces); usage: %s", cmd.CommandPath(), cmd.UseLine())
		}
		return nil
	}
}

func missing(cmd *cobra.Command, given int) string {
	words := strings.Fields(cmd.Use)[1:]
	if given < len(words) {
		return words[given]
	}
	return "more arguments"
}

// flagError names the nearest flag for one that does not exist.
func flagError(cmd *cobra.Command, err error) error {
	if errors.Is(err, pflag.ErrHelp) {
		return err
	}
	message, see := err.Error(), "; see `"+cmd.CommandPath()+" --help`"
	if name, ok := strings.CutPrefix(message, "unknown flag: --"); ok {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		cmd.InheritedFlags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		if s := suggest(name, names); s != "" {
			see = s
		}
	}
	return usagef("%s%s", message, see)
}

// group makes a command that only holds others.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef("%q needs a command; see `%s --help`", cmd.CommandPath(), cmd.CommandPath())
		},
	}
	cmd.AddCommand(subs...)
	return cmd
}

// plural is for counts in sentences.
func plural(n int, one string) string {
	if n == 1 {
		return fmt.Sprintf("%d %s", n, one)
	}
	return fmt.Sprintf("%d %ss", n, one)
}
