package ui

import (
	"bytes"
	"context"
	"fmt"
	"html"
	"io"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"clearmlserving/clearml"
	"clearmlserving/operations"
	"clearmlserving/serving"
)

// Bounds of what a page shows, so that no page has more than 200 kB.
const (
	maxStored = 1 << 20  // of a file that is read for a page
	maxCode   = 24 << 10 // of the code of an endpoint
	maxText   = 16 << 10 // of golden samples in a form
)

// code is the user code of an endpoint.
type code struct {
	Artifact clearml.Artifact
	Files    []codeFile
	Problem  string // why it is not shown
}

// codeFile is a file of user code as tokens to be coloured.
type codeFile struct {
	Name   string
	Tokens []token
	Cut    bool // only the beginning is here
}

// Text is the file without colours.
func (f codeFile) Text() string {
	var b strings.Builder
	for _, t := range f.Tokens {
		b.WriteString(t.Text)
	}
	return b.String()
}

// codeOf reads an artifact of user code; a problem is told on the page.
func (v *visit) codeOf(artifacts map[string]clearml.Artifact, name string) code {
	artifact, ok := artifacts[name]
	if !ok {
		return code{}
	}
	files, err := operations.Code(v.r.Context(), serving.Revision{Content: serving.Content{Code: operations.CodeOf(artifact)}}, v.openFile)
	if err != nil {
		return code{Artifact: artifact, Problem: err.Error()}
	}
	return code{Artifact: artifact, Files: filesOf(files)}
}

// openFile reads a file of this installation's file server for operations.
func (v *visit) openFile(_ context.Context, uri string) (io.ReadCloser, error) {
	data, err := v.download(uri)
	return io.NopCloser(bytes.NewReader(data)), err
}

// filesOf are the Python files of code, as far as a page has room for them; of other files it has
// the names.
func filesOf(code map[string]string) []codeFile {
	left := maxCode
	var files []codeFile
	for _, name := range sortedKeys(code) {
		text := code[name]
		if len(code) > 1 && path.Ext(name) != ".py" {
			text = ""
		}
		shown := text[:min(len(text), left)]
		left -= len(shown)
		files = append(files, codeFile{Name: name, Tokens: pythonTokens(strings.ToValidUTF8(shown, "")), Cut: len(shown) < len(text)})
	}
	return files
}

// download reads a file of this installation's file server, at most maxStored of it.
func (v *visit) download(uri string) ([]byte, error) {
	if !strings.HasPrefix(uri, v.p.opts.FilesURL+"/") {
		return nil, fmt.Errorf("it is not on this file server, but at %s", uri)
	}
	answer, err := v.askFiles(http.MethodGet, uri, http.NoBody, fmt.Sprintf("bytes=0-%d", maxStored-1))
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusPartialContent {
		return nil, fmt.Errorf("the file server answers %d for %s", answer.StatusCode, uri)
	}
	return io.ReadAll(io.LimitReader(answer.Body, maxStored))
}

// askFiles sends a request to this installation's file server. ranges is a header field, "" for none.
func (v *visit) askFiles(method, uri string, body io.ReadCloser, ranges string) (*http.Response, error) {
	header, err := v.api.AuthHeader(v.r.Context(), uri)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(v.r.Context(), method, uri, body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", header)
	if ranges != "" {
		request.Header.Set("Range", ranges)
	}
	return v.p.opts.API.RoundTrip(request)
}

// token is a piece of Python with the class of its colour, "" for none.
type token struct{ Class, Text string }

// pythonToken finds comments, texts, numbers, and names, in this order.
var pythonToken = regexp.MustCompile(`(#[^\n]*)` +
	`|((?:[rRbBuUfF]|[rR][bBfF]|[bBfF][rR])?(?:(?s:"""(?:\\.|[^\\])*?(?:"""|\z)|'''(?:\\.|[^\\])*?(?:'''|\z))|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?))` +
	`|(\b\d[\w.]*)|(@?[A-Za-z_]\w*)`)

var pythonKeywords = strings.Fields(`False None True and as assert async await break class continue def del elif else except finally for
	from global if import in is lambda nonlocal not or pass raise return try while with yield match case self`)

// pythonTokens divides Python code. All tokens together are the text.
func pythonTokens(text string) []token {
	var all []token
	add := func(class, piece string) {
		if n := len(all); n > 0 && all[n-1].Class == class {
			all[n-1].Text += piece
		} else if piece != "" {
			all = append(all, token{class, piece})
		}
	}
	at, before := 0, ""
	for _, m := range pythonToken.FindAllStringSubmatchIndex(text, -1) {
		add("", text[at:m[0]])
		piece, class := text[m[0]:m[1]], ""
		switch {
		case m[2] >= 0:
			class = "comment"
		case m[4] >= 0:
			class = "text"
		case m[6] >= 0:
			class = "figure"
		case piece[0] == '@', before == "def", before == "class":
			class = "name"
		case slices.Contains(pythonKeywords, piece):
			class = "word"
		}
		add(class, piece)
		at, before = m[1], piece
	}
	add("", text[at:])
	return all
}

// samples are the golden samples of an endpoint.
type samples struct {
	Artifact clearml.Artifact
	Count    int
	More     bool   // there are more than Count
	Text     string // for the form, "" when it is too long
	Problem  string
	first    *serving.Exchange
}

// samplesOf reads golden samples; nil means that there are none.
func (v *visit) samplesOf(artifacts map[string]clearml.Artifact, golden *serving.Golden) samples {
	if golden == nil {
		return samples{}
	}
	artifact, ok := artifacts[golden.Artifact]
	if !ok {
		return samples{Problem: "The artifact " + golden.Artifact + " is missing: new versions are refused."}
	}
	s := samples{Artifact: artifact}
	data, err := v.download(artifact.URI)
	if err != nil {
		s.Problem = "The samples cannot be shown: " + err.Error()
		return s
	}
	if s.More = len(data) == maxStored; s.More {
		data = data[:bytes.LastIndexByte(data, '\n')+1]
	}
	all, err := serving.ParseExchanges(data)
	if err != nil {
		s.Problem = "The samples cannot be read, so new versions are refused: " + err.Error()
		return s
	}
	s.Count, s.first = len(all), &all[0]
	if !s.More && len(data) <= maxText && utf8.Valid(data) {
		s.Text = string(data)
	}
	return s
}

// room bounds the text of a page.
type room int

// take gives a text of at most this length the room that is left.
func (r *room) take(text string, longest int) string {
	shown := text[:min(len(text), longest, max(int(*r), 0))]
	*r -= room(len(html.EscapeString(shown)))
	if len(shown) < len(text) {
		return strings.ToValidUTF8(shown, "") + fmt.Sprintf("… (%s more)", formatBytes(int64(len(text)-len(shown))))
	}
	return text
}
