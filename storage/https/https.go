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
	"strconv"
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
	o     Options
	owned *http.Transport // nil if the transport is the caller's
}

var _ storage.Adapter = (*Adapter)(nil)

// New creates an Adapter; it does not connect.
func New(o Options) *Adapter {
	a := &Adapter{o: o}
	a.o.FileServer = strings.TrimRight(o.FileServer, "/")
	if o.Transport == nil {
		a.owned = outbound.Network{}.Transport(outbound.Trust{}, time.Minute)
		a.owned.ForceAttemptHTTP2 = true
		a.o.Transport = a.owned
	}
	if o.UserAgent == "" {
		a.o.UserAgent = "clearml-serving"
	}
	return a
}

// Close closes idle connections. The Adapter can still be used.
func (a *Adapter) Close() {
	if a.owned != nil {
		a.owned.CloseIdleConnections()
	}
}

// Stat describes a file. If HEAD is refused, as for URLs that are signed for GET only, the first
// byte is requested instead.
func (a *Adapter) Stat(ctx context.Context, rawURL string) (storage.Object, error) {
	resp, err := a.do(ctx, "stat", http.MethodHead, rawURL, nil)
	if err != nil {
		return storage.Object{}, err
	}
	drop(resp)
	switch resp.StatusCode {
	case http.StatusOK:
		if err := encodingError(resp, rawURL); err != nil {
			return storage.Object{}, &storage.Error{Op: "stat", URL: rawURL, Err: err}
		}
		return object(resp, resp.ContentLength), nil
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
func (a *Adapter) Open(ctx context.Context, rawURL string, part storage.Part) (io.ReadCloser, storage.Object, error) {
	header := http.Header{}
	if !part.Whole() {
		last := ""
		if part.Length > 0 {
			last = strconv.FormatInt(part.Offset+part.Length-1, 10)
		}
		header.Set("Range", "bytes="+strconv.FormatInt(part.Offset, 10)+"-"+last)
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
	fail := func(err error) (storage.Object, int64, error) {
		return storage.Object{}, 0, &storage.Error{Op: "open", URL: rawURL, Err: err}
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusPartialContent:
	case http.StatusRequestedRangeNotSatisfiable:
		return fail(storage.ErrChanged) // the request was for bytes of a known length
	default:
		return storage.Object{}, 0, statusError("open", rawURL, resp)
	}
	if err := encodingError(resp, rawURL); err != nil {
		return fail(err)
	}
	if resp.StatusCode == http.StatusOK {
		o := object(resp, resp.ContentLength)
		switch {
		case part.Of.Validated() && !part.Of.Same(o):
			return fail(storage.ErrChanged)
		case !part.Whole():
			return fail(storage.ErrNoRanges)
		}
		return o, o.Size, nil
	}
	if part.Whole() {
		return fail(errors.New("the server answers with a part although all was asked for"))
	}
	from, to, total, ok := storage.ContentRange(resp.Header.Get("Content-Range"))
	if !ok {
		return fail(fmt.Errorf("the server answers with other bytes (%q) than asked for: %w", resp.Header.Get("Content-Range"), storage.ErrNoRanges))
	}
	o := object(resp, total)
	o.Ranges = true
	want, err := storage.CheckPart(part, o, from, to)
	if err != nil {
		return fail(err)
	}
	return o, want, nil
}

func object(resp *http.Response, size int64) storage.Object {
	o := storage.Object{
		Size:   size,
		ETag:   resp.Header.Get("ETag"),
		Ranges: strings.EqualFold(resp.Header.Get("Accept-Ranges"), "bytes"),
		// HTTP/1 without a length and without chunks ends by closing, like an interruption.
		Unframed: size < 0 && resp.ProtoMajor < 2 && len(resp.TransferEncoding) == 0 && resp.Request.Method != http.MethodHead,
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
	return fmt.Errorf("the server encodes the file as %q although asked not to; the bytes would not be the stored ones", encoding)
}
