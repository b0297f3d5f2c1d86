package storage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// MismatchError says that a complete file is not the expected one.
type MismatchError struct {
	URL       string
	Want, Got string // SHA-256 in hex
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%s: its SHA-256 is %s, expected was %s; the file was replaced or is being replaced",
		Redact(e.URL), e.Got, e.Want)
}

// changes is how often a file may change during its download before the download fails.
const changes = 3

// bring downloads the content of the item to the blobs if it is missing. It is called by one
// goroutine at a time per item.
func (c *Cache) bring(ctx context.Context, adapter Adapter, item Item, progress Progress) (fetched, error) {
	if item.SHA256 != "" && c.hasBlob(ctx, item.SHA256, item.Verify) {
		return fetched{sha256: item.SHA256, fromCache: true}, nil
	}
	known, have := c.readIndex(item.URL)
	// A copy can only be used if no other content is requested.
	have = have && item.SHA256 == "" && c.hasBlob(ctx, known.SHA256, item.Verify)
	patience := c.o.Backoff
	if have {
		patience.Attempts = min(patience.Attempts, 2) // the local content can be served meanwhile
	}
	var object Object
	err := patience.Do(ctx, func() (err error) {
		object, err = c.stat(ctx, adapter, item.URL)
		return err
	})
	if err == nil && have && known.current(object) {
		return fetched{sha256: known.SHA256, fromCache: true}, nil
	}
	var sum string
	if err == nil {
		sum, err = c.download(ctx, adapter, item, object, progress)
	}
	if err != nil {
		// The end of the caller's context says nothing about the storage.
		if have && IsTransient(err) && ctx.Err() == nil {
			c.o.Logger.Warn("file may be stale", "url", Redact(item.URL), "fetched", known.Fetched, "err", err)
			return fetched{sha256: known.SHA256, fromCache: true, stale: err}, nil
		}
		return fetched{}, err
	}
	return fetched{sha256: sum}, nil
}

// stat describes a file, with a limit on the time without an answer.
func (c *Cache) stat(ctx context.Context, adapter Adapter, url string) (Object, error) {
	statCtx, cancel := context.WithTimeout(ctx, c.o.Stall)
	defer cancel()
	object, err := adapter.Stat(statCtx, url)
	if err != nil && ctx.Err() == nil && errors.Is(statCtx.Err(), context.DeadlineExceeded) {
		return object, &Error{Op: "stat", URL: url, Transient: true, Err: fmt.Errorf("no answer within %s", c.o.Stall)}
	}
	return object, err
}

// download downloads a file, verifies it and moves it to the blobs.
func (c *Cache) download(ctx context.Context, adapter Adapter, item Item, object Object, progress Progress) (string, error) {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	began := time.Now()
	p, err := c.openPartial(item, object)
	if err != nil {
		return "", dirError(c.o.Dir, err)
	}
	defer p.close()
	resumed, _ := p.have()
	sum, object, err := c.receive(ctx, adapter, item, object, p, progress)
	if err != nil {
		p.keep() // for the next attempt, which may be after a restart
		return "", err
	}
	if item.SHA256 != "" && sum != item.SHA256 && resumed > 0 {
		// The part of an earlier run may be the cause.
		if err := p.reset(object); err != nil {
			return "", dirError(c.o.Dir, err)
		}
		if sum, object, err = c.receive(ctx, adapter, item, object, p, progress); err != nil {
			p.keep()
			return "", err
		}
	}
	if item.SHA256 != "" && sum != item.SHA256 {
		p.remove()
		return "", &MismatchError{URL: item.URL, Want: item.SHA256, Got: sum}
	}
	if err := c.publish(p, sum); err != nil {
		return "", dirError(c.o.Dir, err)
	}
	if err := c.writeIndex(item.URL, object, sum); err != nil {
		return "", err
	}
	c.o.Logger.Info("file fetched", "url", Redact(item.URL), "sha256", sum, "bytes", p.size(), "resumed", resumed,
		"took", time.Since(began).Round(time.Millisecond))
	return sum, nil
}

// receive fills the partial file and returns its content. It starts again if the file changes at
// its source.
func (c *Cache) receive(ctx context.Context, adapter Adapter, item Item, object Object, p *partial, progress Progress) (string, Object, error) {
	whole := false
	for round := 1; ; round++ {
		have, _ := p.have()
		if err := c.makeRoom(object.Size - have); err != nil {
			return "", object, err
		}
		d := &transfer{adapter: adapter, url: item.URL, object: object, to: p, cache: c, progress: progress, whole: whole}
		err := d.run(ctx)
		switch {
		case err == nil && d.object.Size >= 0 && p.size() != d.object.Size:
			return "", object, &Error{Op: "read", URL: item.URL, Transient: true, Err: fmt.Errorf("%d of %d bytes were received", p.size(), d.object.Size)}
		case err == nil && d.object.Unframed && item.SHA256 == "":
			return "", object, &Error{Op: "read", URL: item.URL, Err: errors.New("the server sends neither the length nor the end of the file, so an interruption would not be detected; give its SHA-256")}
		case err == nil:
			object = d.object
			p.keep()
			sum, err := HashFile(ctx, p.path())
			return sum, object, err
		case errors.Is(err, ErrNoRanges) && !whole:
			whole = true
		case errors.Is(err, ErrChanged) && round < changes:
			now, statErr := c.stat(ctx, adapter, item.URL)
			if statErr != nil {
				return "", object, statErr
			}
			// A storage that reports "changed" for an unchanged file does not support parts.
			whole = whole || now.Same(object)
			object = now
		case errors.Is(err, ErrChanged):
			return "", object, &Error{Op: "read", URL: item.URL, Transient: true, Err: fmt.Errorf("%w, %d times in a row", ErrChanged, changes)}
		default:
			return "", object, err
		}
		if err := p.reset(object); err != nil {
			return "", object, dirError(c.o.Dir, err)
		}
	}
}

// HashFile is the SHA-256 of a file in hex.
func HashFile(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // only read from
	h := sha256.New()
	buf := make([]byte, 1<<20)
	for {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		n, err := f.Read(buf)
		h.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			return hex.EncodeToString(h.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
	}
}

// checkSHA256 refuses a text that is not a digest before it becomes part of a path.
func checkSHA256(s string) error {
	if s == "" {
		return nil
	}
	if len(s) != sha256.Size*2 || strings.Trim(s, "0123456789abcdef") != "" {
		return fmt.Errorf("%q is not a SHA-256 in lower-case hex", s)
	}
	return nil
}
