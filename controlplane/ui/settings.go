package ui

import (
	"fmt"
	"net/http"
	"strings"

	"clearmlserving/clearml"
)

type settingsPage struct {
	Credentials []credential
	Users       []user
	// Fresh is the pair that was just made: its secret is shown this once.
	Fresh                     *freshCredential
	Version, API, Files       string
	ServerVersion, APIVersion string
	Extensions                []string
	Notices                   []licence
}

type credential struct {
	AccessKey string       `json:"access_key"`
	Label     string       `json:"label"`
	LastUsed  clearml.Time `json:"last_used"`
	From      string       `json:"last_used_from"`
}

type freshCredential struct {
	AccessKey, SecretKey, Label string
}

// licence is a library that these pages carry.
type licence struct {
	Name, Asset, Kind string
}

func (p *Pages) settings(v *visit) error {
	page, err := v.settingsPage()
	if err != nil {
		return err
	}
	return v.render("settings", "Settings", page)
}

func (v *visit) settingsPage() (settingsPage, error) {
	p := v.p
	page := settingsPage{
		Version: p.opts.Version, API: p.opts.APIURL, Files: p.opts.FilesURL,
		Notices: []licence{{"htmx", "htmx.LICENSE", "0BSD"}, {"uPlot", "uplot.LICENSE", "MIT"}},
	}
	var err error
	if page.Credentials, err = take[[]credential](v, "auth.get_credentials", "credentials", nil); err != nil {
		return page, err
	}
	if page.Users, err = take[[]user](v, "users.get_all", "users", nil); err != nil {
		return page, err
	}
	info, err := v.api.Info(v.r.Context())
	page.ServerVersion, page.APIVersion, page.Extensions = info.Version, info.APIVersion, info.Extensions
	return page, err
}

// createCredentials answers the form itself instead of leading on: the secret must not be
// kept anywhere to be shown by another page.
func (p *Pages) createCredentials(v *visit) error {
	label := strings.TrimSpace(v.r.PostForm.Get("label"))
	access, secret, err := v.api.NewCredentials(v.r.Context(), label)
	if err != nil {
		return err
	}
	page, err := v.settingsPage()
	if err != nil {
		return err
	}
	page.Fresh = &freshCredential{access, secret.Reveal(), label}
	return v.render("settings", "Settings", page)
}

func (p *Pages) revokeCredentials(v *visit) error {
	key := v.r.PostForm.Get("access_key")
	if key == "" {
		return refusal{http.StatusBadRequest, "Choose the access key to revoke."}
	}
	if err := v.api.Call(v.r.Context(), "auth.revoke_credentials", map[string]string{"access_key": key}, nil); err != nil {
		return err
	}
	return v.done("/settings", fmt.Sprintf("%s is revoked: who used it is logged out.", key))
}
