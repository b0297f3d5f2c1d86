package controlplane

import (
	"strings"

	"clearmlserving/controlplane/files"
)

// Route is one route of the control plane, for the table in docs/security.md.
type Route struct {
	Listener string // api or files
	Methods  string
	Path     string
	Caller   string
}

// Routes lists every route.
func (s *Server) Routes() []Route {
	routes := []Route{
		{"api", "GET, HEAD", "/livez", "anybody"},
		{"api", "GET, HEAD", "/readyz", "anybody"},
		{"api", "OPTIONS", "/<any>", "anybody"},
	}
	for _, r := range files.Routes() {
		routes = append(routes, Route{"files", r.Method, r.Path, r.Caller}, Route{"api", r.Method, "/files" + r.Path, r.Caller})
	}
	for _, c := range s.calls.Calls() {
		routes = append(routes, Route{"api", "GET, POST, PUT", "/" + c.Name, c.Caller})
	}
	for _, r := range s.web.pages.Routes() {
		method, path, _ := strings.Cut(r.Pattern, " ")
		routes = append(routes, Route{"api", method, path, r.Caller})
	}
	return append(routes, s.prometheus.routes()...)
}
