// Package docs carries the pages of the documentation for the web pages.
package docs

import (
	"embed"
	"strings"
)

//go:embed *.md
var files embed.FS

// Names lists the pages, by name and without their extension.
func Names() []string {
	entries, err := files.ReadDir(".")
	if err != nil {
		return nil
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = strings.TrimSuffix(e.Name(), ".md")
	}
	return names
}

// Page is the Markdown of a page, nil when there is none.
func Page(name string) []byte {
	text, err := files.ReadFile(name + ".md")
	if err != nil {
		return nil
	}
	return text
}
