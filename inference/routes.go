package inference

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
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
	answer func(s *Service, h *listener.Head, trusted bool) *listener.Response
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

// front is the data plane as its listener sees it. It fulfils listener.Handler.
type front struct{ *Service }

// Admit judges a client's request by its head: preflights of browsers, then endpoint
// paths with their key, then probes. What it lets through is a request to an endpoint
// that can answer.
func (s front) Admit(h *listener.Head) *listener.Response {
	resp := s.origins.preflight(h)
	if resp == nil {
		resp = s.route(h)
	}
	if resp == nil {
		return nil
	}
	return s.origins.mark(h, resp)
}

// Answer answers a request that Admit has let through.
func (s front) Answer(ctx context.Context, r *listener.Request) *listener.Response {
	return s.origins.mark(&r.Head, s.serve(ctx, serving.EndpointURL(r.Endpoint), r))
}

func (s *Service) route(h *listener.Head) *listener.Response {
	path, ok := strings.CutPrefix(h.Path, s.prefix)
	if !ok && h.Path == serving.IdentityPath {
		return s.prove(h)
	}
	if !ok {
		return s.handleProbe(h, false)
	}
	endpoint := s.endpointOf(path, h.RawQuery)
	if refused := s.gate.admit(endpoint, h); refused != nil {
		return refused
	}
	if h.Method != http.MethodPost {
		return notAllowed(http.MethodPost)
	}
	if err := s.router.Check(endpoint); err != nil {
		return s.refuse(endpoint, err)
	}
	h.Endpoint = string(endpoint)
	return nil
}

// handleProbe answers about the instance; operators are trusted without a key.
func (s *Service) handleProbe(h *listener.Head, trusted bool) *listener.Response {
	for _, p := range probes() {
		if p.path != h.Path {
			continue
		}
		if h.Method != http.MethodGet && h.Method != http.MethodHead {
			return notAllowed("GET, HEAD")
		}
		refused := (*listener.Response)(nil)
		if !trusted {
			refused = s.gate.admitToService(h)
		}
		if refused != nil && p.caller != Anybody {
			return refused
		}
		return p.answer(s, h, refused == nil)
	}
	return detail(http.StatusNotFound, "Not Found")
}

func notAllowed(allowed string) *listener.Response {
	resp := detail(http.StatusMethodNotAllowed, "Method Not Allowed")
	resp.Header = []engine.Header{{Name: "Allow", Value: allowed}}
	return resp
}

func (s *Service) livez(*listener.Head, bool) *listener.Response {
	// Written by hand: the benchmarks take it for the listener's constant answer.
	body := fmt.Appendf(nil, "{\n  \"alive\": true,\n  \"uptime_seconds\": %d\n}\n", int(time.Since(s.started).Seconds()))
	return &listener.Response{Response: engine.Response{Status: http.StatusOK, ContentType: jsonType, Body: body}}
}

// readyz tells a stranger no more than whether the instance is ready: neither
// names of endpoints nor why one of them is not.
func (s *Service) readyz(h *listener.Head, trusted bool) *listener.Response {
	query, err := url.ParseQuery(h.RawQuery)
	if err != nil {
		return detail(http.StatusBadRequest, "The query cannot be read: "+err.Error())
	}
	endpoint := serving.CleanURL(query.Get("endpoint"))
	if !trusted && endpoint != "" {
		if refused := s.gate.admit(endpoint, h); refused != nil {
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
func (s *Service) prove(h *listener.Head) *listener.Response {
	if h.Method != http.MethodGet && h.Method != http.MethodHead {
		return notAllowed("GET, HEAD")
	}
	query, err := url.ParseQuery(h.RawQuery)
	if err != nil {
		return detail(http.StatusBadRequest, "The query cannot be read: "+err.Error())
	}
	proof, ok := s.o.Identity.Prove(query.Get("challenge"))
	if !ok {
		return detail(http.StatusBadRequest, "Give a challenge of 16 to 128 letters and digits: "+serving.IdentityPath+"?challenge=<text>")
	}
	return jsonResponse(http.StatusOK, proof)
}

func (s *Service) status(*listener.Head, bool) *listener.Response {
	return jsonResponse(http.StatusOK, s.Status())
}

// adminServer answers operators: probes as above, and profiles.
func (s *Service) adminServer() *http.Server {
	mux := http.NewServeMux()
	for _, p := range probes() {
		mux.HandleFunc(p.path, func(w http.ResponseWriter, r *http.Request) {
			resp := s.handleProbe(&listener.Head{Method: r.Method, Path: r.URL.Path, RawQuery: r.URL.RawQuery}, true)
			if err := writeResponse(r.Context(), w, resp); err != nil {
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

// writeResponse gives a response to the standard library's server.
func writeResponse(ctx context.Context, w http.ResponseWriter, resp *listener.Response) error {
	if resp.Done != nil {
		defer resp.Done()
	}
	for _, h := range resp.Header {
		w.Header().Set(h.Name, h.Value)
	}
	w.Header().Set("Content-Type", resp.ContentType)
	w.WriteHeader(resp.Status)
	if resp.Stream == nil {
		_, err := w.Write(resp.Body)
		return err
	}
	for {
		piece, err := resp.Stream.Next(ctx)
		if err == nil {
			_, err = w.Write(piece)
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return errors.Join(err, resp.Stream.Close())
		}
	}
}

const (
	// Requests to the admin listener have no bodies but that of a symbol look-up.
	maxAdminBody     = 1 << 20
	adminBodyTimeout = 10 * time.Second
)

// operatorsOnly asks for the admin token. Without one the listener is open to
// this machine only; then the Host must be an address or localhost, so that a
// web page whose name is made to point here (DNS rebinding) reads nothing. The
// connection of a request that is refused is closed, without reading its body.
func (s *Service) operatorsOnly(next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(s.o.AdminToken))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 { // bounds what the server drops of it too
			if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(adminBodyTimeout)); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			r.Body = http.MaxBytesReader(w, r.Body, maxAdminBody)
		}
		if s.o.AdminToken == "" {
			shown := r.TLS != nil && len(r.TLS.PeerCertificates) > 0
			if !shown && !namesAddress(r.Host) {
				w.Header().Set("Connection", "close")
				http.Error(w, "ask by address, as in http://127.0.0.1:8083/status, or set an admin token", http.StatusForbidden)
				return
			}
			next.ServeHTTP(w, r)
			return
		}
		given, _ := bearer(r.Header.Get("Authorization"))
		got := sha256.Sum256([]byte(given))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("Connection", "close")
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
