package ui

import (
	"net/http"
	"time"

	"clearmlserving/operations"
	"clearmlserving/serving"
)

// keyRow is an access key of a service, without its secret.
type keyRow struct {
	ID string
	serving.AccessKey
	Expired bool
}

// freshKey is a key that was just made: it is shown this once.
type freshKey struct{ Secret, Label string }

func (p *Pages) keyRows(s *operations.Service) []keyRow {
	var rows []keyRow
	for _, id := range s.Config.Access.Sorted() {
		key := s.Config.Access.Keys[id]
		rows = append(rows, keyRow{id, key, key.Expired(p.now())})
	}
	return rows
}

// createKey answers the form itself instead of leading on: the key must not be kept anywhere to be
// shown by another page.
func (p *Pages) createKey(v *visit, s *operations.Service) error {
	form := formReader{form: v.r.PostForm}
	life, err := serving.ParseLife(form.text("expires"))
	if err != nil {
		return err
	}
	secret, id := serving.NewAccessKey()
	key := serving.AccessKey{Digest: serving.DigestOf(secret), Endpoints: words(form.text("endpoints")), Label: form.text("label"), Created: p.now().UTC().Truncate(time.Second)}
	if life > 0 {
		key.Expires = key.Created.Add(life)
	}
	err = s.Edit(v.r.Context(), func(c *serving.Service) (serving.Section, error) { return serving.SectionAccess, c.AddKey(id, key) })
	if err != nil {
		return err
	}
	return v.showService(s, &freshKey{secret, key.Label})
}

func (p *Pages) revokeKey(v *visit, s *operations.Service) error {
	id := v.r.PostForm.Get("key")
	err := s.Edit(v.r.Context(), func(c *serving.Service) (serving.Section, error) { return serving.SectionAccess, c.RevokeKey(id) })
	if err != nil {
		return err
	}
	return v.done("/services/"+s.Doc.ID+"#keys", "The key "+id+" is revoked: requests with it are refused.")
}

// requireKeys sets whether requests need a key.
func (p *Pages) requireKeys(v *visit, s *operations.Service) error {
	on := v.r.PostForm.Get("required") == "1"
	if on && len(s.Config.Access.Keys) == 0 {
		return refusal{http.StatusBadRequest, "There is no key yet, so every request would be refused. Create a key first."}
	}
	err := s.Edit(v.r.Context(), func(c *serving.Service) (serving.Section, error) {
		c.RequireKeys(on)
		return serving.SectionAccess, nil
	})
	if err != nil {
		return err
	}
	said := "Requests need no key now."
	if on {
		said = "Requests need a key now."
	}
	return v.done("/services/"+s.Doc.ID+"#keys", said)
}
