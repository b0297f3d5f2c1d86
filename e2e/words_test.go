//go:build linux

package e2e_test

import (
	"strings"
	"testing"
)

// wantWords fails for every word that a message lacks. A message must name its
// subject.
func wantWords(t *testing.T, what, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%s lacks %q:\n%s", what, word, text)
		}
	}
}

// wantNoTrace fails if a text contains a trace, which must never reach a client.
func wantNoTrace(t *testing.T, what, text string) {
	t.Helper()
	for _, word := range []string{"Traceback", "goroutine ", "panic:", ".py\", line"} {
		if strings.Contains(text, word) {
			t.Errorf("%s shows a trace to a client:\n%s", what, text)
		}
	}
}
