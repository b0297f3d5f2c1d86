package openapi

import "embed"

// File is a file of the page that shows a document. The page gets its content from openapi.json, so the
// files are the same for every client.
type File struct {
	Path, ContentType string
	Body              []byte
}

//go:embed page
var page embed.FS

// PagePolicy is the Content-Security-Policy of the page: only its own files, and requests to the
// same origin.
const PagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"

// Page lists the files of the page. The links in it are relative, so that it works below a path of a proxy.
func Page() []File {
	var files []File
	for _, f := range []struct{ path, name, contentType string }{
		{"/docs", "docs.html", "text/html; charset=utf-8"},
		{"/docs.js", "docs.js", "text/javascript; charset=utf-8"},
		{"/docs.css", "docs.css", "text/css; charset=utf-8"},
		{"/docs.svg", "docs.svg", "image/svg+xml"},
	} {
		body, err := page.ReadFile("page/" + f.name)
		if err != nil { // it is embedded: the test of the page reads all
			continue
		}
		files = append(files, File{f.path, f.contentType, body})
	}
	return files
}
