package inference

import (
	"encoding/json"
	"net/http"
	"net/http/pprof"
	"net/url"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/listener"
	"clearmlserving/inference/reconcile"
	"clearmlserving/serving"
)

// handleHealth answers probes on the clients' listener.
func (s *Service) handleHealth(r *listener.Request) *listener.Response {
	switch r.Path {
	case "/livez", "/readyz", "/status":
	default:
		return detail(http.StatusNotFound, "Not Found")
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		resp := detail(http.StatusMethodNotAllowed, "Method Not Allowed")
		resp.Header = []engine.Header{{Name: "Allow", Value: "GET, HEAD"}}
		return resp
	}
	status, body := http.StatusOK, any(nil)
	switch r.Path {
	case "/livez":
		body = map[string]any{"alive": true, "uptime_seconds": int(time.Since(s.started).Seconds())}
	case "/readyz":
		query, err := url.ParseQuery(r.RawQuery)
		if err != nil {
			return detail(http.StatusBadRequest, "The query cannot be read: "+err.Error())
		}
		status, body = s.readiness(serving.CleanURL(query.Get("endpoint")))
	case "/status":
		body = s.Status()
	}
	return jsonResponse(status, body)
}

// Readiness is the body of /readyz.
type Readiness struct {
	Ready    bool       `json:"ready"`
	Reason   string     `json:"reason,omitempty"`
	NotReady []NotReady `json:"not_ready,omitempty"`
}

// NotReady names an endpoint that cannot answer, or not as configured, and why.
type NotReady struct {
	Endpoint serving.EndpointURL `json:"endpoint"`
	State    string              `json:"state"`
	Reason   string              `json:"reason,omitempty"`
}

// readiness tells the truth about the instance or, when one is named, about one
// endpoint. The instance is ready once every endpoint that can load has loaded:
// one that cannot is named, but does not take the others out of service.
func (s *Service) readiness(endpoint serving.EndpointURL) (int, Readiness) {
	status := s.reconciler.Status()
	r := Readiness{Ready: status.Ready()}
	if !status.Synced {
		r.Reason = "the configuration has not been read yet"
		if status.SourceError != "" {
			r.Reason += ": " + status.SourceError
		}
	} else if status.SourceError != "" {
		r.Reason = status.SourceError
	}
	found := endpoint == ""
	for _, e := range status.Endpoints {
		if endpoint != "" && e.URL != endpoint {
			continue
		}
		n := NotReady{Endpoint: e.URL, State: e.State, Reason: e.Model.Reason}
		if e.Failure != nil {
			n.Reason = e.Failure.Step + ": " + e.Failure.Reason
		}
		answers := e.Model.State != ""
		if endpoint != "" {
			found, r.Ready = true, answers
		}
		if e.State != "ready" {
			r.NotReady = append(r.NotReady, n)
		}
	}
	if !found {
		return http.StatusNotFound, Readiness{Reason: "endpoint '" + string(endpoint) + "' is not configured"}
	}
	if s.stopping.Load() {
		r.Ready, r.Reason = false, "the instance is stopping"
	}
	if !r.Ready {
		return http.StatusServiceUnavailable, r
	}
	return http.StatusOK, r
}

// Status is the body of /status.
type Status struct {
	Started time.Time `json:"started"`
	reconcile.Status
	Recordings []RecordingStatus `json:"recordings,omitempty"`
	Shadows    []ShadowStatus    `json:"shadows,omitempty"`
}

// Status describes the instance for people and scripts.
func (s *Service) Status() Status {
	status := Status{Started: s.started, Status: s.reconciler.Status(), Shadows: s.taps.shadows.status()}
	if s.taps.tapes != nil {
		status.Recordings = s.taps.tapes.status()
	}
	return status
}

// adminServer answers operators: health as above, and profiles.
func (s *Service) adminServer() *http.Server {
	mux := http.NewServeMux()
	for _, path := range []string{"/livez", "/readyz", "/status"} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			resp := s.handleHealth(&listener.Request{Method: r.Method, Path: r.URL.Path, RawQuery: r.URL.RawQuery})
			w.Header().Set("Content-Type", resp.ContentType)
			w.WriteHeader(resp.Status)
			if _, err := w.Write(resp.Body); err != nil {
				s.o.Logger.Debug("client went away", "err", err)
			}
		})
	}
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
}

func jsonResponse(status int, body any) *listener.Response {
	text, err := json.MarshalIndent(body, "", "  ")
	if err != nil {
		return detail(http.StatusInternalServerError, "status cannot be encoded: "+err.Error())
	}
	return &listener.Response{Response: engine.Response{Status: status, ContentType: jsonType, Body: append(text, '\n')}}
}
