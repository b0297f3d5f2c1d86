package security_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// person is a user of the control plane with all its credentials.
type person struct {
	id, access, secret string
	token              string // for a year
	link               string // logs in a browser, once
}

// call makes a call of the API as the administrator and returns its data.
func (w *world) call(t *testing.T, name, body string) map[string]any {
	t.Helper()
	status, text := w.ask(t, "POST", w.api+"/"+name, body, w.basic())
	var answer struct{ Data map[string]any }
	if err := json.Unmarshal([]byte(text), &answer); err != nil || status != http.StatusOK {
		t.Fatalf("%s %s: %d %s", name, body, status, text)
	}
	return answer.Data
}

func (w *world) person(t *testing.T, name, role string) *person {
	t.Helper()
	p := &person{}
	p.id, _ = w.call(t, "auth.create_user", fmt.Sprintf(`{"name":%q,"role":%q}`, name, role))["id"].(string)
	pair, _ := w.call(t, "auth.create_credentials", fmt.Sprintf(`{"user":%q}`, p.id))["credentials"].(map[string]any)
	p.access, p.secret = fmt.Sprint(pair["access_key"]), fmt.Sprint(pair["secret_key"])
	of := world{access: p.access, secret: p.secret}
	status, text := w.ask(t, "POST", w.api+"/auth.login?expiration_sec=31536000", "", of.basic())
	var login struct{ Data struct{ Token string } }
	if err := json.Unmarshal([]byte(text), &login); err != nil || status != http.StatusOK {
		t.Fatalf("login: %d %s", status, text)
	}
	p.token = login.Data.Token
	status, text = w.ask(t, "POST", w.api+"/login/link", "", of.basic())
	var link struct{ URL string }
	if err := json.Unmarshal([]byte(text), &link); err != nil || status != http.StatusOK {
		t.Fatalf("login link: %d %s", status, text)
	}
	p.link = link.URL
	return p
}

// proofs are the headers with a person's credentials.
func (p *person) proofs() map[string]map[string]string {
	of := world{access: p.access, secret: p.secret}
	return map[string]map[string]string{
		"token": bearer(p.token), "cookie": {"Cookie": "clearml_token_basic=" + p.token}, "credentials": of.basic(),
	}
}

// Every call and every route applies a user's present rights: tokens, cookies, and login links
// contain no rights.
func TestRightsThatWereTakenAwayAreGoneOnEveryRoute(t *testing.T) {
	w := newWorld(t)
	admin := "auth.edit_user"
	for _, c := range []struct {
		what string
		take func(p *person)
		// the rows of the table that are refused from then on, with 403 or else 401
		forbidden map[string]bool
		out       bool
	}{
		{"demoted to user", func(p *person) { w.call(t, admin, fmt.Sprintf(`{"user":%q,"role":"user"}`, p.id)) }, map[string]bool{"admins": true}, false},
		{"demoted to guest", func(p *person) { w.call(t, admin, fmt.Sprintf(`{"user":%q,"role":"guest"}`, p.id)) }, map[string]bool{"admins": true, "users": true}, false},
		{"deleted", func(p *person) { w.call(t, "auth.delete_user", fmt.Sprintf(`{"user":%q}`, p.id)) }, nil, true},
		{"revoked", func(p *person) { w.call(t, "auth.revoke_credentials", fmt.Sprintf(`{"access_key":%q}`, p.access)) }, nil, true},
		{"logged out", func(p *person) { w.ask(t, "POST", w.api+"/auth.logout", "", bearer(p.token)) }, nil, true},
	} {
		p := w.person(t, "somebody "+c.what, "admin")
		if status, text := w.ask(t, "POST", w.api+"/auth.create_user", `{"name":"x"}`, bearer(p.token)); status != http.StatusBadRequest {
			t.Fatalf("%s, before: %d %s", c.what, status, text)
		}
		c.take(p)
		proofs := p.proofs()
		if c.what == "logged out" {
			delete(proofs, "credentials") // they are for another session
		}
		asked := 0
		for _, r := range w.rows() {
			base := map[string]string{"api": w.api, "files": w.files}[r.listener]
			if base == "" || strings.HasPrefix(r.caller, "anybody") || strings.HasPrefix(r.caller, "clients that") {
				continue
			}
			page := strings.HasSuffix(r.caller, "logged in") || strings.Contains(r.caller, "logged in,")
			for how, header := range proofs {
				if page && how != "cookie" {
					continue
				}
				if page {
					header = map[string]string{"Cookie": header["Cookie"], "Accept": "text/html"}
				}
				method := strings.Split(r.methods, ", ")
				status, text := w.ask(t, method[len(method)-1], base+r.example(), "{}", header)
				asked++
				switch {
				case c.out && page:
					if status != http.StatusSeeOther {
						t.Errorf("%s, by %s: %s %s answers %d %.200s", c.what, how, r.methods, r.path, status, text)
					}
				case c.out:
					if status != http.StatusUnauthorized {
						t.Errorf("%s, by %s: %s %s answers %d %.200s, want 401", c.what, how, r.methods, r.path, status, text)
					}
				case c.forbidden[r.caller]:
					if status != http.StatusForbidden {
						t.Errorf("%s, by %s: %s %s answers %d %.200s, want 403", c.what, how, r.methods, r.path, status, text)
					}
				case status == http.StatusUnauthorized || status >= 500:
					t.Errorf("%s, by %s: %s %s answers %d %.200s", c.what, how, r.methods, r.path, status, text)
				}
			}
		}
		if asked < 100 {
			t.Errorf("%s: only %d requests were made", c.what, asked)
		}
		if c.what == "logged out" {
			continue // the link is for another session
		}
		// An earlier link leads to a session with the present rights.
		status, text := w.ask(t, "POST", w.api+"/auth.create_user", `{"name":"back door `+c.what+`","role":"admin"}`, w.redeemed(t, p.link))
		if status != http.StatusForbidden && status != http.StatusUnauthorized {
			t.Errorf("%s, by a login link: %d %s", c.what, status, text)
		}
	}
	w.alive(t)
}

// redeemed is the cookie of a login link.
func (w *world) redeemed(t *testing.T, link string) map[string]string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, link, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for _, cookie := range resp.Cookies() {
		return map[string]string{"Cookie": cookie.Name + "=" + cookie.Value}
	}
	return nil
}
