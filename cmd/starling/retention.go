package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-chat/starling/node/api"
)

type retentionFlags struct {
	age, size, disk string
	count           uint64
	reset, all      bool
}

func (a *app) retentionCommand() *cobra.Command {
	var f retentionFlags
	cmd := &cobra.Command{
		Use: "retention [ROOM]", Short: "Say how much is kept of a room, or of every room", Args: takes(0, 1),
		Long: "Without a flag, tell how much of a room is kept on this machine; without a ROOM, what holds for every\n" +
			"room that has no setting of its own. With flags, set it: the flags together are the new setting. What is\n" +
			"over a bound is removed at once and for good, the oldest first; others keep what they like.",
		Example: "  starling retention --age 365d --disk 2GB\n  starling retention '#logs' --count 10000 --yes\n  starling retention '#logs' --reset",
	}
	flags := cmd.Flags()
	flags.StringVar(&f.age, "age", "", "keep messages for this `TIME`, such as 30d; at least 1d")
	flags.Uint64Var(&f.count, "count", 0, "keep the newest `N` events, at least 100")
	flags.StringVar(&f.size, "size", "", "keep at most `BYTES` of a room, such as 200MB; at least 1MB")
	flags.StringVar(&f.disk, "disk", "", "let all rooms together take at most `BYTES`; the biggest gives way")
	flags.BoolVar(&f.reset, "reset", false, "go back to what holds for every room; without ROOM, keep everything")
	flags.BoolVar(&f.all, "yes", false, "do not ask before messages are removed")
	cmd.RunE = a.frontend(func(ctx context.Context, c *api.Client, args []string) error {
		target := ""
		if len(args) == 1 {
			target = args[0]
		}
		changed := false
		for _, name := range []string{"age", "count", "size", "disk", "reset"} {
			changed = changed || flags.Changed(name)
		}
		if changed {
			return a.setRetention(ctx, c, target, f)
		}
		keep, err := c.Retention(ctx, target)
		if err != nil {
			return err
		}
		if a.global.json {
			return a.printJSON(keep)
		}
		return a.say("%s", keptWords(keep))
	})
	return cmd
}

func (a *app) setRetention(ctx context.Context, c *api.Client, target string, f retentionFlags) error {
	req := api.Retention{Target: target, MaxCount: f.count, Reset: f.reset}
	var err error
	if req.MaxAgeMS, err = parseAge(f.age); err != nil {
		return err
	}
	if req.MaxBytes, err = parseSize("--size", f.size); err != nil {
		return err
	}
	if req.MaxDisk, err = parseSize("--disk", f.disk); err != nil {
		return err
	}
	if f.reset && (req.MaxAgeMS != 0 || req.MaxCount != 0 || req.MaxBytes != 0 || req.MaxDisk != 0) {
		return usagef("--reset goes with no other bound")
	}
	if !f.reset && !f.all {
		if !isTerminal(a.stdin) {
			return usagef("older messages are removed for good; say --yes if that is meant")
		}
		a.note("Messages over the bound are removed from this machine for good. Go on? [y/N]")
		var answer string
		if _, err := fmt.Fscanln(a.stdin, &answer); err != nil || !strings.EqualFold(answer, "y") && !strings.EqualFold(answer, "yes") {
			return &silentError{code: exitFailure}
		}
	}
	if err := c.SetRetention(ctx, req); err != nil {
		return err
	}
	if a.global.quiet {
		return nil
	}
	keep, err := c.Retention(ctx, target)
	if err != nil {
		return err
	}
	if a.global.json {
		return a.printJSON(keep)
	}
	return a.say("%s", keptWords(keep))
}

// keptWords says a retention in a sentence.
func keptWords(k api.Retention) string {
	var parts []string
	if k.MaxAgeMS > 0 {
		parts = append(parts, plural(int(k.MaxAgeMS/(24*time.Hour).Milliseconds()), "day"))
	}
	if k.MaxCount > 0 {
		parts = append(parts, plural(int(k.MaxCount), "event"))
	}
	if k.MaxBytes > 0 {
		parts = append(parts, fmt.Sprintf("%d MB a room", k.MaxBytes/1e6))
	}
	if k.MaxDisk > 0 {
		parts = append(parts, fmt.Sprintf("%d MB for all rooms", k.MaxDisk/1e6))
	}
	words := "everything is kept"
	if len(parts) > 0 {
		words = "kept: at most " + strings.Join(parts, ", ")
	}
	if k.Target != "" && !k.Own {
		words += " (as for every room)"
	}
	return words
}

// parseAge reads a time such as 30d or 36h, in milliseconds.
func parseAge(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil || n == 0 {
			return 0, usagef("--age %q is not a number of days such as 30d", text)
		}
		return int64(n) * (24 * time.Hour).Milliseconds(), nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, usagef("--age %q is not a time such as 30d or 36h", text)
	}
	return d.Milliseconds(), nil
}

// parseSize reads bytes such as 200MB.
func parseSize(flag, text string) (uint64, error) {
	if text == "" {
		return 0, nil
	}
	upper := strings.ToUpper(strings.TrimSuffix(strings.ToUpper(text), "B"))
	factor := uint64(1)
	for suffix, f := range map[string]uint64{"K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "KI": 1 << 10, "MI": 1 << 20, "GI": 1 << 30} {
		if number, ok := strings.CutSuffix(upper, suffix); ok {
			upper, factor = number, f
			break
		}
	}
	n, err := strconv.ParseUint(strings.TrimSpace(upper), 10, 32)
	if err != nil || n == 0 {
		return 0, usagef("%s %q is not a size such as 200MB or 2GB", flag, text)
	}
	return n * factor, nil
}
