package api

import (
	"context"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// userCalls lists the calls of the users service.
func (s *Server) userCalls() []callEntry {
	return []callEntry{
		{"users.get_current_user", mayRead, typed(s.currentUser)},
		{"users.get_all", mayRead, typed(s.allUsers)},
	}
}

type currentUserAnswer struct {
	User           map[string]any `json:"user"`
	GettingStarted map[string]any `json:"getting_started"`
	Settings       map[string]any `json:"settings"`
}

func (s *Server) currentUser(ctx context.Context, c *Call, _ none) (currentUserAnswer, error) {
	doc, err := s.user(ctx, c.User)
	if err != nil {
		return currentUserAnswer{}, err
	}
	user := publicUser(doc)
	user["role"] = string(c.Role)
	user["company"] = map[string]any{"id": c.Company, "name": c.CompanyName}
	user["preferences"] = map[string]any{} // those are of ClearML's web application
	return currentUserAnswer{User: user, GettingStarted: map[string]any{}, Settings: map[string]any{}}, nil
}

// user reads a user whose token may be older than the database.
func (s *Server) user(ctx context.Context, id string) (store.Doc, error) {
	doc, err := s.store.Get(ctx, store.User, id)
	return doc, documents.NotFound(err, store.User, id)
}

// publicUser is what everybody may know of a user.
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

type usersRequest struct {
	ID []string `json:"id"`
}

type usersAnswer struct {
	Users []map[string]any `json:"users"`
}

// allUsers lists the users of the caller's company.
func (s *Server) allUsers(ctx context.Context, c *Call, req usersRequest) (usersAnswer, error) {
	docs, err := s.store.Query(ctx, store.User, store.Query{
		Where: store.In{Path: store.Path{"company"}, Values: []any{c.Company}},
	})
	answer := usersAnswer{Users: []map[string]any{}}
	wanted := setOf(req.ID)
	for _, doc := range docs {
		if len(wanted) == 0 || wanted[doc.ID()] {
			answer.Users = append(answer.Users, publicUser(doc))
		}
	}
	return answer, err
}
