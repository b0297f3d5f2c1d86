package clearml

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"clearmlserving/retry"
	"clearmlserving/serving"
)

// Call makes one call of the API, such as "tasks.get_by_id". The request is sent as JSON (nil: an
// empty object), the answer's data is decoded into resp (nil: dropped). It logs in first if needed,
// logs in again if the server refuses the token, and retries after a connection error or if the
// server is busy. A refusal is an *Error, a server that cannot be reached an *UnavailableError.
func (c *Client) Call(ctx context.Context, name string, req, resp any) error {
	body := []byte("{}")
	if req != nil {
		var err error
		if body, err = json.Marshal(req); err != nil {
			return fmt.Errorf("%s: write the request: %w", name, err)
		}
	}
	return c.call(ctx, name, "application/json", body, resp)
}

func (c *Client) call(ctx context.Context, name, contentType string, body []byte, resp any) error {
	stale := ""
	for {
		s, err := c.login(ctx, stale)
		if err != nil {
			return err
		}
		answer, err := c.send(ctx, name, "/v"+s.version+"/"+name, func(h http.Header) {
			h.Set("Authorization", "Bearer "+s.token)
			h.Set("Content-Type", contentType)
		}, body)
		if err != nil {
			return err
		}
		if answer.status == http.StatusUnauthorized && stale == "" {
			stale = s.token
			continue
		}
		return c.decode(name, answer, resp)
	}
}

// Post sends a body once to a path of the API server that is no call, with the session of calls. wait
// is the pause that the server requests before the next.
func (c *Client) Post(ctx context.Context, path string, header http.Header, body []byte) (status int, text []byte, wait time.Duration, err error) {
	stale := ""
	for {
		s, err := c.login(ctx, stale)
		if err != nil {
			return 0, nil, 0, err
		}
		a, wait, err := c.post(ctx, path, func(h http.Header) {
			maps.Copy(h, header)
			h.Set("Authorization", "Bearer "+s.token)
		}, body)
		if err == nil && a.status == http.StatusUnauthorized && stale == "" {
			stale = s.token
			continue
		}
		return a.status, a.body, wait, err
	}
}

// answer is a complete HTTP answer.
type answer struct {
	status int
	body   []byte
	where  string // the target of a redirect
}

// send posts a request, with retries where they can help.
func (c *Client) send(ctx context.Context, name, path string, headers func(http.Header), body []byte) (answer, error) {
	var a answer
	var wait time.Duration
	var err error
	for attempt := 1; ; attempt++ {
		var again bool
		a, wait, err = c.post(ctx, path, headers, body)
		switch {
		case err != nil:
			if ctx.Err() != nil {
				return a, fmt.Errorf("%s: ClearML API server %s: %w", name, c.config.API.Value, context.Cause(ctx))
			}
			if errors.Is(err, errTooBig) {
				return a, fmt.Errorf("%s: %w", name, err)
			}
			again = (repeatable(name) || neverArrived(err)) && !untrusted(err)
			err = &UnavailableError{Server: "API server", Host: c.config.API, Err: err}
		case c.busy(a.status):
			again = repeatable(name) || a.status == http.StatusTooManyRequests || a.status == http.StatusServiceUnavailable
			err = &UnavailableError{Server: "API server", Host: c.config.API, Err: fmt.Errorf("answers %d %s", a.status, http.StatusText(a.status))}
		default:
			return a, nil
		}
		if !again || attempt >= c.retry.Attempts || ctx.Value(onceKey{}) != nil {
			return a, fmt.Errorf("%s: %w", name, err)
		}
		wait = c.pause(attempt, wait)
		c.log.DebugContext(ctx, "call retried", "call", name, "attempt", attempt, "wait", wait, "err", err)
		if ended := retry.Sleep(ctx, wait); ended != nil {
			return a, fmt.Errorf("%s: %w (%w)", name, err, ended)
		}
	}
}

// onceKey marks the context of a call that is not retried.
type onceKey struct{}

var errTooBig = errors.New("the answer is too big")

// post makes one HTTP request and reads the whole answer. wait is the pause that the server
// requests before the next.
func (c *Client) post(ctx context.Context, path string, headers func(http.Header), body []byte) (a answer, wait time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.config.API.Value+path, bytes.NewReader(body))
	if err != nil {
		return a, 0, err
	}
	c.identify(req.Header)
	headers(req.Header)
	resp, err := c.http.Do(req)
	if err != nil {
		return a, 0, bare(err)
	}
	defer resp.Body.Close()
	if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		c.ahead.Store(int64(time.Until(at)))
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, c.maxAnswer+1))
	if err != nil {
		return a, 0, fmt.Errorf("read the answer: %w", err)
	}
	if int64(len(text)) > c.maxAnswer {
		return a, 0, fmt.Errorf("%w: more than %d bytes", errTooBig, c.maxAnswer)
	}
	return answer{resp.StatusCode, text, resp.Header.Get("Location")}, retry.After(resp.Header.Get("Retry-After"), time.Now()), nil
}

// ServerTime is the server's present time, to the second, by its last answer; before the first
// answer it is our own clock. It is the reference for the ages of the server's timestamps.
func (c *Client) ServerTime() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// bare removes method and URL from an error: our errors name the server themselves.
func bare(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return err
}

// identify names the caller, in both spellings that servers read.
func (c *Client) identify(h http.Header) {
	for _, prefix := range []string{"X-Clearml-", "X-Trains-"} {
		h.Set(prefix+"Worker", headerText(c.config.WorkerName.Value))
		h.Set(prefix+"Client", headerText(c.name))
	}
	h.Set("User-Agent", headerText(c.name))
}

// headerText removes invalid characters of a header.
func headerText(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
}

// busy reports a status after which the same request may succeed.
func (c *Client) busy(status int) bool {
	switch status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout, 509:
		return true
	}
	return slices.Contains(c.config.ExtraRetryCodes, status)
}

// repeatable reports whether a call is idempotent. Other calls are retried only if the server has
// certainly not received them.
func repeatable(call string) bool {
	_, action, _ := strings.Cut(call, ".")
	switch action {
	case "create", "clone", "create_credentials", "add_batch", "add", "enqueue":
		return false
	}
	return true
}

// neverArrived reports connection errors from before the request was sent.
func neverArrived(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// untrusted reports an error of an untrusted certificate, which a retry would repeat.
func untrusted(err error) bool {
	_, ok := errors.AsType[*tls.CertificateVerificationError](err)
	return ok
}

// pause is the wait before the next attempt: doubling, with jitter so that many clients do not
// retry at once, and at least the pause that the server requests.
func (c *Client) pause(attempt int, asked time.Duration) time.Duration {
	wait := retry.Jittered(retry.Doubled(attempt, c.retry.First, c.retry.Longest))
	return min(max(wait, asked), max(c.retry.Longest, time.Minute))
}

// envelope is the frame of every answer. Its parts are decoded separately, so that an invalid part
// does not affect the others.
type envelope struct {
	Meta *struct {
		Code    int    `json:"result_code"`
		Subcode int    `json:"result_subcode"`
		Msg     string `json:"result_msg"`
	} `json:"meta"`
	Data json.RawMessage `json:"data"`
}

// decode converts an answer to data or an error.
func (c *Client) decode(name string, a answer, resp any) error {
	if a.status >= 300 && a.status < 400 {
		return fmt.Errorf("%s: %w", name, c.notAnAPI(fmt.Errorf("redirects to %s: configure that address instead", a.where)))
	}
	var e envelope
	err := unmarshal(a.body, &e)
	if err != nil || e.Meta == nil {
		if a.status == http.StatusOK {
			return fmt.Errorf("%s: %w", name, c.notAnAPI(errors.New("does not answer as a ClearML API server: "+describe(a.body))))
		}
		return &Error{Call: name, Code: a.status, Msg: describe(a.body)}
	}
	code := e.Meta.Code
	if code == 0 || a.status != http.StatusOK {
		code = a.status
	}
	if code != http.StatusOK {
		return &Error{Call: name, Code: code, Subcode: e.Meta.Subcode, Msg: e.Meta.Msg}
	}
	if resp == nil || len(e.Data) == 0 || string(e.Data) == "null" {
		return nil
	}
	if err := unmarshal(e.Data, resp); err != nil {
		return fmt.Errorf("%s: read the answer: %w", name, err)
	}
	return nil
}

func (c *Client) notAnAPI(err error) error {
	return &UnavailableError{Server: "API server", Host: c.config.API, Err: err}
}

// describe shortens an answer that is not from the API, and guesses its kind.
func describe(body []byte) string {
	text := strings.TrimSpace(string(body[:min(len(body), 2000)]))
	switch {
	case text == "":
		return "the answer is empty"
	case strings.HasPrefix(text, "<"):
		return "the answer is a web page; the API server has an address of its own (port 8008 on a self-deployed server), other than the web application's"
	}
	return strconv.Quote(serving.Shorten(text, 200))
}
