package api

import (
	"cmp"
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

	"clearmlserving/controlplane/documents"
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

func unauthorized(subcode int, reason string) *documents.Error {
	return &documents.Error{Code: http.StatusUnauthorized, Subcode: subcode, Msg: "Unauthorized (" + reason + ")"}
}

// AuthOptions are the dependencies of Auth.
type AuthOptions struct {
	// Store keeps credentials, users, and the key of tokens. Required.
	Store store.Store
	// Logger gets messages for operators; nil discards them.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Auth identifies callers by the credentials and tokens of a store: access key and secret
// as Basic, a token of auth.login as Bearer or in a cookie. It is safe for use by many
// goroutines.
type Auth struct {
	store store.Store
	log   *slog.Logger
	now   func() time.Time

	mu  sync.Mutex // guards key; nothing else is locked under it
	key []byte     // of tokens; nil until the first use
}

// NewAuth makes an Auth. It does not read the store.
func NewAuth(opts AuthOptions) *Auth {
	opts.Logger = cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Auth{store: opts.Store, log: opts.Logger, now: opts.Now}
}

// Authenticate implements Authenticator. A cookie is accepted only if the request comes from
// a page of this origin or from no page: calls may be made with GET, so a link or an image
// on another page could otherwise delete a task.
func (a *Auth) Authenticate(r *http.Request) (Identity, error) {
	return a.identify(r, fromOwnOrigin(r))
}

// AuthenticateDownload is Authenticate for requests that only read a file. They may come with
// the cookie from another page, because that page cannot read the answer.
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
		if told := (*documents.Error)(nil); errors.As(err, &told) {
			// After a refused call the SDK logs in and repeats the call with its old
			// token; the new token is in the cookie.
			return a.byCookie(r, takeCookie, told)
		}
		return who, err
	case strings.EqualFold(scheme, "Basic"):
		return a.byBasic(r.Context(), strings.TrimSpace(value))
	}
	return Identity{}, unauthorized(subBadAuthType, "bad authentication header type")
}

// byCookie identifies by the cookie, and returns the given refusal if there is none.
func (a *Auth) byCookie(r *http.Request, take bool, refused *documents.Error) (Identity, error) {
	cookie, err := r.Cookie(cookieName)
	if err != nil || cookie.Value == "" || !take {
		return Identity{}, refused
	}
	return a.byToken(r.Context(), cookie.Value, "Cookie")
}

// byToken uses only the access key and the session of a token. The permissions of its holder
// are read from the store at each request, so a change of a user, of a credential, or of a
// session applies to every existing token, on every server of the database.
func (a *Auth) byToken(ctx context.Context, text, via string) (Identity, error) {
	claims, err := a.claims(ctx, text)
	if err != nil {
		return Identity{}, err
	}
	ended, err := a.ended(ctx, claims)
	if err != nil {
		return Identity{}, err
	}
	if ended {
		return Identity{}, unauthorized(subInvalidToken, "logged out")
	}
	credential, err := store.IfThere(a.store.Get(ctx, store.Credential, claims.AccessKey))
	if err != nil {
		return Identity{}, err
	}
	if credential == nil {
		return Identity{}, unauthorized(subInvalidToken, "the credentials of this token were revoked")
	}
	return a.holder(ctx, credential, via, unauthorized(subInvalidToken, "the user of this token was deleted"))
}

// holder returns the holder of a credential with its present permissions. gone is the
// refusal if the user does not exist any more.
func (a *Auth) holder(ctx context.Context, credential store.Doc, via string, gone error) (Identity, error) {
	user, err := store.IfThere(a.store.Get(ctx, store.User, credential.Text("user")))
	if err != nil {
		return Identity{}, err
	}
	if user == nil {
		return Identity{}, gone
	}
	company, err := store.IfThere(a.store.Get(ctx, store.Company, user.Text("company")))
	if err != nil {
		return Identity{}, err
	}
	return limited(Identity{
		User: user.ID(), UserName: user.Text("name"),
		Company: user.Text("company"), CompanyName: company.Text("name"),
		Role: cmp.Or(Role(user.Text("role")), RoleUser), Via: via, AccessKey: credential.ID(),
	}, credential), nil
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

// tokens returns the signer of tokens, with the key of the database.
func (a *Auth) tokens(ctx context.Context) (tokens, error) {
	a.mu.Lock()
	key := a.key
	a.mu.Unlock()
	if key == nil {
		var err error
		if key, err = loadSigningKey(ctx, a.store); err != nil {
			return tokens{}, err
		}
		a.mu.Lock()
		a.key = key
		a.mu.Unlock()
	}
	return tokens{key: key, now: a.now}, nil
}

// ended says whether the session of a token was logged out.
func (a *Auth) ended(ctx context.Context, claims tokenClaims) (bool, error) {
	note, err := store.IfThere(a.store.Get(ctx, store.EndedSession, claims.SessionID))
	return note != nil, err
}

// endSession invalidates the tokens of a session.
func (a *Auth) endSession(ctx context.Context, claims tokenClaims) error {
	if ended, err := a.ended(ctx, claims); ended || err != nil {
		return err
	}
	return a.store.Tx(ctx, func(tx store.Tx) error {
		// A note is not needed after the last token of its session has expired.
		if err := store.Expire(ctx, tx, store.EndedSession, a.now()); err != nil {
			return err
		}
		return insertEnded(ctx, tx, claims.SessionID, claims.ExpiresAt.Time)
	})
}

// insertEnded stores that a session has ended. last_update, which has an index, is the time
// when the last token of the session expires.
func insertEnded(ctx context.Context, tx store.Tx, session string, expires time.Time) error {
	err := tx.Insert(ctx, store.EndedSession, store.Doc{"id": session, "last_update": store.FormatTime(expires)})
	if errors.Is(err, store.ErrExists) {
		return nil // by another request
	}
	return err
}

// endedSessionsSetting is where earlier versions stored the ended sessions:
// {session id: seconds since 1970}.
const endedSessionsSetting = "auth.ended_sessions"

// moveEndedSessions takes over the ended sessions of an earlier version.
func (a *Auth) moveEndedSessions(ctx context.Context) error {
	text, err := a.store.Setting(ctx, endedSessionsSetting)
	if errors.Is(err, store.ErrNotFound) || text == "{}" {
		return nil
	}
	if err != nil {
		return err
	}
	earlier := map[string]int64{}
	if err := json.Unmarshal([]byte(text), &earlier); err != nil {
		return fmt.Errorf("read the sessions that have ended: %w", err)
	}
	return a.store.Tx(ctx, func(tx store.Tx) error {
		for session, expires := range earlier {
			if err := insertEnded(ctx, tx, session, time.Unix(expires, 0)); err != nil {
				return err
			}
		}
		return tx.SetSetting(ctx, endedSessionsSetting, "{}")
	})
}

// fromOwnOrigin says whether the request comes from a page of its target's origin, or from
// no page: a program, or an address that was typed.
func fromOwnOrigin(r *http.Request) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" {
		return site == "same-origin" || site == "none"
	}
	from := cmp.Or(r.Header.Get("Origin"), r.Header.Get("Referer")) // browsers without Sec-Fetch-Site send it with POST
	if from == "" {
		return true
	}
	u, err := url.Parse(from)
	return err == nil && u.Host != "" && u.Host == r.Host
}
