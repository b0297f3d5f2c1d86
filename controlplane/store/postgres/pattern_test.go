package postgres_test

import (
	"math/rand/v2"
	"regexp"
	"testing"

	"clearmlserving/controlplane/store"
	"clearmlserving/controlplane/store/postgres"
)

func count(t *testing.T, s *postgres.Store, pattern string) int {
	t.Helper()
	n, err := s.Count(t.Context(), store.Task, store.Regexp{Path: store.Path{"name"}, Pattern: regexp.MustCompile(pattern)})
	if err != nil {
		t.Fatalf("%s: %v", pattern, err)
	}
	return n
}

// randomText can't be compressed.
func randomText(n int) string {
	r := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, n)
	for i := range text {
		text[i] = byte('!' + r.IntN(90))
	}
	return string(text)
}

func TestPatternsFindInPostgreSQLWhatTheyFindHere(t *testing.T) {
	s := server.New(t)
	names := []string{"", "a", "A", "ab", "a.b", "a\nb", "K", "\u212a", "ſ", "é", "É", "x_y%z", `\`, "[x]", "a-b", "😀", "aaaa", "ABC abc", "1 2", "\t", "a|b", "(a)", "^$"}
	for i, name := range names {
		if err := insert(t, s, store.Doc{"id": string(rune('a' + i)), "name": name}); err != nil {
			t.Fatal(err)
		}
	}
	for _, pattern := range []string{
		"a", "(?i)a", "(?i)k", "(?i)s", "(?i)é", "a.b", "(?s)a.b", "^a$", `^$`, `\^\$`, `[a-c]+`, `[^a-z]`, `\d`, `\w \w`, `\s`, `\pL`, `a{2,3}`, `a{4}`, `^(?:a|b)+$`,
		`(a)|(b)`, `a*`, `a?b`, `\\`, `\[x\]`, `[\]\-]`, `😀`, `[[:upper:]]{2}`, `x_y`, `y%z`, `(?i)Abc ABC`, `\x{1F600}`, `a\|b`, `\(a\)`, `.*b$`, `(?i)^[a-k]$`, `$`, `^`, `(|a)b`,
	} {
		want := 0
		for _, name := range names {
			if regexp.MustCompile(pattern).MatchString(name) {
				want++
			}
		}
		if got := count(t, s, pattern); got != want {
			t.Errorf("%s finds %d, want %d", pattern, got, want)
		}
	}
}
