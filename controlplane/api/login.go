package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// authCalls lists the calls of the auth service.
func (s *Server) authCalls() []callEntry {
	return []callEntry{
		{"auth.login", mayRead, typed(s.login)},
		{"auth.logout", mayIfKnown, typed(s.logout)},
		{"auth.validate_token", mayRead, typed(s.validateToken)},
		{"auth.create_credentials", mayWrite, typed(s.createCredentials)},
		{"auth.get_credentials", mayRead, typed(s.getCredentials)},
		{"auth.revoke_credentials", mayWrite, typed(s.revokeCredentials)},

		// accounts.go
		{"auth.create_user", mayAdmin, typed(s.createUser)},
		{"auth.edit_user", mayAdmin, typed(s.editUser)},
		{"auth.delete_user", mayAdmin, typed(s.deleteUser)},
	}
}

// ownAuth is the Auth whose credentials and tokens these calls administer. A server
// whose callers are known by other means has none.
func (s *Server) ownAuth() (*Auth, error) {
	if a, ok := s.auth.(*Auth); ok {
		return a, nil
	}
	return nil, badRequest("This server keeps no credentials of its own")
}

type loginRequest struct {
	ExpirationSec *json.Number `json:"expiration_sec"`
}

type loginAnswer struct {
	Token string `json:"token"`
}

// login gives a token to who has come in by any other proof, a token included.
func (s *Server) login(ctx context.Context, c *Call, req loginRequest) (loginAnswer, error) {
	a, err := s.ownAuth()
	if err != nil {
		return loginAnswer{}, err
	}
	life := tokenLife
	if req.ExpirationSec != nil {
		seconds, err := req.ExpirationSec.Float64()
		if err != nil || seconds < 1 {
			return loginAnswer{}, documents.Invalid("expiration_sec must be a number of seconds, at least 1")
		}
		life = time.Duration(min(seconds, maxTokenLife.Seconds())) * time.Second
	}
	t, err := a.tokens(ctx)
	if err != nil {
		return loginAnswer{}, err
	}
	who := tokenIdentity{User: c.User, Company: c.Company, Role: string(c.Role), UserName: c.UserName, CompanyName: c.CompanyName, Service: c.Service}
	token, _, err := t.sign(who, c.AccessKey, life)
	if err != nil {
		return loginAnswer{}, err
	}
	if c.Via == "Basic" {
		a.touch(ctx, c.AccessKey, c.HTTP.RemoteAddr)
	}
	s.setCookie(c, token, life)
	return loginAnswer{Token: token}, nil
}

// setCookie keeps a token in the browser; an empty one removes it.
func (s *Server) setCookie(c *Call, token string, life time.Duration) {
	cookie := &http.Cookie{
		Name: cookieName, Value: token, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode,
		MaxAge: int(life.Seconds()),
		Secure: c.HTTP.TLS != nil || strings.HasPrefix(s.opts.APIURL, "https:"),
	}
	if token == "" {
		cookie.MaxAge = -1
	}
	c.Header.Add("Set-Cookie", cookie.String())
}

// logout ends the sessions that the request shows tokens of; without any it is done.
func (s *Server) logout(ctx context.Context, c *Call, _ none) (none, error) {
	s.setCookie(c, "", 0)
	a, err := s.ownAuth()
	if err != nil {
		return none{}, err
	}
	shown := []string{}
	if scheme, value, _ := strings.Cut(c.HTTP.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		shown = append(shown, strings.TrimSpace(value))
	}
	if cookie, err := c.HTTP.Cookie(cookieName); err == nil && fromOwnOrigin(c.HTTP) {
		shown = append(shown, cookie.Value)
	}
	for _, text := range shown {
		claims, err := a.claims(ctx, text)
		if told, _ := asError(err); err != nil && told.Code == http.StatusUnauthorized {
			continue // worthless already
		}
		if err != nil {
			return none{}, err
		}
		if err := a.endSession(ctx, claims); err != nil {
			return none{}, err
		}
	}
	return none{}, nil
}

type validateRequest struct {
	Token string `json:"token"`
}

type validateAnswer struct {
	Valid   bool   `json:"valid"`
	Msg     string `json:"msg,omitempty"`
	User    string `json:"user,omitempty"`
	Company string `json:"company,omitempty"`
}

func (s *Server) validateToken(ctx context.Context, _ *Call, req validateRequest) (validateAnswer, error) {
	a, err := s.ownAuth()
	if err != nil {
		return validateAnswer{}, err
	}
	who, err := a.byToken(ctx, req.Token, "Bearer")
	if err != nil {
		told, trouble := asError(err)
		if trouble {
			return validateAnswer{}, err
		}
		return validateAnswer{Msg: told.Msg}, nil
	}
	return validateAnswer{Valid: true, User: who.User, Company: who.Company}, nil
}

type createCredentialsRequest struct {
	Label string `json:"label"`
	// User, of an admin only, is for whom the pair is; it and the limit are our extensions.
	User string `json:"user"`
	limit
}

type newCredentialsAnswer struct {
	Credentials struct {
		Credentials
		Label    string `json:"label,omitempty"`
		ReadOnly bool   `json:"read_only,omitempty"`
		Service  string `json:"service,omitempty"`
	} `json:"credentials"`
}

// createCredentials makes a pair for the caller, or by an admin for another user. The
// secret is in this answer only.
func (s *Server) createCredentials(ctx context.Context, c *Call, req createCredentialsRequest) (newCredentialsAnswer, error) {
	a, err := s.ownAuth()
	if err != nil {
		return newCredentialsAnswer{}, err
	}
	user := store.Doc{"id": c.User, "company": c.Company}
	switch {
	case c.Role == RoleService:
		return newCredentialsAnswer{}, documents.OutOfService(store.Credential, "")
	case req.User != "" && req.User != c.User && c.Role != RoleAdmin:
		return newCredentialsAnswer{}, &documents.Error{Code: http.StatusForbidden, Subcode: 20, Msg: "Role not allowed: only an admin makes credentials for others"}
	case req.User != "":
		if user, err = s.user(ctx, req.User); err != nil {
			return newCredentialsAnswer{}, err
		}
	}
	fresh := newCredentials()
	err = s.store.Tx(ctx, func(tx store.Tx) error {
		if err := req.check(ctx, tx); err != nil {
			return err
		}
		doc := a.credentialDoc(fresh, user, req.Label)
		if req.ReadOnly {
			doc["read_only"] = true
		}
		if req.Service != "" {
			doc["service"] = req.Service
		}
		return tx.Insert(ctx, store.Credential, doc)
	})
	var answer newCredentialsAnswer
	answer.Credentials.Credentials, answer.Credentials.Label = fresh, req.Label
	answer.Credentials.ReadOnly, answer.Credentials.Service = req.ReadOnly, req.Service
	return answer, err
}

type credentialsAnswer struct {
	Credentials []map[string]any `json:"credentials"`
}

// getCredentials lists the caller's pairs, or for an admin those of another user, without
// secrets.
func (s *Server) getCredentials(ctx context.Context, c *Call, req userRequest) (credentialsAnswer, error) {
	user := c.User
	if req.User != "" && c.Role == RoleAdmin {
		user = req.User
	}
	docs, err := s.store.Query(ctx, store.Credential, store.Query{Where: documents.Is(user, "user")})
	answer := credentialsAnswer{Credentials: []map[string]any{}}
	for _, doc := range docs {
		one := map[string]any{"access_key": doc.ID()}
		if doc["read_only"] == true {
			one["read_only"] = true
		}
		for _, field := range []string{"label", "last_used", "last_used_from", "created", "service"} {
			if text := doc.Text(field); text != "" {
				one[field] = text
			}
		}
		answer.Credentials = append(answer.Credentials, one)
	}
	return answer, err
}

type credentialRequest struct {
	AccessKey string `json:"access_key"`
	Label     string `json:"label"`
}

// revokeCredentials removes a pair; the tokens made with it end with it.
func (s *Server) revokeCredentials(ctx context.Context, c *Call, req credentialRequest) (map[string]int, error) {
	err := s.changeCredential(ctx, c, req, func(tx store.Tx, doc store.Doc) error {
		owner, err := tx.Get(ctx, store.User, doc.Text("user"))
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if err := tx.Delete(ctx, store.Credential, doc.ID()); err != nil || owner.Text("role") != string(RoleAdmin) {
			return err
		}
		return mustLeaveAdmin(ctx, tx)
	})
	return map[string]int{"revoked": 1}, err
}

// subNoSuchCredential is ClearML's subcode for credentials that the user doesn't have.
const subNoSuchCredential = 75

// changeCredential changes one pair of the caller's; others' are as if they weren't there,
// but to admins.
func (s *Server) changeCredential(ctx context.Context, c *Call, req credentialRequest, change func(store.Tx, store.Doc) error) error {
	if req.AccessKey == "" {
		return documents.Missing("access_key")
	}
	if c.Role == RoleService {
		return documents.OutOfService(store.Credential, req.AccessKey)
	}
	return s.store.Tx(ctx, func(tx store.Tx) error {
		where := store.And{documents.Is(req.AccessKey, "id")}
		if c.Role != RoleAdmin {
			where = append(where, documents.Is(c.User, "user"))
		}
		found, err := tx.Query(ctx, store.Credential, store.Query{Where: where})
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return documents.Refuse(subNoSuchCredential, "No such credentials: access_key=%s", req.AccessKey)
		}
		return change(tx, found[0])
	})
}
