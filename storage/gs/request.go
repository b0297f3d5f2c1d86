package gs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"

	"clearmlserving/retry"
	"clearmlserving/storage"
)

// scope is the right to read and write files, and nothing else.
const scope = "https://www.googleapis.com/auth/devstorage.read_write"

// token returns the source of tokens for an access; it is created once.
func (a *Adapter) token(access Access) (oauth2.TokenSource, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if source := a.tokens[access.Credentials]; source != nil {
		return source, nil
	}
	// Tokens outlive the request that first needs one.
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, &http.Client{Transport: a.o.Transport, Timeout: 30 * time.Second})
	found, err := credentials(ctx, access)
	if err != nil {
		return nil, err
	}
	a.tokens[access.Credentials] = found.TokenSource
	return found.TokenSource, nil
}

func credentials(ctx context.Context, access Access) (*google.Credentials, error) {
	if access.Credentials == "" {
		found, err := google.FindDefaultCredentials(ctx, scope)
		if err != nil {
			return nil, fmt.Errorf("%w: no Google credentials are configured: set sdk.google.storage.credentials_json in clearml.conf, or GOOGLE_APPLICATION_CREDENTIALS, to the path of a key file", storage.ErrDenied)
		}
		return found, nil
	}
	text := []byte(access.Credentials)
	if !strings.HasPrefix(strings.TrimSpace(access.Credentials), "{") {
		var err error
		if text, err = os.ReadFile(access.Credentials); err != nil {
			return nil, fmt.Errorf("%w: read the Google credentials of %s: %w", storage.ErrDenied, access.From, err)
		}
	}
	var kind struct {
		Type google.CredentialsType `json:"type"`
	}
	if err := json.Unmarshal(text, &kind); err != nil {
		return nil, fmt.Errorf("%w: the Google credentials of %s are not JSON", storage.ErrDenied, access.From)
	}
	found, err := google.CredentialsFromJSONWithType(ctx, text, kind.Type, scope)
	if err != nil {
		return nil, fmt.Errorf("%w: the Google credentials of %s cannot be used: %w", storage.ErrDenied, access.From, err)
	}
	return found, nil
}

// send makes a request. An answer without success, or no answer, is an error.
func (a *Adapter) send(ctx context.Context, op string, p place, req *http.Request) (*http.Response, error) {
	if a.o.Endpoint == "" {
		if err := a.authorize(op, p, req); err != nil {
			return nil, err
		}
	}
	resp, err := a.o.Transport.RoundTrip(req)
	if err != nil {
		return nil, storage.Unanswered(ctx, op, p.url, err)
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusCreated, http.StatusNoContent, http.StatusPartialContent, http.StatusPermanentRedirect:
		return resp, nil
	}
	defer drop(resp)
	return nil, explain(op, p, resp)
}

func (a *Adapter) authorize(op string, p place, req *http.Request) error {
	source, err := a.token(p.access)
	if err != nil {
		return err
	}
	token, err := source.Token()
	if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		e := &storage.Error{Op: op, URL: p.url, Transient: refused.Response != nil && storage.HealingStatus(refused.Response.StatusCode)}
		e.Err = fmt.Errorf("%w: Google does not accept the credentials%s (%s); the usual reasons are a deleted key or a wrong clock", storage.ErrDenied, p.from(), refused.ErrorCode)
		return e
	}
	if err != nil {
		return &storage.Error{Op: op, URL: p.url, Transient: true, Err: fmt.Errorf("get a token with the credentials%s: %w", p.from(), err)}
	}
	token.SetAuthHeader(req)
	return nil
}

func (p place) from() string {
	if p.access.From == "" {
		return ""
	}
	return " of " + p.access.From
}

// explain converts an answer without success to an error with the setting to check.
func explain(op string, p place, resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // as much as was received
	var answer struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	message := strings.TrimSpace(string(text))
	if json.Unmarshal(text, &answer) == nil && answer.Error.Message != "" {
		message = answer.Error.Message
	}
	if len(message) > 300 {
		message = message[:300]
	}
	e := &storage.Error{Op: op, URL: p.url, Transient: storage.HealingStatus(resp.StatusCode), After: retry.After(resp.Header.Get("Retry-After"), time.Now())}
	switch resp.StatusCode {
	case http.StatusNotFound, http.StatusGone:
		e.Err = storage.ErrNotExist
		if strings.Contains(strings.ToLower(message), "bucket does not exist") || op == "put" || op == "list" {
			e.Err = fmt.Errorf("%w: the bucket %q does not exist", storage.ErrNotExist, p.bucket)
		}
	case http.StatusPreconditionFailed, http.StatusRequestedRangeNotSatisfiable:
		e.Err = storage.ErrChanged
	case http.StatusUnauthorized:
		e.Err = fmt.Errorf("%w: Google does not accept the credentials%s: %s; set sdk.google.storage.credentials_json in clearml.conf", storage.ErrDenied, p.from(), message)
	case http.StatusForbidden:
		e.Err = fmt.Errorf("%w: the credentials%s have no right to this in the bucket %q: %s", storage.ErrDenied, p.from(), p.bucket, message)
	default:
		e.Err = fmt.Errorf("the server answers %s: %s", resp.Status, message)
	}
	return e
}

// drop discards an answer; a short rest is read so that the connection can be reused.
func drop(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // of no use either way
	_ = resp.Body.Close()
}
