// Package v2server is the engine of models on other servers of the Open Inference Protocol (V2): Triton, and any
// other, over gRPC or REST. It owns the client of such servers. Package remote chooses among their addresses; user
// code runs around the computation, and no worker is held meanwhile.
package v2server

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/jsontensor"
	"clearmlserving/inference/engine/prepost"
	"clearmlserving/inference/engine/python"
	"clearmlserving/inference/engine/remote"
	"clearmlserving/serving"
)

// Options of an Engine.
type Options struct {
	// Python runs the code of endpoints that have some. Required for these.
	Python *python.Engine
	// Triton is the default of the addresses of Triton's gRPC port, for services without the parameter.
	Triton string
	// TritonCompression is the default of the compression of requests to Triton.
	TritonCompression bool
	// MaxAnswer bounds an answer, in bytes. Default 256 MiB.
	MaxAnswer int64
	// MaxQueue bounds the requests that an endpoint without a limit of its own has at its servers at the same time.
	// Default 4096.
	MaxQueue int
	// Variable returns a variable of the environment, for keys of servers. nil: there is none.
	Variable func(name string) string
	Logger   *slog.Logger
}

// Engine loads endpoints whose models are on other servers.
type Engine struct {
	o   Options
	set remote.Set
}

// New creates an Engine.
func New(o Options) *Engine {
	o.MaxAnswer, o.MaxQueue = cmp.Or(o.MaxAnswer, 256<<20), cmp.Or(o.MaxQueue, 4096)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	return &Engine{o: o}
}

// Run implements engine.Runner: it probes the servers.
func (e *Engine) Run(ctx context.Context, _ engine.Caller) error {
	e.set.Run(ctx)
	return nil
}

// Prepare implements engine.Preparer: it creates the environment of the endpoint's code.
func (e *Engine) Prepare(ctx context.Context, spec engine.Spec) error {
	if spec.CodePath == "" {
		return nil
	}
	return e.o.Python.Prepare(ctx, spec)
}

// target is a model on servers.
type target struct {
	serving.V2

	name string // of the servers, for texts
}

// target reads the settings of an endpoint.
func (e *Engine) target(spec engine.Spec) (target, error) {
	if spec.Endpoint.EngineType != serving.EngineTriton {
		v, err := serving.V2Of(spec.Endpoint.EngineType, spec.Endpoint.AuxiliaryCfg)
		v.Model = cmp.Or(v.Model, serving.TritonModel(spec.URL))
		return target{v, "the V2 server"}, err
	}
	p := spec.Parameters
	addresses, err := serving.Addresses(cmp.Or(strings.TrimSpace(p.TritonGRPCServer), e.o.Triton), serving.TritonPort)
	if err != nil {
		return target{}, fmt.Errorf("the address of Triton %w: give one with config --triton-grpc-server host:8001", err)
	}
	if len(addresses) == 0 {
		return target{}, errors.New("the address of Triton is not known: give one with config --triton-grpc-server host:8001")
	}
	compressed, err := p.TritonCompression(e.o.TritonCompression)
	return target{serving.V2{
		Addresses: addresses, Model: serving.TritonModel(spec.URL), Protocol: serving.ProtocolGRPC, Compression: compressed,
		Stream: serving.TritonDecoupled(spec.Endpoint.AuxiliaryCfg),
	}, "Triton"}, err
}

// client speaks to servers. Errors of infer, stream and describe are marked, as remote.Pool.Do needs it.
type client interface {
	// ready is the probe of an address.
	ready(ctx context.Context, index int) error
	describe(ctx context.Context, use *remote.Use, model, version string) (description, error)
	infer(ctx context.Context, use *remote.Use, q *question, trace string) (*answer, error)
	stream(ctx context.Context, use *remote.Use, q *question, trace string) (*answers, error)
	close()
}

// description is what a server tells of a model.
type description struct {
	inputs, outputs []engine.TensorSpec
	decoupled       bool
}

func tensorSpec(name, datatype string, shape []int64) engine.TensorSpec {
	if len(shape) > engine.MaxRank {
		shape = nil
	}
	for i := range shape {
		shape[i] = max(shape[i], -1)
	}
	return engine.TensorSpec{Name: name, Datatype: engine.DatatypeOf(datatype), Shape: shape}
}

// open returns the pool of servers.
func (e *Engine) open(t target) (*remote.Pool, error) {
	key := ""
	if t.KeyVariable != "" {
		if e.o.Variable != nil {
			key = e.o.Variable(t.KeyVariable)
		}
		if key == "" {
			return nil, fmt.Errorf("the environment variable %s, which should have the key of the server, is not set in this instance", t.KeyVariable)
		}
	}
	trust, err := trustOf(t)
	if err != nil {
		return nil, err
	}
	addresses := slices.Clone(t.Addresses)
	if t.Protocol == serving.ProtocolREST {
		scheme := "http://"
		if t.TLS {
			scheme = "https://"
		}
		for i := range addresses {
			addresses[i] = scheme + addresses[i] + t.Path
		}
	}
	shared := fmt.Sprintf("%s %q %t %q %q %t %s", t.Protocol, addresses, t.TLS, t.CA, t.KeyVariable, t.Compression, t.ProbeTimeout)
	return e.set.Open(shared, func() (remote.Options, error) {
		o := remote.Options{Name: t.name, Addresses: addresses, Timeout: t.ProbeTimeout, Logger: e.o.Logger}
		var c client
		if t.Protocol == serving.ProtocolREST {
			c = newREST(addresses, trust, key, e.o.MaxAnswer, t.Compression)
		} else {
			over, err := newGRPC(addresses, trust, key, e.o.MaxAnswer, t.Compression)
			if err != nil {
				return o, err
			}
			c = over
		}
		o.Probe, o.Value, o.Close = c.ready, c, c.close
		return o, nil
	})
}

// trustOf is the configuration of encrypted connections, nil for others.
func trustOf(t target) (*tls.Config, error) {
	if !t.TLS {
		return nil, nil //nolint:nilnil // documented
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CA == "" {
		return config, nil
	}
	text, err := os.ReadFile(t.CA)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", serving.AuxTLSCA, err)
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: %s has no certificate in PEM form", serving.AuxTLSCA, t.CA)
	}
	return config, nil
}

// loadTimeout bounds the questions about a model at its load.
const loadTimeout = 10 * time.Second

// Load implements engine.Loader.
func (e *Engine) Load(ctx context.Context, spec engine.Spec) (engine.Model, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t, err := e.target(spec)
	if err != nil {
		return nil, &engine.LoadError{Text: err.Error(), Final: spec.Endpoint.EngineType != serving.EngineTriton, Err: err}
	}
	configured, err := engine.SignatureOf(spec.Endpoint.Tensors)
	if err != nil {
		return nil, &engine.LoadError{Text: err.Error(), Final: true, Err: err}
	}
	nanAsNull, err := serving.NaNAsNull(spec.Endpoint.EngineType, spec.Endpoint.AuxiliaryCfg)
	if err != nil {
		return nil, &engine.LoadError{Text: err.Error(), Final: true, Err: err}
	}
	pool, err := e.open(t)
	if err != nil {
		return nil, &engine.LoadError{Text: err.Error(), Err: err}
	}
	c, _ := pool.Value().(client)
	m := &model{
		e: e, url: spec.URL, name: t.name, pool: pool, client: c, remote: t.Model, version: t.Version, nanAsNull: nanAsNull, streams: t.Stream,
		asText: textOutputs(spec.Endpoint.Tensors), maxQueue: int64(e.o.MaxQueue),
	}
	_ = m.SetVariables(spec.Variables) // it never fails
	if spec.Limits != nil && spec.Limits.MaxQueue > 0 {
		m.maxQueue = int64(spec.Limits.MaxQueue)
	}
	if err := m.describe(ctx, configured); err != nil {
		pool.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, &engine.LoadError{Text: err.Error(), Err: err, Within: remote.RetryIn}
	}
	if spec.CodePath == "" {
		return m, nil
	}
	around, err := prepost.Load(ctx, e.o.Python, spec, prepost.Middle{
		Compute: m.compute, Signature: m.signature, Process: true, Report: m.report, Close: pool.Close,
		FromJSON: func(body []byte) ([]engine.Tensor, error) { return jsontensor.Tensors(body, m.json) },
	})
	if err != nil {
		pool.Close()
		return nil, err
	}
	return around, nil
}

// describe asks the servers for the model, and joins what they tell with what is configured.
func (m *model) describe(ctx context.Context, configured engine.Signature) error {
	ctx, cancel := context.WithTimeoutCause(ctx, loadTimeout, fmt.Errorf("%s has not described model '%s' within %s", m.name, m.remote, loadTimeout))
	defer cancel()
	if err := m.pool.Check(ctx); err != nil {
		return err
	}
	var told description
	var err error
	for range m.pool.Addresses() { // a question about a model may be repeated, other than one to it
		err = m.pool.Do(ctx, func(ctx context.Context, use *remote.Use) (err error) {
			told, err = m.client.describe(ctx, use, m.remote, m.version)
			return err
		})
		if !remote.Begun(err) || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("model '%s' on %s: %w", m.remote, m.name, err)
	}
	m.streams = m.streams || told.decoupled
	s := &m.signature
	if s.Inputs, err = m.join("input", configured.Inputs, told.inputs); err != nil {
		return err
	}
	if s.Outputs, err = m.join("output", configured.Outputs, told.outputs); err != nil {
		return err
	}
	if len(configured.Inputs)+len(configured.Outputs) > 0 {
		s.Source = configured.Source
	}
	if len(told.inputs)+len(told.outputs) > 0 {
		s.Source = s.Also(engine.SourceModel)
	}
	s.Source = cmp.Or(s.Source, engine.SourceNone)
	for _, t := range configured.Outputs {
		m.outputs = append(m.outputs, t.Name)
	}
	m.json = slices.Clone(s.Inputs)
	if len(m.json) == 0 { // a server that tells nothing takes any name
		m.json = []engine.TensorSpec{{Name: engine.Unnamed}}
	}
	for i := range m.json {
		m.json[i].Datatype = cmp.Or(m.json[i].Datatype, engine.FP64)
	}
	return nil
}

// join completes the configured tensors by what the server tells. Without any, they are the server's.
func (m *model) join(what string, configured, told []engine.TensorSpec) ([]engine.TensorSpec, error) {
	if len(configured) == 0 {
		return told, nil
	}
	list := slices.Clone(configured)
	if len(told) == 0 {
		return list, nil
	}
	var names []string
	for _, t := range told {
		names = append(names, t.Name)
	}
	for i := range list {
		t := &list[i]
		at := slices.Index(names, t.Name)
		if at < 0 {
			hint := ""
			if near := engine.Nearest(t.Name, names); near != "" {
				hint = fmt.Sprintf(" (did you mean '%s'?)", near)
			}
			return nil, fmt.Errorf("model '%s' on %s has no %s '%s'%s: it has %s", m.remote, m.name, what, t.Name, hint, quoted(names))
		}
		if t.Datatype != "" && told[at].Datatype != "" && t.Datatype != told[at].Datatype {
			return nil, fmt.Errorf("%s '%s' is configured as %s, but model '%s' on %s has %s", what, t.Name, t.Datatype, m.remote, m.name, told[at].Datatype)
		}
		t.Datatype = cmp.Or(t.Datatype, told[at].Datatype)
		if told[at].Shape != nil {
			t.Shape = told[at].Shape
		}
	}
	return list, nil
}

const mostQuoted = 20

func quoted(names []string) string {
	more := ""
	if len(names) > mostQuoted {
		more = fmt.Sprintf(" and %d more", len(names)-mostQuoted)
	}
	return "'" + strings.Join(names[:min(len(names), mostQuoted)], "', '") + "'" + more
}

// textOutputs reports for each configured output of BYTES whether postprocess gets text.
func textOutputs(t serving.Tensors) map[string]bool {
	list := map[string]bool{}
	for i, name := range t.OutputName {
		if i < len(t.OutputType) {
			list[name] = t.OutputType[i] != "bytes" && t.OutputType[i] != "object"
		}
	}
	return list
}
