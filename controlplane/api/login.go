package api

import (
	"context"
	"encoding/json"
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

// login gives a token to a caller with any other proof, a token included.
func (s *Server) login(ctx context.Context, c *Call, req struct {
	ExpirationSec *json.Number `json:"expiration_sec"`
},
) (map[string]string, error) {
	life := tokenLife
	if req.ExpirationSec != nil {
		seconds, err := req.ExpirationSec.Float64()
		if err != nil || seconds < 1 {
			return nil, documents.Invalid("expiration_sec must be a number of seconds, at least 1")
		}
		life = time.Duration(min(seconds, maxTokenLife.Seconds())) * time.Second
	}
	t, err := s.own.tokens(ctx)
	if err != nil {
		return nil, err
	}
	who := tokenIdentity{User: c.User, Company: c.Company, Role: string(c.Role), UserName: c.UserName, CompanyName: c.CompanyName, Service: c.Service}
	token, err := t.sign(who, c.AccessKey, life)
	if err != nil {
		return nil, err
	}
	if c.Via == "Basic" {
		s.own.touch(ctx, c.AccessKey, c.HTTP.RemoteAddr)
	}
	s.setCookie(c, token, life)
	return map[string]string{"token": token}, nil
}

// setCookie stores a token in the browser; an empty one removes it.
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

// logout ends the sessions of the tokens in the request, if any.
func (s *Server) logout(ctx context.Context, c *Call, _ none) (none, error) {
	s.setCookie(c, "", 0)
	shown := []string{}
	if scheme, value, _ := strings.Cut(c.HTTP.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		shown = append(shown, strings.TrimSpace(value))
	}
	if cookie, err := c.HTTP.Cookie(cookieName); err == nil && fromOwnOrigin(c.HTTP) {
		shown = append(shown, cookie.Value)
	}
	for _, text := range shown {
		claims, err := s.own.claims(ctx, text)
		if told, _ := asError(err); err != nil && told.Code == http.StatusUnauthorized {
			continue // invalid already
		}
		if err != nil {
			return none{}, err
		}
		if err := s.own.endSession(ctx, claims); err != nil {
			return none{}, err
		}
	}
	return none{}, nil
}

func (s *Server) validateToken(ctx context.Context, _ *Call, req struct {
	Token string `json:"token"`
},
) (map[string]any, error) {
	who, err := s.own.byToken(ctx, req.Token, "Bearer")
	if err != nil {
		told, trouble := asError(err)
		if trouble {
			return nil, err
		}
		return map[string]any{"valid": false, "msg": told.Msg}, nil
	}
	return map[string]any{"valid": true, "user": who.User, "company": who.Company}, nil
}

type createCredentialsRequest struct {
	Label string `json:"label"`
	// User is the holder of the pair, if an admin makes it for another user. This field and
	// the limit are extensions.
	User string `json:"user"`
	limit
}

// publicPair has the fields of a pair without its secret.
func publicPair(doc store.Doc) map[string]any {
	pair := map[string]any{"access_key": doc.ID()}
	if doc["read_only"] == true {
		pair["read_only"] = true
	}
	for _, field := range []string{"label", "last_used", "last_used_from", "created", "service"} {
		if text := doc.Text(field); text != "" {
			pair[field] = text
		}
	}
	return pair
}

// createCredentials makes a pair for the caller, or for another user if the caller is an
// admin. Only this answer has the secret.
func (s *Server) createCredentials(ctx context.Context, c *Call, req createCredentialsRequest) (map[string]any, error) {
	user := store.Doc{"id": c.User, "company": c.Company}
	switch {
	case c.Role == RoleService:
		return nil, documents.OutOfService(store.Credential, "")
	case req.User != "" && req.User != c.User && c.Role != RoleAdmin:
		return nil, &documents.Error{Code: http.StatusForbidden, Subcode: 20, Msg: "Role not allowed: only an admin may make credentials for others"}
	case req.User != "":
		var err error
		if user, err = s.find(ctx, store.User, req.User); err != nil {
			return nil, err
		}
	}
	var pair map[string]any
	err := s.store.Tx(ctx, func(tx store.Tx) error {
		if err := req.check(ctx, tx); err != nil {
			return err
		}
		fresh := newCredentials()
		doc := s.own.credentialDoc(fresh, user, req.Label)
		if req.ReadOnly {
			doc["read_only"] = true
		}
		if req.Service != "" {
			doc["service"] = req.Service
		}
		pair = publicPair(doc)
		pair["secret_key"] = fresh.SecretKey
		return tx.Insert(ctx, store.Credential, doc)
	})
	return map[string]any{"credentials": pair}, err
}

// getCredentials lists the caller's pairs, or for an admin those of another user, without
// secrets.
func (s *Server) getCredentials(ctx context.Context, c *Call, req userRequest) (map[string]any, error) {
	user := c.User
	if req.User != "" && c.Role == RoleAdmin {
		user = req.User
	}
	docs, err := s.store.Query(ctx, store.Credential, store.Query{Where: documents.Is(user, "user")})
	pairs := []any{}
	for _, doc := range docs {
		pairs = append(pairs, publicPair(doc))
	}
	return map[string]any{"credentials": pairs}, err
}

// subNoSuchCredential is ClearML's subcode for credentials that the user does not have.
const subNoSuchCredential = 75

// revokeCredentials removes a pair of the caller's; the tokens made with it end with it.
// Only admins see and revoke those of others.
func (s *Server) revokeCredentials(ctx context.Context, c *Call, req struct {
	AccessKey string `json:"access_key" required:"true"`
},
) (counts, error) {
	if c.Role == RoleService {
		return nil, documents.OutOfService(store.Credential, req.AccessKey)
	}
	return counts{"revoked": 1}, s.store.Tx(ctx, func(tx store.Tx) error {
		doc, err := store.IfThere(tx.Get(ctx, store.Credential, req.AccessKey))
		if err != nil {
			return err
		}
		if doc == nil || c.Role != RoleAdmin && doc.Text("user") != c.User {
			return documents.Refuse(subNoSuchCredential, "No such credentials: access_key=%s", req.AccessKey)
		}
		owner, err := store.IfThere(tx.Get(ctx, store.User, doc.Text("user")))
		if err != nil {
			return err
		}
		if err := tx.Delete(ctx, store.Credential, doc.ID()); err != nil || owner.Text("role") != string(RoleAdmin) {
			return err
		}
		return mustLeaveAdmin(ctx, tx)
	})
}
