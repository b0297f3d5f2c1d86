package rest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/pprof"
	"net/url"
	"slices"
	"strings"
	"time"

	"clearmlserving/inference"
	"clearmlserving/inference/engine"
	"clearmlserving/inference/listener"
	"clearmlserving/inference/openapi"
	"clearmlserving/serving"
)

// Caller describes the clients that a route answers.
type Caller string

// The callers, from unauthenticated clients to operators.
const (
	Anybody     Caller = "anybody"
	EndpointKey Caller = "holders of a key for the endpoint, once keys are required; else anybody"
	ServiceKey  Caller = "holders of a key for all endpoints, once keys are required; else anybody"
	AboutKey    Caller = "holders of a key for all endpoints, or with ?endpoint= for that one, once keys are required; else anybody"
	Operator    Caller = "operators: this machine, or holders of the admin token or of a client certificate"
)

// Route is one route of an instance. Requests are dispatched by the tables below, so a
// list of routes made from them is complete.
type Route struct {
	Listener string // serve or admin
	Methods  string
	Path     string // a path that ends in "/" includes all paths below it
	Caller   Caller
}

// probe is a route about the instance as a whole.
type probe struct {
	path   string
	caller Caller
	answer func(f *Front, h *listener.Head, trusted bool) *listener.Response
}

// probes are answered on both listeners.
func probes() []probe {
	return []probe{
		{"/livez", Anybody, (*Front).livez},
		{"/readyz", Anybody, (*Front).readyz},
		{"/status", ServiceKey, (*Front).status},
	}
}

// profiles are answered only on the admin listener.
func profiles() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"/debug/pprof/":        pprof.Index,
		"/debug/pprof/cmdline": pprof.Cmdline,
		"/debug/pprof/profile": pprof.Profile,
		"/debug/pprof/symbol":  pprof.Symbol,
		"/debug/pprof/trace":   pprof.Trace,
	}
}

// Routes lists every route of the instance.
func (f *Front) Routes() []Route {
	routes := []Route{
		{"serve", "GET, HEAD", "/{$}", Anybody},
		{"serve", "POST", f.prefix, EndpointKey},
		{"serve", "GET, HEAD", serving.IdentityPath, Anybody},
		{"serve", "GET, HEAD", openapiPath, AboutKey},
		{"serve", "POST", mcpPath, EndpointKey},
	}
	for _, file := range f.page {
		routes = append(routes, Route{"serve", "GET, HEAD", file.Path, Anybody})
	}
	if f.o.Feedback != nil {
		routes = append(routes, Route{"serve", "GET, HEAD, POST", feedbackPrefix, EndpointKey})
	}
	routes = slices.Concat(routes, v2Routes(), v1Routes(), f.openAIRoutes())
	for _, p := range probes() {
		routes = append(routes, Route{"serve", "GET, HEAD", p.path, p.caller}, Route{"admin", "GET, HEAD", p.path, Operator})
	}
	for path := range profiles() {
		routes = append(routes, Route{"admin", "any", path, Operator})
	}
	if f.o.Metrics != nil {
		routes = append(routes, Route{"admin", "GET, HEAD", metricsPath, Operator})
	}
	return routes
}

// route answers requests that need only a head, and admits the others.
func (f *Front) route(h *listener.Head) *listener.Response {
	path, ok := strings.CutPrefix(h.Path, f.prefix)
	if !ok && h.Path == serving.IdentityPath {
		return f.prove(h)
	}
	if !ok && h.Path == "/" {
		return f.root(h)
	}
	if !ok && h.Path == openapiPath {
		return f.openapi(h)
	}
	if !ok && h.Path == mcpPath {
		return f.routeMCP(h)
	}
	if !ok {
		if i := slices.IndexFunc(f.page, func(file openapi.File) bool { return file.Path == h.Path }); i >= 0 {
			return f.pageFile(h, f.page[i])
		}
	}
	if about, found := strings.CutPrefix(h.Path, feedbackPrefix); found && !ok && f.o.Feedback != nil {
		return f.routeFeedback(h, about)
	}
	if rest, found := strings.CutPrefix(h.Path, v2Path); found && !ok && (rest == "" || rest[0] == '/') {
		return f.routeV2(h, rest)
	}
	if rest, found := strings.CutPrefix(h.Path, v1Models); found && !ok && (rest == "" || rest[0] == '/') {
		return f.routeV1(h, rest)
	}
	if !ok {
		return f.handleProbe(h, false)
	}
	endpoint := f.endpointOf(path, h.RawQuery)
	if route, found := strings.CutPrefix(path, openAIPrefix); found && !f.core.Knows(endpoint) {
		return f.routeOpenAI(h, route)
	}
	ticket, failure := f.core.Admit(head(h, endpoint))
	if h.Method != http.MethodPost && !refusesKey(failure) {
		f.core.Reject(ticket, inference.KindBadRequest)
		return notAllowed(http.MethodPost, ": an endpoint takes POST, with its input as the body and the header Content-Type: application/json")
	}
	if failure != nil {
		return refuse(failure)
	}
	h.Admitted = ticket
	return nil
}

// refusesKey reports whether the client is refused because of its key.
func refusesKey(failure *inference.Failure) bool {
	return failure != nil && (failure.Kind == inference.KindUnauthenticated || failure.Kind == inference.KindForbidden)
}

// head converts a request's head to the core's.
func head(h *listener.Head, endpoint serving.EndpointURL) inference.Head {
	return inference.Head{Endpoint: endpoint, Key: inference.BearerKey(h.Header("Authorization")), ID: h.ID}
}

// endpointOf returns the url in a path and its query. The whole path is
// the url, with any number of parts; "?version=" is its last part unless the
// path already has one.
func (f *Front) endpointOf(path, query string) serving.EndpointURL {
	endpoint := serving.CleanURL(path)
	if query == "" {
		return endpoint
	}
	values, err := url.ParseQuery(query)
	if err != nil || values.Get("version") == "" {
		return endpoint
	}
	versioned := serving.JoinURL(string(endpoint), values.Get("version"))
	if strings.Contains(string(endpoint), "/") && !f.core.Knows(versioned) {
		return endpoint
	}
	return versioned
}

// handleProbe answers about the instance; operators are trusted without a key.
func (f *Front) handleProbe(h *listener.Head, trusted bool) *listener.Response {
	for _, p := range probes() {
		if p.path != h.Path {
			continue
		}
		if h.Method != http.MethodGet && h.Method != http.MethodHead {
			return notAllowed("GET, HEAD", "")
		}
		var refused *inference.Failure
		if !trusted {
			refused = f.core.AuthorizeService(head(h, ""))
		}
		if refused != nil && p.caller != Anybody {
			return refuse(refused)
		}
		return p.answer(f, h, refused == nil)
	}
	return detail(http.StatusNotFound, "Not Found")
}

func notAllowed(allowed, hint string) *listener.Response {
	resp := detail(http.StatusMethodNotAllowed, "Method Not Allowed"+hint)
	resp.Header = []engine.Header{{Name: "Allow", Value: allowed}}
	return resp
}

func (f *Front) livez(*listener.Head, bool) *listener.Response {
	// Formatted by hand, because the benchmarks use it as a constant answer.
	body := fmt.Appendf(nil, "{\n  \"alive\": true,\n  \"uptime_seconds\": %d\n}\n", int(time.Since(f.started).Seconds()))
	return &listener.Response{Response: engine.Response{Status: http.StatusOK, ContentType: jsonType, Body: body}}
}

// readyz reports to unauthenticated clients only whether the instance is ready: neither
// names of endpoints nor reasons.
func (f *Front) readyz(h *listener.Head, trusted bool) *listener.Response {
	query, err := url.ParseQuery(h.RawQuery)
	if err != nil {
		return detail(http.StatusBadRequest, "The query cannot be read: "+err.Error())
	}
	endpoint := serving.CleanURL(query.Get("endpoint"))
	if !trusted && endpoint != "" {
		if refused := f.core.Authorize(head(h, endpoint)); refused != nil {
			return refuse(refused)
		}
		trusted = true
	}
	body, known := f.core.Readiness(endpoint)
	status := http.StatusOK
	switch {
	case !known:
		status = http.StatusNotFound
	case !body.Ready:
		status = http.StatusServiceUnavailable
	}
	if !trusted {
		body = inference.Readiness{Ready: body.Ready}
	}
	return jsonResponse(status, body)
}

// root answers load balancers, most of which probe "/" by default: 200 while
// the instance is ready, else 503.
func (f *Front) root(h *listener.Head) *listener.Response {
	if h.Method != http.MethodGet && h.Method != http.MethodHead {
		return notAllowed("GET, HEAD", "")
	}
	state, _ := f.core.Readiness("")
	status := http.StatusOK
	if !state.Ready {
		status = http.StatusServiceUnavailable
	}
	return jsonResponse(status, map[string]any{"service": "clearml-serving", "ready": state.Ready})
}

// prove answers the challenge of clients that have found this address in the instance's record and
// verify the instance before they send anything. The admin listener has no such route, because
// such clients do not use it.
func (f *Front) prove(h *listener.Head) *listener.Response {
	if h.Method != http.MethodGet && h.Method != http.MethodHead {
		return notAllowed("GET, HEAD", "")
	}
	query, err := url.ParseQuery(h.RawQuery)
	if err != nil {
		return detail(http.StatusBadRequest, "The query cannot be read: "+err.Error())
	}
	proof, ok := f.o.Identity.Prove(query.Get("challenge"))
	if !ok {
		return detail(http.StatusBadRequest, "Give a challenge of 16 to 128 letters and digits: "+serving.IdentityPath+"?challenge=<text>")
	}
	return jsonResponse(http.StatusOK, proof)
}

func (f *Front) status(*listener.Head, bool) *listener.Response {
	return jsonResponse(http.StatusOK, f.core.Status())
}

func jsonResponse(status int, body any) *listener.Response {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false) // a client reads the text, not a page
	if err := enc.Encode(body); err != nil {
		return detail(http.StatusInternalServerError, "status cannot be encoded: "+err.Error())
	}
	return &listener.Response{Response: engine.Response{Status: status, ContentType: jsonType, Body: text.Bytes()}}
}
