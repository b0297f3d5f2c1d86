package api

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// author is an identity as the writer of documents.
func (who Identity) author() documents.Author {
	return documents.Author{User: who.User, Company: who.Company, Limited: who.Role == RoleService, Service: who.Service}
}

func (who Identity) mayChange(kind store.Kind, doc store.Doc) error {
	return who.author().MayChange(kind, doc)
}

// limit restricts a pair of credentials to less than its user may do.
type limit struct {
	// ReadOnly: no writes.
	ReadOnly bool `json:"read_only"`
	// Service: writes only what belongs to this serving service.
	Service string `json:"service"`
}

// check refuses invalid limits.
func (l limit) check(ctx context.Context, from store.Reader) error {
	if l.Service == "" {
		return nil
	}
	if l.ReadOnly {
		return documents.Invalid("read_only and service exclude each other")
	}
	_, err := documents.Find(ctx, from, store.Task, l.Service)
	return err
}

// limited applies the limit of a credential to its user's identity.
func limited(who Identity, credential store.Doc) Identity {
	switch {
	case who.Role == RoleGuest:
	case credential["read_only"] == true:
		who.Role = RoleGuest
	case credential.Text("service") != "":
		who.Role, who.Service = RoleService, credential.Text("service")
	}
	return who
}

type createUserRequest struct {
	Name string `json:"name"`
	Role Role   `json:"role"`
}

// checkRole refuses roles that a user cannot have; "" is none.
func checkRole(role Role) error {
	if !slices.Contains([]Role{"", RoleGuest, RoleUser, RoleAdmin}, role) {
		return documents.Invalid("role %q is none of guest, user, admin", role)
	}
	return nil
}

// createUser makes a user of the caller's company, with role user by default.
func (s *Server) createUser(ctx context.Context, c *Call, req createUserRequest) (idAnswer, error) {
	name, err := documents.CheckName("name", req.Name)
	if err != nil {
		return idAnswer{}, err
	}
	if err := checkRole(req.Role); err != nil {
		return idAnswer{}, err
	}
	answer := idAnswer{documents.NewID()}
	err = s.store.Tx(ctx, func(tx store.Tx) error {
		if err := refuseTaken(ctx, tx, store.User, name); err != nil {
			return err
		}
		return tx.Insert(ctx, store.User, store.Doc{
			"id": answer.ID, "name": name, "company": c.Company, "role": string(cmp.Or(req.Role, RoleUser)),
			"created": s.timestamp(), "preferences": map[string]any{},
		})
	})
	return answer, err
}

// editUser changes the name and the role of a user. A new role takes effect at once, for
// existing tokens too.
func (s *Server) editUser(ctx context.Context, _ *Call, req struct {
	User string `json:"user"`
	createUserRequest
},
) (updated, error) {
	fields := map[string]any{}
	if req.Name != "" {
		name, err := documents.CheckName("name", req.Name)
		if err != nil {
			return updated{}, err
		}
		fields["name"] = name
	}
	if err := checkRole(req.Role); err != nil {
		return updated{}, err
	}
	if req.Role != "" {
		fields["role"] = string(req.Role)
	}
	err := s.store.Tx(ctx, func(tx store.Tx) error {
		doc, err := tx.Get(ctx, store.User, req.User)
		if err != nil {
			return err
		}
		demoted := doc.Text("role") == string(RoleAdmin) && req.Role != "" && req.Role != RoleAdmin
		maps.Copy(doc, fields)
		if err := tx.Put(ctx, store.User, doc); err != nil || !demoted {
			return err
		}
		return mustLeaveAdmin(ctx, tx)
	})
	return updated{Updated: 1, Fields: fields}, documents.NotFound(err, store.User, req.User)
}

// deleteUser removes a user and all credentials of it. The last admin stays.
func (s *Server) deleteUser(ctx context.Context, c *Call, req userRequest) (counts, error) {
	if req.User == c.User {
		return nil, badRequest("A user cannot delete itself: another administrator must do it")
	}
	err := s.store.Tx(ctx, func(tx store.Tx) error {
		if err := tx.Delete(ctx, store.User, req.User); err != nil {
			return documents.NotFound(err, store.User, req.User)
		}
		if err := store.DeleteFound(ctx, tx, store.Credential, store.Query{Where: documents.Is(req.User, "user")}); err != nil {
			return err
		}
		return mustLeaveAdmin(ctx, tx)
	})
	return counts{"deleted": 1}, err
}
