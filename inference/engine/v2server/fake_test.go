package v2server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/grpcfront/pb"
	v2 "clearmlserving/inference/v2"
	"clearmlserving/leaktest"
	"clearmlserving/serving"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// patience bounds the wait for events that must happen, on a slow machine.
const patience = time.Minute

// fake is a server of the V2 protocol. Its models are named by what they do.
type fake struct {
	infer func(ctx context.Context, r *pb.ModelInferRequest) ([]*pb.ModelInferResponse, error)

	unready  atomic.Bool
	asked    atomic.Int64
	mu       sync.Mutex
	metadata metadata.MD // of the last request
	deadline bool        // it had one
	listener net.Listener
	server   *grpc.Server
}

// startGRPC starts a server over gRPC.
func startGRPC(tb testing.TB, address string, f *fake) *fake {
	tb.Helper()
	var err error
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) { // the port may still be in use
		if f.listener, err = net.Listen("tcp", address); err == nil {
			break
		}
		if time.Now().After(end) {
			tb.Fatal(err)
		}
	}
	f.server = grpc.NewServer(grpc.UnknownServiceHandler(f.handle), grpc.MaxRecvMsgSize(1<<30))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = f.server.Serve(f.listener)
	}()
	tb.Cleanup(func() {
		f.server.Stop()
		<-done
	})
	return f
}

func (f *fake) address() string { return f.listener.Addr().String() }

func (f *fake) handle(_ any, s grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(s)
	switch method[strings.LastIndex(method, "/")+1:] {
	case "ServerReady":
		return one(s, &pb.ServerReadyRequest{}, &pb.ServerReadyResponse{Ready: !f.unready.Load()})
	case "ModelReady":
		var r pb.ModelReadyRequest
		if err := s.RecvMsg(&r); err != nil {
			return err
		}
		if strings.HasPrefix(r.Name, "unknown") {
			return status.Errorf(codes.NotFound, "Request for unknown model: '%s' is not found", r.Name)
		}
		return s.SendMsg(&pb.ModelReadyResponse{Ready: !strings.HasPrefix(r.Name, "loading")})
	case "ModelMetadata":
		var r pb.ModelMetadataRequest
		if err := s.RecvMsg(&r); err != nil {
			return err
		}
		return s.SendMsg(modelMetadataOf(r.Name))
	case "ModelConfig":
		var r pb.ModelConfigRequest
		if err := s.RecvMsg(&r); err != nil {
			return err
		}
		if !strings.HasPrefix(r.Name, "stream") {
			return status.Error(codes.Unimplemented, "no configuration")
		}
		return s.SendMsg(&pb.ModelConfigResponse{Config: &pb.ModelConfig{ModelTransactionPolicy: &pb.ModelTransactionPolicy{Decoupled: true}}})
	case "ModelInfer":
		var r pb.ModelInferRequest
		if err := s.RecvMsg(&r); err != nil {
			return err
		}
		answers, err := f.answer(s.Context(), &r)
		if err != nil {
			return err
		}
		return s.SendMsg(answers[0])
	case "ModelStreamInfer":
		for {
			var r pb.ModelInferRequest
			if err := s.RecvMsg(&r); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			answers, err := f.answer(s.Context(), &r)
			if err != nil {
				return err
			}
			for _, a := range answers {
				told := &pb.ModelStreamInferResponse{InferResponse: a}
				if a == nil { // how Triton tells a failure of the model
					told.ErrorMessage = "out of tokens"
				}
				if err := s.SendMsg(told); err != nil {
					return err
				}
			}
		}
	}
	return status.Errorf(codes.Unimplemented, "unknown method %s", method)
}

func one(s grpc.ServerStream, request, response any) error {
	if err := s.RecvMsg(request); err != nil {
		return err
	}
	return s.SendMsg(response)
}

// modelMetadataOf describes a model: one input x of FP32, an output y like it; "silent" tells nothing, "every" has an
// input of each type, "two" has two of each.
func modelMetadataOf(name string) *pb.ModelMetadataResponse {
	m := &pb.ModelMetadataResponse{Name: name, Platform: "fake"}
	tensor := func(name, datatype string, shape ...int64) *pb.ModelMetadataResponse_TensorMetadata {
		return &pb.ModelMetadataResponse_TensorMetadata{Name: name, Datatype: datatype, Shape: shape}
	}
	switch {
	case strings.HasPrefix(name, "silent"):
	case strings.HasPrefix(name, "every"):
		for _, d := range everyType {
			m.Inputs = append(m.Inputs, tensor("in_"+string(d), string(d), -1))
			m.Outputs = append(m.Outputs, tensor("out_"+string(d), string(d), -1))
		}
	case strings.HasPrefix(name, "two"):
		m.Inputs = append(m.Inputs, tensor("a", "INT64", -1), tensor("b", "BYTES", -1))
		m.Outputs = append(m.Outputs, tensor("sum", "INT64", -1), tensor("text", "BYTES", -1))
	default:
		m.Inputs, m.Outputs = append(m.Inputs, tensor("x", "FP32", -1)), append(m.Outputs, tensor("y", "FP32", -1))
	}
	return m
}

var everyType = []engine.Datatype{engine.Bool, engine.Int8, engine.Int16, engine.Int32, engine.Int64, engine.Uint8, engine.Uint16, engine.Uint32, engine.Uint64, engine.FP16, engine.BF16, engine.FP32, engine.FP64, engine.Bytes}

// answer answers a request.
func (f *fake) answer(ctx context.Context, r *pb.ModelInferRequest) ([]*pb.ModelInferResponse, error) {
	f.asked.Add(1)
	md, _ := metadata.FromIncomingContext(ctx)
	_, deadline := ctx.Deadline()
	f.mu.Lock()
	f.metadata, f.deadline = md, deadline
	f.mu.Unlock()
	if f.infer != nil {
		return f.infer(ctx, r)
	}
	return behave(ctx, r)
}

// behave is what models do by their names.
func behave(ctx context.Context, r *pb.ModelInferRequest) ([]*pb.ModelInferResponse, error) {
	switch {
	case strings.HasPrefix(r.ModelName, "waits"):
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	case strings.HasPrefix(r.ModelName, "refuses"):
		return nil, status.Error(codes.InvalidArgument, "unexpected shape for input 'x'")
	case strings.HasPrefix(r.ModelName, "stream"):
		return []*pb.ModelInferResponse{echo(r), echo(r), echo(r)}, nil
	}
	return []*pb.ModelInferResponse{echo(r)}, nil
}

// echo returns the inputs as outputs: x as y, a as sum, b as text, in_T as out_T.
func echo(r *pb.ModelInferRequest) *pb.ModelInferResponse {
	a := &pb.ModelInferResponse{ModelName: r.ModelName, Id: r.Id}
	names := map[string]string{"x": "y", "a": "sum", "b": "text"}
	for i, in := range r.Inputs {
		name := names[in.Name]
		if name == "" {
			name = strings.Replace(in.Name, "in_", "out_", 1)
		}
		a.Outputs = append(a.Outputs, &pb.ModelInferResponse_InferOutputTensor{Name: name, Datatype: in.Datatype, Shape: in.Shape})
		a.RawOutputContents = append(a.RawOutputContents, r.RawInputContents[i])
	}
	return a
}

// serveREST answers HTTP like the server over gRPC.
func (f *fake) serveREST(w http.ResponseWriter, r *http.Request) {
	put := func(status int, v any) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case r.URL.Path == "/v2":
		put(http.StatusOK, map[string]any{"name": "fake", "extensions": []string{"binary_tensor_data"}})
	case r.URL.Path == "/v2/health/ready":
		if f.unready.Load() {
			put(http.StatusServiceUnavailable, map[string]string{"error": "not ready"})
		}
	case len(parts) == 4 && parts[3] == "ready":
		if strings.HasPrefix(parts[2], "unknown") {
			put(http.StatusNotFound, map[string]string{"error": "Request for unknown model: '" + parts[2] + "' is not found"})
		}
	case len(parts) == 3:
		put(http.StatusOK, modelMetadataOf(parts[2]))
	case len(parts) == 4 && parts[3] == "infer":
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		header := v2.WholeBody
		if field := r.Header.Get(headerLength); field != "" {
			header, _ = strconv.Atoi(field)
		}
		asked, err := v2.ParseRequest(body, header, 1<<30)
		if err != nil {
			put(http.StatusBadRequest, map[string]string{"error": err.Error()})
			return
		}
		message := &pb.ModelInferRequest{ModelName: parts[2], Id: asked.ID}
		for _, t := range asked.Inputs {
			message.Inputs = append(message.Inputs, &pb.ModelInferRequest_InferInputTensor{Name: t.Name, Datatype: string(t.Datatype), Shape: t.Shape})
			message.RawInputContents = append(message.RawInputContents, t.Data)
		}
		answers, err := f.answer(metadata.NewIncomingContext(r.Context(), metadata.Pairs("authorization", r.Header.Get("Authorization"), "traceparent", r.Header.Get("Traceparent"))), message)
		if err != nil {
			put(cmp.Or(map[codes.Code]int{codes.InvalidArgument: 400}[status.Code(err)], http.StatusInternalServerError), map[string]string{"error": status.Convert(err).Message()})
			return
		}
		resp := v2.Response{Model: parts[2], ID: asked.ID}
		for i, o := range answers[0].Outputs {
			resp.Outputs = append(resp.Outputs, engine.Tensor{Name: o.Name, Datatype: engine.Datatype(o.Datatype), Shape: o.Shape, Data: answers[0].RawOutputContents[i]})
		}
		asked.Outputs = nil
		body, length, err := resp.Append(nil, asked)
		if err != nil {
			put(http.StatusInternalServerError, map[string]string{"error": err.Error()})
			return
		}
		if length != v2.WholeBody {
			w.Header().Set(headerLength, strconv.Itoa(length))
		}
		_, _ = w.Write(body)
	default:
		http.NotFound(w, r)
	}
}

// startREST starts a server over HTTP.
func startREST(tb testing.TB, f *fake) (address string) {
	tb.Helper()
	server := httptest.NewServer(http.HandlerFunc(f.serveREST))
	tb.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// run runs an engine.
func run(tb testing.TB, o Options) *Engine {
	tb.Helper()
	e := New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = e.Run(ctx, nil)
	}()
	tb.Cleanup(func() {
		cancel()
		<-done
	})
	return e
}

// specOf is an endpoint of the engine v2.
func specOf(model string, settings map[string]any) engine.Spec {
	aux := map[string]any{"model": model}
	maps.Copy(aux, settings)
	return engine.Spec{URL: serving.EndpointURL(model), Endpoint: serving.Endpoint{EngineType: serving.EngineV2, ServingURL: model, AuxiliaryCfg: aux}}
}

func loaded(tb testing.TB, e *Engine, spec engine.Spec) engine.Model {
	tb.Helper()
	m, err := e.Load(context.Background(), spec)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = m.Close(context.Background()) })
	return m
}
