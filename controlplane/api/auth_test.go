package api_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"clearmlserving/controlplane/api"
	"clearmlserving/controlplane/store"
	"clearmlserving/controlplane/store/sqlite/sqlitetest"
)

// plane is an API on a store of its own, with the first user's credentials.
type plane struct {
	url   string
	store store.Store
	auth  *api.Auth
	creds api.Credentials
	clock *time.Time
}

func newPlane(t *testing.T) *plane {
	t.Helper()
	return planeOn(t, newStore(t), api.Credentials{})
}

// reopenPlane serves the database file; have are the credentials of an earlier start.
func reopenPlane(t *testing.T, path string, have api.Credentials) *plane {
	t.Helper()
	return planeOn(t, sqlitetest.Open(t, path), have)
}

func planeOn(t *testing.T, db store.Store, have api.Credentials) *plane {
	t.Helper()
	clock := time.Now()
	now := func() time.Time { return clock }
	p := &plane{store: db, clock: &clock, auth: api.NewAuth(api.AuthOptions{Store: db, Now: now})}
	var err error
	if p.creds, _, err = p.auth.EnsureDefaults(t.Context(), have); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(api.New(api.Options{Store: db, Auth: p.auth, Now: now, Version: "9.9.9"}))
	p.url = srv.URL
	t.Cleanup(srv.Close)
	return p
}

// answered is an envelope as a client sees it.
type answered struct {
	Meta struct {
		ResultCode    int    `json:"result_code"`
		ResultSubcode int    `json:"result_subcode"`
		ResultMsg     string `json:"result_msg"`
	}
	Data   map[string]any
	header http.Header
}

func (a answered) code() string {
	return fmt.Sprintf("%d/%d", a.Meta.ResultCode, a.Meta.ResultSubcode)
}

// do makes a call with the given headers and no others.
func (p *plane) do(t *testing.T, call, body string, headers ...string) answered {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", p.url+"/"+call, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var a answered
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&a); err != nil || a.Meta.ResultCode != resp.StatusCode {
		t.Fatalf("%s: status %d, no envelope of it: %s", call, resp.StatusCode, text)
	}
	a.header = resp.Header
	return a
}

// ok makes a call as the first user and gives its data.
func (p *plane) ok(t *testing.T, call, body string, headers ...string) map[string]any {
	t.Helper()
	a := p.do(t, call, body, append([]string{"Authorization", basic(p.creds)}, headers...)...)
	if a.Meta.ResultCode != 200 {
		t.Fatalf("%s %s: %s %s", call, body, a.code(), a.Meta.ResultMsg)
	}
	return a.Data
}

func (p *plane) token(t *testing.T, expiration string) string {
	t.Helper()
	return p.ok(t, "auth.login"+expiration, "")["token"].(string)
}

func basic(c api.Credentials) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.AccessKey+":"+c.SecretKey))
}

func claimsOf(t *testing.T, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("token has %d parts: %s", len(parts), token)
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(text, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

func TestTokenTellsTheSDKWhatItReads(t *testing.T) {
	p := newPlane(t)
	claims := claimsOf(t, p.token(t, ""))
	for claim, want := range map[string]any{
		"auth_type": "Bearer", "api_version": "2.31", "server_version": "2.0.0", "feature_set": "basic",
	} {
		if claims[claim] != want {
			t.Errorf("claim %s is %v; want %v", claim, claims[claim], want)
		}
	}
	who, _ := claims["identity"].(map[string]any)
	if who["user"] == "" || who["company"] == "" || who["role"] == "" {
		t.Errorf("identity: %v", who)
	}
	if life := claims["exp"].(float64) - claims["iat"].(float64); life != 30*24*3600 {
		t.Errorf("a token lives %v s; want 30 days", life)
	}
}

func TestTokenLivesAsLongAsAskedButAtMostAYear(t *testing.T) {
	p := newPlane(t)
	for ask, want := range map[string]float64{"60": 60, "1": 1, "90000000000": 365 * 24 * 3600, "2.9": 2} {
		claims := claimsOf(t, p.token(t, "?expiration_sec="+ask))
		if life := claims["exp"].(float64) - claims["iat"].(float64); life != want {
			t.Errorf("expiration_sec=%s: lives %v s; want %v", ask, life, want)
		}
	}
	for _, ask := range []string{"0", "-5", "x"} {
		if a := p.do(t, "auth.login?expiration_sec="+ask, "", "Authorization", basic(p.creds)); a.Meta.ResultCode != 400 {
			t.Errorf("expiration_sec=%s: %s; want 400", ask, a.code())
		}
	}
}

func TestWhoIsRefusedAndWithWhichSubcode(t *testing.T) {
	p := newPlane(t)
	good := p.token(t, "")
	other := newPlane(t).token(t, "")
	short := p.token(t, "?expiration_sec=30")
	*p.clock = p.clock.Add(time.Minute)
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + strings.Split(good, ".")[1] + "."
	wrong := p.creds
	wrong.SecretKey = "x" + wrong.SecretKey
	for name, c := range map[string]struct{ header, want string }{
		"nothing":                  {"", "401/20"},
		"other scheme":             {"Digest x", "401/10"},
		"no base64":                {"Basic !", "401/21"},
		"no colon":                 {"Basic " + base64.StdEncoding.EncodeToString([]byte("x")), "401/21"},
		"unknown key":              {basic(api.Credentials{AccessKey: "X", SecretKey: "y"}), "401/22"},
		"empty key":                {basic(api.Credentials{}), "401/22"},
		"wrong secret":             {basic(wrong), "401/22"},
		"expired token":            {"Bearer " + short, "401/30"},
		"token of another server":  {"Bearer " + other, "401/30"},
		"unsigned token":           {"Bearer " + none, "401/30"},
		"cut token":                {"Bearer " + good[:len(good)-3], "401/30"},
		"no token":                 {"Bearer ", "401/30"},
		"good token":               {"Bearer " + good, "200/0"},
		"scheme in lower case":     {"bearer " + good, "200/0"},
		"credentials on any call":  {basic(p.creds), "200/0"},
		"a token's hash as secret": {basic(api.Credentials{AccessKey: p.creds.AccessKey, SecretKey: storedHash(t, p)}), "401/22"},
	} {
		t.Run(name, func(t *testing.T) {
			headers := []string{"Authorization", c.header}
			if c.header == "" {
				headers = nil
			}
			if a := p.do(t, "v2.23/users.get_current_user", "", headers...); a.code() != c.want {
				t.Errorf("%s %s; want %s", a.code(), a.Meta.ResultMsg, c.want)
			}
		})
	}
}

func storedHash(t *testing.T, p *plane) string {
	t.Helper()
	doc, err := p.store.Get(t.Context(), store.Credential, p.creds.AccessKey)
	if err != nil {
		t.Fatal(err)
	}
	return doc.Text("secret_sha256")
}

func TestSecretsAreNotStored(t *testing.T) {
	p := newPlane(t)
	made := p.ok(t, "auth.create_credentials", `{"label":"ci"}`)["credentials"].(map[string]any)
	if len(made["access_key"].(string)) != 30 || len(made["secret_key"].(string)) < 50 || made["label"] != "ci" {
		t.Errorf("made: %v", made)
	}
	docs, err := p.store.Query(t.Context(), store.Credential, store.Query{})
	if err != nil || len(docs) != 2 {
		t.Fatalf("stored: %v, %v", docs, err)
	}
	for _, doc := range docs {
		text, err := doc.Encode()
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{p.creds.SecretKey, made["secret_key"].(string)} {
			if bytes.Contains(text, []byte(secret)) {
				t.Errorf("the database holds a secret: %s", text)
			}
		}
	}
	if list := fmt.Sprint(p.ok(t, "auth.get_credentials", "")); strings.Contains(list, "secret") || !strings.Contains(list, "ci") {
		t.Errorf("get_credentials: %s", list)
	}
}

// The SDK's repeat of a refused call carries its old token; the new one is in the cookie.
func TestCookieHelpsACallThatIsRepeatedWithAnOldToken(t *testing.T) {
	p := newPlane(t)
	old := newPlane(t).token(t, "")
	login := p.do(t, "auth.login", "", "Authorization", basic(p.creds))
	cookie := login.header.Get("Set-Cookie")
	for _, part := range []string{"clearml_token_basic=", "HttpOnly", "SameSite=Lax", "Path=/"} {
		if !strings.Contains(cookie, part) {
			t.Errorf("cookie lacks %s: %s", part, cookie)
		}
	}
	pair, _, _ := strings.Cut(cookie, ";")
	if a := p.do(t, "users.get_current_user", "", "Authorization", "Bearer "+old); a.code() != "401/30" {
		t.Errorf("without the cookie: %s", a.code())
	}
	if a := p.do(t, "users.get_current_user", "", "Authorization", "Bearer "+old, "Cookie", pair); a.code() != "200/0" {
		t.Errorf("with the cookie: %s %s", a.code(), a.Meta.ResultMsg)
	}
	if a := p.do(t, "users.get_current_user", "", "Authorization", "Basic !", "Cookie", pair); a.code() != "401/21" {
		t.Errorf("wrong credentials with the cookie: %s; want them refused", a.code())
	}
}

func TestCookieOfAnotherPageIsNotTaken(t *testing.T) {
	p := newPlane(t)
	cookie := "clearml_token_basic=" + p.token(t, "")
	host := strings.TrimPrefix(p.url, "http://")
	for _, c := range []struct {
		headers []string
		want    string
	}{
		{nil, "200/0"},
		{[]string{"Sec-Fetch-Site", "same-origin"}, "200/0"},
		{[]string{"Sec-Fetch-Site", "none"}, "200/0"},
		{[]string{"Sec-Fetch-Site", "same-site"}, "401/20"},
		{[]string{"Sec-Fetch-Site", "cross-site"}, "401/20"},
		{[]string{"Origin", "http://" + host}, "200/0"},
		{[]string{"Origin", "http://evil.example"}, "401/20"},
		{[]string{"Origin", "null"}, "401/20"},
		{[]string{"Referer", "http://" + host + "/models"}, "200/0"},
		{[]string{"Referer", "http://evil.example/" + host}, "401/20"},
		{[]string{"Referer", "nothing"}, "401/20"},
		{[]string{"Sec-Fetch-Site", "none", "Referer", "http://evil.example/"}, "200/0"},
	} {
		a := p.do(t, "users.get_current_user", "", append([]string{"Cookie", cookie}, c.headers...)...)
		if a.code() != c.want {
			t.Errorf("%v: %s; want %s", c.headers, a.code(), c.want)
		}
	}
}

func TestTokensSurviveARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clearml.db")
	var token string
	var creds api.Credentials
	t.Run("before", func(t *testing.T) {
		p := reopenPlane(t, path, api.Credentials{})
		token, creds = p.token(t, ""), p.creds
	})
	p := reopenPlane(t, path, creds)
	if p.creds != creds {
		t.Errorf("credentials changed from %v to %v", creds, p.creds)
	}
	if a := p.do(t, "users.get_current_user", "", "Authorization", "Bearer "+token); a.code() != "200/0" {
		t.Errorf("token after the restart: %s %s", a.code(), a.Meta.ResultMsg)
	}
}

func TestLostCredentialsAreReplacedAndOldOnesStayValid(t *testing.T) {
	p := newPlane(t)
	again, created, err := p.auth.EnsureDefaults(t.Context(), api.Credentials{AccessKey: p.creds.AccessKey, SecretKey: "lost"})
	if err != nil || !created || again == p.creds {
		t.Fatalf("EnsureDefaults: %v, created %v, %v", again, created, err)
	}
	for _, c := range []api.Credentials{p.creds, again} {
		if a := p.do(t, "auth.login", "", "Authorization", basic(c)); a.code() != "200/0" {
			t.Errorf("login: %s", a.code())
		}
	}
	users, err := p.store.Query(t.Context(), store.User, store.Query{})
	if err != nil || len(users) != 1 {
		t.Errorf("users: %v, %v; want the one of before", users, err)
	}
}

func TestGivenCredentialsAreThoseOfAnAdministrator(t *testing.T) {
	p := newPlane(t)
	given := api.Credentials{AccessKey: "GIVEN", SecretKey: "the first secret of it"}
	for range 2 { // also at the next start
		if err := p.auth.EnsureGiven(t.Context(), given); err != nil {
			t.Fatal(err)
		}
	}
	if a := p.do(t, "auth.login", "", "Authorization", basic(given)); a.code() != "200/0" {
		t.Errorf("login: %s", a.code())
	}
	changed := api.Credentials{AccessKey: "GIVEN", SecretKey: "the second secret of it"}
	if err := p.auth.EnsureGiven(t.Context(), changed); err != nil {
		t.Fatal(err)
	}
	for c, want := range map[api.Credentials]string{given: "401/22", changed: "200/0", p.creds: "200/0"} {
		if a := p.do(t, "auth.login", "", "Authorization", basic(c)); a.code() != want {
			t.Errorf("login with %s: %s; want %s", c.SecretKey, a.code(), want)
		}
	}
	users, err := p.store.Query(t.Context(), store.User, store.Query{})
	if err != nil || len(users) != 1 {
		t.Errorf("users: %v, %v; want the one of before", users, err)
	}
}

func TestLogoutEndsTheSession(t *testing.T) {
	p := newPlane(t)
	token, other := p.token(t, ""), p.token(t, "")
	a := p.do(t, "auth.logout", "", "Authorization", "Bearer "+token)
	if a.code() != "200/0" || !strings.Contains(a.header.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("logout: %s, cookie %s", a.code(), a.header.Get("Set-Cookie"))
	}
	if a := p.do(t, "users.get_current_user", "", "Authorization", "Bearer "+token); a.code() != "401/30" {
		t.Errorf("after logout: %s; want 401/30", a.code())
	}
	if a := p.do(t, "users.get_current_user", "", "Authorization", "Bearer "+other); a.code() != "200/0" {
		t.Errorf("another session: %s; want it untouched", a.code())
	}
	if a := p.do(t, "auth.logout", ""); a.code() != "200/0" {
		t.Errorf("logout of nobody: %s", a.code())
	}
}

func TestRevokedCredentialsTakeTheirTokensAlong(t *testing.T) {
	p := newPlane(t)
	made := p.ok(t, "auth.create_credentials", "{}")["credentials"].(map[string]any)
	second := api.Credentials{AccessKey: made["access_key"].(string), SecretKey: made["secret_key"].(string)}
	login := p.do(t, "auth.login", "", "Authorization", basic(second))
	token := "Bearer " + login.Data["token"].(string)
	if a := p.do(t, "users.get_current_user", "", "Authorization", token); a.code() != "200/0" {
		t.Fatalf("before: %s", a.code())
	}
	used := fmt.Sprint(p.ok(t, "auth.get_credentials", ""))
	if !strings.Contains(used, "last_used_from:127.0.0.1") {
		t.Errorf("use not noted: %s", used)
	}
	if got := p.ok(t, "auth.revoke_credentials", `{"access_key":"`+second.AccessKey+`"}`); fmt.Sprint(got["revoked"]) != "1" {
		t.Errorf("revoke: %v", got)
	}
	for _, header := range []string{token, basic(second)} {
		if a := p.do(t, "users.get_current_user", "", "Authorization", header); a.Meta.ResultCode != 401 {
			t.Errorf("after revoke: %s; want 401", a.code())
		}
	}
	for body, want := range map[string]string{`{"access_key":"` + second.AccessKey + `"}`: "400/75", `{}`: "400/12"} {
		if a := p.do(t, "auth.revoke_credentials", body, "Authorization", basic(p.creds)); a.code() != want {
			t.Errorf("revoke %s: %s; want %s", body, a.code(), want)
		}
	}
}

func TestTokenIsValidatedForOthers(t *testing.T) {
	p := newPlane(t)
	if got := p.ok(t, "auth.validate_token", `{"token":"`+p.token(t, "")+`"}`); got["valid"] != true || got["user"] == nil {
		t.Errorf("good token: %v", got)
	}
	if got := p.ok(t, "auth.validate_token", `{"token":"x"}`); got["valid"] != false || got["msg"] == nil {
		t.Errorf("bad token: %v", got)
	}
}

func TestTheServerItsUsersAndTheCallerAreKnown(t *testing.T) {
	p := newPlane(t)
	info := p.ok(t, "server.info", "")
	if info["uid"] == "" || info["uid"] != p.ok(t, "server.info", "")["uid"] || info["product_version"] != "9.9.9" ||
		fmt.Sprint(info["extensions"]) != "[conditional_configuration configuration_history search_after]" {
		t.Errorf("server.info: %v", info)
	}
	user := p.ok(t, "users.get_current_user", "")["user"].(map[string]any)
	if user["id"] == "" || user["name"] != "default" || user["company"].(map[string]any)["id"] == "" {
		t.Errorf("get_current_user: %v", user)
	}
	if got := p.ok(t, "users.get_all", `{"id":["`+user["id"].(string)+`"]}`); len(got["users"].([]any)) != 1 {
		t.Errorf("users.get_all: %v", got)
	}
	if got := p.ok(t, "users.get_all", `{"id":["x"]}`); len(got["users"].([]any)) != 0 {
		t.Errorf("users.get_all of none: %v", got)
	}
}

// A full disk must not keep people out: they are the ones who make room.
func TestLoginWorksOnAFullDisk(t *testing.T) {
	p := newPlane(t)
	p.token(t, "")
	full := unwritable{p.store}
	srv := httptest.NewServer(api.New(api.Options{Store: full, Auth: api.NewAuth(api.AuthOptions{Store: full})}))
	defer srv.Close()
	onFull := plane{url: srv.URL, creds: p.creds}
	*p.clock = p.clock.Add(time.Hour)
	token := onFull.token(t, "")
	if a := onFull.do(t, "users.get_current_user", "", "Authorization", "Bearer "+token); a.code() != "200/0" {
		t.Errorf("%s %s", a.code(), a.Meta.ResultMsg)
	}
}

// unwritable is a store whose disk is full.
type unwritable struct{ store.Store }

func (unwritable) Tx(context.Context, func(store.Tx) error) error { return store.ErrFull }
