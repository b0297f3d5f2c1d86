// Package https accesses files over http and https: ClearML file servers and any other server of
// plain files. Each operation is a single attempt; errors say whether a retry may succeed. A
// function provides the credentials for each host, so that a redirect never takes them along.
package https

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"clearmlserving/outbound"
	"clearmlserving/storage"
)

// Options of an Adapter.
type Options struct {
	// Header returns the header fields for a request to a URL, such as Authorization. It is called
	// for each request and again for the target of each redirect. An error that is
	// storage.ErrDenied is final; any other is transient, because the source of credentials may be
	// unavailable. nil: none.
	Header func(url string) (http.Header, error)
	// FileServer is the root URL of a ClearML file server; files below it are stored as its
	// clients do, others with PUT. "": none.
	FileServer string
	// Transport makes the connections. Default: that of the zero outbound.Network.
	Transport http.RoundTripper
	// UserAgent is sent with each request. Default "clearml-serving".
	UserAgent string
}

// Adapter accesses files over http and https.
type Adapter struct {
	o Options
}

var _ storage.Adapter = (*Adapter)(nil)

// New creates an Adapter; it does not connect.
func New(o Options) *Adapter {
	a := &Adapter{o: o}
	a.o.FileServer = strings.TrimRight(o.FileServer, "/")
	if o.Transport == nil {
		transport := outbound.Network{}.Transport(outbound.Trust{}, time.Minute)
		transport.ForceAttemptHTTP2 = true
		a.o.Transport = transport
	}
	if o.UserAgent == "" {
		a.o.UserAgent = "clearml-serving"
	}
	return a
}

// Stat describes a file. If HEAD is refused, as for URLs that are signed for GET only, the first
// byte is requested instead.
func (a *Adapter) Stat(ctx context.Context, rawURL string) (_ storage.Object, err error) {
	defer storage.Wrap(ctx, "stat", rawURL, &err)
	resp, err := a.do(ctx, "stat", http.MethodHead, rawURL, nil)
	if err != nil {
		return storage.Object{}, err
	}
	drop(resp)
	switch resp.StatusCode {
	case http.StatusOK:
		return object(resp), encodingError(resp, rawURL)
	case http.StatusMethodNotAllowed, http.StatusNotImplemented, http.StatusForbidden, http.StatusBadRequest:
	default:
		return storage.Object{}, statusError("stat", rawURL, resp)
	}
	body, object, err := a.Open(ctx, rawURL, storage.Part{Length: 1})
	if errors.Is(err, storage.ErrNoRanges) || errors.Is(err, storage.ErrChanged) { // an empty file has no first byte
		body, object, err = a.Open(ctx, rawURL, storage.Part{})
	}
	if err != nil {
		if e, ok := errors.AsType[*storage.Error](err); ok {
			e.Op = "stat"
		}
		return storage.Object{}, err
	}
	_ = body.Close() // unread on purpose
	return object, nil
}

// Open reads a part of a file.
func (a *Adapter) Open(ctx context.Context, rawURL string, part storage.Part) (_ io.ReadCloser, _ storage.Object, err error) {
	defer storage.Wrap(ctx, "open", rawURL, &err)
	header := http.Header{}
	if !part.Whole() {
		header.Set("Range", part.Range())
		if strong(part.Of.ETag) {
			header.Set("If-Range", part.Of.ETag)
		} else if !part.Of.Modified.IsZero() {
			header.Set("If-Range", part.Of.Modified.UTC().Format(http.TimeFormat))
		}
	}
	resp, err := a.do(ctx, "open", http.MethodGet, rawURL, header)
	if err != nil {
		return nil, storage.Object{}, err
	}
	object, length, err := judge(resp, rawURL, part)
	if err != nil {
		drop(resp)
		return nil, object, err
	}
	return storage.Body(ctx, rawURL, resp.Body, length), object, nil
}

// judge checks that an answer is the requested part, and returns its number of bytes; -1 if
// unknown.
func judge(resp *http.Response, rawURL string, part storage.Part) (storage.Object, int64, error) {
	now := object(resp)
	switch resp.StatusCode {
	case http.StatusOK, http.StatusPartialContent:
	case http.StatusRequestedRangeNotSatisfiable:
		return now, 0, storage.ErrChanged // the request was for bytes of a known length
	default:
		return now, 0, statusError("open", rawURL, resp)
	}
	if err := encodingError(resp, rawURL); err != nil {
		return now, 0, err
	}
	if resp.StatusCode == http.StatusOK {
		return storage.CheckAnswer(part, now, "")
	}
	if part.Whole() {
		return now, 0, errors.New("the server answers with a part, but the whole file was requested")
	}
	now.Ranges = true
	return storage.CheckAnswer(part, now, resp.Header.Get("Content-Range"))
}

func object(resp *http.Response) storage.Object {
	o := storage.Object{
		Size:   resp.ContentLength,
		ETag:   resp.Header.Get("ETag"),
		Ranges: strings.EqualFold(resp.Header.Get("Accept-Ranges"), "bytes"),
		// HTTP/1 without a length and without chunks ends by closing, like an interruption.
		Unframed: resp.ContentLength < 0 && resp.ProtoMajor < 2 && len(resp.TransferEncoding) == 0 && resp.Request.Method != http.MethodHead,
	}
	if t, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
		o.Modified = t
	}
	return o
}

func strong(etag string) bool { return etag != "" && !strings.HasPrefix(etag, "W/") }

// encodingError refuses bytes that are not the stored ones. Some servers announce an encoding for a
// .gz file itself; its bytes are correct.
func encodingError(resp *http.Response, rawURL string) error {
	encoding := strings.ToLower(strings.TrimSpace(resp.Header.Get("Content-Encoding")))
	if encoding == "" || encoding == "identity" {
		return nil
	}
	if encoding == "gzip" || encoding == "x-gzip" {
		if u, err := url.Parse(rawURL); err == nil && strings.HasSuffix(u.Path, "gz") {
			return nil
		}
	}
	return fmt.Errorf("the server encodes the file as %q, which was not requested; the bytes would not be the stored ones", encoding)
}
