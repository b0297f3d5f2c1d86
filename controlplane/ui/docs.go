package ui

import (
	"bytes"
	"html/template"
	"net/http"
	"regexp"
	"slices"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"

	"clearmlserving/docs"
)

// docPage is a page of the documentation.
type docPage struct {
	Pages []docName
	Name  string // "" for the list of pages
	Text  template.HTML
}

type docName struct{ Name, Title string }

// docPicture is an image, which this program does not carry; docLink leads to another page.
var (
	docPicture = regexp.MustCompile(`!\[[^\]]*\]\([^)]*\)`)
	docTitle   = regexp.MustCompile(`(?m)^# (.+)$`)
	docLink    = regexp.MustCompile(`\]\(([\w/-]+)\.md(#[^)]*)?\)`)
)

// docs shows the documentation that this program was built with.
func (p *Pages) docs(v *visit) error {
	name := v.r.PathValue("page")
	page := docPage{Name: name}
	for _, one := range docs.Names() {
		title := one
		if found := docTitle.FindSubmatch(docs.Page(one)); found != nil {
			title = string(found[1])
		}
		page.Pages = append(page.Pages, docName{one, title})
	}
	if name == "" {
		return v.render("docs", "Documentation", page)
	}
	at := slices.IndexFunc(page.Pages, func(d docName) bool { return d.Name == name })
	if at < 0 {
		return refusal{http.StatusNotFound, "The documentation has no page called " + name + "."}
	}
	text := docPicture.ReplaceAll(docs.Page(name), nil)
	text = docLink.ReplaceAll(text, []byte("](/docs/$1$2)"))
	markdown := goldmark.New(
		goldmark.WithExtensions(extension.NewTable(extension.WithTableCellAlignMethod(extension.TableCellAlignNone))),
		goldmark.WithParserOptions(parser.WithAutoHeadingID()),
	)
	var out bytes.Buffer
	if err := markdown.Convert(text, &out); err != nil {
		return err
	}
	page.Text = template.HTML(out.String()) //nolint:gosec // made of our own files; raw HTML in them is left out
	return v.render("docs", page.Pages[at].Title, page)
}
