package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"clearmlserving/controlplane/store"
)

// cookieName is the cookie in which browsers, and the SDK's HTTP session, keep a token.
const cookieName = "clearml_token_basic"

// The subcodes of code 401, by ClearML's names.
const (
	subBadAuthType        = 10
	subNoCredentials      = 20
	subBadCredentials     = 21
	subInvalidCredentials = 22
	subInvalidToken       = 30
)

func unauthorized(subcode int, reason string) *Error {
	return &Error{Code: http.StatusUnauthorized, Subcode: subcode, Msg: "Unauthorized (" + reason + ")"}
}

// AuthOptions says where credentials are kept.
type AuthOptions struct {
	// Store keeps credentials, users, and the key of tokens. Required.
	Store store.Store
	// Logger receives what an operator should know; nil discards it.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Auth finds out who calls by the credentials and tokens of a store: access key and
// secret as Basic, a token of auth.login as Bearer or in a cookie. It is safe for use
// by many goroutines.
type Auth struct {
	store store.Store
	log   *slog.Logger
	now   func() time.Time

	mu       sync.Mutex // guards the fields below; nothing else is locked under it
	key      []byte     // of tokens; nil until the first use
	standing map[string]standing
}

// standing is what was last found of a session: whether its credential exists and
// nobody has logged out of it. It is looked up again after a while, so that a server
// on the same database hears of it too.
type standing struct {
	refused *Error
	until   time.Time
}

const (
	standingLife = 15 * time.Second
	maxStandings = 10_000
)

// NewAuth makes an Auth. It reads nothing yet.
func NewAuth(opts AuthOptions) *Auth {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Auth{store: opts.Store, log: opts.Logger, now: opts.Now, standing: map[string]standing{}}
}

// Authenticate implements Authenticator. A cookie counts only when the request comes
// from a page of this very origin or from no page at all: calls may be made with GET,
// so a link or an image on another page could otherwise delete a task.
func (a *Auth) Authenticate(r *http.Request) (Identity, error) {
	return a.identify(r, fromOwnOrigin(r))
}

// AuthenticateDownload is Authenticate for requests that only read a file: a link on
// another page may lead there with the cookie, since that page can't read the answer.
func (a *Auth) AuthenticateDownload(r *http.Request) (Identity, error) {
	return a.identify(r, true)
}

func (a *Auth) identify(r *http.Request, takeCookie bool) (Identity, error) {
	header := r.Header.Get("Authorization")
	scheme, value, _ := strings.Cut(header, " ")
	switch {
	case header == "":
		return a.byCookie(r, takeCookie, unauthorized(subNoCredentials, "missing credentials"))
	case strings.EqualFold(scheme, "Bearer"):
		who, err := a.byToken(r.Context(), strings.TrimSpace(value), "Bearer")
		if told := (*Error)(nil); errors.As(err, &told) {
			// After a refused call the SDK logs in and repeats that call with its old
			// token; the new one is then in the cookie.
			return a.byCookie(r, takeCookie, told)
		}
		return who, err
	case strings.EqualFold(scheme, "Basic"):
		return a.byBasic(r.Context(), strings.TrimSpace(value))
	}
	return Identity{}, unauthorized(subBadAuthType, "bad authentication header type")
}

// byCookie tries the cookie, and gives the first refusal when there is none that holds.
func (a *Auth) byCookie(r *http.Request, take bool, refused *Error) (Identity, error) {
	cookie, err := r.Cookie(cookieName)
	if err != nil || cookie.Value == "" || !take {
		return Identity{}, refused
	}
	return a.byToken(r.Context(), cookie.Value, "Cookie")
}

func (a *Auth) byToken(ctx context.Context, text, via string) (Identity, error) {
	claims, err := a.claims(ctx, text)
	if err != nil {
		return Identity{}, err
	}
	if err := a.stands(ctx, claims); err != nil {
		return Identity{}, err
	}
	who := claims.Identity
	return Identity{
		User: who.User, UserName: who.UserName, Company: who.Company, CompanyName: who.CompanyName,
		Role: Role(who.Role), Via: via, AccessKey: claims.AccessKey, Service: who.Service,
	}, nil
}

func (a *Auth) claims(ctx context.Context, text string) (tokenClaims, error) {
	t, err := a.tokens(ctx)
	if err != nil {
		return tokenClaims{}, err
	}
	claims, err := t.read(text)
	if err != nil {
		return tokenClaims{}, unauthorized(subInvalidToken, err.Error())
	}
	return claims, nil
}

// stands says whether the session of a token is still good.
func (a *Auth) stands(ctx context.Context, claims tokenClaims) error {
	now := a.now()
	a.mu.Lock()
	found, ok := a.standing[claims.SessionID]
	a.mu.Unlock()
	if !ok || now.After(found.until) {
		refused, err := a.lookUpStanding(ctx, claims)
		if err != nil {
			return err
		}
		found = standing{refused: refused, until: now.Add(standingLife)}
		a.mu.Lock()
		if len(a.standing) >= maxStandings {
			clear(a.standing)
		}
		a.standing[claims.SessionID] = found
		a.mu.Unlock()
	}
	if found.refused != nil {
		return found.refused
	}
	return nil
}

func (a *Auth) lookUpStanding(ctx context.Context, claims tokenClaims) (*Error, error) {
	ended, err := endedSessions(ctx, a.store)
	if err != nil {
		return nil, err
	}
	if _, gone := ended[claims.SessionID]; gone {
		return unauthorized(subInvalidToken, "logged out"), nil
	}
	if claims.AccessKey == "" {
		return nil, nil
	}
	_, err = a.store.Get(ctx, store.Credential, claims.AccessKey)
	if errors.Is(err, store.ErrNotFound) {
		return unauthorized(subInvalidToken, "the credentials of this token were revoked"), nil
	}
	return nil, err
}

func (a *Auth) byBasic(ctx context.Context, encoded string) (Identity, error) {
	text, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return Identity{}, unauthorized(subBadCredentials, "malformed credentials")
	}
	access, secret, ok := strings.Cut(string(text), ":")
	if !ok {
		return Identity{}, unauthorized(subBadCredentials, "malformed credentials")
	}
	return a.byCredentials(ctx, Credentials{AccessKey: access, SecretKey: secret})
}

// tokens gives what signs and reads tokens, with the key of the database.
func (a *Auth) tokens(ctx context.Context) (tokens, error) {
	a.mu.Lock()
	key := a.key
	a.mu.Unlock()
	if key == nil {
		var err error
		// Two at once find the same key: the first to write it wins in the database.
		if key, err = loadSigningKey(ctx, a.store); err != nil {
			return tokens{}, err
		}
		a.mu.Lock()
		a.key = key
		a.mu.Unlock()
	}
	return tokens{key: key, now: a.now}, nil
}

// forget drops what is remembered of sessions, after one of them ended.
func (a *Auth) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.standing)
}

// endedSessionsKey is the setting that holds the sessions logged out of, each until
// its token would have expired: {session id: seconds since 1970}.
const endedSessionsKey = "auth.ended_sessions"

func endedSessions(ctx context.Context, from store.Reader) (map[string]int64, error) {
	text, err := from.Setting(ctx, endedSessionsKey)
	if errors.Is(err, store.ErrNotFound) {
		return map[string]int64{}, nil
	}
	if err != nil {
		return nil, err
	}
	ended := map[string]int64{}
	if err := json.Unmarshal([]byte(text), &ended); err != nil {
		return nil, fmt.Errorf("read the sessions that have ended: %w", err)
	}
	return ended, nil
}

// endSession makes the tokens of a session worthless.
func (a *Auth) endSession(ctx context.Context, claims tokenClaims) error {
	defer a.forget()
	return a.store.Tx(ctx, func(tx store.Tx) error {
		ended, err := endedSessions(ctx, tx)
		if err != nil {
			return err
		}
		now := a.now().Unix()
		for id, expires := range ended {
			if expires < now {
				delete(ended, id)
			}
		}
		ended[claims.SessionID] = claims.ExpiresAt.Unix()
		text, err := json.Marshal(ended)
		if err != nil {
			return err
		}
		return tx.SetSetting(ctx, endedSessionsKey, string(text))
	})
}

// fromOwnOrigin says whether the request comes from a page of the origin it goes to,
// or from none: a program, or an address that a person has typed.
func fromOwnOrigin(r *http.Request) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" {
		return site == "same-origin" || site == "none"
	}
	origin := r.Header.Get("Origin") // browsers without Sec-Fetch-Site send it with POST
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && u.Host == r.Host
}
