package controlplane

import (
	"bytes"
	_ "embed" // the page's template
	"fmt"
	"html/template"
)

//go:embed landing.tmpl
var landingText string

// landingPage is what the page for people with a browser tells. It is shown to anybody
// who reaches the socket, so nothing of it is a secret.
type landingPage struct {
	Version, APIURL, FilesURL, WebURL string
}

// renderLanding makes the page once, at the start: a broken template stops the server,
// not a visitor.
func renderLanding(opts Options) ([]byte, error) {
	page, err := template.New("landing").Option("missingkey=error").Parse(landingText)
	if err != nil {
		return nil, fmt.Errorf("parse the landing page: %w", err)
	}
	var out bytes.Buffer
	err = page.Execute(&out, landingPage{Version: opts.Version, APIURL: opts.APIURL, FilesURL: opts.FilesURL, WebURL: opts.WebURL})
	if err != nil {
		return nil, fmt.Errorf("render the landing page: %w", err)
	}
	return out.Bytes(), nil
}
