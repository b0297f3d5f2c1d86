package api

import (
	"context"
	"slices"

	"clearmlserving/controlplane/store"
)

// userCalls lists the calls of the users service.
func (s *Server) userCalls() []callEntry {
	return []callEntry{
		{"users.get_current_user", mayRead, typed(s.currentUser)},
		{"users.get_preferences", mayRead, typed(s.getPreferences)},
		{"users.set_preferences", mayWrite, typed(s.setPreferences)},
		{"users.get_by_id", mayRead, typed(s.userByID)},
		{"users.get_all", mayRead, typed(s.allUsers)},
		{"users.get_all_ex", mayRead, typed(s.allUsers)},
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
	user["preferences"] = preferences(doc)
	return currentUserAnswer{User: user, GettingStarted: map[string]any{}, Settings: map[string]any{}}, nil
}

// user reads a user whose token may be older than the database.
func (s *Server) user(ctx context.Context, id string) (store.Doc, error) {
	doc, err := s.store.Get(ctx, store.User, id)
	return doc, notFound(err, store.User, id)
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

func preferences(doc store.Doc) map[string]any {
	if kept, ok := doc["preferences"].(map[string]any); ok {
		return kept
	}
	return map[string]any{}
}

type preferencesBody struct {
	Preferences map[string]any `json:"preferences"`
}

func (s *Server) getPreferences(ctx context.Context, c *Call, _ none) (preferencesBody, error) {
	doc, err := s.user(ctx, c.User)
	return preferencesBody{Preferences: preferences(doc)}, err
}

// setPreferences replaces what a web page has kept for the caller.
func (s *Server) setPreferences(ctx context.Context, c *Call, req preferencesBody) (updated, error) {
	if req.Preferences == nil {
		return updated{}, missing("preferences")
	}
	if c.Role == RoleService {
		return updated{}, outOfService(store.User, c.User)
	}
	err := store.Update(ctx, s.store, store.User, c.User, func(doc store.Doc) error {
		doc["preferences"] = req.Preferences
		return nil
	})
	return updated{Updated: 1, Fields: map[string]any{}}, notFound(err, store.User, c.User)
}

type userRequest struct {
	User string `json:"user"`
}

type userAnswer struct {
	User map[string]any `json:"user"`
}

func (s *Server) userByID(ctx context.Context, _ *Call, req userRequest) (userAnswer, error) {
	if req.User == "" {
		return userAnswer{}, missing("user")
	}
	doc, err := s.user(ctx, req.User)
	return userAnswer{User: publicUser(doc)}, err
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
	for _, doc := range docs {
		if len(req.ID) == 0 || slices.Contains(req.ID, doc.ID()) {
			answer.Users = append(answer.Users, publicUser(doc))
		}
	}
	return answer, err
}
