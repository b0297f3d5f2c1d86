package timeseries

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
)

// ClientOptions are the address of a Prometheus and the proof of the caller's identity.
type ClientOptions struct {
	// URL is the base address, such as http://host:9090 or https://host/prometheus. User and
	// password in it are used for basic authentication. Required.
	URL string
	// Bearer is a token. Empty: none.
	Bearer string
	// Transport makes the connections. Required; package outbound makes it.
	Transport http.RoundTripper
	// Timeout bounds each query; 0 means 30 s.
	Timeout time.Duration
}

// Client is a Querier that asks a server with Prometheus' HTTP API.
type Client struct {
	base    *url.URL // without user and password
	bearer  string
	user    *url.Userinfo
	http    *http.Client
	timeout time.Duration
}

// maxAnswer bounds the memory for an answer.
const maxAnswer = 64 << 20

// NewClient checks the options. It connects to nothing.
func NewClient(o ClientOptions) (*Client, error) {
	base, err := ParseURL(o.URL)
	if err != nil {
		return nil, err
	}
	c := &Client{base: base, bearer: o.Bearer, user: base.User, timeout: o.Timeout}
	base.User = nil
	if c.timeout == 0 {
		c.timeout = 30 * time.Second
	}
	c.http = &http.Client{Transport: o.Transport, CheckRedirect: func(next *http.Request, via []*http.Request) error {
		if next.URL.Host != base.Host || next.URL.Scheme != base.Scheme {
			return fmt.Errorf("refused to follow a redirect to %s: give the address of Prometheus itself", next.URL.Redacted())
		}
		if len(via) >= 5 {
			return errors.New("too many redirects")
		}
		return nil
	}}
	return c, nil
}

// ParseURL reads the base address of a server. Errors do not contain a password.
func ParseURL(text string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSpace(text))
	switch {
	case err != nil: // err contains the whole text
		return nil, errors.New("the address cannot be read: give it as http://host:9090")
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return nil, fmt.Errorf("%s is no address of a server: give it as http://host:9090", u.Redacted())
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("%s has a query: give the address without it", u.Redacted())
	}
	u.Path = strings.TrimSuffix(strings.TrimRight(u.Path, "/"), "/api/v1")
	return u, nil
}

// String is the address without credentials.
func (c *Client) String() string { return c.base.String() }

// Query implements Querier.
func (c *Client) Query(ctx context.Context, expr string, at time.Time) (Vector, error) {
	data, err := c.ask(ctx, "query", url.Values{"query": {expr}, "time": {stamp(at)}})
	if err != nil {
		return nil, err
	}
	switch data.ResultType {
	case model.ValVector.String():
		v := Vector{}
		err = json.Unmarshal(data.Result, &v)
		return v, unreadable(err)
	case model.ValScalar.String():
		var s model.Scalar
		if err := json.Unmarshal(data.Result, &s); err != nil {
			return nil, unreadable(err)
		}
		return Vector{{Metric: model.Metric{}, Value: s.Value, Timestamp: s.Timestamp}}, nil
	}
	return nil, Errorf(BadData, "the expression is of type %q, and a vector or a scalar is needed", data.ResultType)
}

// QueryRange implements Querier.
func (c *Client) QueryRange(ctx context.Context, expr string, start, end time.Time, step time.Duration) (Matrix, error) {
	if err := CheckRange(start, end, step); err != nil {
		return nil, err
	}
	data, err := c.ask(ctx, "query_range", url.Values{
		"query": {expr}, "start": {stamp(start)}, "end": {stamp(end)}, "step": {strconv.FormatFloat(step.Seconds(), 'f', -1, 64)},
	})
	if err != nil {
		return nil, err
	}
	m := Matrix{}
	return m, unreadable(json.Unmarshal(data.Result, &m))
}

// stamp is a time as Prometheus reads it, in milliseconds: the resolution of samples.
func stamp(t time.Time) string {
	ms := t.UnixMilli()
	return fmt.Sprintf("%d.%03d", ms/1000, ms%1000)
}

// unreadable makes an Error of an answer that is not Prometheus'.
func unreadable(err error) error {
	if err == nil {
		return nil
	}
	return Errorf(Unavailable, "the answer of Prometheus cannot be read: %w", err)
}

// result is the data of a successful answer.
type result struct {
	ResultType string          `json:"resultType"`
	Result     json.RawMessage `json:"result"`
}

// answer is the body of every answer.
type answer struct {
	Status    string `json:"status"`
	Data      result `json:"data"`
	ErrorType string `json:"errorType"`
	Error     string `json:"error"`
}

// ask sends a query: as POST, so that long expressions fit, or as GET where only that is allowed.
func (c *Client) ask(ctx context.Context, call string, form url.Values) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	data, status, err := c.send(ctx, http.MethodPost, call, form)
	if status == http.StatusMethodNotAllowed || status == http.StatusNotImplemented {
		data, _, err = c.send(ctx, http.MethodGet, call, form)
	}
	return data, err
}

func (c *Client) send(ctx context.Context, method, call string, form url.Values) (result, int, error) {
	at := c.base.JoinPath("api/v1", call)
	body := ""
	if method == http.MethodPost {
		body = form.Encode()
	} else {
		at.RawQuery = form.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, method, at.String(), strings.NewReader(body))
	if err != nil {
		return result{}, 0, Errorf(BadData, "%w", err)
	}
	r.Header.Set("Accept", "application/json")
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	switch {
	case c.bearer != "":
		r.Header.Set("Authorization", "Bearer "+c.bearer)
	case c.user != nil:
		password, _ := c.user.Password()
		r.SetBasicAuth(c.user.Username(), password)
	}
	w, err := c.http.Do(r)
	if err != nil {
		return result{}, 0, c.failed(ctx, err)
	}
	defer func() { _ = w.Body.Close() }() // it has been read, or is not wanted
	text, err := io.ReadAll(io.LimitReader(w.Body, maxAnswer+1))
	switch {
	case err != nil:
		return result{}, w.StatusCode, c.failed(ctx, err)
	case len(text) > maxAnswer:
		return result{}, w.StatusCode, Errorf(Execution, "the answer of Prometheus is larger than %d MiB: ask for less", maxAnswer>>20)
	}
	data, err := c.read(w, text)
	return data, w.StatusCode, err
}

// failed says why there is no answer.
func (c *Client) failed(ctx context.Context, err error) error {
	switch cause := ctx.Err(); {
	case errors.Is(cause, context.DeadlineExceeded):
		return Errorf(Timeout, "Prometheus at %s did not answer in time: %w", c, err)
	case cause != nil:
		return Errorf(Canceled, "%w", err)
	}
	return Errorf(Unavailable, "ask Prometheus at %s: %w", c, err)
}

// read reads an answer. Errors of Prometheus are JSON too; those of proxies are not.
func (c *Client) read(w *http.Response, text []byte) (result, error) {
	var a answer
	kind, _, _ := mime.ParseMediaType(w.Header.Get("Content-Type"))
	if kind != "application/json" || json.Unmarshal(text, &a) != nil || a.Status == "" {
		hint := "is it the address of a Prometheus?"
		if w.StatusCode == http.StatusUnauthorized || w.StatusCode == http.StatusForbidden {
			hint = "are the credentials right?"
		}
		return result{}, Errorf(Unavailable, "%s answered %s, not as Prometheus does: %s", c, w.Status, hint)
	}
	if a.Status == "success" {
		return a.Data, nil
	}
	switch kind := Kind(a.ErrorType); kind {
	case BadData, Execution, Timeout, Canceled, Internal:
		return result{}, &Error{kind, errors.New(a.Error)}
	}
	return result{}, Errorf(Unavailable, "%s: %s: %s", c, a.ErrorType, a.Error)
}
