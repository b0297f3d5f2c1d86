// Package storage fetches models and artifacts to this machine and stores them: the interface of a
// storage, a cache that downloads each content once, and the packing and unpacking of archives. It
// owns the cache folder. It reads no configuration, does not decide what to fetch, and never trusts
// external names.
package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Adapter is a storage of files, addressed by URLs of its scheme.
//
// All methods may be called from many goroutines. Each makes one attempt: a transient error is
// marked as such (see IsTransient), and the caller decides about retries. Only the reader of Open
// needs to be closed.
type Adapter interface {
	// Stat describes a file without reading it. ErrNotExist, ErrDenied.
	Stat(ctx context.Context, url string) (Object, error)

	// Open reads a part of a file. The reader returns exactly the bytes of the part: if it ends
	// earlier, it ends with a transient error, never with a plain io.EOF. The returned Object
	// describes the file. The caller closes the reader; ctx bounds the reading too. ErrNotExist,
	// ErrDenied, ErrChanged, ErrNoRanges.
	Open(ctx context.Context, url string, part Part) (io.ReadCloser, Object, error)

	// Put stores a file, replacing an existing one. Concurrent readers see the old file or the new
	// one, never a mixture. size is -1 if unknown. It reads r to its end at most once; a retry
	// after a transient error needs a fresh reader. progress may be nil.
	Put(ctx context.Context, url string, r io.Reader, size int64, progress Progress) error

	// Delete removes a file. ErrNotExist if there is none, so that a second call is detected.
	Delete(ctx context.Context, url string) error
}

// Locator is an Adapter whose files are on this machine and are used in place.
type Locator interface {
	Adapter
	// LocalPath is the path of the URL's file, whether it exists or not.
	LocalPath(url string) (string, error)
}

// Lister is an Adapter that can list its files.
type Lister interface {
	Adapter
	// List returns the URLs of all files whose URL begins with prefix, in any order. An error ends
	// it.
	List(ctx context.Context, prefix string) iter.Seq2[string, error]
}

// Named is an Adapter whose places (a bucket, a folder of one, a server, an account) can be
// configured by name.
type Named interface {
	Adapter
	// Named reports whether the URL is in a place that is configured by name, not one that the
	// adapter can only access with default credentials.
	Named(url string) bool
}

// PlainKey reports whether no part of a URL's path could be read as another folder: no proxy or
// server on the way to a bucket may turn "a/../b" into "b".
func PlainKey(url string) bool {
	_, rest, _ := strings.Cut(url, "://")
	for part := range strings.SplitSeq(strings.ReplaceAll(rest, `\`, "/"), "/") {
		if part == "." || part == ".." || part == "" {
			return false
		}
	}
	return true
}

// Progress gets the progress of a transfer; total is -1 while it is unknown. Calls are sequential,
// from goroutines other than the caller's, and end before the transfer returns. done decreases when
// a transfer begins again. It must not block.
type Progress func(done, total int64)

// Part is the portion of a file to read.
type Part struct {
	Offset int64
	Length int64 // 0: to the end
	// Of, if it has a validator, is the state of the file that the part must belong to; ErrChanged
	// is returned for a file that has changed since.
	Of Object
}

// Whole reports whether the part is the complete file.
func (p Part) Whole() bool { return p.Offset == 0 && p.Length == 0 }

// Range is the part as the value of a Range header, "" for the complete file.
func (p Part) Range() string {
	switch {
	case p.Whole():
		return ""
	case p.Length == 0:
		return fmt.Sprintf("bytes=%d-", p.Offset)
	}
	return fmt.Sprintf("bytes=%d-%d", p.Offset, p.Offset+p.Length-1)
}

// Object describes a file.
type Object struct {
	Size     int64     // -1: unknown
	ETag     string    // "": none; with its quotes, and W/ when weak
	Modified time.Time // zero: unknown
	Ranges   bool      // parts can be read
	// Unframed means that the end of the file cannot be distinguished from an interrupted
	// connection.
	Unframed bool
}

// Validated reports whether a changed file can be detected reliably enough to join parts.
func (o Object) Validated() bool {
	return (o.ETag != "" && !strings.HasPrefix(o.ETag, "W/")) || !o.Modified.IsZero()
}

// Same reports whether two states of one file are known to have the same bytes. Unknown is false.
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

// The errors that callers distinguish.
var (
	// ErrNotExist means that there is no such file.
	ErrNotExist = errors.New("there is no such file")
	// ErrDenied means that access was refused.
	ErrDenied = errors.New("access is denied")
	// ErrChanged means that the file has changed since the given state.
	ErrChanged = errors.New("the file has changed")
	// ErrNoRanges means that the storage returns only whole files.
	ErrNoRanges = errors.New("the server returns only whole files")
)

// Error is a failed operation on one file.
type Error struct {
	Op  string // stat, open, read, put, delete
	URL string
	// Transient means that the same attempt may succeed later.
	Transient bool
	// Status is the HTTP status of the server's answer, 0 if there was none or if it is unknown.
	Status int
	// After is the pause that the server requested, 0 if none.
	After time.Duration
	Err   error
}

func (e *Error) Error() string { return e.Op + " " + Redact(e.URL) + ": " + e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// Wrap completes the error of an operation: it is the cause if ctx has ended, an *Error unchanged,
// and else an *Error that is not transient.
func Wrap(ctx context.Context, op, url string, err *error) {
	if *err == nil {
		return
	}
	if ctx.Err() != nil {
		*err = context.Cause(ctx)
	} else if _, ok := errors.AsType[*Error](*err); !ok {
		*err = &Error{Op: op, URL: url, Err: *err}
	}
}

// Listing is the sequence of a Lister: list calls yield with each URL until it returns false.
func Listing(ctx context.Context, prefix string, list func(yield func(string) bool) error) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		more := true
		err := list(func(url string) bool {
			more = more && yield(url, nil)
			return more
		})
		if Wrap(ctx, "list", prefix, &err); err != nil && more {
			yield("", err)
		}
	}
}

// IsTransient reports whether the same attempt may succeed later.
func IsTransient(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Transient
}

// UnsupportedError means that no adapter has the scheme of a URL.
type UnsupportedError struct {
	URL       string
	Scheme    string
	Supported []string
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("%s: files at %s:// are not supported; supported are %s",
		Redact(e.URL), e.Scheme, strings.Join(e.Supported, ", "))
}

// Adapters are the available storages, by the scheme of their URLs in lower case. The scheme of a
// plain path is "file".
type Adapters map[string]Adapter

// For returns the adapter of a URL. An *UnsupportedError lists the supported schemes.
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

// Scheme is the scheme of a URL in lower case, "file" for a plain path. file:/abs is legal (RFC
// 8089); everything else without // is a path, a drive letter or a colon in a file name.
func Scheme(rawURL string) string {
	if scheme, _, found := strings.Cut(rawURL, "://"); found && schemeForm.MatchString(scheme) {
		return strings.ToLower(scheme)
	}
	return "file"
}

var schemeForm = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9+.-]*$`)

// Redact returns the URL for logs and errors: without user, query and fragment, which contain the
// keys of signed URLs. The key of a file in a bucket is unquoted, so "?" and "#" belong to it; but a
// signed URL of Azure with another scheme still contains its signature.
func Redact(rawURL string) string {
	inBucket := false
	switch Scheme(rawURL) {
	case "file":
		return rawURL
	case "s3", "gs", "azure":
		inBucket = true
	}
	if u, err := url.Parse(rawURL); err == nil && !inBucket {
		u.User, u.RawQuery, u.Fragment, u.RawFragment, u.ForceQuery = nil, "", "", "", false
		return u.String()
	}
	if place, query, found := strings.Cut(rawURL, "?"); found && (!inBucket || strings.Contains(query, "sig=")) {
		rawURL = place
	}
	scheme, rest, _ := strings.Cut(rawURL, "://")
	host, path, slash := strings.Cut(rest, "/")
	if at := strings.LastIndexByte(host, '@'); at >= 0 {
		host = host[at+1:]
	}
	if slash {
		host += "/" + path
	}
	return scheme + "://" + host
}
