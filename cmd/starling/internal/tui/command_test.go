package tui

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestAdviceCanBeTyped reads what the node advises when something was not done: whoever chats is told what to
// type there, not what to do in a shell, and it is a command that exists.
func TestAdviceCanBeTyped(t *testing.T) {
	source, err := os.ReadFile("../../../../node/apiserver/errors.go")
	if err != nil {
		t.Fatal(err)
	}
	advice := regexp.MustCompile("`starling [^`]+`").FindAllString(string(source), -1)
	if len(advice) < 5 {
		t.Fatalf("the source advises %q", advice)
	}
	for _, a := range advice {
		got := AsTyped("see " + a)
		name, ok := strings.CutPrefix(got, "see `/")
		name, _, _ = strings.Cut(strings.Trim(name, "`"), " ")
		switch {
		case a == "`starling run`": // the node is gone
		case !ok || commands[name] == nil:
			t.Errorf("%s becomes %q", a, got)
		}
	}
}
