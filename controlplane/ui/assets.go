package ui

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"net/http"
	"path"
	"time"
)

// The libraries among the assets come from `make generate`, with their licences.
//
//go:embed assets
var assetFiles embed.FS

// assets are the style sheets, scripts, and libraries. The name of each in its URL contains its
// hash, so that browsers may cache it without a limit.
type assets struct {
	byName map[string]asset
	named  map[string]string // file name -> served name
}

type asset struct {
	kind string
	text []byte
}

func readAssets() (assets, error) {
	a := assets{byName: map[string]asset{}, named: map[string]string{}}
	files, err := assetFiles.ReadDir("assets")
	if err != nil {
		return a, fmt.Errorf("read the assets of the web pages: %w", err)
	}
	for _, file := range files {
		text, err := assetFiles.ReadFile("assets/" + file.Name())
		if err != nil {
			return a, fmt.Errorf("read the assets of the web pages: %w", err)
		}
		sum := sha256.Sum256(text)
		served := hex.EncodeToString(sum[:6]) + "-" + file.Name()
		a.byName[served], a.named[file.Name()] = asset{assetKind(file.Name()), text}, served
	}
	return a, nil
}

// assetKind is the content type of an asset, independent of the machine's MIME tables.
func assetKind(name string) string {
	switch path.Ext(name) {
	case ".css":
		return "text/css; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	return "text/plain; charset=utf-8"
}

// url is the path of a file.
func (a assets) url(file string) (string, error) {
	served, ok := a.named[file]
	if !ok {
		return "", fmt.Errorf("there is no asset %q", file)
	}
	return "/assets/" + served, nil
}

func (p *Pages) serveAsset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	found, ok := p.assets.byName[name]
	if !ok {
		http.Error(w, "There is no such file.", http.StatusNotFound)
		return
	}
	h := w.Header()
	h.Set("Content-Type", found.kind)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("ETag", `"`+name[:12]+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(found.text))
}
