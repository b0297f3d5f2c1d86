// Package storage brings models and artifacts to this machine and takes them
// away again: the contract of a place where they lie, a cache that downloads
// each content once, and the packing and unpacking of archives. It owns the
// cache folder. It reads no configuration, decides nothing about what should be
// fetched, and never trusts a name that came from outside.
package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Adapter is a place where files lie, addressed by URLs of its scheme.
//
// All methods may be called from many goroutines. Each makes one attempt: an
// error that may heal by itself is marked as such (see IsTransient), and the
// caller decides how often to try again. Nothing needs to be closed except what
// Open returns.
type Adapter interface {
	// Stat tells about a file without reading it. ErrNotExist, ErrDenied.
	Stat(ctx context.Context, url string) (Object, error)

	// Open reads a part of a file. The reader gives exactly the bytes of the
	// part: one that ends earlier ends with a transient error, never with a
	// plain io.EOF. The returned Object describes what is read. The caller closes the reader;
	// ctx bounds the reading too. ErrNotExist, ErrDenied, ErrChanged, ErrNoRanges.
	Open(ctx context.Context, url string, part Part) (io.ReadCloser, Object, error)

	// Put stores a file, replacing one that is there. A reader who comes
	// meanwhile sees the old file or the new one, never a mixture. size is -1
	// when it is not known. It reads r to its end at most once; a repetition
	// after a transient error needs a fresh reader. progress may be nil.
	Put(ctx context.Context, url string, r io.Reader, size int64, progress Progress) error

	// Delete removes a file. ErrNotExist when there is none, so a second call
	// tells so.
	Delete(ctx context.Context, url string) error
}

// Locator is an Adapter whose files lie on this machine and are used in place.
type Locator interface {
	Adapter
	// LocalPath is where the file of the URL is, whether it exists or not.
	LocalPath(url string) (string, error)
}

// Lister is an Adapter that can tell which files there are.
type Lister interface {
	Adapter
	// List gives the URLs of all files whose URL begins with prefix, in any order.
	// An error ends it.
	List(ctx context.Context, prefix string) iter.Seq2[string, error]
}

// Named is an Adapter whose places (a bucket, a folder of one, a server, an account) can be
// configured by name.
type Named interface {
	Adapter
	// Named tells whether the URL is of a file in a place that is configured by name; one
	// that the adapter reaches by the rights that it has everywhere is not.
	Named(url string) bool
}

// PlainKey tells whether no part of a URL's path could be read as another folder than
// the one it names: nobody between here and a bucket may make "b" of "a/../b".
func PlainKey(url string) bool {
	_, rest, _ := strings.Cut(url, "://")
	for part := range strings.SplitSeq(strings.ReplaceAll(rest, `\`, "/"), "/") {
		if part == "." || part == ".." || part == "" {
			return false
		}
	}
	return true
}

// Progress is told how far a transfer is; total is -1 while it is not known.
// Calls come one at a time, from goroutines other than the caller's, and end
// before the transfer returns. done steps back when a transfer begins anew. It
// must not block.
type Progress func(done, total int64)

// Part is the portion of a file to read.
type Part struct {
	Offset int64
	Length int64 // 0: to the end
	// Of, when it has a validator, is the state of the file that the part must
	// belong to; a file that has changed since gives ErrChanged.
	Of Object
}

// Whole tells whether the part is the file from its first byte to its last.
func (p Part) Whole() bool { return p.Offset == 0 && p.Length == 0 }

// Object is what a place tells about a file.
type Object struct {
	Size     int64     // -1: not told
	ETag     string    // "": none; with its quotes, and W/ when weak
	Modified time.Time // zero: not told
	Ranges   bool      // parts can be read
	// Unframed says that the end of the file can't be told from a cut connection.
	Unframed bool
}

// Validated tells whether a later state of the file can be told from this one
// surely enough to join parts of both.
func (o Object) Validated() bool {
	return (o.ETag != "" && !strings.HasPrefix(o.ETag, "W/")) || !o.Modified.IsZero()
}

// Same tells whether two states of one file are known to hold the same bytes.
// What can't be known is not the same.
func (o Object) Same(other Object) bool {
	switch {
	case o.Size >= 0 && other.Size >= 0 && o.Size != other.Size:
		return false
	case o.ETag != "" && other.ETag != "":
		return strings.TrimPrefix(o.ETag, "W/") == strings.TrimPrefix(other.ETag, "W/")
	default:
		return !o.Modified.IsZero() && o.Modified.Equal(other.Modified)
	}
}

// The decisions that callers take.
var (
	// ErrNotExist says that there is no such file.
	ErrNotExist = errors.New("there is no such file")
	// ErrDenied says that the place refused access.
	ErrDenied = errors.New("access is denied")
	// ErrChanged says that the file is no longer the one that was asked about.
	ErrChanged = errors.New("the file was changed meanwhile")
	// ErrNoRanges says that the place gives whole files only.
	ErrNoRanges = errors.New("the place gives whole files only")
)

// Error is a failed operation on one file.
type Error struct {
	Op  string // stat, open, read, put, delete
	URL string
	// Transient says that the same attempt may succeed later.
	Transient bool
	// After is how long the place asked to wait, 0 when it did not.
	After time.Duration
	Err   error
}

func (e *Error) Error() string { return e.Op + " " + Redact(e.URL) + ": " + e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// IsTransient tells whether the same attempt may succeed later.
func IsTransient(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Transient
}

// UnsupportedError says that no adapter knows the scheme of a URL.
type UnsupportedError struct {
	URL       string
	Scheme    string
	Supported []string
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("%s: files at %s:// can't be reached; supported are %s",
		Redact(e.URL), e.Scheme, strings.Join(e.Supported, ", "))
}

// Adapters are the places that can be reached, by the scheme of their URLs in
// lower case. The scheme of a plain path is "file".
type Adapters map[string]Adapter

// For is the adapter of a URL. An *UnsupportedError names what there is.
func (a Adapters) For(rawURL string) (Adapter, error) {
	if strings.TrimSpace(rawURL) == "" {
		return nil, errors.New("the URL of the file is empty")
	}
	scheme := Scheme(rawURL)
	if adapter, ok := a[scheme]; ok {
		return adapter, nil
	}
	return nil, &UnsupportedError{URL: rawURL, Scheme: scheme, Supported: slices.Sorted(maps.Keys(a))}
}

// Scheme is the scheme of a URL in lower case, "file" for a plain path.
func Scheme(rawURL string) string {
	scheme, _, found := strings.Cut(rawURL, "://")
	if !found {
		// file:/abs is legal (RFC 8089); everything else without // is a path, a
		// drive letter or a colon in a file name.
		return "file"
	}
	for i, r := range scheme {
		letter := 'a' <= r|0x20 && r|0x20 <= 'z'
		if !letter && (i == 0 || !strings.ContainsRune("0123456789+-.", r)) {
			return "file"
		}
	}
	if scheme == "" {
		return "file"
	}
	return strings.ToLower(scheme)
}

// Redact is the URL as it may appear in logs and errors: without user, query and
// fragment, which carry the keys of signed URLs.
func Redact(rawURL string) string {
	switch Scheme(rawURL) {
	case "file":
		return rawURL
	case "s3", "gs", "azure":
		return redactKey(rawURL)
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		scheme, rest, _ := strings.Cut(rawURL, "://")
		rest, _, _ = strings.Cut(rest, "?")
		host, path, slash := strings.Cut(rest, "/")
		if at := strings.LastIndexByte(host, '@'); at >= 0 {
			host = host[at+1:]
		}
		if slash {
			host += "/" + path
		}
		return scheme + "://" + host
	}
	u.User, u.RawQuery, u.Fragment, u.RawFragment, u.ForceQuery = nil, "", "", "", false
	return u.String()
}

// redactKey is the address of a file in a bucket as it may appear. Its key is written
// as it is, so "?" and "#" belong to it; but a signed URL of Azure that got another
// scheme still holds its signature.
func redactKey(rawURL string) string {
	if place, query, found := strings.Cut(rawURL, "?"); found && strings.Contains(query, "sig=") {
		rawURL = place
	}
	scheme, rest, _ := strings.Cut(rawURL, "://")
	host, key, slash := strings.Cut(rest, "/")
	if at := strings.LastIndexByte(host, '@'); at >= 0 {
		host = host[at+1:]
	}
	if slash {
		host += "/" + key
	}
	return scheme + "://" + host
}
