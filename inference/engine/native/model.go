package native

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/jsontensor"
	flat "clearmlserving/native"
	"clearmlserving/retry"
	"clearmlserving/serving"
)

const (
	// largeBody is the size from which a body is computed on one of a few places, so that large ones
	// leave a processor to everything else.
	largeBody = 64 << 10
	// chunkRows is the number of rows after which the deadline of a request is looked at.
	chunkRows = 1024
	// mostResults bounds the numbers of an answer: many classes for each row of one number are many times the body. More
	// are left to Python, whose memory is limited.
	mostResults = 16 << 20
)

// model is a model that is computed in Go.
type model struct {
	url       serving.EndpointURL
	flat      *flat.Model
	at        int // the method
	form      *form
	tensors   tensorForms
	writer    *writer
	output    string // the name of the answer's tensor
	report    serving.NativeReport
	signature engine.Signature
	most      int           // mostResults
	places    chan struct{} // of the Engine
	scratch   sync.Pool     // of *scratch
	python    *fallback

	variables        atomic.Pointer[[]string]
	native, inPython atomic.Uint64

	users atomic.Int64 // computations that read the file; below 0 after Close
	shut  sync.Once    // Close
	unmap func() error // closes flat, once
}

// closed is added to the users of a closed model.
const closed = math.MinInt64 / 2

// enter begins to use the file, unless the model is closed. The caller calls leave, in either case.
func (m *model) enter() bool { return m.users.Add(1) > 0 }

// leave ends a use. The last one after Close releases the file.
func (m *model) leave() {
	if m.users.Add(-1) == closed {
		_ = m.unmap() // Close has returned
	}
}

type scratch struct {
	rows jsontensor.Rows
	out  []float64
}

// open opens a proven extract for an endpoint.
func (e *Engine) open(spec engine.Spec, how serving.Acceleration, x *extracted) (*model, error) {
	f, err := flat.Open(x.model)
	if err != nil {
		return nil, err
	}
	m := &model{
		url: spec.URL, flat: f, report: x.Report, tensors: x.Tensors, output: outputName(&spec.Endpoint, x.Report.Method),
		most: mostResults, places: e.places,
	}
	// As in Python: the model is served even if the settings are not a valid signature.
	settings, _ := engine.SignatureOf(spec.Endpoint.Tensors)
	told, _ := engine.ParseSignature(x.Signature)
	m.signature = told.With(settings)
	m.report.Setting, m.report.On = how, true
	m.unmap = sync.OnceValue(f.Close)
	m.scratch.New = func() any { return &scratch{} }
	m.variables.Store(&spec.Variables)
	if m.at, err = f.Method(x.Report.Method); err == nil {
		m.writer, err = newWriter(f.Methods[m.at])
	}
	if err == nil {
		m.form, err = formOf(f, &x.Facts, x.Left)
	}
	if err != nil {
		return nil, errors.Join(err, m.unmap())
	}
	m.python = newFallback(e.o.Python, spec)
	return m, nil
}

// Infer implements engine.Model.
func (m *model) Infer(ctx context.Context, req *engine.Request) (*engine.Response, error) {
	var resp *engine.Response
	var err error
	if req.Tensors != nil {
		resp, err = m.answerTensors(ctx, req)
	} else if isJSON(req.ContentType, req.Body) {
		resp, err = m.compute(ctx, req)
	}
	if resp != nil || err != nil {
		return resp, err
	}
	m.inPython.Add(1)
	python, err := m.python.get(ctx)
	if err != nil {
		return nil, err
	}
	return python.Infer(ctx, req)
}

// compute answers a body, or returns nil for one that is left to Python.
func (m *model) compute(ctx context.Context, req *engine.Request) (*engine.Response, error) {
	if len(req.Body) >= largeBody {
		if err := m.wait(ctx); err != nil {
			return nil, err
		}
		defer m.done()
	}
	s := m.scratch.Get().(*scratch)
	defer m.scratch.Put(s)
	if !m.form.read(req.Body, &s.rows) {
		return nil, nil //nolint:nilnil // documented
	}
	n := s.rows.N
	if left, err := m.predict(ctx, s, n); left || err != nil {
		return nil, err
	}
	body, ok := m.writer.append(make([]byte, 0, 16+8*len(s.out)), s.out, n)
	if !ok {
		return nil, nil //nolint:nilnil // Python says what is wrong with the answer
	}
	resp := &engine.Response{Status: http.StatusOK, ContentType: jsonType, Body: body}
	if names := *m.variables.Load(); req.Sampled && len(names) > 0 && s.rows.N == 1 && isRecord(req.Body) {
		resp.Stats = m.form.Fields(req.Body, names)
	}
	m.native.Add(1)
	return resp, nil
}

// wait takes a place for a large body or large tensors. The caller gives it back with done.
func (m *model) wait(ctx context.Context) error {
	select {
	case m.places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return m.ended(ctx)
	}
}

func (m *model) done() { <-m.places }

// predict computes n rows. left: the model's library says what is wrong with a value, or the results are too many.
func (m *model) predict(ctx context.Context, s *scratch, n int) (left bool, err error) {
	defer m.leave()
	if !m.enter() {
		return false, &engine.Error{Kind: engine.KindUnavailable, Endpoint: m.url, Text: "Error processing request", Err: errClosed}
	}
	columns, width := m.form.Width(), m.writer.method.Width
	if n > m.most/width {
		return true, nil
	}
	if cap(s.out) < n*width {
		s.out = make([]float64, n*width)
	}
	s.out = s.out[:n*width]
	for from := 0; from < n; {
		to := min(n, from+chunkRows)
		if n-to == 1 {
			to = n // a library may compute one row otherwise than several
		}
		if from > 0 && ctx.Err() != nil {
			return false, m.ended(ctx)
		}
		if err := m.flat.Predict(m.at, s.rows.Values[from*columns:to*columns], to-from, s.out[from*width:to*width]); err != nil {
			if _, ok := errors.AsType[*flat.InputError](err); ok {
				return true, nil
			}
			return false, &engine.Error{Kind: engine.KindInternal, Endpoint: m.url, Text: "Error processing request", Err: err}
		}
		from = to
	}
	return false, nil
}

// Signature implements engine.Signed.
func (m *model) Signature() engine.Signature { return m.signature }

// ended is the failure of a request whose context has ended.
func (m *model) ended(ctx context.Context) error {
	kind := engine.KindInternal
	if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		kind = engine.KindDeadline
	}
	return &engine.Error{Kind: kind, Endpoint: m.url, Text: "Error processing request", Err: context.Cause(ctx)}
}

func isRecord(body []byte) bool {
	body = bytes.TrimLeft(body, " \t\r\n")
	return len(body) > 0 && body[0] == '{'
}

// isJSON reports whether the Python workers read a body as JSON by its content type. An urlencoded form never begins
// with a brace or bracket.
func isJSON(contentType string, body []byte) bool {
	if contentType == jsonType || contentType == "" {
		return true
	}
	kind, _, _ := strings.Cut(contentType, ";")
	kind = strings.ToLower(strings.TrimSpace(kind))
	if kind == "application/x-www-form-urlencoded" {
		body = bytes.TrimLeft(body, " \t\r\n")
		return len(body) > 0 && (body[0] == '{' || body[0] == '[')
	}
	main, sub, _ := strings.Cut(kind, "/")
	return kind == "" || main == "application" && (sub == "json" || strings.HasSuffix(sub, "+json"))
}

// SetVariables implements engine.VariableSetter.
func (m *model) SetVariables(names []string) error {
	m.variables.Store(&names)
	return m.python.setVariables(names)
}

// Status implements engine.Model.
func (m *model) Status() serving.ModelReport {
	report := m.python.status()
	report.State, report.Reason = serving.StateReady, ""
	native := m.report
	native.Native, native.Fallback = m.native.Load(), m.inPython.Load()
	report.Answered += native.Native
	report.Native = &native
	return report
}

// Close implements engine.Model. Requests may outlive it: the last of them releases the file.
func (m *model) Close(ctx context.Context) error {
	err := m.python.close(ctx)
	m.shut.Do(func() {
		if m.users.Add(closed) == closed {
			err = errors.Join(err, m.unmap())
		}
	})
	return err
}

// pythonModel is what a model of the Python engine can do.
type pythonModel interface {
	engine.Model
	engine.Lender
	engine.VariableSetter
	engine.Signed
}

// stays is a model that stays in Python, with the reason.
type stays struct {
	pythonModel

	report serving.NativeReport
}

// staying adds a report to a model in Python.
func staying(m engine.Model, report serving.NativeReport) engine.Model {
	inPython, ok := m.(pythonModel)
	if !ok {
		return m // it can do less, so nothing is hidden by leaving it as it is
	}
	return &stays{inPython, report}
}

// Status implements engine.Model.
func (s *stays) Status() serving.ModelReport {
	report := s.pythonModel.Status()
	native := s.report
	report.Native = &native
	return report
}

var errClosed = errors.New("the model is closed")

// fallback is the endpoint's Python. It is loaded when a request first needs it; its processes end when they are idle.
type fallback struct {
	loader engine.Loader
	spec   engine.Spec

	all  sync.WaitGroup
	life context.Context //nolint:containedctx // it is the life of the loads, which close ends
	end  context.CancelCauseFunc

	mu      sync.Mutex // guards the rest
	model   engine.Model
	loading chan struct{} // closed at the end of the load under way
	err     error         // of the last load
	failed  int           // loads since the last one that has succeeded
	again   time.Time     // no load is tried before
	names   *[]string     // variables that were set after the load began
}

func newFallback(loader engine.Loader, spec engine.Spec) *fallback {
	none := 0
	limits := serving.Limits{}
	if spec.Limits != nil {
		limits = *spec.Limits
	}
	limits.MinWorkers = &none
	spec.Limits = &limits
	life, end := context.WithCancelCause(context.Background())
	return &fallback{loader: loader, spec: spec, life: life, end: end}
}

// get returns the model in Python, and loads it before if necessary.
func (f *fallback) get(ctx context.Context) (engine.Model, error) {
	f.mu.Lock()
	if f.model != nil {
		defer f.mu.Unlock()
		return f.model, nil
	}
	if f.loading == nil {
		if f.life.Err() != nil {
			f.mu.Unlock()
			return nil, errClosed
		}
		if time.Until(f.again) > 0 { // a load costs a process, and may cost much memory
			defer f.mu.Unlock()
			return nil, f.unavailable()
		}
		f.loading = make(chan struct{})
		f.all.Go(f.load)
	}
	loading := f.loading
	f.mu.Unlock()
	select {
	case <-loading:
	case <-ctx.Done():
		kind := engine.KindInternal
		if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			kind = engine.KindDeadline
		}
		return nil, &engine.Error{Kind: kind, Endpoint: f.spec.URL, Text: "Error processing request: Python is starting for a request that Go does not answer", Err: context.Cause(ctx)}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.model == nil {
		return nil, f.unavailable()
	}
	return f.model, nil
}

// unavailable says why there is no Python. mu is held.
func (f *fallback) unavailable() error {
	return &engine.Error{
		Kind: engine.KindUnavailable, Endpoint: f.spec.URL, Text: "Error processing request: the request needs Python, which cannot load the model",
		Err: f.err, RetryAfter: max(time.Until(f.again), time.Second),
	}
}

func (f *fallback) load() {
	f.mu.Lock()
	spec := f.spec
	f.mu.Unlock()
	m, err := f.loader.Load(f.life, spec)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.model, f.err = m, err
	if f.failed++; err == nil {
		f.failed = 0
	}
	f.again = time.Now().Add(retry.Doubled(f.failed, time.Second, time.Minute))
	if setter, ok := m.(engine.VariableSetter); ok && f.names != nil {
		f.err = setter.SetVariables(*f.names)
	}
	close(f.loading)
	f.loading = nil
}

func (f *fallback) setVariables(names []string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.spec.Variables, f.names = names, &names
	if setter, ok := f.model.(engine.VariableSetter); ok {
		return setter.SetVariables(names)
	}
	return nil
}

func (f *fallback) status() serving.ModelReport {
	f.mu.Lock()
	m := f.model
	f.mu.Unlock()
	if m == nil {
		return serving.ModelReport{}
	}
	return m.Status()
}

func (f *fallback) close(ctx context.Context) error {
	f.end(errClosed)
	f.all.Wait()
	f.mu.Lock()
	m := f.model
	f.mu.Unlock()
	if m == nil {
		return nil
	}
	if err := m.Close(ctx); err != nil {
		return fmt.Errorf("close the endpoint's Python: %w", err)
	}
	return nil
}
