package grpcfront_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"clearmlserving/inference"
	"clearmlserving/inference/engine"
	"clearmlserving/inference/grpcfront"
	"clearmlserving/inference/grpcfront/pb"
	"clearmlserving/inference/reconcile"
	"clearmlserving/leaktest"
	"clearmlserving/serving"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// patience bounds the wait for events that must happen, on a slow machine.
const patience = 2 * time.Minute

// fakeEngine is an engine whose models are functions of this test.
type fakeEngine struct {
	mu   sync.Mutex
	seen []engine.Request // of the endpoint "seen"

	lent atomic.Int32 // unreleased loans

	left chan struct{} // gets a value when a request of "waits" ends
}

func (e *fakeEngine) Load(_ context.Context, spec engine.Spec) (engine.Model, error) {
	if spec.URL == "broken" {
		return nil, &engine.LoadError{Text: "NameError: x", Traceback: "preprocess.py, line 3", UserCode: true}
	}
	return &fakeModel{e, spec.URL}, nil
}

type fakeModel struct {
	e   *fakeEngine
	url serving.EndpointURL
}

func (m *fakeModel) Status() serving.ModelReport {
	if m.url == "batched" {
		return serving.ModelReport{State: "ready", Batching: &serving.BatchingReport{Batches: 3, BySize: []serving.BatchTimes{{Rows: 1, Batches: 2, Took: 5}, {Rows: 7, Batches: 1, Took: 6}}}}
	}
	return serving.ModelReport{State: "ready"}
}
func (m *fakeModel) Close(context.Context) error { return nil }

func (m *fakeModel) Signature() engine.Signature {
	return engine.Signature{
		Inputs:  []engine.TensorSpec{{Name: "x", Datatype: engine.FP32, Shape: []int64{-1, 2}}},
		Outputs: []engine.TensorSpec{{Name: "y", Datatype: engine.FP32, Shape: []int64{-1, 2}}},
		Source:  "this test",
	}
}

func (m *fakeModel) Infer(ctx context.Context, req *engine.Request) (*engine.Response, error) {
	name, _, _ := strings.Cut(string(m.url), "/")
	switch name {
	case "echo": // the memory of the request
		return &engine.Response{Status: 200, Tensors: req.Tensors, TensorsAs: req.TensorsAs}, nil
	case "lends": // the memory of the request
		if lent, ok := req.Loan.(*loan); ok != (len(req.Tensors[0].Data) >= engine.LendFrom) || ok && &lent.memory[len(lent.memory)-1] != &req.Tensors[0].Data[len(req.Tensors[0].Data)-1] {
			return nil, &engine.Error{Kind: engine.KindInternal, Text: "the tensor is not in the loan"}
		}
		return &engine.Response{Status: 200, Tensors: req.Tensors}, nil
	case "headers":
		return &engine.Response{Status: 200, Tensors: req.Tensors, Header: []engine.Header{
			{Name: "X-Mine", Value: "1"},
			{Name: "x-mine", Value: "2"},
			{Name: "grpc-status", Value: "13"},
			{Name: "Content-Type", Value: "text/plain"},
			{Name: "X-Bad", Value: "a\nb"},
			{Name: "x y", Value: "1"},
			{Name: "x-data-bin", Value: "1"},
		}}, nil
	case "seen":
		m.e.mu.Lock()
		defer m.e.mu.Unlock()
		kept := *req
		if req.Client != nil {
			client := req.Client().Clone()
			kept.Client = func() engine.Client { return client }
		}
		kept.Tensors = nil
		m.e.seen = append(m.e.seen, kept)
		return &engine.Response{Status: 200, Tensors: []engine.Tensor{{Name: "y", Datatype: engine.Int8, Shape: []int64{1}, Data: []byte{7}}}}, nil
	case "waits":
		<-ctx.Done()
		select {
		case m.e.left <- struct{}{}:
		default:
		}
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, &engine.Error{Kind: engine.KindDeadline, Text: "no answer in time"}
		}
		return nil, ctx.Err()
	case "panics":
		panic("boom")
	case "endless":
		return &engine.Response{Status: 200, ContentType: "text/plain", Stream: &pieces{left: []string{strings.Repeat("x", 1<<16)}, endless: true, ended: m.e.left}}, nil
	case "cut": // an answer that ends early
		return &engine.Response{Status: 200, ContentType: "text/plain", Stream: &pieces{left: []string{"one"}, fails: true}}, nil
	case "stream":
		return &engine.Response{Status: 200, ContentType: "text/plain", Stream: &pieces{left: []string{"one ", "two ", "three"}}}, nil
	case "parts": // of tensors, for fronts that take them
		if !req.Streams {
			return &engine.Response{Status: 200, Tensors: req.Tensors}, nil
		}
		return &engine.Response{Status: 200, Stream: &pieces{left: []string{"a", "bc"}}, PieceTensors: func(piece []byte) ([]engine.Tensor, error) {
			return []engine.Tensor{{Name: "out", Datatype: engine.Uint8, Shape: []int64{int64(len(piece))}, Data: piece}}, nil
		}}, nil
	case "busy":
		return nil, &engine.Error{Kind: engine.KindOverloaded, Text: "the queue is full", RetryAfter: 3 * time.Second}
	case "died":
		return nil, &engine.Error{Kind: engine.KindDied, Text: "the process died"}
	case "refuses":
		return &engine.Response{Status: 422, ContentType: "application/json", Body: []byte(`{"detail":"column 'a' is missing"}`)}, nil
	case "lies": // an output that is not what its shape says
		return &engine.Response{Status: 200, Tensors: []engine.Tensor{{Name: "y", Datatype: engine.FP32, Shape: []int64{3}, Data: []byte{1, 2}}}}, nil
	}
	return nil, &engine.Error{Kind: engine.KindBadRequest, Endpoint: m.url, Text: "it takes no tensors"}
}

// Lend lends memory of the endpoint "lends".
func (m *fakeModel) Lend(size int) engine.Loan {
	if m.url != "lends" {
		return nil
	}
	m.e.lent.Add(1)
	return &loan{bytes.Repeat([]byte{0xee}, size), m.e}
}

type loan struct {
	memory []byte
	e      *fakeEngine
}

func (l *loan) Bytes() []byte { return l.memory }
func (l *loan) Release() {
	clear(l.memory) // nobody may read it any more
	l.e.lent.Add(-1)
}

// pieces is a stream of texts.
type pieces struct {
	left           []string
	endless, fails bool
	ended          chan<- struct{} // gets a value at the end of an endless one
	once           sync.Once
}

func (p *pieces) Next(ctx context.Context) ([]byte, error) {
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case p.endless:
		return []byte(p.left[0]), nil
	case len(p.left) == 0 && p.fails:
		return nil, &engine.Error{Kind: engine.KindDied, Text: "the process died"}
	case len(p.left) == 0:
		return nil, io.EOF
	}
	piece := p.left[0]
	p.left = p.left[1:]
	return []byte(piece), nil
}

func (p *pieces) Close() error {
	p.once.Do(func() {
		if p.ended != nil {
			p.ended <- struct{}{}
		}
	})
	return nil
}

// fixedSource is a configuration.
type fixedSource struct{ state *reconcile.State }

func (s fixedSource) Load(context.Context, *reconcile.State) (*reconcile.State, error) {
	return s.state, nil
}

type noFiles struct{}

func (noFiles) Fetch(_ context.Context, f reconcile.File) (reconcile.Local, error) {
	return reconcile.Local{Path: f.URL, Release: func() {}}, nil
}

// running is an instance with a front.
type running struct {
	*grpc.ClientConn

	core   *inference.Service
	engine *fakeEngine
	addr   string
	stop   func() error
}

// start starts an instance with the endpoints of urls, which change may adapt.
func start(tb testing.TB, change func(o *inference.Options, f *grpcfront.Options), urls ...string) *running {
	tb.Helper()
	return startPatient(tb, 0, change, urls...)
}

// startPatient is start with another patience for clients that do not read.
func startPatient(tb testing.TB, patient time.Duration, change func(o *inference.Options, f *grpcfront.Options), urls ...string) *running {
	tb.Helper()
	records := map[string]any{}
	for _, u := range urls {
		name, version, _ := strings.Cut(u, "/")
		records[u] = map[string]any{"engine_type": "custom", "serving_url": name, "version": version}
	}
	text, err := json.Marshal(records)
	if err != nil {
		tb.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	r := &running{engine: &fakeEngine{left: make(chan struct{}, 100)}, addr: l.Addr().String()}
	state := &reconcile.State{ServiceID: "S", Sections: map[serving.Section]json.RawMessage{serving.SectionEndpoints: text}}
	o := inference.Options{Engines: []inference.Engine{{Kinds: []string{"custom"}, Loader: r.engine}}, Source: fixedSource{state}, Files: noFiles{}}
	f := grpcfront.Options{Listener: l, StopTimeout: patience}
	if change != nil {
		change(&o, &f)
	}
	r.core = inference.New(o)
	front := grpcfront.New(r.core, f)
	if patient > 0 {
		front.SetPatience(patient)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.core.Run(ctx, front) }()
	r.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	tb.Cleanup(func() {
		if err := r.stop(); err != nil {
			tb.Error(err)
		}
	})
	r.ClientConn = dial(tb, r.addr)
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		var ready pb.ServerReadyResponse
		if err := r.call(tb, "ServerReady", &pb.ServerReadyRequest{}, &ready); err == nil && ready.GetReady() {
			return r
		}
		if time.Now().After(end) {
			tb.Fatal("never ready")
		}
	}
}

func dial(tb testing.TB, addr string, o ...grpc.DialOption) *grpc.ClientConn {
	tb.Helper()
	conn, err := grpc.NewClient(addr, append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)),
	}, o...)...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	return conn
}

// call calls a method of the inference service.
func (r *running) call(tb testing.TB, method string, q, a any, o ...grpc.CallOption) error {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return r.Invoke(ctx, "/inference.GRPCInferenceService/"+method, q, a, o...)
}

// infer asks an endpoint.
func (r *running) infer(tb testing.TB, q *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
	tb.Helper()
	a := new(pb.ModelInferResponse)
	return a, r.call(tb, "ModelInfer", q, a)
}

// floats is a request with one input of one row.
func floats(model string, values ...float32) *pb.ModelInferRequest {
	return &pb.ModelInferRequest{ModelName: model, Id: "7", Inputs: []*pb.ModelInferRequest_InferInputTensor{{
		Name: "x", Datatype: "FP32", Shape: []int64{1, int64(len(values))}, Contents: &pb.InferTensorContents{Fp32Contents: values},
	}}}
}

// is checks the code and the text of an error.
func is(t *testing.T, name string, err error, code codes.Code, text string) {
	t.Helper()
	if got := status.Convert(err); got.Code() != code || !strings.Contains(got.Message(), text) {
		t.Errorf("%s: %s %q, want %s %q", name, got.Code(), got.Message(), code, text)
	}
}

// floatsOf are the elements of the only output of an answer.
func floatsOf(tb testing.TB, a *pb.ModelInferResponse) []float32 {
	tb.Helper()
	if len(a.GetRawOutputContents()) != 1 || len(a.GetOutputs()) != 1 {
		tb.Fatalf("%d outputs with %d contents", len(a.GetOutputs()), len(a.GetRawOutputContents()))
	}
	values := make([]float32, len(a.GetRawOutputContents()[0])/4)
	if _, err := binary.Decode(a.GetRawOutputContents()[0], binary.LittleEndian, values); err != nil {
		tb.Fatal(err)
	}
	return values
}

func TestTypedContentsAreAnsweredWithRawOnes(t *testing.T) {
	r := start(t, nil, "echo")
	a, err := r.infer(t, floats("echo", 1.5, float32(math.Inf(-1))))
	if err != nil {
		t.Fatal(err)
	}
	if out := a.GetOutputs()[0]; a.GetModelName() != "echo" || a.GetModelVersion() != "1" || a.GetId() != "7" || out.GetName() != "x" || out.GetDatatype() != "FP32" || out.GetContents() != nil {
		t.Errorf("%v", a)
	}
	if got := floatsOf(t, a); !slices.Equal(got, []float32{1.5, float32(math.Inf(-1))}) {
		t.Error(got)
	}
}

func TestFailuresHaveTheCodesOfGRPC(t *testing.T) {
	r := start(t, nil, "echo", "panics", "busy", "died", "refuses", "lies", "broken", "plain")
	for model, want := range map[string]struct {
		code codes.Code
		text string
	}{
		"nobody":  {codes.NotFound, "endpoint was not found: Model inference endpoint 'nobody' not found"},
		"broken":  {codes.Unavailable, "NameError: x"},
		"panics":  {codes.Internal, "Internal Server Error"},
		"busy":    {codes.ResourceExhausted, "the queue is full"},
		"died":    {codes.Internal, "the process died"},
		"refuses": {codes.InvalidArgument, "column 'a' is missing"},
		"lies":    {codes.Internal, "output 'y'"},
	} {
		_, err := r.infer(t, floats(model, 1, 2))
		is(t, model, err, want.code, want.text)
	}
	for _, e := range r.core.Status().Endpoints {
		if e.InUse != 0 {
			t.Errorf("%s: %d references are left", e.URL, e.InUse)
		}
	}
}

func marshal(tb testing.TB, m proto.Message) []byte {
	tb.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}
