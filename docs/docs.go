// Package docs carries the pages of the documentation for the web pages.
package docs

import (
	"embed"
	"io/fs"
	"slices"
	"strings"
)

//go:embed *.md decisions/*.md
var files embed.FS

// Names lists the pages, by their paths without the extension.
func Names() []string {
	var names []string
	for _, pattern := range []string{"*.md", "*/*.md"} {
		found, err := fs.Glob(files, pattern)
		if err != nil {
			return nil
		}
		names = slices.Concat(names, found)
	}
	for i, name := range names {
		names[i] = strings.TrimSuffix(name, ".md")
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
