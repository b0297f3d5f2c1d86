// Package torchserve is the engine of endpoints whose models run in TorchServe: it registers an archive by
// the management API, asks the model over REST or gRPC, and passes bodies as they are. TorchServe itself is
// run by the role torchserve, or by somebody else.
package torchserve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/prepost"
	"clearmlserving/inference/engine/python"
	"clearmlserving/inference/engine/remote"
	"clearmlserving/serving"
)

// Options of an Engine.
type Options struct {
	// Dir is the data folder for archives, and for the locks of what is registered. Required.
	Dir string
	// Server describes the server that the role torchserve runs. Its error says what to do.
	Server func() (Server, error)
	// Keys is the key file of servers that somebody else runs, "" if they want no keys.
	Keys string
	// Python runs the code of endpoints that have some. Required for these.
	Python *python.Engine
	// MaxAnswer bounds answers.
	MaxAnswer int64
	// RegisterTimeout bounds the registration of a model, in which its workers load it. Default 10 minutes.
	RegisterTimeout time.Duration
	Logger          *slog.Logger
}

// Server says where a server is.
type Server struct {
	REST       string `json:"inference"`  // base URL
	Management string `json:"management"` // base URL
	GRPC       string `json:"grpc"`       // host:port
	// Admin is the address of the management API over gRPC, "" if it is not known. Over REST a registration holds one of
	// the few threads that also answer requests, until the workers have loaded the model.
	Admin string `json:"grpc_management"`
	Store string `json:"model_store"`
	Keys  string `json:"key_file"`
	Log   string `json:"model_log"` // what handlers write
}

// Engine loads models into TorchServe.
type Engine struct {
	o      Options
	set    remote.Set
	client *http.Client
	mu     sync.Mutex // guards keys
	keys   map[string]*keys
}

// New creates an Engine.
func New(o Options) *Engine {
	o.RegisterTimeout, o.MaxAnswer = cmp.Or(o.RegisterTimeout, 10*time.Minute), cmp.Or(o.MaxAnswer, 256<<20)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	return &Engine{o: o, client: &http.Client{
		Transport: remote.Transport(nil), CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, keys: map[string]*keys{}}
}

// Run implements engine.Runner: it probes servers until ctx ends.
func (e *Engine) Run(ctx context.Context, _ engine.Caller) error {
	e.set.Run(ctx)
	e.client.CloseIdleConnections()
	return nil
}

// Prepare implements engine.Preparer: it creates the environment of the endpoint's code.
func (e *Engine) Prepare(ctx context.Context, spec engine.Spec) error {
	if spec.CodePath == "" || !hasPreprocess(spec.CodePath) {
		return nil
	}
	return e.o.Python.Prepare(ctx, spec)
}

// Load implements engine.Loader.
func (e *Engine) Load(ctx context.Context, spec engine.Spec) (engine.Model, error) {
	settings, err := serving.TorchServeOf(spec.Endpoint.EngineType, spec.Endpoint.AuxiliaryCfg)
	if err != nil {
		return nil, &engine.LoadError{Text: err.Error(), Final: true, Err: err}
	}
	servers, err := e.servers(settings)
	if err != nil {
		return nil, &engine.LoadError{Text: err.Error(), Within: remote.RetryIn, Err: err}
	}
	m := &model{e: e, url: spec.URL, settings: settings, name: settings.Model, version: settings.Version, servers: servers, maxQueue: limitOf(spec.Limits)}
	if m.name == "" {
		if m.archive, err = e.pack(ctx, spec, settings); err != nil {
			return nil, err
		}
		m.name = m.archive.name
	}
	if err := m.open(ctx); err != nil {
		m.release(context.WithoutCancel(ctx))
		return nil, err
	}
	if !hasPreprocess(spec.CodePath) {
		return m, nil
	}
	around, err := prepost.Load(ctx, e.o.Python, spec, prepost.Middle{
		ComputeBody: m.between, Process: true, Report: m.report, Close: func() { m.release(context.Background()) },
	})
	if err != nil {
		m.release(context.WithoutCancel(ctx))
		return nil, err
	}
	return around, nil
}

// limitOf is the number of requests that may be outstanding.
func limitOf(l *serving.Limits) int64 {
	if l == nil || l.MaxQueue == 0 {
		return defaultQueue
	}
	return int64(l.MaxQueue)
}

const defaultQueue = 4096

// servers are those that the settings name, or the one of the role torchserve.
func (e *Engine) servers(s serving.TorchServe) ([]*server, error) {
	addresses := s.Addresses
	if addresses == nil {
		addresses = s.GRPC
	}
	if addresses == nil {
		if e.o.Server == nil {
			return nil, errors.New("no TorchServe is known: give its address in --aux-config")
		}
		own, err := e.o.Server()
		if err != nil {
			return nil, err
		}
		return []*server{e.server(own)}, nil
	}
	at := func(list []string, i int) string {
		if i < len(list) {
			return list[i]
		}
		return ""
	}
	var servers []*server
	for i := range addresses {
		servers = append(servers, e.server(Server{REST: at(s.Addresses, i), Management: at(s.Management, i), GRPC: at(s.GRPC, i), Keys: e.o.Keys}))
	}
	return servers, nil
}

func (e *Engine) server(at Server) *server {
	e.mu.Lock()
	defer e.mu.Unlock()
	id := at.Keys + " " + at.Management
	k := e.keys[id]
	if k == nil {
		k = newKeys(at.Keys, at.Management, e.client)
		e.keys[id] = k
	}
	return &server{Server: at, keys: k, client: e.client}
}

// folder is where archives are kept.
func (e *Engine) folder() string { return filepath.Join(e.o.Dir, "archives") }

// at is the error of an endpoint.
func (m *model) at(kind engine.Kind, err error, format string, args ...any) error {
	return &engine.Error{Kind: kind, Endpoint: m.url, Text: fmt.Sprintf("endpoint '%s': ", m.url) + fmt.Sprintf(format, args...), Err: err}
}
