package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"clearmlserving/inference/grpcfront/pb"
)

// standTriton is a server of the V2 protocol over HTTP and gRPC, with Triton's control of its models. Each doubles its input.
type standTriton struct {
	s          *standIn
	repository string // "": it has every model

	mu     sync.Mutex
	loaded map[string]bool
}

// standForTriton stands for tritonserver, with its flags.
func standForTriton(s *standIn, args []string) error {
	flags := map[string]string{}
	for _, arg := range args {
		name, value, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		flags[name] = value
	}
	t := &standTriton{s: s, repository: flags["model-repository"], loaded: map[string]bool{}}
	at := func(port string) string { return net.JoinHostPort("127.0.0.1", port) }
	return s.serve(http.HandlerFunc(t.answer), []string{at(flags["http-port"]), at(flags["metrics-port"])}, t.call, []string{at(flags["grpc-port"])})
}

// has reports whether it serves a model.
func (t *standTriton) has(model string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.repository == "" || t.loaded[model]
}

func (t *standTriton) answer(w http.ResponseWriter, r *http.Request) {
	put := func(v any) { _ = json.NewEncoder(w).Encode(v) } // the client may be gone
	refuse := func(code int, text string) {
		w.WriteHeader(code)
		put(map[string]string{"error": text})
	}
	model, action, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/models/"), "/")
	switch {
	case r.URL.Path == "/v2":
		put(map[string]any{"name": "triton", "extensions": []string{}})
	case strings.HasPrefix(r.URL.Path, "/v2/repository/"):
		t.control(strings.TrimPrefix(r.URL.Path, "/v2/repository/"), put, refuse)
	case !strings.HasPrefix(r.URL.Path, "/v2/models/"): // questions whether it is there
	case !t.has(model):
		refuse(http.StatusNotFound, fmt.Sprintf("Request for unknown model: '%s' is not found", model))
	case action == "":
		put(map[string]any{"name": model, "inputs": []any{standTensor("x", nil)}, "outputs": []any{standTensor("y", nil)}})
	case action == "infer":
		var asked struct {
			Inputs []struct{ Data []float64 }
		}
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err != nil || json.Unmarshal(body, &asked) != nil || len(asked.Inputs) != 1 || len(asked.Inputs[0].Data) != 1 {
			refuse(http.StatusBadRequest, "no input of one number")
			return
		}
		t.s.compute(r.Context())
		put(map[string]any{"model_name": model, "outputs": []any{standTensor("y", []float64{2 * asked.Inputs[0].Data[0]})}})
	}
}

// standTensor is a tensor over HTTP.
func standTensor(name string, data []float64) map[string]any {
	tensor := map[string]any{"name": name, "datatype": "FP32", "shape": []int{1, 1}}
	if data != nil {
		tensor["data"] = data
	}
	return tensor
}

// control answers what Triton's control of models is asked.
func (t *standTriton) control(path string, put func(any), refuse func(int, string)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := []any{}
	for model := range t.loaded {
		list = append(list, map[string]string{"name": model, "version": "1", "state": "READY"})
	}
	if path == "index" {
		put(list)
		return
	}
	model, action, _ := strings.Cut(strings.TrimPrefix(path, "models/"), "/")
	switch action {
	case "load":
		if _, err := os.Stat(filepath.Join(t.repository, model, "config.pbtxt")); err != nil {
			refuse(http.StatusBadRequest, err.Error())
			return
		}
		t.loaded[model] = true
	case "unload":
		delete(t.loaded, model)
	default:
		refuse(http.StatusNotFound, "no such action")
	}
}

// call answers over gRPC.
func (t *standTriton) call(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	about := func(r interface {
		proto.Message
		GetName() string
	}, answer func(model string) proto.Message,
	) error {
		if err := stream.RecvMsg(r); err != nil {
			return err
		}
		if !t.has(r.GetName()) {
			return status.Errorf(codes.NotFound, "Request for unknown model: '%s' is not found", r.GetName())
		}
		return stream.SendMsg(answer(r.GetName()))
	}
	tensor := func(name string) []*pb.ModelMetadataResponse_TensorMetadata {
		return []*pb.ModelMetadataResponse_TensorMetadata{{Name: name, Datatype: "FP32", Shape: []int64{1, 1}}}
	}
	switch method[strings.LastIndex(method, "/")+1:] {
	case "ServerReady":
		if err := stream.RecvMsg(&pb.ServerReadyRequest{}); err != nil {
			return err
		}
		return stream.SendMsg(&pb.ServerReadyResponse{Ready: true})
	case "ModelReady":
		return about(&pb.ModelReadyRequest{}, func(string) proto.Message { return &pb.ModelReadyResponse{Ready: true} })
	case "ModelMetadata":
		return about(&pb.ModelMetadataRequest{}, func(model string) proto.Message {
			return &pb.ModelMetadataResponse{Name: model, Inputs: tensor("x"), Outputs: tensor("y")}
		})
	case "ModelInfer":
		return t.infer(stream)
	}
	return status.Errorf(codes.Unimplemented, "unknown method %s", method)
}

func (t *standTriton) infer(stream grpc.ServerStream) error {
	var r pb.ModelInferRequest
	if err := stream.RecvMsg(&r); err != nil {
		return err
	}
	if !t.has(r.ModelName) {
		return status.Errorf(codes.NotFound, "Request for unknown model: '%s' is not found", r.ModelName)
	}
	if len(r.RawInputContents) != 1 || len(r.RawInputContents[0]) != 4 {
		return status.Error(codes.InvalidArgument, "no input of one number")
	}
	t.s.compute(stream.Context())
	x := math.Float32frombits(binary.LittleEndian.Uint32(r.RawInputContents[0]))
	return stream.SendMsg(&pb.ModelInferResponse{
		ModelName: r.ModelName, Outputs: []*pb.ModelInferResponse_InferOutputTensor{{Name: "y", Datatype: "FP32", Shape: []int64{1, 1}}},
		RawOutputContents: [][]byte{binary.LittleEndian.AppendUint32(nil, math.Float32bits(2*x))},
	})
}
