package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"clearmlserving/inference"
	"clearmlserving/sidecar"
)

// serveOperators answers the operators of a role until ctx ends.
func serveOperators(ctx context.Context, listener net.Listener, handler http.Handler, log *slog.Logger) error {
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug), // failed handshakes
	}
	ctx, cancel := context.WithCancel(ctx)
	var stopping sync.WaitGroup
	stopping.Go(func() {
		<-ctx.Done()
		stop, done := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer done()
		_ = server.Shutdown(stop) // the last scrape was late
	})
	err := server.Serve(listener)
	cancel()
	stopping.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// operatorsOnly requires a token, unless it is "".
func operatorsOnly(token string, next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := sha256.Sum256([]byte(inference.BearerKey(r.Header.Get("Authorization"))))
		if token != "" && subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="clearml-serving admin"`)
			http.Error(w, "send the admin token as Bearer token in the header Authorization", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// handleProbes answers whether a role lives, and whether it is ready: obstacle says why it is not, "" if it is.
func handleProbes(mux *http.ServeMux, obstacle func() string) {
	for _, path := range []string{"/livez", "/healthz"} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	}
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := obstacle(); why != "" {
			http.Error(w, why, http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	})
}

// supervisorPages are what a role that supervises a server tells operators.
type supervisorPages struct {
	server   *sidecar.Server
	token    string
	obstacle func() string // why the role is not ready, "" if it is
	status   func() any
	metrics  *prometheus.Registry                             // of the role
	scrape   func(ctx context.Context) (text []byte, _ error) // the metrics of the server
	log      *slog.Logger
}

func (s *supervisorPages) handler() http.Handler {
	mux := http.NewServeMux()
	handleProbes(mux, s.obstacle)
	mux.Handle("GET /status", operatorsOnly(s.token, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s.status()) // the client may be gone
	})))
	mux.Handle("GET /metrics", operatorsOnly(s.token, http.HandlerFunc(s.answerMetrics)))
	return mux
}

// answerMetrics answers with our metrics and the server's, which are not there while it does not run.
func (s *supervisorPages) answerMetrics(w http.ResponseWriter, r *http.Request) {
	families, err := s.metrics.Gather()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	var page bytes.Buffer
	encoder := expfmt.NewEncoder(&page, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, family := range families {
		if err := encoder.Encode(family); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	if s.server.Status().Ready() {
		text, err := s.scrape(r.Context())
		if err != nil {
			s.log.Warn("metrics of the server cannot be read", "err", err)
		}
		page.Write(text)
	}
	w.Header().Set("Content-Type", string(expfmt.NewFormat(expfmt.TypeTextPlain)))
	_, _ = w.Write(page.Bytes()) // the client may be gone
}

// serverCollector has the metrics of a server that is supervised.
type serverCollector struct {
	server                    *sidecar.Server
	up, restarts, memory, cpu *prometheus.Desc
}

// newServerCollector names the metrics by a word, and the server in their texts.
func newServerCollector(word, name string, server *sidecar.Server) *serverCollector {
	desc := func(metric, help string) *prometheus.Desc {
		return prometheus.NewDesc("clearml_serving_"+word+"_"+metric, help, nil, nil)
	}
	return &serverCollector{
		server:   server,
		up:       desc("up", "Whether "+name+" works: its last probe was good."),
		restarts: desc("restarts_total", "Ends of "+name+" that nobody has asked for."),
		memory:   desc("memory_bytes", "Memory of "+name+" and all processes of it."),
		cpu:      desc("cpu_seconds", "Processor time of "+name+" and all processes of it that run."),
	}
}

// Describe implements prometheus.Collector.
func (c *serverCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.up, c.restarts, c.memory, c.cpu} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c *serverCollector) Collect(to chan<- prometheus.Metric) {
	s := c.server.Status()
	to <- prometheus.MustNewConstMetric(c.up, prometheus.GaugeValue, truth(s.Ready()))
	to <- prometheus.MustNewConstMetric(c.restarts, prometheus.CounterValue, float64(s.Restarts))
	if usage, ok := s.Usage(); ok {
		to <- prometheus.MustNewConstMetric(c.memory, prometheus.GaugeValue, float64(usage.Memory))
		to <- prometheus.MustNewConstMetric(c.cpu, prometheus.GaugeValue, usage.CPU.Seconds())
	}
}

// truth is the value of a metric that says yes or no.
func truth(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
