package ui

import (
	"archive/zip"
	"bytes"
	"strings"
	"testing"

	"clearmlserving/clearml"
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

func TestThePythonFilesOfAPackedFolderAreShown(t *testing.T) {
	var packed bytes.Buffer
	z := zip.NewWriter(&packed)
	for _, name := range []string{"helper.py", "__init__.py", "data.bin"} {
		w, err := z.Create(name)
		if err == nil {
			_, err = w.Write([]byte("# " + name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := pythonFiles(clearml.Artifact{Type: "archive"}, packed.Bytes())
	if err != nil || len(files) != 2 || files[0].name != "__init__.py" || string(files[1].text) != "# helper.py" {
		t.Errorf("%q, %v", files, err)
	}
	if _, err := pythonFiles(clearml.Artifact{Type: "archive"}, []byte("no zip")); err == nil {
		t.Error("what is no zip is taken for one")
	}
	if files, err := pythonFiles(clearml.Artifact{Type: "custom", URI: "http://files/a/preprocess.py"}, []byte("x")); err != nil || files[0].name != "preprocess.py" {
		t.Errorf("%q, %v", files, err)
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
