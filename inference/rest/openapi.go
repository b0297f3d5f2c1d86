package rest

import (
	"cmp"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"clearmlserving/inference"
	"clearmlserving/inference/engine"
	"clearmlserving/inference/listener"
	"clearmlserving/inference/openapi"
	"clearmlserving/serving"
)

const openapiPath = "/openapi.json"

// documentAge bounds how long a document is kept: states change without a new routing table.
const documentAge = 2 * time.Second

// documents keeps the document of the whole service, because its clients may be many.
type documents struct {
	mu      sync.Mutex
	edition any // of the routing table
	keys    bool
	made    time.Time
	text    []byte
}

// get returns the document of the whole service.
func (d *documents) get(f *Front) ([]byte, *listener.Response) {
	d.mu.Lock()
	defer d.mu.Unlock()
	edition, keys := f.core.Edition(), f.core.KeysRequired()
	if d.text != nil && d.edition == edition && d.keys == keys && time.Since(d.made) < documentAge {
		return d.text, nil
	}
	text, failed := f.document("")
	if failed == nil {
		d.edition, d.keys, d.made, d.text = edition, keys, time.Now(), text
	}
	return text, failed
}

// openapi describes the whole service to clients with a key for it, or with ?endpoint= an endpoint and
// the URLs below it to clients with a key for that.
func (f *Front) openapi(h *listener.Head) *listener.Response {
	if h.Method != http.MethodGet && h.Method != http.MethodHead {
		return notAllowed("GET, HEAD", "")
	}
	query, err := url.ParseQuery(h.RawQuery)
	if err != nil {
		return detail(http.StatusBadRequest, "The query cannot be read: "+err.Error())
	}
	var refused *inference.Failure
	endpoint := serving.CleanURL(query.Get("endpoint"))
	if endpoint == "" {
		refused = f.core.AuthorizeService(head(h, ""))
	} else {
		refused = f.core.AdmitAbout(head(h, endpoint))
	}
	if refused != nil {
		return refuse(refused)
	}
	var text []byte
	var failed *listener.Response
	if endpoint == "" {
		text, failed = f.documents.get(f)
	} else {
		text, failed = f.document(endpoint)
	}
	if failed != nil {
		return failed
	}
	resp := &listener.Response{Response: engine.Response{Status: http.StatusOK, ContentType: jsonType, Body: text}}
	resp.Header = []engine.Header{{Name: "Cache-Control", Value: "no-store"}}
	return resp
}

// document describes an endpoint and the URLs below it, or all.
func (f *Front) document(endpoint serving.EndpointURL) ([]byte, *listener.Response) {
	catalog, known := f.core.Catalog(func(url serving.EndpointURL) bool {
		return endpoint == "" || url == endpoint || strings.HasPrefix(string(url), string(endpoint)+"/")
	})
	if !known {
		resp := detail(http.StatusServiceUnavailable, "The configuration has not been read yet")
		resp.Header = []engine.Header{{Name: "Retry-After", Value: "1"}}
		return nil, resp
	}
	about := openapi.Service{Title: cmp.Or(f.core.Name(), "ClearML Serving"), Version: f.o.Version, Prefix: f.prefix, Keys: f.core.KeysRequired(), Feedback: f.o.Feedback != nil}
	for _, e := range catalog {
		about.Endpoints = append(about.Endpoints, openapi.Endpoint(e))
	}
	text, err := openapi.Document(about, openapi.MaxDocument)
	if err != nil {
		f.o.Logger.Warn("openapi document not made", "err", err)
		return nil, detail(http.StatusInternalServerError, "The document cannot be made: "+err.Error())
	}
	return text, nil
}

// pageFile answers requests for a file of the page that shows the document.
func (f *Front) pageFile(h *listener.Head, file openapi.File) *listener.Response {
	if h.Method != http.MethodGet && h.Method != http.MethodHead {
		return notAllowed("GET, HEAD", "")
	}
	resp := &listener.Response{Response: engine.Response{Status: http.StatusOK, ContentType: file.ContentType, Body: file.Body}}
	resp.Header = []engine.Header{
		{Name: "Content-Security-Policy", Value: openapi.PagePolicy},
		{Name: "X-Content-Type-Options", Value: "nosniff"},
		{Name: "Referrer-Policy", Value: "no-referrer"},
		{Name: "Cache-Control", Value: "no-cache"},
	}
	return resp
}
