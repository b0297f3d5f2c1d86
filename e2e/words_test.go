//go:build linux

package e2e_test

import (
	"strings"
	"testing"
)

// wantWords fails for every word that a message lacks. A message must name the
// thing that it is about.
func wantWords(t *testing.T, what, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%s does not say %q:\n%s", what, word, text)
		}
	}
}

// wantNoTrace fails for what must never reach a client.
func wantNoTrace(t *testing.T, what, text string) {
	t.Helper()
	for _, word := range []string{"Traceback", "goroutine ", "panic:", ".py\", line"} {
		if strings.Contains(text, word) {
			t.Errorf("%s shows a trace to a client:\n%s", what, text)
		}
	}
}
