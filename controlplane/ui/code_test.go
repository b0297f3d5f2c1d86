package ui

import (
	"fmt"
	"strings"
	"testing"

	"clearmlserving/docs"
)

func TestPythonIsColouredByItsTokens(t *testing.T) {
	for text, want := range map[string]string{
		"def f(x): return 1  # one":   "word:def| |name:f|(x): |word:return| |figure:1|  |comment:# one",
		`a = "it's" + 'b\'c'`:         `a = |text:"it's"| + |text:'b\'c'`,
		"\"\"\"a # no\n'b'\"\"\" #c":  "text:\"\"\"a # no\n'b'\"\"\"| |comment:#c",
		"rb'x' f\"{a}\" buf":          "text:rb'x'| |text:f\"{a}\"| buf",
		"@wraps\nclass A(B):":         "name:@wraps|\n|word:class| |name:A|(B):",
		`x = "open` + "\ny = 'it'":    "x = |text:\"open|\ny = |text:'it'",
		"'''never closed # x":         "text:'''never closed # x",
		"définition = None":           "définition = |word:None",
		"x1 = 0x1F + 1_000.5e3":       "x1 = |figure:0x1F| + |figure:1_000.5e3",
		"":                            "",
		"\x00\xff<script>alert(1)</s": "\x00\xff<script>alert(|figure:1|)</s",
	} {
		var said []string
		var whole strings.Builder
		for _, token := range pythonTokens(text) {
			whole.WriteString(token.Text)
			if token.Class != "" {
				token.Text = token.Class + ":" + token.Text
			}
			said = append(said, token.Text)
		}
		if got := strings.Join(said, "|"); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
		if whole.String() != text {
			t.Errorf("%q became %q", text, whole.String())
		}
	}
}

func FuzzPythonTokensAreTheText(f *testing.F) {
	f.Add("def f(): return \"\"\"x")
	f.Fuzz(func(t *testing.T, text string) {
		if got := (codeFile{Tokens: pythonTokens(text)}).Text(); got != text {
			t.Errorf("%q became %q", text, got)
		}
	})
}

func TestTheCodeOnAPageIsBounded(t *testing.T) {
	files := filesOf(map[string]string{"a.py": strings.Repeat("é", maxCode/2-1) + "x", "b.py": "abéd", "data.bin": "(not a text)", "c.py": "y"})
	var said []string
	for _, f := range files {
		said = append(said, fmt.Sprintf("%s %d %v", f.Name, len(f.Text()), f.Cut))
	}
	if got, want := strings.Join(said, ", "), fmt.Sprintf("a.py %d false, b.py 1 true, c.py 0 true, data.bin 0 false", maxCode-1); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if only := filesOf(map[string]string{"preprocess": "x"}); only[0].Text() != "x" {
		t.Errorf("%v", only)
	}
}

func TestADifferenceOfRevisionsIsShownByItsLines(t *testing.T) {
	var said []string
	for _, line := range unifiedLines("--- 1/settings.json\n+++ 2/settings.json\n@@ -1 +1 @@\n-a\n+b\n c\n@@ -9 +9 @@\n-e\n--- 1/code/x.py\n+++ 2/code/x.py\n@@ -0,0 +1 @@\n+--- d\n") {
		said = append(said, line.Mark+line.Text)
	}
	if got, want := strings.Join(said, "|"), "=settings.json|-a|+b| c|…|-e|=code/x.py|+--- d"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestTheTextsOfAnAnswerAreReadable(t *testing.T) {
	for text, want := range map[string]string{
		`{"a": "\u003cb\u003e \u0026"}`: `{"a": "<b> &"}`, `{"a": "\\u003c"}`: `{"a": "\\u003c"}`, `{"a": "\\\u003c \n \u00e9"}`: `{"a": "\\< \n \u00e9"}`,
	} {
		if got := plainJSON(text); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

// Each page of the documentation is shown, and its links lead to pages that there are.
func TestTheDocumentationIsShown(t *testing.T) {
	p := newPages(t, Options{API: guest()})
	for _, name := range docs.Names() {
		page := ask(t, p, "GET", "/docs/"+name, "")
		text := page.Body.String()
		if page.Code != 200 || strings.Count(text, "<h1") != 1 || strings.Contains(text, "](") || strings.Contains(text, ".md\"") {
			t.Errorf("%s: %d, %d headings", name, page.Code, strings.Count(text, "<h1"))
		}
		for _, link := range strings.Split(text, `href="/docs/`)[1:] {
			to, _, _ := strings.Cut(link, `"`)
			to, _, _ = strings.Cut(to, "#")
			if docs.Page(to) == nil {
				t.Errorf("%s links to /docs/%s", name, to)
			}
		}
	}
}
