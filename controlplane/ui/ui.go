// Package ui is the web pages of the control plane: models, experiments, serving
// services, and settings, rendered on the server.
//
// It owns the routes of the pages, their templates and assets, and the browser's
// session. Everything it shows or changes goes through the ClearML API with the token
// of the logged-in user, so a page can do what that user can do and no more; charts of
// a service that the user may read ask the time series. It never sees the store, never
// loads anything from elsewhere, and opens a connection only to instances that prove
// their identity, for the playground.
package ui

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/controlplane/intake"
	"clearmlserving/drift"
	"clearmlserving/serving"
)

// Options says where the pages find what they show.
type Options struct {
	// API carries the calls to APIURL and the uploads to FilesURL. Required.
	API http.RoundTripper
	// APIURL and FilesURL are how clients reach the servers, without a slash at the end.
	APIURL, FilesURL string
	// InstanceCA is a PEM file of authorities that certificates of instances may come from,
	// besides those of Authorities. Empty: only those.
	InstanceCA string
	// Authorities gives the authorities that are trusted. Nil: those of the machine.
	Authorities func() (*x509.CertPool, error)
	// Recorded gives the newest recorded requests to a url, the newest first, at most this many. Nil:
	// no recordings are at hand.
	Recorded func(url serving.EndpointURL, most int) []serving.Exchange
	// Series answers the charts. Nil: this server keeps no time series.
	Series Series
	// ServiceLabel is the label of the time series with the id of their service. Empty: endpoints of different
	// services are not told apart.
	ServiceLabel string
	// Version is the version of this program, for the page about it.
	Version string
	// Bodies bounds what the bodies of forms cost. Nil makes a budget of its own.
	Bodies *intake.Budget
	// Logger receives what an operator should know; nil discards it.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Pages answers browsers. It is safe for use by many goroutines.
type Pages struct {
	opts      Options
	log       *slog.Logger
	now       func() time.Time
	mux       *http.ServeMux
	templates map[string]*template.Template
	assets    assets
	links     links
	routes    []Route
}

// New reads the templates, so a broken one stops the server and not a visitor. It
// starts nothing.
func New(opts Options) (*Pages, error) {
	if opts.API == nil || opts.APIURL == "" {
		return nil, errors.New("make the web pages: no way to the API was given")
	}
	opts.Logger = cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Bodies == nil {
		opts.Bodies = intake.New()
	}
	p := &Pages{opts: opts, log: opts.Logger, now: opts.Now, mux: http.NewServeMux()}
	if _, err := p.authorities(); err != nil {
		return nil, fmt.Errorf("make the web pages: %w", err)
	}
	var err error
	if p.assets, err = readAssets(); err != nil {
		return nil, err
	}
	if p.templates, err = p.parseTemplates(); err != nil {
		return nil, err
	}
	p.install()
	return p, nil
}

// install lists every route. A page needs a session; a post needs the session's CSRF
// token too; open routes check for themselves.
func (p *Pages) install() {
	p.open("GET /assets/{name}", p.serveAsset)
	p.open("GET /login", p.showLogin)
	p.open("POST /login", p.login)
	p.open("POST /login/link", p.makeLink)
	p.open("GET /login/link/{code}", p.redeemLink)
	p.post("POST /logout", p.logout)

	p.page("GET /{$}", p.overview)
	p.page("GET /models", p.models)
	p.page("GET /models/upload", p.uploadForm)
	p.upload("POST /models/upload", p.takeUpload)
	p.page("GET /models/{id}", p.model)
	p.post("POST /models/{id}/tags", modelKind().setTags)
	p.post("POST /models/{id}/publish", p.publishModel)
	p.post("POST /models/{id}/archive", modelKind().archive)
	p.post("POST /models/{id}/metadata", p.setModelMetadata)
	p.post("POST /models/{id}/delete", p.deleteModel)
	p.page("GET /models/{id}/deploy", p.deployForm)
	p.upload("POST /models/{id}/deploy", p.deploy)
	p.page("GET /deploy", p.deployForm)
	p.upload("POST /deploy", p.deploy)
	p.page("GET /names.json", p.names)
	p.page("GET /docs", p.docs)
	p.page("GET /docs/{page...}", p.docs)

	p.page("GET /experiments", p.experiments)
	p.page("GET /experiments/compare", p.compare)
	p.page("GET /experiments/scalars.json", p.scalars)
	p.page("GET /experiments/{id}", p.experiment)
	p.page("GET /experiments/{id}/plot.json", p.plotJSON)
	p.page("GET /experiments/{id}/{tab}", p.experiment)
	p.post("POST /experiments/{id}/tags", taskKind().setTags)
	p.post("POST /experiments/{id}/archive", taskKind().archive)
	p.post("POST /experiments/{id}/delete", p.deleteTask)

	p.page("GET /services", p.services)
	p.post("POST /services", p.createService)
	p.page("GET /services/{id}", ofService(p.service))
	p.page("GET /services/{id}/charts.json", ofService(p.chartsJSON))
	p.page("GET /services/{id}/history", ofService(p.history))
	p.post("POST /services/{id}/revert", p.revert)
	p.page("GET /services/{id}/canary", ofService(p.canaryForm))
	p.post("POST /services/{id}/canary", ofService(p.saveCanary))
	p.post("POST /services/{id}/canary/move", ofService(p.moveCanary))
	p.post("POST /services/{id}/remove", ofService(p.removeEndpoint))
	p.post("POST /services/{id}/metrics/remove", ofService(p.removeMetrics))
	p.page("GET /services/{id}/playground", ofService(p.playground))
	p.post("POST /services/{id}/playground", ofService(p.play))
	p.page("GET /services/{id}/instances/{task}", ofService(p.instance))
	p.page("GET /services/{id}/endpoints/{url...}", ofService(p.endpoint))
	p.page("GET /services/{id}/revisions/{url...}", ofService(p.revision))
	p.post("POST /services/{id}/rollback", ofService(p.rollback))
	p.post("POST /services/{id}/options", ofService(p.setOptions))
	p.post("POST /services/{id}/keys", ofService(p.createKey))
	p.post("POST /services/{id}/keys/revoke", ofService(p.revokeKey))
	p.post("POST /services/{id}/keys/require", ofService(p.requireKeys))

	p.page("GET /settings", p.settings)
	p.post("POST /settings/credentials", p.createCredentials)
	p.post("POST /settings/credentials/revoke", p.revokeCredentials)

	// The SDK prints links to a ClearML server's own pages; they lead to ours.
	p.page("GET /projects/{project}/experiments/{id}", p.redirectExperiment)
	p.page("GET /projects/{project}/experiments/{id}/{rest...}", p.redirectExperiment)
	p.page("GET /projects/{project}/tasks/{id}/{rest...}", p.redirectExperiment)
	p.page("GET /projects/{project}/models/{id}", p.redirectModel)
	p.page("GET /projects/{project}/models/{id}/{rest...}", p.redirectModel)
	p.page("GET /", p.unknown)
}

// roots are the first parts of the paths that are pages. The calls of the API have a
// dot or a version there.
func roots() []string {
	return []string{"assets", "login", "logout", "models", "deploy", "names.json", "docs", "experiments", "services", "settings", "projects"}
}

// Serves says whether a path is one of the pages'.
func (p *Pages) Serves(path string) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return slices.Contains(roots(), first)
}

// ServeHTTP implements http.Handler.
func (p *Pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	p.mux.ServeHTTP(w, r)
}

// visit is one request of somebody who is logged in.
type visit struct {
	p      *Pages
	w      http.ResponseWriter
	r      *http.Request
	api    *clearml.Client
	user   user
	token  string
	notice notice
	// watching is the last report of drift, nil until it was read.
	watching *drift.Report
}

// user is who is logged in.
type user struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Role string `json:"role"`
}

// MayWrite says whether the pages offer changes; the API decides.
func (u user) MayWrite() bool { return u.Role != "guest" }

type handler func(*visit) error

// Route is one way into the pages, for the table in docs/security.md.
type Route struct {
	Pattern string // method and path, as http.ServeMux reads it
	Caller  string
}

// Routes lists every way in: what install has listed.
func (p *Pages) Routes() []Route { return slices.Clone(p.routes) }

func (p *Pages) open(pattern string, h http.HandlerFunc) {
	caller := "anybody"
	if strings.HasPrefix(pattern, http.MethodPost) {
		caller = "clients that send valid credentials"
	}
	p.routes = append(p.routes, Route{pattern, caller})
	p.mux.HandleFunc(pattern, h)
}

// page answers a request that changes nothing.
func (p *Pages) page(pattern string, h handler) {
	p.routes = append(p.routes, Route{pattern, "users and guests who are logged in"})
	p.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { p.visit(w, r, h) })
}

// maxForm bounds a form; only an upload may be longer. maxLoginForm is that of the login,
// which anybody may send.
const (
	maxForm      = 16 << 20
	maxLoginForm = 8 << 10
)

// post answers a form that somebody sent from one of our pages.
func (p *Pages) post(pattern string, h handler) {
	p.upload(pattern, func(v *visit) error {
		release, err := p.readForm(v.w, v.r, maxForm)
		if err != nil {
			return refusal{intake.Status(err), "The form could not be read: " + err.Error()}
		}
		defer release()
		v.r = v.r.WithContext(intake.Paid(v.r.Context()))
		if !v.hasToken(v.r.PostForm.Get("csrf")) {
			return errForged
		}
		return h(v)
	})
}

// readForm reads the fields of a form within the budget of all bodies. release gives the
// part of the budget back.
func (p *Pages) readForm(w http.ResponseWriter, r *http.Request, limit int64) (release func(), err error) {
	body, err := p.opts.Bodies.Read(w, r, limit)
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body.Text))
	if err := r.ParseForm(); err != nil {
		body.Release()
		return nil, err
	}
	return body.Release, nil
}

// upload is post for a form that the handler reads, and whose CSRF token it checks.
func (p *Pages) upload(pattern string, h handler) {
	p.routes = append(p.routes, Route{pattern, "users who are logged in, from a page of ours"})
	guard := http.NewCrossOriginProtection()
	p.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		p.visit(w, r, func(v *visit) error {
			if guard.Check(r) != nil {
				return errForged
			}
			return h(v)
		})
	})
}

// visit finds out who asks, and turns the handler's error into a page.
func (p *Pages) visit(w http.ResponseWriter, r *http.Request, h handler) {
	v, err := p.enter(w, r)
	if err == nil {
		err = h(v)
	}
	if err != nil {
		p.fail(v, err)
	}
}

func (p *Pages) unknown(*visit) error {
	return refusal{http.StatusNotFound, "There is no such page."}
}

func (p *Pages) redirectExperiment(v *visit) error { return v.redirect("/experiments/" + v.id()) }

func (p *Pages) redirectModel(v *visit) error { return v.redirect("/models/" + v.id()) }
