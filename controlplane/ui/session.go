package ui

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/controlplane/intake"
)

// sessionCookie is the API's own cookie: with it a browser can also download the files
// that the pages link to. The API ignores it on requests from other sites' pages.
const sessionCookie = "clearml_token_basic"

// sessionLife is how long a login lasts.
const sessionLife = 24 * time.Hour

var (
	errNotLoggedIn = errors.New("not logged in")
	errForged      = refusal{http.StatusForbidden, "This form is too old, or does not come from this page. Go back, reload the page, and send it again."}
)

// enter makes the visit of who sends the request. The token is tried on each request, so
// a revoked credential or a logout elsewhere ends the session at once.
func (p *Pages) enter(w http.ResponseWriter, r *http.Request) (*visit, error) {
	v := &visit{p: p, w: w, r: r}
	cookie, err := r.Cookie(sessionCookie)
	if err != nil || cookie.Value == "" {
		return v, errNotLoggedIn
	}
	v.token = cookie.Value
	if v.api, err = p.client(v.token, clearml.Setting{}, clearml.Secret{}); err != nil {
		return v, err
	}
	v.user, err = take[user](v, "users.get_current_user", "user", nil)
	if refused := (*clearml.Error)(nil); errors.As(err, &refused) && refused.Code == http.StatusUnauthorized {
		return v, errNotLoggedIn
	}
	v.notice = v.takeNotice()
	return v, err
}

// client makes a client of the API with a token, or else with a key and its secret.
func (p *Pages) client(token string, access clearml.Setting, secret clearml.Secret) (*clearml.Client, error) {
	config := clearml.Config{
		API:   clearml.Setting{Value: p.opts.APIURL, From: "this server"},
		Files: clearml.Setting{Value: p.opts.FilesURL, From: "this server"},
		// The token of a visit is used for one page.
		AccessKey: access, SecretKey: secret, TokenLife: time.Hour,
	}
	if token != "" {
		config.Token = clearml.NewSecret(token, "the browser's session")
	}
	return clearml.New(clearml.Options{
		Config: config, Logger: p.log, ClientName: "clearml-serving-web", Retry: clearml.Retry{Attempts: 1},
		HTTP: &http.Client{
			Transport:     p.opts.API,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	})
}

// newToken logs in to the API and returns the token of a session.
func (p *Pages) newToken(ctx context.Context, access, secret string) (string, error) {
	client, err := p.client("", clearml.Setting{Value: access, From: "the login form"}, clearml.NewSecret(secret, "the login form"))
	if err != nil {
		return "", err
	}
	var answer struct {
		Token string `json:"token"`
	}
	err = client.Call(ctx, "auth.login", map[string]any{"expiration_sec": int(sessionLife.Seconds())}, &answer)
	return answer.Token, err
}

// csrf is the token that the forms of a session carry. It is made of the session's
// secret, so nothing has to be kept of it.
func (v *visit) csrf() string {
	sum := sha256.Sum256([]byte("form of " + v.token))
	return hex.EncodeToString(sum[:16])
}

func (v *visit) hasToken(given string) bool {
	return subtle.ConstantTimeCompare([]byte(given), []byte(v.csrf())) == 1
}

type loginPage struct {
	AccessKey, Next, Problem string
}

func (p *Pages) showLogin(w http.ResponseWriter, r *http.Request) {
	p.renderLogin(w, r, http.StatusOK, loginPage{Next: localPath(r.URL.Query().Get("next"))})
}

func (p *Pages) renderLogin(w http.ResponseWriter, r *http.Request, status int, page loginPage) {
	v := &visit{p: p, w: w, r: r}
	if err := v.renderStatus(status, "login", "Log in", page); err != nil {
		p.fail(v, err)
	}
}

// login takes an access key and its secret.
func (p *Pages) login(w http.ResponseWriter, r *http.Request) {
	if http.NewCrossOriginProtection().Check(r) != nil {
		p.renderLogin(w, r, http.StatusForbidden, loginPage{Problem: "The form does not come from this page. Send it from here."})
		return
	}
	release, err := p.readForm(w, r, maxLoginForm)
	if err != nil {
		p.renderLogin(w, r, intake.Status(err), loginPage{Problem: "The form could not be read: " + err.Error()})
		return
	}
	release() // it is small
	page := loginPage{AccessKey: strings.TrimSpace(r.PostForm.Get("access_key")), Next: localPath(r.PostForm.Get("next"))}
	token, err := p.newToken(r.Context(), page.AccessKey, strings.TrimSpace(r.PostForm.Get("secret_key")))
	switch {
	case errors.Is(err, clearml.ErrUnauthorized):
		page.Problem = "The server does not know this access key with this secret key."
		p.renderLogin(w, r, http.StatusUnauthorized, page)
	case err != nil:
		p.fail(&visit{p: p, w: w, r: r}, err)
	default:
		p.begin(w, r, token, page.Next)
	}
}

// begin puts the session into the browser and leads to a page.
func (p *Pages) begin(w http.ResponseWriter, r *http.Request, token, next string) {
	p.setSession(w, r, token, int(sessionLife.Seconds()))
	http.Redirect(w, r, localPath(next), http.StatusSeeOther)
}

func (p *Pages) setSession(w http.ResponseWriter, r *http.Request, token string, age int) {
	http.SetCookie(w, &http.Cookie{
		Name: sessionCookie, Value: token, Path: "/", MaxAge: age, HttpOnly: true, SameSite: http.SameSiteLaxMode,
		Secure: r.TLS != nil || strings.HasPrefix(p.opts.APIURL, "https:"),
	})
}

// logout ends the session on the server too: its token is worth nothing afterwards.
func (p *Pages) logout(v *visit) error {
	request, err := http.NewRequestWithContext(v.r.Context(), http.MethodPost, p.opts.APIURL+"/auth.logout", http.NoBody)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+v.token)
	answer, err := p.opts.API.RoundTrip(request)
	if err != nil {
		return err
	}
	if err := answer.Body.Close(); err != nil {
		return err
	}
	p.setSession(v.w, v.r, "", -1)
	return v.redirect("/login")
}

// localPath is a place to go to after the login: a path of this server, never another one.
func localPath(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") {
		return "/"
	}
	return next
}

// links are the one-time links that have been made and not used yet.
type links struct {
	mu      sync.Mutex           // guards waiting
	waiting map[string]waitLogin // by the SHA-256 of their code
}

// waitLogin is a login that waits for its browser.
type waitLogin struct {
	token string
	until time.Time
}

// linkLife is how long a link can be used: long enough to find the line in a terminal.
const (
	linkLife = time.Hour
	maxLinks = 100
)

// Link returns an address that logs one browser in, once, as the holder of these
// credentials. It is worth nothing after its use or an hour.
func (p *Pages) Link(ctx context.Context, access, secret string) (string, error) {
	token, err := p.newToken(ctx, access, secret)
	if err != nil {
		return "", err
	}
	code := rand.Text()
	p.links.mu.Lock()
	defer p.links.mu.Unlock()
	if p.links.waiting == nil {
		p.links.waiting = map[string]waitLogin{}
	}
	for key, login := range p.links.waiting {
		if p.now().After(login.until) || len(p.links.waiting) >= maxLinks {
			delete(p.links.waiting, key)
		}
	}
	p.links.waiting[hashCode(code)] = waitLogin{token: token, until: p.now().Add(linkLife)}
	return p.opts.APIURL + "/login/link/" + code, nil
}

func hashCode(code string) string {
	sum := sha256.Sum256([]byte(code))
	return string(sum[:])
}

// makeLink makes a link for a program that shows credentials, such as our command line.
func (p *Pages) makeLink(w http.ResponseWriter, r *http.Request) {
	access, secret, ok := r.BasicAuth()
	if !ok {
		http.Error(w, "Send an access key and its secret key as Basic authentication.", http.StatusUnauthorized)
		return
	}
	link, err := p.Link(r.Context(), access, secret)
	if errors.Is(err, clearml.ErrUnauthorized) {
		http.Error(w, "The server does not know these credentials.", http.StatusUnauthorized)
		return
	}
	if err != nil {
		p.log.Error("login link not made", "err", err)
		http.Error(w, "The link could not be made.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{"url": link}) // a program that went away has no use for the error
}

func (p *Pages) redeemLink(w http.ResponseWriter, r *http.Request) {
	key := hashCode(r.PathValue("code"))
	p.links.mu.Lock()
	login, ok := p.links.waiting[key]
	delete(p.links.waiting, key)
	p.links.mu.Unlock()
	if !ok || p.now().After(login.until) {
		if v, err := p.enter(w, r); err == nil { // who is logged in already needs no link
			_ = v.redirect("/") // never fails
			return
		}
		p.renderLogin(w, r, http.StatusGone, loginPage{
			Next: "/", Problem: "This link was used already, or is too old. Make another one with: clearml-serving ui",
		})
		return
	}
	p.begin(w, r, login.token, "/")
}

// noticeCookie carries what was done from a form to the next page.
const noticeCookie = "clearml_serving_notice"

// done leads to a page that says what was done.
func (v *visit) done(to, text string) error { return v.leaveNotice(to, notice{Text: text}) }

// warn leads to a page that says what was not done.
func (v *visit) warn(to, text string) error { return v.leaveNotice(to, notice{text, true}) }

// notice is what the page before has to say.
type notice struct {
	Text    string `json:"text"`
	Warning bool   `json:"warning,omitempty"`
}

func (v *visit) leaveNotice(to string, n notice) error {
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	http.SetCookie(v.w, &http.Cookie{
		Name: noticeCookie, Value: base64.RawURLEncoding.EncodeToString(text), Path: "/", MaxAge: 60,
		HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
	return v.redirect(to)
}

func (v *visit) takeNotice() (n notice) {
	cookie, err := v.r.Cookie(noticeCookie)
	if err != nil || v.r.Method != http.MethodGet || v.r.Header.Get("HX-Request") != "" {
		return notice{}
	}
	text, err := base64.RawURLEncoding.DecodeString(cookie.Value)
	if err != nil || json.Unmarshal(text, &n) != nil {
		return notice{} // not of ours
	}
	http.SetCookie(v.w, &http.Cookie{Name: noticeCookie, Path: "/", MaxAge: -1, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	return n
}

// redirect leads the browser to a page of ours, with GET.
func (v *visit) redirect(to string) error {
	http.Redirect(v.w, v.r, to, http.StatusSeeOther)
	return nil
}

// id is the id in the path of the page.
func (v *visit) id() string { return v.r.PathValue("id") }
