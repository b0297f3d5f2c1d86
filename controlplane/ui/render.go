package ui

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strings"

	"clearmlserving/clearml"
	"clearmlserving/serving"
)

//go:embed templates/*.tmpl
var templateFiles embed.FS

// frame is the data of the layout around a page.
type frame struct {
	Title  string
	Nav    string // the part of the site, for the navigation
	User   user
	CSRF   string
	Notice notice
	Theme  string // "light", "dark", or "" for the system's
	Page   any
}

// parseTemplates parses each page with the shared templates, whose names begin with "_".
func (p *Pages) parseTemplates() (map[string]*template.Template, error) {
	files, err := fs.Glob(templateFiles, "templates/*.tmpl")
	if err != nil {
		return nil, fmt.Errorf("read the templates of the web pages: %w", err)
	}
	shared, err := template.New("").Option("missingkey=error").Funcs(p.functions()).ParseFS(templateFiles, "templates/_*.tmpl")
	if err != nil {
		return nil, fmt.Errorf("read the templates of the web pages: %w", err)
	}
	parsed := map[string]*template.Template{}
	for _, file := range files {
		name := strings.TrimSuffix(path.Base(file), ".tmpl")
		if strings.HasPrefix(name, "_") {
			continue
		}
		page, err := shared.Clone()
		if err == nil {
			page, err = page.ParseFS(templateFiles, file)
		}
		if err != nil {
			return nil, fmt.Errorf("read the template of the page %s: %w", name, err)
		}
		parsed[name] = page
	}
	return parsed, nil
}

// render sends a page.
func (v *visit) render(name, title string, page any) error {
	return v.renderStatus(http.StatusOK, name, title, page)
}

// renderStatus renders the whole page before it sends the status.
func (v *visit) renderStatus(status int, name, title string, page any) error {
	nav, _, _ := strings.Cut(strings.TrimPrefix(v.r.URL.Path, "/"), "/")
	f := frame{Title: title, Nav: nav, User: v.user, Notice: v.notice, Theme: themeOf(v.r), Page: page}
	if v.token != "" {
		f.CSRF = v.csrf()
	}
	var out bytes.Buffer
	if err := v.p.templates[name].ExecuteTemplate(&out, "layout", f); err != nil {
		return fmt.Errorf("render the page %s: %w", name, err)
	}
	v.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	v.w.WriteHeader(status)
	_, _ = v.w.Write(out.Bytes()) // an error means that the browser is gone
	return nil
}

// themeOf is the theme that the visitor has chosen with the button.
func themeOf(r *http.Request) string {
	cookie, err := r.Cookie("theme")
	if err != nil || (cookie.Value != "light" && cookie.Value != "dark") {
		return ""
	}
	return cookie.Value
}

// refusal is an error that the visitor can correct.
type refusal struct {
	status int
	text   string
}

func (r refusal) Error() string { return r.text }

type errorPage struct {
	Status     int
	Heading    string
	Text, Back string
}

// fail answers with the page of an error.
func (p *Pages) fail(v *visit, err error) {
	if errors.Is(err, errNotLoggedIn) {
		p.sendToLogin(v)
		return
	}
	if errors.Is(v.r.Context().Err(), context.Canceled) {
		return // the browser is gone
	}
	page := explain(err)
	page.Back = backOf(v.r)
	if page.Status >= http.StatusInternalServerError {
		p.log.Error("page failed", "path", v.r.URL.Path, "err", err)
	}
	v.notice = notice{}
	if err := v.renderStatus(page.Status, "error", page.Heading, page); err != nil {
		p.log.Error("error page failed", "path", v.r.URL.Path, "err", err)
		http.Error(v.w, page.Text, page.Status)
	}
}

// sendToLogin redirects to the login, which redirects back.
func (p *Pages) sendToLogin(v *visit) {
	to := "/login"
	if next := v.r.URL.RequestURI(); v.r.Method == http.MethodGet && next != "/" {
		to += "?next=" + url.QueryEscape(next)
	}
	if v.r.Header.Get("HX-Request") != "" {
		v.w.Header().Set("HX-Redirect", "/login")
		v.w.WriteHeader(http.StatusUnauthorized)
		return
	}
	http.Redirect(v.w, v.r, to, http.StatusSeeOther)
}

// explain maps errors to statuses and messages.
func explain(err error) errorPage {
	var refused refusal
	var field *serving.FieldError
	var told *clearml.Error
	text := err.Error()
	if errors.As(err, &told) {
		text = told.Msg
	}
	switch {
	case errors.As(err, &refused):
		return errorPage{Status: refused.status, Heading: headingOf(refused.status), Text: refused.text}
	case errors.As(err, &field):
		return errorPage{Status: http.StatusBadRequest, Heading: "That can't be stored", Text: err.Error()}
	case errors.Is(err, clearml.ErrNotFound), errors.Is(err, serving.ErrNotFound):
		return errorPage{Status: http.StatusNotFound, Heading: "Not found", Text: text}
	case errors.Is(err, clearml.ErrConflict):
		return errorPage{Status: http.StatusConflict, Heading: "Somebody else was faster", Text: text}
	case errors.Is(err, clearml.ErrUnauthorized):
		return errorPage{Status: http.StatusForbidden, Heading: "Not allowed", Text: text}
	case errors.Is(err, clearml.ErrUnsupported):
		return errorPage{Status: http.StatusNotImplemented, Heading: "Not offered by this server", Text: text}
	case told != nil && told.Code < http.StatusInternalServerError:
		return errorPage{Status: http.StatusBadRequest, Heading: "The server refuses that", Text: text}
	}
	return errorPage{Status: http.StatusInternalServerError, Heading: "Something went wrong", Text: "The server could not do that. Its log says why."}
}

func headingOf(status int) string {
	switch status {
	case http.StatusNotFound:
		return "Not found"
	case http.StatusForbidden:
		return "Not allowed"
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return "Out of reach"
	}
	return "That did not work"
}

// backOf is the page that a form was sent from, or the parent of the path.
func backOf(r *http.Request) string {
	if from, err := url.Parse(r.Referer()); err == nil && from.Host == r.Host && from.Path != r.URL.Path {
		return localPath(from.RequestURI())
	}
	above := path.Dir(r.URL.Path)
	if above == "." {
		return "/"
	}
	return above
}
