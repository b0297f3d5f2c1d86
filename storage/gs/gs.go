// Package gs accesses files in Google Cloud Storage as gs://bucket/name, through its JSON API. It
// owns the connections, the tokens, and the selection of the access for a URL. Each operation is a
// single attempt. The package reads neither configuration nor environment, except through Google's
// search for default credentials if an access names none.
//
// The API is used directly: Google's own client has some forty dependencies, including gRPC, for
// the five calls that are needed here. Names are unquoted in URLs, as ClearML writes them.
package gs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"

	"clearmlserving/outbound"
	"clearmlserving/storage"
)

// Options of an Adapter.
type Options struct {
	// Default is the access if no bucket matches.
	Default Access
	// Buckets have their own access. The longest matching prefix of a URL wins.
	Buckets []Bucket
	// Endpoint replaces Google's servers, as http://host:port for an emulator, which gets no
	// credentials. "": Google.
	Endpoint string
	// Transport makes the connections. Default: that of the zero outbound.Network.
	Transport http.RoundTripper
}

// Bucket is the access to one bucket or to a folder of it.
type Bucket struct {
	Name, Folder string
	Access
}

// Access is the credentials for a bucket.
type Access struct {
	// Credentials is the path of a file of Google credentials, or its content. "":
	// the default credentials of this machine.
	Credentials string
	// From is the source of the configuration, for messages.
	From string
}

// Adapter accesses files in Google Cloud Storage.
type Adapter struct {
	o    Options
	base string

	mu     sync.Mutex // guards tokens
	tokens map[string]oauth2.TokenSource
}

var (
	_ storage.Lister = (*Adapter)(nil)
	_ storage.Named  = (*Adapter)(nil)
)

// New creates an Adapter; it does not connect.
func New(o Options) *Adapter {
	a := &Adapter{o: o, base: "https://storage.googleapis.com", tokens: map[string]oauth2.TokenSource{}}
	if o.Endpoint != "" {
		a.base = strings.TrimRight(o.Endpoint, "/")
		if !strings.Contains(a.base, "://") {
			a.base = "http://" + a.base
		}
	}
	if o.Transport == nil {
		a.o.Transport = outbound.Network{}.Transport(outbound.Trust{}, time.Minute)
	}
	return a
}

// place is a parsed URL.
type place struct {
	url, bucket, name string
	access            Access
}

// errNoBucket refuses a URL without a bucket or a name.
var errNoBucket = errors.New("an address in Google Storage is gs://bucket/name")

// find parses a URL. For a list, the name may be empty.
func (a *Adapter) find(op, rawURL string) (place, error) {
	scheme, rest, _ := strings.Cut(rawURL, "://")
	p := place{url: rawURL, access: a.o.Default}
	p.bucket, p.name, _ = strings.Cut(rest, "/")
	if !strings.EqualFold(scheme, "gs") || p.bucket == "" || (p.name == "" && op != "list") {
		return place{}, errNoBucket
	}
	longest := -1
	for _, b := range a.o.Buckets {
		prefix := strings.ToLower(strings.Trim(b.Name+"/"+strings.Trim(b.Folder, "/"), "/"))
		if after, ok := strings.CutPrefix(strings.ToLower(rest), prefix); ok && len(prefix) > longest && (after == "" || after[0] == '/') {
			p.access, longest = b.Access, len(prefix)
		}
	}
	return p, nil
}

// Named reports whether the URL is in a configured bucket or folder of one.
func (a *Adapter) Named(rawURL string) bool {
	scheme, rest, _ := strings.Cut(rawURL, "://")
	for _, b := range a.o.Buckets {
		prefix := strings.Trim(b.Name+"/"+strings.Trim(b.Folder, "/"), "/") + "/"
		if strings.EqualFold(scheme, "gs") && prefix != "/" && strings.HasPrefix(rest, prefix) {
			return true
		}
	}
	return false
}

// object is the address of a file in the API.
func (a *Adapter) object(p place) string {
	return a.base + "/storage/v1/b/" + url.PathEscape(p.bucket) + "/o/" + url.PathEscape(p.name)
}

// fields are the API's description of a file.
type fields struct {
	Name       string    `json:"name"`
	Size       string    `json:"size"`
	Generation string    `json:"generation"`
	Updated    time.Time `json:"updated"`
	CRC32C     string    `json:"crc32c"`
}

// Stat describes a file.
func (a *Adapter) Stat(ctx context.Context, rawURL string) (_ storage.Object, err error) {
	defer storage.Wrap(ctx, "stat", rawURL, &err)
	p, err := a.find("stat", rawURL)
	if err != nil {
		return storage.Object{}, err
	}
	var f fields
	if err := a.call(ctx, "stat", p, http.MethodGet, a.object(p)+"?fields=name,size,generation,updated", &f); err != nil {
		return storage.Object{}, err
	}
	size, err := strconv.ParseInt(f.Size, 10, 64)
	if err != nil {
		return storage.Object{}, fmt.Errorf("the server reports the size %q", f.Size)
	}
	// Parts of one generation belong together, so it is the validator. The time also changes with
	// a file's description, and answers to reads do not have it.
	return storage.Object{Size: size, ETag: tag(f.Generation), Ranges: true}, nil
}

func tag(generation string) string {
	if generation == "" {
		return ""
	}
	return `"` + generation + `"`
}

// Open reads a part of a file.
func (a *Adapter) Open(ctx context.Context, rawURL string, part storage.Part) (_ io.ReadCloser, _ storage.Object, err error) {
	defer storage.Wrap(ctx, "open", rawURL, &err)
	p, err := a.find("open", rawURL)
	if err != nil {
		return nil, storage.Object{}, err
	}
	target := a.object(p) + "?alt=media"
	if part.Of.ETag != "" {
		target += "&ifGenerationMatch=" + url.QueryEscape(strings.Trim(part.Of.ETag, `"`))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, storage.Object{}, err
	}
	if !part.Whole() {
		req.Header.Set("Range", part.Range())
	}
	// Without it, a file that was stored compressed would be sent decompressed.
	req.Header.Set("Accept-Encoding", "gzip")
	resp, err := a.send(ctx, "open", p, req)
	if err != nil {
		return nil, storage.Object{}, err
	}
	now := storage.Object{Size: resp.ContentLength, ETag: tag(resp.Header.Get("X-Goog-Generation")), Ranges: true}
	now.ETag = cmp.Or(now.ETag, part.Of.ETag) // the condition of the request has held
	now, length, err := storage.CheckAnswer(part, now, resp.Header.Get("Content-Range"))
	if err != nil {
		drop(resp)
		return nil, now, err
	}
	return storage.Body(ctx, rawURL, resp.Body, length), now, nil
}

// Delete removes a file.
func (a *Adapter) Delete(ctx context.Context, rawURL string) (err error) {
	defer storage.Wrap(ctx, "delete", rawURL, &err)
	p, err := a.find("delete", rawURL)
	if err != nil {
		return err
	}
	return a.call(ctx, "delete", p, http.MethodDelete, a.object(p), nil)
}

// List returns the URLs of all files whose URL begins with prefix.
func (a *Adapter) List(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return storage.Listing(ctx, prefix, func(yield func(string) bool) error {
		p, err := a.find("list", prefix)
		if err != nil {
			return err
		}
		stem := prefix[:len(prefix)-len(p.name)]
		query := url.Values{"prefix": {p.name}, "fields": {"items(name),nextPageToken"}}
		for {
			var page struct {
				Items         []fields `json:"items"`
				NextPageToken string   `json:"nextPageToken"`
			}
			target := a.base + "/storage/v1/b/" + url.PathEscape(p.bucket) + "/o?" + query.Encode()
			if err := a.call(ctx, "list", p, http.MethodGet, target, &page); err != nil {
				return err
			}
			for _, item := range page.Items {
				if !yield(stem + item.Name) {
					return nil
				}
			}
			if page.NextPageToken == "" {
				return nil
			}
			query.Set("pageToken", page.NextPageToken)
		}
	})
}

// call makes a request without a body and reads its answer into a value, nil for none.
func (a *Adapter) call(ctx context.Context, op string, p place, method, target string, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, target, nil)
	if err != nil {
		return err
	}
	resp, err := a.send(ctx, op, p, req)
	if err != nil {
		return err
	}
	defer drop(resp)
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<20)).Decode(into); err != nil {
		return &storage.Error{Op: op, URL: p.url, Transient: true, Err: fmt.Errorf("the answer cannot be read: %w", err)}
	}
	return nil
}
