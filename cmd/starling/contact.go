package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/starling-chat/starling/node/api"
)

func (a *app) contactCommand() *cobra.Command {
	return group("contact", "People you know by their account",
		a.contactAddCommand(), a.contactListCommand(), a.contactRenameCommand(), a.contactVerifyCommand(),
		a.contactChangeCommand(api.ContactAccept, "Accept somebody who asks to write to you", false),
		a.contactChangeCommand(api.ContactReject, "Reject somebody who asks to write to you", false),
		a.contactChangeCommand(api.ContactBlock, "Block somebody: nothing of theirs is shown or kept", true),
		a.contactChangeCommand(api.ContactUnblock, "Take a block back", false),
		a.contactChangeCommand(api.ContactRemove, "Forget somebody", true),
	)
}

func (a *app) contactAddCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use: "add ACCOUNT|LINK", Short: "Add somebody by account id or link", Args: takes(1, 1),
		RunE: a.frontend(func(ctx context.Context, c *api.Client, args []string) error {
			contact, err := c.AddContact(ctx, api.ContactRequest{Who: args[0], Petname: name})
			if err != nil {
				return err
			}
			if a.global.json {
				return a.printJSON(contact)
			}
			if contact.Trust == api.TrustChanged {
				a.note("%s is verified under another key (%s). Nothing is sent to either until you say which it is:", api.EscapeNick(name), api.Escape(contact.Instead))
				a.note("  the new one: starling contact accept %s", api.Escape(contact.Account))
				a.note("  the old one: starling contact remove %s", api.Escape(contact.Account))
				return nil
			}
			a.note("added %s (%s); compare keys with `starling contact verify @%s`", contactName(contact), api.Escape(contact.Fingerprint), contactName(contact))
			return nil
		}),
	}
	cmd.Flags().StringVar(&name, "name", "", "your own `NAME` for them")
	return cmd
}

// contactName is what a person is called here: the own name for them, their nick, or the account.
func contactName(c api.Contact) string {
	switch {
	case c.Petname != "":
		return api.EscapeNick(c.Petname)
	case c.Nick != "":
		return api.EscapeNick(c.Nick)
	default:
		return api.Escape(c.Account)
	}
}

func (a *app) contactListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List contacts, requests and blocked people", Args: noArgs,
		RunE: a.frontend(func(ctx context.Context, c *api.Client, _ []string) error {
			contacts, err := c.Contacts(ctx)
			if err != nil {
				return err
			}
			if a.global.json {
				return printObjects(a, contacts)
			}
			if len(contacts) == 0 {
				a.note("no contacts; add one with `starling contact add LINK`, from their `starling me`")
				return nil
			}
			rows := make([][]string, len(contacts))
			for i, p := range contacts {
				rows[i] = []string{contactName(p), api.EscapeNick(p.Nick), p.Fingerprint, p.State, p.Trust, orDash(p.Path), ago(p.LastSeen), p.Account}
			}
			return a.printTable([]string{"NAME", "NICK", "FINGERPRINT", "STATE", "TRUST", "PATH", "SEEN", "ACCOUNT"}, rows)
		}),
	}
}

func (a *app) contactRenameCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rename @NAME [NEWNAME]", Short: "Give somebody your own name; without one, take it back", Args: takes(1, 2),
		RunE: a.frontend(func(ctx context.Context, c *api.Client, args []string) error {
			req := api.ContactChange{Who: args[0], Action: api.ContactRename}
			if len(args) == 2 {
				req.Petname = args[1]
			}
			return c.ChangeContact(ctx, req)
		}),
	}
}

func (a *app) contactChangeCommand(action, short string, destructive bool) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: action + " @NAME", Short: short, Args: takes(1, 1),
		RunE: a.frontend(func(ctx context.Context, c *api.Client, args []string) error {
			if destructive && !yes {
				if err := a.confirm(fmt.Sprintf("%s %s", action, api.EscapeNick(args[0]))); err != nil {
					return err
				}
			}
			return c.ChangeContact(ctx, api.ContactChange{Who: args[0], Action: action})
		}),
	}
	if destructive {
		cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	}
	return cmd
}

// confirm asks before something that cannot be taken back easily.
func (a *app) confirm(what string) error {
	if !a.interactive() {
		return usagef("this would %s, and nobody can be asked: add --yes", what)
	}
	yes, err := a.ask(what + "? [y/N] ")
	if err != nil {
		return err
	}
	if !yes {
		return &silentError{code: exitFailure}
	}
	return nil
}

func (a *app) ask(question string) (bool, error) {
	fmt.Fprint(a.stderr, question)
	line, err := bufio.NewReader(a.stdin).ReadString('\n')
	if err != nil && line == "" {
		return false, fmt.Errorf("reading the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return true, nil
	}
	return false, nil
}

func (a *app) contactVerifyCommand() *cobra.Command {
	var yes, reset, asQR bool
	cmd := &cobra.Command{
		Use: "verify @NAME", Short: "Compare keys with somebody",
		Long: "Show the safety number that both of you see when nobody stands between you. Compare it by voice\n" +
			"or face to face, and say that it matches: on a terminal when asked, otherwise with --yes.",
		Args: takes(1, 1),
		RunE: a.frontend(func(ctx context.Context, c *api.Client, args []string) error {
			if reset {
				return a.setTrust(ctx, c, args[0], api.TrustUnverified)
			}
			v, err := c.Verification(ctx, args[0])
			if err != nil {
				return err
			}
			if err := a.showVerification(v, asQR); err != nil {
				return err
			}
			if !yes && a.interactive() && !a.global.json {
				if yes, err = a.ask("does " + api.EscapeNick(v.Nick) + " see the same number? [y/N] "); err != nil {
					return err
				}
			}
			if !yes {
				return nil
			}
			return a.setTrust(ctx, c, args[0], api.TrustVerified)
		}),
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "the numbers were compared and are equal")
	cmd.Flags().BoolVar(&reset, "reset", false, "take the verification back")
	cmd.Flags().BoolVar(&asQR, "qr", false, "show a QR code too")
	return cmd
}

func (a *app) showVerification(v api.Verification, asQR bool) error {
	if a.global.json {
		return a.printJSON(v)
	}
	if asQR {
		if err := a.printQR(v.QR); err != nil {
			return err
		}
	}
	rows := [][]string{{"who", api.EscapeNick(v.Nick)}, {"account", v.Account}, {"trust", v.Trust}}
	for i, line := range strings.Split(v.SafetyNumber, "\n") {
		label := "safety number"
		if i > 0 {
			label = ""
		}
		rows = append(rows, []string{label, line})
	}
	return a.printTable(nil, rows)
}

func (a *app) setTrust(ctx context.Context, c *api.Client, who, trust string) error {
	contact, err := c.SetTrust(ctx, who, trust)
	if err != nil {
		return err
	}
	a.note("%s is now %s", contactName(contact), contact.Trust)
	return nil
}
