package clearml

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"clearmlserving/retry"
	"clearmlserving/storage"
	"clearmlserving/storage/https"
)

// Upload stores a file below an http(s) destination, in the format of ClearML's file server, and
// returns its URL. The path is not quoted. progress, which may be nil, is called with the bytes
// sent so far; it must not block. A body that is an io.Seeker is sent again after a connection
// error. The body is not read after Upload has returned; it is not closed.
func (c *Client) Upload(ctx context.Context, destination, path string, body io.Reader, size int64, progress func(sent int64)) (string, error) {
	destination = strings.TrimRight(destination, "/")
	target, err := url.Parse(destination)
	if err != nil || (target.Scheme != "http" && target.Scheme != "https") || target.Host == "" {
		return "", fmt.Errorf("upload to %q: the destination is no http or https address (no file server known? set CLEARML_FILES_HOST)", destination)
	}
	path = strings.TrimLeft(path, "/")
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." || part == ".." {
			return "", fmt.Errorf("upload to %s: %q is no path of a file", destination, path)
		}
	}
	if size <= 0 {
		return "", fmt.Errorf("upload to %s: %q is empty: clients refuse to download empty files", destination, path)
	}
	// The form is sent to the root of the server; a path in the destination becomes part of the
	// name.
	root, folder := target.Scheme+"://"+target.Host, target.Path
	if c.ownFile(destination) {
		root = c.config.Files.Value
		folder = strings.TrimPrefix(destination, root)
		if decoded, err := url.PathUnescape(folder); err == nil {
			folder = decoded
		}
	}
	place := FileURL(root, strings.Trim(folder, "/")+"/"+path)
	seeker, _ := body.(io.Seeker)
	sent := false
	err = c.onFileServer(ctx, root, "file upload", seeker != nil, func(files *https.Adapter) error {
		if sent {
			if _, err := seeker.Seek(0, io.SeekStart); err != nil {
				return err
			}
		}
		sent = true
		return files.Put(ctx, place, io.LimitReader(body, size), size, func(done, _ int64) {
			if progress != nil {
				progress(done)
			}
		})
	})
	if err != nil {
		return "", fmt.Errorf("upload %s to %s: %w", path, destination, err)
	}
	return FileURL(destination, path), nil
}

// DeleteFile removes a file from the configured file server; ErrNotFound if there is none.
func (c *Client) DeleteFile(ctx context.Context, fileURL string) error {
	if !c.ownFile(fileURL) {
		return fmt.Errorf("delete %s: it does not lie on our file server %s", fileURL, c.config.Files.Value)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := c.onFileServer(ctx, c.config.Files.Value, "file delete", true, func(files *https.Adapter) error {
		return files.Delete(ctx, fileURL)
	})
	if err != nil {
		return fmt.Errorf("delete %s: %w", fileURL, err)
	}
	return nil
}

// onFileServer makes a request to a file server, again while the server is unavailable if it is
// repeatable. Only the configured server gets the token; a token that it refuses is replaced once.
func (c *Client) onFileServer(ctx context.Context, root, call string, repeatable bool, request func(*https.Adapter) error) error {
	host, own := Setting{Value: root}, c.ownFile(root)
	if own {
		host = c.config.Files
	}
	transport := cmp.Or(c.http.Transport, http.DefaultTransport)
	stale := ""
	for attempt := 1; ; attempt++ {
		header, token := http.Header{}, ""
		c.identify(header)
		if own {
			s, err := c.login(ctx, stale)
			if err != nil {
				return err
			}
			token = s.token
			header.Set("Authorization", "Bearer "+token)
		}
		err := request(https.New(https.Options{
			FileServer: root, Transport: transport, UserAgent: headerText(c.name),
			Header: func(string) (http.Header, error) { return header, nil },
		}))
		failed, ok := errors.AsType[*storage.Error](err)
		if !ok { // no error, or the end of ctx
			return err
		}
		again := repeatable
		switch {
		case failed.Status == 0 && !failed.Transient && !untrusted(err):
			return failed.Err // the file to upload cannot be read
		case failed.Status == 0, c.busy(failed.Status):
			again = again && !untrusted(err)
			err = &UnavailableError{Server: "file server", Host: host, Err: failed.Err}
		default:
			again = again && failed.Status == http.StatusUnauthorized && own && stale == ""
			stale = token
			attempt--
			err = &Error{Call: call, Code: failed.Status, Msg: failed.Err.Error()}
		}
		if !again || attempt >= c.retry.Attempts {
			return err
		}
		if attempt > 0 {
			if ended := retry.Sleep(ctx, c.pause(attempt, failed.After)); ended != nil {
				return fmt.Errorf("%w (%w)", err, ended)
			}
		}
	}
}
