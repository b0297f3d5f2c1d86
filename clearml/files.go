package clearml

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"clearmlserving/retry"
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
	name := strings.Trim(target.Path, "/") + "/" + path
	root := target.Scheme + "://" + target.Host
	if c.ownFile(destination) {
		root = c.config.Files.Value
		name = strings.TrimPrefix(strings.TrimPrefix(destination, root), "/")
		if decoded, err := url.PathUnescape(name); err == nil {
			name = decoded
		}
		name += "/" + path
	}
	u := &upload{client: c, root: root, name: strings.TrimLeft(name, "/"), body: body, size: size, progress: progress}
	if err := u.run(ctx); err != nil {
		return "", fmt.Errorf("upload %s to %s: %w", path, destination, err)
	}
	return FileURL(destination, path), nil
}

// upload is one running upload.
type upload struct {
	client     *Client
	root, name string
	body       io.Reader
	size       int64
	progress   func(int64)
}

func (u *upload) run(ctx context.Context) error {
	seeker, _ := u.body.(io.Seeker)
	stale := ""
	for attempt := 1; ; attempt++ {
		bearer := ""
		if u.client.ownFile(u.root) {
			s, err := u.client.login(ctx, stale)
			if err != nil {
				return err
			}
			bearer = s.token
		}
		status, answer, err := u.send(ctx, bearer)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		again := false
		switch {
		case errors.Is(err, errSource):
			return err
		case err != nil:
			again = !untrusted(err)
			err = &UnavailableError{Server: "file server", Host: u.host(), Err: err}
		case status == http.StatusOK:
			return nil
		case status == http.StatusUnauthorized && bearer != "" && stale == "":
			stale, again = bearer, true
			attempt--
			err = &Error{Call: "file upload", Code: status, Msg: answer}
		case u.client.busy(status):
			err = &UnavailableError{Server: "file server", Host: u.host(), Err: fmt.Errorf("answers %d %s", status, http.StatusText(status))}
			again = true
		default:
			return &Error{Call: "file upload", Code: status, Msg: answer}
		}
		if !again || seeker == nil || attempt >= u.client.retry.Attempts {
			return err
		}
		if _, seekErr := seeker.Seek(0, io.SeekStart); seekErr != nil {
			return err
		}
		if attempt > 0 {
			if ended := retry.Sleep(ctx, u.client.pause(attempt, 0)); ended != nil {
				return fmt.Errorf("%w (%w)", err, ended)
			}
		}
	}
}

func (u *upload) host() Setting {
	if u.root == u.client.config.Files.Value {
		return u.client.config.Files
	}
	return Setting{Value: u.root}
}

// send makes one request: a form with one part whose name is the path.
func (u *upload) send(ctx context.Context, bearer string) (status int, answer string, err error) {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	boundary := hex.EncodeToString(random[:])
	quoted := formName(u.name)
	head := "--" + boundary + "\r\nContent-Disposition: form-data; name=\"/" + quoted + "\"; filename=\"/" + quoted +
		"\"\r\nContent-Type: binary/octet-stream\r\n\r\n"
	tail := "\r\n--" + boundary + "--\r\n"
	source := &uploadBody{from: io.LimitReader(u.body, u.size), left: u.size, progress: u.progress}
	defer source.detach()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.root+"/", io.NopCloser(io.MultiReader(strings.NewReader(head), source, strings.NewReader(tail))))
	if err != nil {
		return 0, "", err
	}
	req.ContentLength = int64(len(head)) + u.size + int64(len(tail))
	req.Header.Set("Content-Type", "multipart/form-data; boundary="+boundary)
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	u.client.identify(req.Header)
	resp, err := u.client.http.Do(req)
	if broken := source.broken(); broken != nil {
		err = broken
	}
	if err != nil {
		if resp != nil {
			_ = resp.Body.Close() // the error is known already
		}
		return 0, "", bare(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	return resp.StatusCode, describe(text), nil
}

var errSource = errors.New("read the file to upload")

// uploadBody reads the file for the transport, which may do so from a goroutine that outlives the
// request. After detach it does not read any more.
type uploadBody struct {
	mu       sync.Mutex // guards everything
	from     io.Reader
	left     int64
	sent     int64
	err      error
	detached bool
	progress func(int64)
}

func (b *uploadBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.detached {
		return 0, errors.New("the upload has ended")
	}
	n, err := b.from.Read(p)
	b.left -= int64(n)
	b.sent += int64(n)
	if err != nil && b.left > 0 {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("it is %d bytes shorter than it was", b.left)
		}
		b.err = fmt.Errorf("%w: %w", errSource, err)
		return n, b.err
	}
	if n > 0 && b.progress != nil {
		b.progress(b.sent)
	}
	return n, err
}

func (b *uploadBody) broken() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

func (b *uploadBody) detach() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.detached = true
}

// formName writes a form field's name as the SDK's HTTP library does.
func formName(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '"':
			b.WriteString("%22")
		case r == '\\':
			b.WriteString(`\\`)
		case r < ' ' && r != 0x1b:
			fmt.Fprintf(&b, "%%%02X", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// DeleteFile removes a file from the configured file server; ErrNotFound if there is none.
func (c *Client) DeleteFile(ctx context.Context, fileURL string) error {
	if !c.ownFile(fileURL) {
		return fmt.Errorf("delete %s: it does not lie on our file server %s", fileURL, c.config.Files.Value)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	stale := ""
	for {
		s, err := c.login(ctx, stale)
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodDelete, fileURL, nil)
		if err != nil {
			return fmt.Errorf("delete %s: %w", fileURL, err)
		}
		c.identify(req.Header)
		req.Header.Set("Authorization", "Bearer "+s.token)
		resp, err := c.http.Do(req)
		if err != nil {
			return fmt.Errorf("delete %s: %w", fileURL, &UnavailableError{Server: "file server", Host: c.config.Files, Err: bare(err)})
		}
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		_ = resp.Body.Close() // everything needed was read
		switch {
		case resp.StatusCode == http.StatusOK:
			return nil
		case resp.StatusCode == http.StatusUnauthorized && stale == "":
			stale = s.token
		default:
			return fmt.Errorf("delete %s: %w", fileURL, &Error{Call: "file delete", Code: resp.StatusCode, Msg: describe(text)})
		}
	}
}
