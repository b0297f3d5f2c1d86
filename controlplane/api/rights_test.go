package api_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"clearmlserving/controlplane/api"
	"clearmlserving/controlplane/store"
)

// someone is a user with a pair of credentials and a token that was made with them.
type someone struct {
	id    string
	creds api.Credentials
	token string
}

func (s someone) bearer() string { return "Bearer " + s.token }

// user makes a user with this role, who has logged in.
func (p *plane) user(t *testing.T, name, role string) someone {
	t.Helper()
	s := someone{id: p.ok(t, "auth.create_user", fmt.Sprintf(`{"name":%q,"role":%q}`, name, role))["id"].(string)}
	s.creds = p.pair(t, fmt.Sprintf(`,"user":%q`, s.id))
	s.token = p.loggedIn(t, s.creds)
	return s
}

func (p *plane) loggedIn(t *testing.T, c api.Credentials) string {
	t.Helper()
	return p.do(t, "auth.login?expiration_sec=31536000", "", "Authorization", basic(c)).Data["token"].(string)
}

func (p *plane) self(t *testing.T) string {
	t.Helper()
	return p.ok(t, "users.get_current_user", "")["user"].(map[string]any)["id"].(string)
}

// proofs are all ways to show who one is: the credentials, a token of before, a token that
// was renewed with that token now, and the cookie.
func (s someone) proofs(t *testing.T, p *plane) map[string][]string {
	t.Helper()
	all := map[string][]string{
		"credentials": {"Authorization", basic(s.creds)},
		"token":       {"Authorization", s.bearer()},
		"cookie":      {"Cookie", "clearml_token_basic=" + s.token},
	}
	renewed := p.do(t, "auth.login", "", "Authorization", s.bearer())
	if token, ok := renewed.Data["token"].(string); ok {
		all["renewed token"] = []string{"Authorization", "Bearer " + token}
	}
	return all
}

func TestADemotedAdministratorIsDemotedAtOnceWhateverTokenItHolds(t *testing.T) {
	p := newPlane(t)
	ann := p.user(t, "ann", "admin")
	for call, body := range map[string]string{"auth.create_user": `{"name":"somebody"}`, "tasks.get_all": `{}`} {
		if got := p.do(t, call, body, "Authorization", ann.bearer()).code(); got != "200/0" {
			t.Fatalf("before: %s %s", call, got)
		}
	}
	for _, c := range []struct{ role, write, admin string }{
		{"user", "200/0", "403/20"}, {"guest", "403/21", "403/20"}, {"admin", "200/0", "200/0"}, {"guest", "403/21", "403/20"},
	} {
		p.ok(t, "auth.edit_user", fmt.Sprintf(`{"user":%q,"role":%q}`, ann.id, c.role))
		n := 0
		for how, proof := range ann.proofs(t, p) {
			n++
			if got := p.do(t, "tasks.create", `{"name":"a task","type":"training"}`, proof...).code(); got != c.write {
				t.Errorf("%s by %s: tasks.create %s, want %s", c.role, how, got, c.write)
			}
			if got := p.do(t, "auth.create_user", fmt.Sprintf(`{"name":"back door %d %s","role":"admin"}`, n, time.Now()), proof...).code(); got != c.admin {
				t.Errorf("%s by %s: auth.create_user %s, want %s", c.role, how, got, c.admin)
			}
			user, _ := p.do(t, "users.get_current_user", "", proof...).Data["user"].(map[string]any)
			if user["role"] != c.role {
				t.Errorf("%s by %s is shown as %v", c.role, how, user["role"])
			}
			if how == "renewed token" {
				if who, _ := claimsOf(t, strings.TrimPrefix(proof[1], "Bearer "))["identity"].(map[string]any); who["role"] != c.role {
					t.Errorf("a token renewed as %s says %v", c.role, who["role"])
				}
			}
		}
		if n != 4 {
			t.Errorf("%s: %d proofs were tried", c.role, n)
		}
	}
	p.ok(t, "auth.delete_user", fmt.Sprintf(`{"user":%q}`, ann.id))
	for how, proof := range ann.proofs(t, p) {
		if got := p.do(t, "tasks.get_all", `{}`, proof...).Meta.ResultCode; got != 401 {
			t.Errorf("deleted, by %s: %d, want 401", how, got)
		}
	}
}

// The limit of a credential holds for tokens that were made with it before.
func TestALimitOfACredentialHoldsForItsTokensAtOnce(t *testing.T) {
	p := newPlane(t)
	ann := p.user(t, "ann", "user")
	task := p.ok(t, "tasks.create", `{"name":"a task","type":"service"}`)["id"].(string)
	for limit, value := range map[string]any{"read_only": true, "service": task} {
		err := store.Update(t.Context(), p.store, store.Credential, ann.creds.AccessKey, func(doc store.Doc) error {
			delete(doc, "read_only")
			doc[limit] = value
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for how, proof := range ann.proofs(t, p) {
			if got := p.do(t, "projects.create", `{"name":"a project"}`, proof...).code(); got != "403/21" {
				t.Errorf("%s, by %s: %s, want 403/21", limit, how, got)
			}
		}
	}
}

// Two servers on one database: what one changes holds at the other at once.
func TestAChangeAtOneServerHoldsAtTheOther(t *testing.T) {
	p := newPlane(t)
	q := planeOn(t, p.store, p.creds)
	ann := p.user(t, "ann", "admin")
	steps := []struct{ call, body, want string }{
		{"auth.edit_user", fmt.Sprintf(`{"user":%q,"role":"user"}`, ann.id), "403/20"},
		{"auth.edit_user", fmt.Sprintf(`{"user":%q,"role":"admin"}`, ann.id), "400/800"},
		{"auth.revoke_credentials", fmt.Sprintf(`{"access_key":%q}`, ann.creds.AccessKey), "401/30"},
	}
	if got := q.do(t, "auth.create_user", `{"name":"x"}`, "Authorization", ann.bearer()).code(); got != "400/800" {
		t.Fatalf("before: %s", got)
	}
	for _, c := range steps {
		p.ok(t, c.call, c.body)
		if got := q.do(t, "auth.create_user", `{"name":"x"}`, "Authorization", ann.bearer()).code(); got != c.want {
			t.Errorf("after %s %s: %s, want %s", c.call, c.body, got, c.want)
		}
	}
	bob := p.user(t, "bob", "user")
	p.do(t, "auth.logout", "", "Authorization", bob.bearer())
	if got := q.do(t, "tasks.get_all", "", "Authorization", bob.bearer()).code(); got != "401/30" {
		t.Errorf("after a logout at the other server: %s", got)
	}
}

func TestTheLastAdministratorStays(t *testing.T) {
	p := newPlane(t)
	first := p.self(t)
	as := func(c api.Credentials, call, body string) string {
		t.Helper()
		return p.do(t, call, body, "Authorization", basic(c)).code()
	}
	demote := func(id string) string { return fmt.Sprintf(`{"user":%q,"role":"guest"}`, id) }
	revoke := func(c api.Credentials) string { return fmt.Sprintf(`{"access_key":%q}`, c.AccessKey) }
	if got := as(p.creds, "auth.edit_user", demote(first)); got != "400/0" {
		t.Errorf("the only administrator demotes itself: %s", got)
	}
	if got := as(p.creds, "auth.revoke_credentials", revoke(p.creds)); got != "400/0" {
		t.Errorf("the only credentials of the only administrator are revoked: %s", got)
	}
	// An administrator who has no credentials, or only limited ones, can't administer.
	ann := p.ok(t, "auth.create_user", `{"name":"ann","role":"admin"}`)["id"].(string)
	p.pair(t, fmt.Sprintf(`,"user":%q,"read_only":true`, ann))
	if got := as(p.creds, "auth.edit_user", demote(first)); got != "400/0" {
		t.Errorf("demoted beside an administrator who can't log in: %s", got)
	}
	hers := p.pair(t, fmt.Sprintf(`,"user":%q`, ann))
	if got := as(hers, "auth.delete_user", fmt.Sprintf(`{"user":%q}`, first)); got != "200/0" {
		t.Errorf("one of two administrators is deleted: %s", got)
	}
	if got := as(hers, "auth.revoke_credentials", revoke(hers)); got != "400/0" {
		t.Errorf("the last credentials are revoked: %s", got)
	}
	if got := as(hers, "auth.edit_user", fmt.Sprintf(`{"user":%q,"role":"admin","name":"anna"}`, ann)); got != "200/0" {
		t.Errorf("the last administrator changes its name: %s", got)
	}
}

func TestAdministratorsWhoDemoteEachOtherAtOnceLeaveOne(t *testing.T) {
	for round := range 10 {
		p := newPlane(t)
		first, ann := p.self(t), p.user(t, "ann", "admin")
		calls := []struct {
			by       api.Credentials
			call, id string
		}{{p.creds, "auth.edit_user", ann.id}, {ann.creds, "auth.edit_user", first}}
		if round%2 == 1 {
			calls[0].call = "auth.delete_user"
		}
		var all sync.WaitGroup
		for _, c := range calls {
			all.Go(func() {
				p.do(t, c.call, fmt.Sprintf(`{"user":%q,"role":"user"}`, c.id), "Authorization", basic(c.by))
			})
		}
		all.Wait()
		left := 0
		for _, c := range []api.Credentials{p.creds, ann.creds} {
			if p.do(t, "auth.create_user", `{"name":"still here"}`, "Authorization", basic(c)).code() == "200/0" {
				left++
			}
		}
		if left != 1 {
			t.Fatalf("round %d: %d administrators are left", round, left)
		}
	}
}

func TestAStartRestoresAnAdministrator(t *testing.T) {
	for name, spoil := range map[string]func(p *plane, id string) error{
		"demoted": func(p *plane, id string) error {
			return store.Update(t.Context(), p.store, store.User, id, func(doc store.Doc) error { doc["role"] = "guest"; return nil })
		},
		"deleted": func(p *plane, id string) error {
			return p.store.Tx(t.Context(), func(tx store.Tx) error { return tx.Delete(t.Context(), store.User, id) })
		},
		"revoked": func(p *plane, _ string) error {
			return p.store.Tx(t.Context(), func(tx store.Tx) error {
				return tx.Delete(t.Context(), store.Credential, p.creds.AccessKey)
			})
		},
		"limited": func(p *plane, _ string) error {
			return store.Update(t.Context(), p.store, store.Credential, p.creds.AccessKey, func(doc store.Doc) error { doc["read_only"] = true; return nil })
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlane(t)
			p.user(t, "bob", "guest")
			if err := spoil(p, p.self(t)); err != nil {
				t.Fatal(err)
			}
			again := planeOn(t, p.store, p.creds)
			if got := again.do(t, "auth.create_user", `{"name":"somebody"}`, "Authorization", basic(again.creds)); got.code() != "200/0" {
				t.Errorf("after a start: %s %s", got.code(), got.Meta.ResultMsg)
			}
			if name == "demoted" && again.creds != p.creds {
				t.Error("credentials that are good were replaced")
			}
			once := planeOn(t, p.store, again.creds)
			if once.creds != again.creds {
				t.Error("the next start makes credentials again")
			}
		})
	}
}

// A start changes nothing where another administrator is left.
func TestAStartLeavesADemotedUserDemoted(t *testing.T) {
	p := newPlane(t)
	ann := p.user(t, "ann", "admin")
	if got := p.do(t, "auth.edit_user", fmt.Sprintf(`{"user":%q,"role":"guest"}`, p.self(t)), "Authorization", basic(ann.creds)).code(); got != "200/0" {
		t.Fatal(got)
	}
	again := planeOn(t, p.store, p.creds)
	if got := again.do(t, "auth.create_user", `{"name":"somebody"}`, "Authorization", basic(again.creds)).code(); got != "403/20" {
		t.Errorf("after a start: %s, want 403/20", got)
	}
}

// Notes of ended sessions are taken over from an earlier version, and removed once their
// tokens have expired.
func TestEndedSessionsOfAnEarlierVersionStayEnded(t *testing.T) {
	p := newPlane(t)
	token := p.token(t, "")
	earlier, err := json.Marshal(map[string]int64{
		claimsOf(t, token)["session_id"].(string): p.clock.Add(time.Hour).Unix(), "expired": p.clock.Add(-time.Hour).Unix(),
	})
	if err != nil {
		t.Fatal(err)
	}
	err = p.store.Tx(t.Context(), func(tx store.Tx) error {
		return tx.SetSetting(t.Context(), "auth.ended_sessions", string(earlier))
	})
	if err != nil {
		t.Fatal(err)
	}
	again := planeOn(t, p.store, p.creds)
	if got := again.do(t, "tasks.get_all", "", "Authorization", "Bearer "+token).code(); got != "401/30" {
		t.Errorf("logged out before: %s, want 401/30", got)
	}
	again.do(t, "auth.logout", "", "Authorization", "Bearer "+again.token(t, ""))
	if n, err := p.store.Count(t.Context(), store.EndedSession, nil); err != nil || n != 2 {
		t.Errorf("%d sessions are noted, %v; want the two whose tokens are alive", n, err)
	}
}
