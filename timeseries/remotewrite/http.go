package remotewrite

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"clearmlserving/retry"
)

// sendLimit bounds one request.
const sendLimit = 30 * time.Second

// To returns a Send to an address. User and password in it, or the token, prove the caller's identity.
func To(address *url.URL, token string, transport http.RoundTripper, agent string) Send {
	bare := *address
	bare.User = nil
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return func(ctx context.Context, body []byte) (int, string, time.Duration, error) {
		ctx, cancel := context.WithTimeout(ctx, sendLimit)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, bare.String(), bytes.NewReader(body))
		if err != nil {
			return 0, "", 0, err
		}
		Headers(r.Header)
		r.Header.Set("User-Agent", agent)
		switch {
		case token != "":
			r.Header.Set("Authorization", "Bearer "+token)
		case address.User != nil:
			password, _ := address.User.Password()
			r.SetBasicAuth(address.User.Username(), password)
		}
		w, err := client.Do(r)
		if err != nil {
			return 0, "", 0, err
		}
		defer func() { _ = w.Body.Close() }() // what is not read is not wanted
		text, _ := io.ReadAll(io.LimitReader(w.Body, 500))
		return w.StatusCode, strings.TrimSpace(string(text)), retry.After(w.Header.Get("Retry-After"), time.Now()), nil
	}
}

// Headers sets the headers of a request.
func Headers(h http.Header) {
	h.Set("Content-Type", ContentType)
	h.Set("Content-Encoding", Encoding)
	h.Set("X-Prometheus-Remote-Write-Version", Version)
}
