package https

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	"clearmlserving/retry"
	"clearmlserving/storage"
)

// redirects is the maximum number of followed redirects.
const redirects = 10

// do makes one request and follows redirects. If the server does not have the file, the other
// readings of the URL are tried. The caller gets the final status and closes the body.
func (a *Adapter) do(ctx context.Context, op, method, rawURL string, header http.Header) (*http.Response, error) {
	at, err := parse(rawURL)
	if err != nil {
		return nil, err
	}
	resp, err := a.follow(ctx, op, method, rawURL, at, header)
	if err != nil || resp.StatusCode != http.StatusNotFound {
		return resp, err
	}
	for _, other := range a.otherReadings(rawURL, at) {
		again, err := a.follow(ctx, op, method, rawURL, other, header)
		if err != nil {
			drop(resp)
			return nil, err
		}
		if again.StatusCode != http.StatusNotFound {
			drop(resp)
			return again, nil
		}
		drop(again)
	}
	return resp, nil
}

// otherReadings are other locations of a URL's file. The SDK stores a file whose path has escapes
// under that path, and registers a URL in which they are not escaped again. It also leaves # and ?
// unchanged in a URL of the file server.
func (a *Adapter) otherReadings(rawURL string, at *url.URL) []*url.URL {
	_, text, _ := strings.Cut(rawURL, "://")
	_, text, _ = strings.Cut(text, "/")
	path, query := text, at.RawQuery
	end := strings.IndexAny(text, "?#")
	marks := end >= 0
	if marks {
		path = text[:end]
	}
	var others []*url.URL
	add := func(path, query string) {
		other := *at
		other.Path, other.RawPath, other.RawQuery = "/"+path, "", query
		others = append(others, &other)
	}
	if _, own := a.onFileServer(rawURL); own && marks {
		if decoded, err := url.PathUnescape(text); err == nil {
			add(decoded, "")
		}
		path, query = text, ""
	}
	if strings.Contains(path, "%") {
		add(path, query)
	}
	return others
}

// follow makes one request and follows redirects.
func (a *Adapter) follow(ctx context.Context, op, method, rawURL string, at *url.URL, header http.Header) (*http.Response, error) {
	for range redirects {
		req, err := http.NewRequestWithContext(ctx, method, at.String(), nil)
		if err != nil {
			return nil, err
		}
		if err := a.dress(req, header, op); err != nil {
			return nil, err
		}
		// Not an http.Client, which would follow redirects by its own rules.
		resp, err := a.o.Transport.RoundTrip(req)
		if err != nil {
			return nil, storage.Unanswered(ctx, op, rawURL, err)
		}
		switch resp.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		default:
			return resp, nil
		}
		drop(resp)
		if at, err = redirected(at, resp.Header.Get("Location")); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("more than %d redirects", redirects)
}

// dress sets the header fields of a request for its own URL.
func (a *Adapter) dress(req *http.Request, header http.Header, op string) error {
	if a.o.Header != nil {
		fields, err := a.o.Header(req.URL.String())
		if err != nil {
			return &storage.Error{
				Op: op, URL: req.URL.String(), Transient: !errors.Is(err, storage.ErrDenied),
				Err: fmt.Errorf("credentials for it: %w", err),
			}
		}
		for name, values := range fields {
			req.Header[http.CanonicalHeaderKey(name)] = values
		}
	}
	maps.Copy(req.Header, header)
	if user := req.URL.User; user != nil && req.Header.Get("Authorization") == "" {
		password, _ := user.Password()
		req.SetBasicAuth(user.Username(), password)
	}
	req.Header.Set("User-Agent", a.o.UserAgent)
	// Explicit, because net/http would otherwise request gzip and decode it.
	req.Header.Set("Accept-Encoding", "identity")
	return nil
}

// parse parses a URL; its error does not reveal secrets of the URL.
func parse(rawURL string) (*url.URL, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		if detail, ok := errors.AsType[*url.Error](err); ok {
			err = detail.Err
		}
		return nil, fmt.Errorf("it is not a URL: %w", err)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, errors.New("it is not an http or https URL with a host")
	}
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}

func redirected(from *url.URL, location string) (*url.URL, error) {
	if location == "" {
		return nil, errors.New("the server redirects without a target")
	}
	to, err := from.Parse(location)
	if err != nil || (to.Scheme != "http" && to.Scheme != "https") || to.Host == "" {
		return nil, errors.New("the server redirects to something that is not an http or https URL")
	}
	if from.Scheme == "https" && to.Scheme == "http" {
		return nil, fmt.Errorf("the server redirects from https to http (%s), which is not followed", to.Host)
	}
	to.Fragment, to.RawFragment = "", ""
	return to, nil
}

// statusError is an answer with an unexpected status.
func statusError(op, rawURL string, resp *http.Response) error {
	e := &storage.Error{Op: op, URL: rawURL, Status: resp.StatusCode}
	answer := resp.Status
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 300)) // as much as was received
	if words := strings.Fields(strings.ToValidUTF8(string(text), "")); len(words) > 0 && words[0][0] != '<' {
		answer += ": " + strings.Join(words, " ")
	}
	switch resp.StatusCode {
	case http.StatusNotFound, http.StatusGone:
		e.Err = storage.ErrNotExist
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		e.Err = fmt.Errorf("%w (%s)", storage.ErrDenied, answer)
	default:
		e.Err = fmt.Errorf("the server answers %s", answer)
		e.Transient = storage.HealingStatus(resp.StatusCode)
		e.After = retry.After(resp.Header.Get("Retry-After"), time.Now())
	}
	return e
}

// drop discards an answer; a short rest is read so that the connection can be reused.
func drop(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // of no use either way
	_ = resp.Body.Close()
}
