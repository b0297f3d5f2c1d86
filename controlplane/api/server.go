package api

import (
	"context"
	"errors"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// serverCalls lists the calls of the server service.
func (s *Server) serverCalls() []callEntry {
	return []callEntry{
		{"server.info", mayRead, typed(s.serverInfo)},
	}
}

// serverUID is the setting with the permanent id of this installation.
const serverUID = "server.uid"

// serverInfo describes this server: version, build, and commit are those of the ClearML server
// that it replaces, product those of this program, and extensions the additions to ClearML's API.
func (s *Server) serverInfo(ctx context.Context, _ *Call, _ none) (map[string]any, error) {
	uid, err := settingOr(ctx, s.store, serverUID, documents.NewID)
	return map[string]any{
		"version": announcedServer, "build": announcedBuild, "commit": "", "api_version": announcedAPI, "uid": uid,
		"product": "clearml-serving", "product_version": s.opts.Version,
		"extensions": []string{"conditional_configuration", "configuration_history", "search_after"},
	}, err
}

// settingOr returns a setting; the first call on a database stores a fresh one. Of two calls
// at once both return the same.
func settingOr(ctx context.Context, s store.Store, key string, fresh func() string) (string, error) {
	value, err := s.Setting(ctx, key) // without a transaction, which a full disk would prevent
	if !errors.Is(err, store.ErrNotFound) {
		return value, err
	}
	err = s.Tx(ctx, func(tx store.Tx) error {
		var err error
		if value, err = tx.Setting(ctx, key); !errors.Is(err, store.ErrNotFound) {
			return err
		}
		value = fresh()
		return tx.SetSetting(ctx, key, value)
	})
	return value, err
}

// userCalls lists the calls of the users service.
func (s *Server) userCalls() []callEntry {
	return []callEntry{
		{"users.get_current_user", mayRead, typed(s.currentUser)},
		{"users.get_all", mayRead, typed(s.allUsers)},
	}
}

func (s *Server) currentUser(ctx context.Context, c *Call, _ none) (map[string]any, error) {
	doc, err := s.find(ctx, store.User, c.User) // a token may be older than the database
	if err != nil {
		return nil, err
	}
	user := publicUser(doc)
	user["role"] = string(c.Role)
	user["company"] = map[string]any{"id": c.Company, "name": c.CompanyName}
	user["preferences"] = map[string]any{} // those are of ClearML's web application
	return map[string]any{"user": user, "getting_started": map[string]any{}, "settings": map[string]any{}}, nil
}

// publicUser has the fields of a user that every user may read.
func publicUser(doc store.Doc) map[string]any {
	user := map[string]any{"id": doc.ID(), "name": doc.Text("name")}
	for _, field := range []string{"company", "created"} {
		if text := doc.Text(field); text != "" {
			user[field] = text
		}
	}
	return user
}

type userRequest struct {
	User string `json:"user"`
}

// allUsers lists the users of the caller's company.
func (s *Server) allUsers(ctx context.Context, c *Call, req struct {
	ID []string `json:"id"`
},
) (map[string]any, error) {
	docs, err := s.store.Query(ctx, store.User, store.Query{Where: documents.Is(c.Company, "company")})
	users := []any{}
	wanted := setOf(req.ID)
	for _, doc := range docs {
		if len(wanted) == 0 || wanted[doc.ID()] {
			users = append(users, publicUser(doc))
		}
	}
	return map[string]any{"users": users}, err
}
