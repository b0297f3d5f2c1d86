package inference

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/listener"
	"clearmlserving/serving"
)

// Caller says whom a route answers.
type Caller string

// The callers, from anybody to operators.
const (
	Anybody     Caller = "anybody"
	EndpointKey Caller = "holders of a key for the endpoint, once keys are required; else anybody"
	ServiceKey  Caller = "holders of a key for all endpoints, once keys are required; else anybody"
	Operator    Caller = "operators: this machine, or holders of the admin token or of a client certificate"
)

// Route is one way into an instance. The tables below are what requests are
// dispatched by, so that a list of routes cannot forget one.
type Route struct {
	Listener string // serve or admin
	Methods  string
	Path     string // a path that ends in "/" stands for all below it
	Caller   Caller
}

// probe is a route about the instance as a whole.
type probe struct {
	path   string
	caller Caller
	answer func(s *Service, r *listener.Request, trusted bool) *listener.Response
}

// probes are answered on both listeners.
func probes() []probe {
	return []probe{
		{"/livez", Anybody, (*Service).livez},
		{"/readyz", Anybody, (*Service).readyz},
		{"/status", ServiceKey, (*Service).status},
	}
}

// profiles are answered on the admin listener alone.
func profiles() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"/debug/pprof/":        pprof.Index,
		"/debug/pprof/cmdline": pprof.Cmdline,
		"/debug/pprof/profile": pprof.Profile,
		"/debug/pprof/symbol":  pprof.Symbol,
		"/debug/pprof/trace":   pprof.Trace,
	}
}

// Routes lists every way into the instance.
func (s *Service) Routes() []Route {
	routes := []Route{{"serve", "POST", s.prefix, EndpointKey}, {"serve", "GET, HEAD", serving.IdentityPath, Anybody}}
	for _, p := range probes() {
		routes = append(routes, Route{"serve", "GET, HEAD", p.path, p.caller}, Route{"admin", "GET, HEAD", p.path, Operator})
	}
	for path := range profiles() {
		routes = append(routes, Route{"admin", "any", path, Operator})
	}
	return routes
}

// handle is the way of a client's request: browsers' questions, then endpoint
// paths with their key, then probes.
func (s *Service) handle(ctx context.Context, r *listener.Request) *listener.Response {
	resp := s.origins.preflight(r)
	if resp == nil {
		resp = s.route(ctx, r)
	}
	return s.origins.mark(r, resp)
}

func (s *Service) route(ctx context.Context, r *listener.Request) *listener.Response {
	path, ok := strings.CutPrefix(r.Path, s.prefix)
	if !ok && r.Path == serving.IdentityPath {
		return s.prove(r)
	}
	if !ok {
		return s.handleProbe(r, false)
	}
	endpoint := s.endpointOf(path, r.RawQuery)
	if refused := s.gate.admit(endpoint, r); refused != nil {
		return refused
	}
	if r.Method != http.MethodPost {
		return notAllowed(http.MethodPost)
	}
	return s.serve(ctx, endpoint, r)
}

// handleProbe answers about the instance; operators are trusted without a key.
func (s *Service) handleProbe(r *listener.Request, trusted bool) *listener.Response {
	for _, p := range probes() {
		if p.path != r.Path {
			continue
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			return notAllowed("GET, HEAD")
		}
		refused := (*listener.Response)(nil)
		if !trusted {
			refused = s.gate.admitToService(r)
		}
		if refused != nil && p.caller != Anybody {
			return refused
		}
		return p.answer(s, r, refused == nil)
	}
	return detail(http.StatusNotFound, "Not Found")
}

func notAllowed(allowed string) *listener.Response {
	resp := detail(http.StatusMethodNotAllowed, "Method Not Allowed")
	resp.Header = []engine.Header{{Name: "Allow", Value: allowed}}
	return resp
}

func (s *Service) livez(*listener.Request, bool) *listener.Response {
	// Written by hand: the benchmarks take it for the listener's constant answer.
	body := fmt.Appendf(nil, "{\n  \"alive\": true,\n  \"uptime_seconds\": %d\n}\n", int(time.Since(s.started).Seconds()))
	return &listener.Response{Response: engine.Response{Status: http.StatusOK, ContentType: jsonType, Body: body}}
}

// readyz tells a stranger no more than whether the instance is ready: neither
// names of endpoints nor why one of them is not.
func (s *Service) readyz(r *listener.Request, trusted bool) *listener.Response {
	query, err := url.ParseQuery(r.RawQuery)
	if err != nil {
		return detail(http.StatusBadRequest, "The query cannot be read: "+err.Error())
	}
	endpoint := serving.CleanURL(query.Get("endpoint"))
	if !trusted && endpoint != "" {
		if refused := s.gate.admit(endpoint, r); refused != nil {
			return refused
		}
		trusted = true
	}
	status, body := s.readiness(endpoint)
	if !trusted {
		body = Readiness{Ready: body.Ready}
	}
	return jsonResponse(status, body)
}

// prove answers the challenge of whoever found this address in the instance's record and
// sends nothing to it before it is known to be the instance's. Operators' listener has no
// such answer: nothing is sent there for others.
func (s *Service) prove(r *listener.Request) *listener.Response {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return notAllowed("GET, HEAD")
	}
	query, err := url.ParseQuery(r.RawQuery)
	if err != nil {
		return detail(http.StatusBadRequest, "The query cannot be read: "+err.Error())
	}
	proof, ok := s.o.Identity.Prove(query.Get("challenge"))
	if !ok {
		return detail(http.StatusBadRequest, "Give a challenge of 16 to 128 letters and digits: "+serving.IdentityPath+"?challenge=<text>")
	}
	return jsonResponse(http.StatusOK, proof)
}

func (s *Service) status(*listener.Request, bool) *listener.Response {
	return jsonResponse(http.StatusOK, s.Status())
}

// adminServer answers operators: probes as above, and profiles.
func (s *Service) adminServer() *http.Server {
	mux := http.NewServeMux()
	for _, p := range probes() {
		mux.HandleFunc(p.path, func(w http.ResponseWriter, r *http.Request) {
			resp := s.handleProbe(&listener.Request{Method: r.Method, Path: r.URL.Path, RawQuery: r.URL.RawQuery}, true)
			for _, h := range resp.Header {
				w.Header().Set(h.Name, h.Value)
			}
			w.Header().Set("Content-Type", resp.ContentType)
			w.WriteHeader(resp.Status)
			if _, err := w.Write(resp.Body); err != nil {
				s.o.Logger.Debug("client went away", "err", err)
			}
		})
	}
	for path, handler := range profiles() {
		mux.HandleFunc(path, handler)
	}
	return &http.Server{
		Handler: s.operatorsOnly(mux), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
	}
}

// operatorsOnly asks for the admin token. Without one the listener is open to
// this machine only; then the Host must be an address or localhost, so that a
// web page whose name is made to point here (DNS rebinding) reads nothing.
func (s *Service) operatorsOnly(next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(s.o.AdminToken))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.o.AdminToken == "" {
			shown := r.TLS != nil && len(r.TLS.PeerCertificates) > 0
			if !shown && !namesAddress(r.Host) {
				http.Error(w, "ask by address, as in http://127.0.0.1:8083/status, or set an admin token", http.StatusForbidden)
				return
			}
			next.ServeHTTP(w, r)
			return
		}
		given, _ := bearer(r.Header.Get("Authorization"))
		got := sha256.Sum256([]byte(given))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="clearml-serving admin"`)
			http.Error(w, "send the admin token as Bearer token in the header Authorization", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// namesAddress tells whether a Host is an IP address or localhost, with or
// without a port.
func namesAddress(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil
}
