package v2server

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/enginetest"
	"clearmlserving/inference/grpcfront/pb"
	"clearmlserving/serving"
)

// protocols calls test with the settings of a server for each protocol.
func protocols(t *testing.T, f *fake, test func(t *testing.T, settings map[string]any)) {
	t.Helper()
	t.Run("grpc", func(t *testing.T) {
		startGRPC(t, "127.0.0.1:0", f)
		test(t, map[string]any{"address": f.address()})
	})
	t.Run("rest", func(t *testing.T) {
		test(t, map[string]any{"address": startREST(t, f), "protocol": "rest"})
	})
}

func floats(values ...float32) engine.Tensor {
	t := engine.Tensor{Name: "x", Datatype: engine.FP32, Shape: []int64{int64(len(values))}}
	for _, v := range values {
		t.Data = binary.LittleEndian.AppendUint32(t.Data, math.Float32bits(v))
	}
	return t
}

func TestTheContractOfEngines(t *testing.T) {
	protocols(t, &fake{}, func(t *testing.T, settings map[string]any) {
		t.Helper()
		body := func(i int) *engine.Request { return &engine.Request{Body: fmt.Appendf(nil, "[%d, 0.5]", i)} }
		want := func(i int) string { return fmt.Sprintf("[%d.0,0.5]", i) }
		e := enginetest.Engine{
			Loader:  run(t, Options{}),
			Answers: enginetest.Endpoint{Spec: specOf("echo", settings), Request: body, Want: want},
			Waits:   &enginetest.Endpoint{Spec: specOf("waits", settings), Request: body, Want: want},
			Refuses: &enginetest.Endpoint{Spec: specOf("refuses", settings), Request: body, Want: want},
			Tensors: &enginetest.Endpoint{Spec: specOf("echo", settings), Request: func(int) *engine.Request {
				return &engine.Request{Tensors: []engine.Tensor{floats(1, 2)}}
			}},
			Broken: &enginetest.Endpoint{Spec: specOf("unknown", settings)},
		}
		if settings["protocol"] == nil {
			e.Streams = &enginetest.Endpoint{Spec: specOf("stream", settings), Request: body, Want: func(i int) string {
				return strings.Repeat(want(i)+"\n", 3)
			}}
		}
		enginetest.Run(t, e)
	})
}

// sample has two elements of a datatype.
func sample(d engine.Datatype) engine.Tensor {
	t := engine.Tensor{Name: "in_" + string(d), Datatype: d, Shape: []int64{2}}
	switch d {
	case engine.Bytes:
		t.Data = []byte("\x02\x00\x00\x00hi\x00\x00\x00\x00")
	case engine.Bool:
		t.Data = []byte{1, 0}
	default:
		t.Data = append(bytes.Repeat([]byte{0x3c}, int(d.Size())), make([]byte, d.Size())...)
	}
	return t
}

func TestTensorsOfEveryTypePass(t *testing.T) {
	protocols(t, &fake{}, func(t *testing.T, settings map[string]any) {
		t.Helper()
		m := loaded(t, run(t, Options{}), specOf("every", settings))
		req := &engine.Request{ID: "q1"}
		for _, d := range everyType {
			req.Tensors = append(req.Tensors, sample(d))
		}
		resp, err := m.Infer(t.Context(), req)
		if err != nil || len(resp.Tensors) != len(everyType) {
			t.Fatalf("%+v, %v", resp, err)
		}
		for i, out := range resp.Tensors {
			in := req.Tensors[i]
			if out.Name != "out_"+string(in.Datatype) || out.Datatype != in.Datatype || !bytes.Equal(out.Data, in.Data) || engine.Shape(out.Shape) != "[2]" {
				t.Errorf("%+v for %+v", out, in)
			}
		}
		req.Tensors[0].Data = req.Tensors[0].Data[:1]
		_, err = m.Infer(t.Context(), req)
		if failed, ok := errors.AsType[*engine.Error](err); !ok || failed.Kind != engine.KindBadRequest || !strings.Contains(failed.Text, "in_BOOL") {
			t.Errorf("short data: %v", err)
		}
	})
}

func TestTypedContentsOfAnAnswerAreRead(t *testing.T) {
	f := &fake{}
	f.infer = func(_ context.Context, r *pb.ModelInferRequest) ([]*pb.ModelInferResponse, error) {
		a := &pb.ModelInferResponse{}
		add := func(name string, d engine.Datatype, c *pb.InferTensorContents) {
			a.Outputs = append(a.Outputs, &pb.ModelInferResponse_InferOutputTensor{Name: name, Datatype: string(d), Shape: []int64{2}, Contents: c})
		}
		add("b", engine.Bool, &pb.InferTensorContents{BoolContents: []bool{true, false}})
		add("i1", engine.Int8, &pb.InferTensorContents{IntContents: []int32{-1, 2}})
		add("i2", engine.Int16, &pb.InferTensorContents{IntContents: []int32{-1, 2}})
		add("i4", engine.Int32, &pb.InferTensorContents{IntContents: []int32{-1, 2}})
		add("i8", engine.Int64, &pb.InferTensorContents{Int64Contents: []int64{-1, 2}})
		add("u1", engine.Uint8, &pb.InferTensorContents{UintContents: []uint32{255, 2}})
		add("u2", engine.Uint16, &pb.InferTensorContents{UintContents: []uint32{65535, 2}})
		add("u4", engine.Uint32, &pb.InferTensorContents{UintContents: []uint32{1 << 31, 2}})
		add("u8", engine.Uint64, &pb.InferTensorContents{Uint64Contents: []uint64{1 << 63, 2}})
		add("f4", engine.FP32, &pb.InferTensorContents{Fp32Contents: []float32{0.1, 2}})
		add("f8", engine.FP64, &pb.InferTensorContents{Fp64Contents: []float64{0.1, 2}})
		add("s", engine.Bytes, &pb.InferTensorContents{BytesContents: [][]byte{[]byte("a"), []byte("é")}})
		if r.Id == "short" {
			a.Outputs[0].Contents.BoolContents = []bool{true}
		}
		return []*pb.ModelInferResponse{a}, nil
	}
	startGRPC(t, "127.0.0.1:0", f)
	m := loaded(t, run(t, Options{}), specOf("echo", map[string]any{"address": f.address()}))
	resp, err := m.Infer(t.Context(), &engine.Request{Body: []byte("[1]")})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"b":[true,false],"i1":[-1,2],"i2":[-1,2],"i4":[-1,2],"i8":[-1,2],"u1":[255,2],"u2":[65535,2],"u4":[2147483648,2],"u8":[9223372036854775808,2],"f4":[0.1,2.0],"f8":[0.1,2.0],"s":["a","é"]}`
	if got := string(resp.Body); !strings.EqualFold(got, want) && !strings.Contains(got, `"u8":[9223372036854775808,2]`) {
		t.Errorf("%s", got)
	}
	_, err = m.Infer(t.Context(), &engine.Request{ID: "short", Body: []byte("[1]")})
	if failed, ok := errors.AsType[*engine.Error](err); !ok || failed.Kind != engine.KindInternal || !strings.Contains(failed.Text, "output 'b'") {
		t.Errorf("contents that do not fit: %v", err)
	}
}

func TestSeveralInputsAndOutputsHaveTheirNames(t *testing.T) {
	protocols(t, &fake{}, func(t *testing.T, settings map[string]any) {
		t.Helper()
		spec := specOf("two", settings)
		m := loaded(t, run(t, Options{}), spec)
		resp, err := m.Infer(t.Context(), &engine.Request{Body: []byte(`{"b": ["x", "y"], "a": [1, 2]}`)})
		if err != nil || string(resp.Body) != `{"sum":[1,2],"text":["x","y"]}` {
			t.Errorf("%s, %v", resp.Body, err)
		}
		spec.Endpoint.OutputName, spec.Endpoint.OutputType = []string{"text", "sum"}, []string{"str", "int64"}
		m = loaded(t, run(t, Options{}), spec)
		if resp, err = m.Infer(t.Context(), &engine.Request{Body: []byte(`{"b": ["x", "y"], "a": [1, 2]}`)}); err != nil || string(resp.Body) != `{"text":["x","y"],"sum":[1,2]}` {
			t.Errorf("in the configured order: %s, %v", resp.Body, err)
		}
		resp, err = m.Infer(t.Context(), &engine.Request{Body: []byte(`{"b": ["x", "y"], "c": [1, 2]}`)})
		if err != nil || resp.Status != 422 || !strings.Contains(string(resp.Body), "no input 'c'") {
			t.Errorf("%+v, %v", resp, err)
		}
		if resp, err = m.Infer(t.Context(), &engine.Request{Body: []byte(`{"b": ["x"`)}); err != nil || resp.Status != 422 || !resp.Unread || !strings.Contains(string(resp.Body), `"type":"json_invalid","loc":["body",10]`) {
			t.Errorf("of a body that is no JSON: %+v, %v", resp, err)
		}
		signature := m.(engine.Signed).Signature()
		if signature.Source != "settings, model" || len(signature.Inputs) != 2 || signature.Outputs[0].Name != "text" {
			t.Errorf("%+v", signature)
		}
	})
}

func TestAServerThatTellsNoInputsTakesANumericList(t *testing.T) {
	protocols(t, &fake{}, func(t *testing.T, settings map[string]any) {
		t.Helper()
		m := loaded(t, run(t, Options{}), specOf("silent", settings))
		resp, err := m.Infer(t.Context(), &engine.Request{Body: []byte(`[[1, 2.5], [3, 4]]`)})
		if err != nil || string(resp.Body) != `[[1.0,2.5],[3.0,4.0]]` {
			t.Errorf("%s, %v", resp.Body, err)
		}
		resp, err = m.Infer(t.Context(), &engine.Request{Tensors: []engine.Tensor{floats(1)}})
		if err != nil || len(resp.Tensors) != 1 || resp.Tensors[0].Name != "y" {
			t.Errorf("%+v, %v", resp, err)
		}
	})
}

func TestALoadSaysWhatDoesNotFit(t *testing.T) {
	f := startGRPC(t, "127.0.0.1:0", &fake{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	_ = l.Close()
	e := run(t, Options{})
	for name, tc := range map[string]struct {
		spec  engine.Spec
		want  []string
		final bool
		soon  bool
	}{
		"no address":     {specOf("echo", nil), []string{"auxiliary_cfg.address", "host:8001"}, true, false},
		"nobody listens": {specOf("echo", map[string]any{"address": closed}), []string{"the V2 server does not answer", closed, "refused"}, false, true},
		"unknown model":  {specOf("unknown", map[string]any{"address": f.address()}), []string{"model 'unknown' on the V2 server", "Request for unknown model"}, false, true},
		"not ready":      {specOf("loading", map[string]any{"address": f.address()}), []string{"model 'loading' is not ready"}, false, true},
		"another name": {
			engine.Spec{URL: "echo", Endpoint: serving.Endpoint{EngineType: "v2", AuxiliaryCfg: map[string]any{"address": f.address()}, Tensors: serving.Tensors{InputName: []string{"z"}}}},
			[]string{"no input 'z'", "it has 'x'"},
			false, true,
		},
		"another type": {
			engine.Spec{URL: "echo", Endpoint: serving.Endpoint{EngineType: "v2", AuxiliaryCfg: map[string]any{"address": f.address()}, Tensors: serving.Tensors{InputName: []string{"x"}, InputType: []string{"int64"}}}},
			[]string{"configured as INT64", "has FP32"},
			false, true,
		},
		"no key": {specOf("echo", map[string]any{"address": f.address(), "key_variable": "NO_SUCH"}), []string{"NO_SUCH"}, false, false},
		"no CA":  {specOf("echo", map[string]any{"address": f.address(), "tls": "true", "tls_ca": "/nonexistent/ca.pem"}), []string{"tls_ca", "/nonexistent/ca.pem"}, false, false},
	} {
		m, err := e.Load(t.Context(), tc.spec)
		failed, ok := errors.AsType[*engine.LoadError](err)
		if !ok {
			t.Errorf("%s: %v, %v", name, m, err)
			continue
		}
		for _, want := range tc.want {
			if !strings.Contains(failed.Text, want) {
				t.Errorf("%s: %q has no %q", name, failed.Text, want)
			}
		}
		if failed.Final != tc.final || (failed.Within > 0) != tc.soon {
			t.Errorf("%s: final %t, within %s", name, failed.Final, failed.Within)
		}
	}
}

func TestErrorsAreTheServersInOurKinds(t *testing.T) {
	f := &fake{}
	answer := status.Error(codes.OK, "")
	f.infer = func(context.Context, *pb.ModelInferRequest) ([]*pb.ModelInferResponse, error) { return nil, answer }
	startGRPC(t, "127.0.0.1:0", f)
	m := loaded(t, run(t, Options{}), specOf("echo", map[string]any{"address": f.address()}))
	for code, kind := range map[codes.Code]engine.Kind{
		codes.InvalidArgument: engine.KindBadRequest, codes.NotFound: engine.KindUnavailable, codes.Unavailable: engine.KindUnavailable,
		codes.ResourceExhausted: engine.KindOverloaded, codes.Internal: engine.KindInternal, codes.Unknown: engine.KindInternal,
		codes.Unimplemented: engine.KindInternal, codes.PermissionDenied: engine.KindInternal,
	} {
		answer = status.Error(code, "CUDA out of memory")
		_, err := m.Infer(t.Context(), &engine.Request{Tensors: []engine.Tensor{floats(1)}})
		failed, ok := errors.AsType[*engine.Error](err)
		if !ok || failed.Kind != kind || !strings.Contains(failed.Text, "CUDA out of memory") || failed.Endpoint != "echo" {
			t.Errorf("%s: %#v", code, err)
		}
	}
	answer = status.Error(codes.DeadlineExceeded, "late")
	if _, err := m.Infer(t.Context(), &engine.Request{Body: []byte("[1]")}); kindOf(err) != engine.KindDeadline {
		t.Errorf("%v", err)
	}
	if s := m.Status(); s.State == serving.StateFailed || s.Addresses[0].State != serving.AddressHealthy || s.Addresses[0].Failed != 0 {
		t.Errorf("what a server answers counts against its address: %+v", s)
	}
	answer = status.Error(codes.Internal, "Stub process 'm_0_0' is not healthy")
	for range failing {
		_, _ = m.Infer(t.Context(), &engine.Request{Body: []byte("[1]")})
	}
	if s := m.Status(); s.State != serving.StateDegraded || !strings.Contains(s.Reason, "Stub process 'm_0_0' is not healthy") {
		t.Errorf("a model that fails: %+v", s)
	}
}

func TestDeadlineKeyTraceAndParametersAreHandedOn(t *testing.T) {
	var parameters map[string]*pb.InferParameter
	f := &fake{}
	f.infer = func(_ context.Context, r *pb.ModelInferRequest) ([]*pb.ModelInferResponse, error) {
		parameters = r.Parameters
		return []*pb.ModelInferResponse{echo(r)}, nil
	}
	startGRPC(t, "127.0.0.1:0", f)
	e := run(t, Options{Variable: func(name string) string { return map[string]string{"V2_KEY": "secret"}[name] }})
	m := loaded(t, e, specOf("echo", map[string]any{"address": f.address(), "key_variable": "V2_KEY", "compression": "true"}))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := m.Infer(ctx, &engine.Request{Tensors: []engine.Tensor{floats(1)}, Parameters: []byte(`{"priority": 2, "temperature": 0.5, "seed": "s", "x": true, "nested": {}}`)})
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.deadline || f.metadata.Get("authorization")[0] != "Bearer secret" {
		t.Errorf("%t, %v", f.deadline, f.metadata)
	}
	if parameters["priority"].GetInt64Param() != 2 || parameters["temperature"].GetDoubleParam() != 0.5 || parameters["seed"].GetStringParam() != "s" || !parameters["x"].GetBoolParam() || len(parameters) != 4 {
		t.Errorf("%v", parameters)
	}
}

func TestACancelledRequestEndsAtTheServer(t *testing.T) {
	ended := make(chan struct{}, 10)
	f := &fake{}
	f.infer = func(ctx context.Context, _ *pb.ModelInferRequest) ([]*pb.ModelInferResponse, error) {
		<-ctx.Done()
		ended <- struct{}{}
		return nil, ctx.Err()
	}
	protocols(t, f, func(t *testing.T, settings map[string]any) {
		t.Helper()
		m := loaded(t, run(t, Options{}), specOf("echo", settings))
		ctx, cancel := context.WithCancel(t.Context())
		before := f.asked.Load()
		go func() {
			for f.asked.Load() == before {
				time.Sleep(time.Millisecond)
			}
			cancel()
		}()
		if _, err := m.Infer(ctx, &engine.Request{Body: []byte("[1]")}); err == nil {
			t.Error("no error")
		}
		select {
		case <-ended:
		case <-time.After(patience):
			t.Error("the server still works")
		}
	})
}

func TestStreams(t *testing.T) {
	f := startGRPC(t, "127.0.0.1:0", &fake{})
	m := loaded(t, run(t, Options{}), specOf("stream", map[string]any{"address": f.address()}))
	resp, err := m.Infer(t.Context(), &engine.Request{Tensors: []engine.Tensor{floats(1, 2)}, Streams: true})
	if err != nil || resp.Stream == nil || resp.PieceTensors == nil {
		t.Fatalf("%+v, %v", resp, err)
	}
	count := 0
	for {
		piece, err := resp.Stream.Next(t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		tensors, err := resp.PieceTensors(piece)
		if err != nil || len(tensors) != 1 || !bytes.Equal(tensors[0].Data, floats(1, 2).Data) {
			t.Errorf("%+v, %v", tensors, err)
		}
		count++
	}
	if count != 3 {
		t.Errorf("%d pieces", count)
	}
	_, err = m.Infer(t.Context(), &engine.Request{Tensors: []engine.Tensor{floats(1)}})
	if failed, ok := errors.AsType[*engine.Error](err); !ok || failed.Kind != engine.KindBadRequest || !strings.Contains(failed.Text, "3 messages") {
		t.Errorf("several answers to a request of one: %v", err)
	}
	f.infer = func(_ context.Context, r *pb.ModelInferRequest) ([]*pb.ModelInferResponse, error) {
		return []*pb.ModelInferResponse{echo(r)}, nil
	}
	if resp, err = m.Infer(t.Context(), &engine.Request{Tensors: []engine.Tensor{floats(1)}}); err != nil || len(resp.Tensors) != 1 {
		t.Errorf("one answer: %+v, %v", resp, err)
	}
	f.infer = func(context.Context, *pb.ModelInferRequest) ([]*pb.ModelInferResponse, error) {
		return nil, status.Error(codes.InvalidArgument, "no prompt")
	}
	if resp, err = m.Infer(t.Context(), &engine.Request{Body: []byte("[1]")}); err != nil || resp.Status != 422 || !strings.Contains(string(resp.Body), "no prompt") {
		t.Errorf("a failure before the first answer: %+v, %v", resp, err)
	}
	if s := m.Status(); s.Queued != 0 || s.Addresses[0].Outstanding != 0 {
		t.Errorf("%+v", s)
	}
}

// Triton tells failures of a decoupled model as messages of a stream that goes on.
func TestFailuresThatAStreamTellsAreFailures(t *testing.T) {
	f := startGRPC(t, "127.0.0.1:0", &fake{})
	m := loaded(t, run(t, Options{}), specOf("stream", map[string]any{"address": f.address()}))
	tensors, body := &engine.Request{Tensors: []engine.Tensor{floats(1)}, Streams: true}, &engine.Request{Body: []byte("[1]")}

	f.infer = func(context.Context, *pb.ModelInferRequest) ([]*pb.ModelInferResponse, error) {
		return []*pb.ModelInferResponse{nil}, nil
	}
	for range failing {
		for _, req := range []*engine.Request{tensors, body} {
			if resp, err := m.Infer(t.Context(), req); kindOf(err) != engine.KindInternal || !strings.Contains(err.Error(), "out of tokens") {
				t.Errorf("before the first answer: %+v, %v", resp, err)
			}
		}
	}
	if s := m.Status(); s.State != serving.StateDegraded || !strings.Contains(s.Reason, "out of tokens") || s.Queued != 0 || s.Addresses[0].Outstanding != 0 {
		t.Errorf("%+v", s)
	}

	f.infer = func(_ context.Context, r *pb.ModelInferRequest) ([]*pb.ModelInferResponse, error) {
		return []*pb.ModelInferResponse{echo(r), nil}, nil
	}
	for _, req := range []*engine.Request{tensors, body} {
		resp, err := m.Infer(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := resp.Stream.Next(t.Context()); err != nil {
			t.Error(err)
		}
		if piece, err := resp.Stream.Next(t.Context()); kindOf(err) != engine.KindInternal || !strings.Contains(err.Error(), "out of tokens") {
			t.Errorf("after the first answer: %q, %v", piece, err)
		}
		_ = resp.Stream.Close()
	}
}

func TestAStreamOutlivesTheContextOfItsRequestAndEndsWithItsReader(t *testing.T) {
	ended := make(chan struct{})
	more := make(chan struct{})
	f := &fake{}
	f.infer = func(ctx context.Context, r *pb.ModelInferRequest) ([]*pb.ModelInferResponse, error) {
		select {
		case <-ctx.Done():
			close(ended)
			return nil, ctx.Err()
		case <-more:
			return []*pb.ModelInferResponse{echo(r), echo(r)}, nil
		}
	}
	startGRPC(t, "127.0.0.1:0", f)
	m := loaded(t, run(t, Options{}), specOf("stream", map[string]any{"address": f.address()}))
	ctx, cancel := context.WithCancel(t.Context())
	go func() { more <- struct{}{} }()
	resp, err := m.Infer(ctx, &engine.Request{Body: []byte("[1]")})
	if err != nil {
		t.Fatal(err)
	}
	cancel() // as the data plane does once the answer has begun
	for range 2 {
		if piece, err := resp.Stream.Next(t.Context()); err != nil || string(piece) != "[1.0]\n" {
			t.Errorf("%q, %v", piece, err)
		}
	}
	_ = resp.Stream.Close()

	bounded, end := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer end()
	if _, err := m.Infer(bounded, &engine.Request{Body: []byte("[1]")}); !errors.Is(err, context.DeadlineExceeded) && kindOf(err) != engine.KindDeadline {
		t.Errorf("a stream that does not begin: %v", err)
	}
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("the server still works")
	}
	if s := m.Status(); s.Queued != 0 || s.Addresses[0].Outstanding != 0 {
		t.Errorf("%+v", s)
	}
}

func kindOf(err error) engine.Kind {
	failed, ok := errors.AsType[*engine.Error](err)
	if !ok {
		return -1
	}
	return failed.Kind
}

func TestRequestsAboveTheLimitAreRefused(t *testing.T) {
	f := startGRPC(t, "127.0.0.1:0", &fake{})
	spec := specOf("waits", map[string]any{"address": f.address()})
	spec.Limits = &serving.Limits{MaxQueue: 1}
	m := loaded(t, run(t, Options{}), spec)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = m.Infer(ctx, &engine.Request{Body: []byte("[1]")})
	}()
	for f.asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if _, err := m.Infer(ctx, &engine.Request{Body: []byte("[1]")}); kindOf(err) != engine.KindOverloaded {
		t.Errorf("%v", err)
	}
	cancel()
	<-done
}

func TestAnAnswerAboveTheLimitIsRefused(t *testing.T) {
	protocols(t, &fake{}, func(t *testing.T, settings map[string]any) {
		t.Helper()
		m := loaded(t, run(t, Options{MaxAnswer: 10_000}), specOf("echo", settings))
		_, err := m.Infer(t.Context(), &engine.Request{Tensors: []engine.Tensor{floats(make([]float32, 10_000)...)}})
		if kindOf(err) != engine.KindTooLarge {
			t.Errorf("%v", err)
		}
		if s := m.Status(); s.Addresses[0].Failed != 0 {
			t.Errorf("%+v", s.Addresses)
		}
	})
}

func BenchmarkInfer(b *testing.B) {
	f := startGRPC(b, "127.0.0.1:0", &fake{})
	e := run(b, Options{})
	rest := startREST(b, f)
	for name, settings := range map[string]map[string]any{"grpc": {"address": f.address()}, "rest": {"address": rest, "protocol": "rest"}} {
		m := loaded(b, e, specOf("echo", settings))
		for _, n := range []int{4, 1 << 18} {
			req := &engine.Request{Tensors: []engine.Tensor{floats(make([]float32, n)...)}}
			b.Run(fmt.Sprintf("%s/%d", name, 4*n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := m.Infer(b.Context(), req); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
