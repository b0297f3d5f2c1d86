package rest

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"clearmlserving/inference"
	"clearmlserving/inference/listener"
)

const (
	metricsPath = "/metrics"
	readOnly    = "GET " // a ServeMux pattern; it includes HEAD
)

// adminServer answers operators: probes, profiles, and metrics.
func (f *Front) adminServer() *http.Server {
	mux := http.NewServeMux()
	for _, p := range probes() {
		mux.HandleFunc(p.path, func(w http.ResponseWriter, r *http.Request) {
			resp := f.handleProbe(&listener.Head{Method: r.Method, Path: r.URL.Path, RawQuery: r.URL.RawQuery}, true)
			for _, h := range resp.Header {
				w.Header().Set(h.Name, h.Value)
			}
			w.Header().Set("Content-Type", resp.ContentType)
			w.WriteHeader(resp.Status)
			if _, err := w.Write(resp.Body); err != nil { // a probe's response is never a stream
				f.o.Logger.Debug("client disconnected", "err", err)
			}
		})
	}
	for path, handler := range profiles() {
		mux.HandleFunc(path, handler)
	}
	if f.o.Metrics != nil {
		mux.Handle(readOnly+metricsPath, f.o.Metrics)
	}
	return &http.Server{
		Handler: f.operatorsOnly(mux), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
	}
}

const (
	// Only symbol look-ups have bodies on the admin listener.
	maxAdminBody     = 1 << 20
	adminBodyTimeout = 10 * time.Second
)

// operatorsOnly requires the admin token. Without one the listener is open to
// this machine only. Then the Host must be an address or localhost, so that a
// web page whose name resolves to this machine (DNS rebinding) cannot read anything. The
// connection of a refused request is closed, without reading its body.
func (f *Front) operatorsOnly(next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(f.o.AdminToken))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 { // also bounds what the server discards
			if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(adminBodyTimeout)); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			r.Body = http.MaxBytesReader(w, r.Body, maxAdminBody)
		}
		if f.o.AdminToken == "" {
			shown := r.TLS != nil && len(r.TLS.PeerCertificates) > 0
			if !shown && !namesAddress(r.Host) {
				w.Header().Set("Connection", "close")
				http.Error(w, "use the address, as in http://127.0.0.1:8083/status, or set an admin token", http.StatusForbidden)
				return
			}
			next.ServeHTTP(w, r)
			return
		}
		got := sha256.Sum256([]byte(inference.BearerKey(r.Header.Get("Authorization"))))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("Connection", "close")
			w.Header().Set("WWW-Authenticate", `Bearer realm="clearml-serving admin"`)
			http.Error(w, "send the admin token as Bearer token in the header Authorization", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// namesAddress reports whether a Host is an IP address or localhost, with or
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
