package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// topics are the pages of `starling help TOPIC`.
var topics = map[string]string{
	"exit-codes": `Exit codes

  0    done
  1    it failed, and no other code fits
  2    the command line or its input makes no sense: an unknown command or flag, a bad room
       name or address, a text that is empty, too long or not UTF-8
  3    no node is running; start one with "starling run"
  4    not in the time allowed, or nobody could be reached
  5    no such room, person or message, or the name stands for several people
  6    denied: blocked, not a member, a wrong passphrase, or keys that others may read
  130  interrupted

A batch exits with 1 when any of its lines was refused; each line's answer says why.
`,
	"files": `Files

With --home DIR or STARLING_HOME everything lies in DIR:

  config.toml    settings; see "starling config"
  keys           the account and this device, wrapped by your passphrase if you gave one (mode 0600)
  store/         history, outbox and sessions, sealed by a key from the keys file
  api.sock       the running node's socket (mode 0600); api.sock.path says where it is
                 when the path would be too long for one

Without it the XDG directories are used; "starling paths" prints them. Only one node runs on a home
at a time. To move a node stop it and move the directory; never run two copies of one.
`,
	"privacy": `Privacy

Peers and relays see your IP address. There is no anonymity.
A room is a secret made from its name: who knows or guesses the name of a public room can read it.
A relay that forwards a room sees neither its name nor its texts, but sizes and times.
Direct messages are end-to-end encrypted between devices and deniable. Room messages are signed,
and a member can prove to others that you wrote them.
A nick is a claim; when two people claim one, a short fingerprint tells them apart. "starling
contact verify @NAME" compares keys.
Deleting a message asks the others to delete it and cannot force them.
What is on your disk is sealed; without a passphrase whoever can read your files can open it.
Starling was not independently audited. SECURITY.md says more.
`,
	"env": `Environment

  STARLING_HOME             as --home
  STARLING_PASSPHRASE_FILE  as --passphrase-file
  STARLING_PASSPHRASE       the passphrase itself, where no file can be used
  STARLING_BACKUP_PASSPHRASE  the passphrase of a backup, as --backup-passphrase-file
  NO_COLOR                  no colour, as when the output is not a terminal
  XDG_CONFIG_HOME, XDG_DATA_HOME, XDG_STATE_HOME   where files lie without a home

Settings, over the configuration file and under the flags (lists are separated by spaces):

%s`,
}

func topicText(name string) string {
	text := topics[name]
	if name != "env" {
		return text
	}
	var b strings.Builder
	for _, o := range options {
		fmt.Fprintf(&b, "  %-25s %s\n", envName(o.key), o.help)
	}
	return fmt.Sprintf(text, b.String())
}

func topicNames() []string {
	var names []string
	for name := range topics {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (a *app) helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND | " + strings.Join(topicNames(), " | ") + "]", Short: "Explain a command or a topic",
		Annotations: map[string]string{withoutConfig: "yes"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && topics[args[0]] != "" {
				_, err := fmt.Fprint(a.stdout, topicText(args[0]))
				return err
			}
			found, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				names := topicNames()
				for _, c := range cmd.Root().Commands() {
					names = append(names, c.Name())
				}
				asked := strings.Join(args, " ")
				return usagef("there is no help on %q%s", asked, orSee(asked, names, "starling help"))
			}
			found.InitDefaultHelpFlag()
			return found.Help()
		},
	}
}
