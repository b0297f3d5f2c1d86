package clearml

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// speaks is the newest API version that this client supports.
const speaks = "2.23"

// session is a token with its facts about the server. It is immutable.
type session struct {
	token   string
	version string    // of the API, for the path of calls
	renew   time.Time // zero: never
	ends    time.Time // zero: never
}

// login returns a session that the server should accept. stale is a token that was just refused, ""
// if none. Only one goroutine logs in at a time; the others wait for its result.
func (c *Client) login(ctx context.Context, stale string) (*session, error) {
	if s := c.usable(stale); s != nil {
		return s, nil
	}
	select {
	case c.loginTurn <- struct{}{}:
		defer func() { <-c.loginTurn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("auth.login: %w", context.Cause(ctx))
	}
	if s := c.usable(stale); s != nil {
		return s, nil
	}
	s, err := c.newSession(ctx, stale)
	if err != nil {
		// A token that is due for renewal is used until it expires.
		if old := c.session.Load(); old != nil && old.token != stale && errors.Is(err, ErrUnavailable) && (old.ends.IsZero() || time.Now().Before(old.ends)) {
			return old, nil
		}
		return nil, err
	}
	c.session.Store(s)
	return s, nil
}

func (c *Client) usable(stale string) *session {
	s := c.session.Load()
	if s == nil || s.token == stale || (!s.renew.IsZero() && !time.Now().Before(s.renew)) {
		return nil
	}
	return s
}

func (c *Client) newSession(ctx context.Context, stale string) (*session, error) {
	header, from := "", c.config.AccessKey.From
	if c.config.Token.IsSet() {
		from = c.config.Token.From
		token := c.config.Token.Reveal()
		if old := c.session.Load(); old != nil && old.token != stale {
			token = old.token // the newest one expires last
		}
		header = "Bearer " + token
	} else {
		pair := c.config.AccessKey.Value + ":" + c.config.SecretKey.Reveal()
		header = "Basic " + base64.StdEncoding.EncodeToString([]byte(pair))
	}
	path := "/auth.login"
	if life := c.config.TokenLife; life > 0 {
		path += "?expiration_sec=" + strconv.Itoa(int(life/time.Second))
	}
	asked := time.Now()
	a, err := c.send(ctx, "auth.login", path, func(h http.Header) { h.Set("Authorization", header) }, nil)
	if err != nil {
		return nil, err
	}
	var data struct {
		Token string `json:"token"`
	}
	if err := c.decode("auth.login", a, &data); err != nil {
		if errors.Is(err, ErrUnauthorized) {
			return nil, &LoginError{Host: c.config.API, Credentials: from, Err: err}
		}
		return nil, err
	}
	if data.Token == "" {
		return nil, fmt.Errorf("auth.login: %w", c.notAnAPI(errors.New("returned no token: is it the address of the API server?")))
	}
	return newSession(data.Token, asked, c.config), nil
}

// claims are the parts of a token that a client uses. They are not verified: the server does that.
type claims struct {
	Ends    float64 `json:"exp"`
	Issued  float64 `json:"iat"`
	Version string  `json:"api_version"`
}

// newSession reads a token. An unreadable token is used until it is refused.
func newSession(token string, now time.Time, config Config) *session {
	s := &session{token: token, version: speaks}
	var cl claims
	if parts := strings.Split(token, "."); len(parts) == 3 {
		if text, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "=")); err == nil {
			_ = json.Unmarshal(text, &cl) // unreadable claims stay zero and have no effect
		}
	}
	for _, limit := range []string{cl.Version, config.MaxAPIVersion} {
		if limit != "" && versionBefore(limit, s.version) {
			s.version = limit
		}
	}
	if cl.Ends <= 0 || cl.Ends > math.MaxInt32*100 {
		return s
	}
	// The lifetime is measured with our own clock, because the server's may be wrong.
	life := time.Unix(int64(cl.Ends), 0).Sub(now)
	if cl.Issued > 0 && cl.Issued < cl.Ends {
		life = time.Duration(cl.Ends-cl.Issued) * time.Second
	}
	margin := cmp.Or(config.TokenMargin, 6*time.Minute)
	// A token with a lifetime below the margin would be renewed at every call.
	s.ends = now.Add(life)
	s.renew = s.ends.Add(-min(margin, life/4))
	return s
}

// versionBefore compares dotted numbers. A text that is not a number is never before.
func versionBefore(a, b string) bool {
	for {
		var x, y string
		x, a, _ = strings.Cut(a, ".")
		y, b, _ = strings.Cut(b, ".")
		n, err := strconv.Atoi(cmp.Or(x, "0"))
		m, _ := strconv.Atoi(y)
		switch {
		case err != nil || n < 0:
			return false
		case n != m || a == "" && b == "":
			return n < m
		}
	}
}

// AuthHeader is the Authorization header for a URL: the token for the configured file server, ""
// for any other server, so that no other server gets it.
func (c *Client) AuthHeader(ctx context.Context, rawURL string) (string, error) {
	if !c.ownFile(rawURL) {
		return "", nil
	}
	s, err := c.login(ctx, "")
	if err != nil {
		return "", err
	}
	return "Bearer " + s.token, nil
}

// ownFile reports whether a URL is on the configured file server.
func (c *Client) ownFile(rawURL string) bool {
	files := c.config.Files.Value
	return files != "" && (rawURL == files || strings.HasPrefix(rawURL, files+"/"))
}

// UserName returns the name of the user whose credentials this client has.
func (c *Client) UserName(ctx context.Context) (string, error) {
	var data struct {
		User struct {
			Name string `json:"name"`
		} `json:"user"`
	}
	err := c.Call(ctx, "users.get_current_user", map[string]any{}, &data)
	return data.User.Name, err
}
