package grpcfront_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"clearmlserving/inference"
	"clearmlserving/inference/grpcfront"
	"clearmlserving/inference/grpcfront/pb"
	"clearmlserving/inference/grpcfront/pb/repository"
)

func TestTheServerAndItsModelsAreDescribed(t *testing.T) {
	r := start(t, func(_ *inference.Options, f *grpcfront.Options) { f.Version = "1.2.3" }, "echo", "echo/2", "seen", "broken")
	var server pb.ServerMetadataResponse
	if err := r.call(t, "ServerMetadata", &pb.ServerMetadataRequest{}, &server); err != nil || server.GetName() != "clearml-serving" || server.GetVersion() != "1.2.3" || !slices.Contains(server.GetExtensions(), "statistics") {
		t.Errorf("%v %v", &server, err)
	}
	var m pb.ModelMetadataResponse
	if err := r.call(t, "ModelMetadata", &pb.ModelMetadataRequest{Name: "echo"}, &m); err != nil || !slices.Equal(m.GetVersions(), []string{"1", "2"}) ||
		m.GetInputs()[0].GetName() != "x" || m.GetInputs()[0].GetDatatype() != "FP32" || !slices.Equal(m.GetInputs()[0].GetShape(), []int64{-1, 2}) || m.GetOutputs()[0].GetName() != "y" {
		t.Errorf("%v %v", &m, err)
	}
	var c pb.ModelConfigResponse
	if err := r.call(t, "ModelConfig", &pb.ModelConfigRequest{Name: "echo", Version: "2"}, &c); err != nil || c.GetConfig().GetName() != "echo" || c.GetConfig().GetMaxBatchSize() < 1 ||
		c.GetConfig().GetInput()[0].GetDataType() != pb.DataType_TYPE_FP32 || !slices.Equal(c.GetConfig().GetInput()[0].GetDims(), []int64{2}) {
		t.Errorf("%v %v", &c, err)
	}
	for range 3 {
		if _, err := r.infer(t, floats("echo", 1, 2)); err != nil {
			t.Fatal(err)
		}
	}
	var s pb.ModelStatisticsResponse
	if err := r.call(t, "ModelStatistics", &pb.ModelStatisticsRequest{Name: "echo"}, &s); err != nil || len(s.GetModelStats()) != 1 {
		t.Fatalf("%v %v", &s, err)
	}
	if one := s.GetModelStats()[0]; one.GetInferenceCount() != 3 || one.GetInferenceStats().GetSuccess().GetCount() != 3 || one.GetInferenceStats().GetComputeInput().GetNs() == 0 || one.GetInferenceStats().GetComputeOutput().GetNs() == 0 || one.GetLastInference() == 0 {
		t.Errorf("%v", one)
	}
	if err := r.call(t, "ModelStatistics", &pb.ModelStatisticsRequest{}, &s); err != nil || len(s.GetModelStats()) != 3 {
		t.Errorf("all: %v %v", &s, err)
	}
	var ready pb.ModelReadyResponse
	for name, want := range map[string]bool{"echo": true, "broken": false} {
		if err := r.call(t, "ModelReady", &pb.ModelReadyRequest{Name: name}, &ready); err != nil || ready.GetReady() != want {
			t.Errorf("%s: %v %v", name, &ready, err)
		}
	}
	for method, q := range map[string]proto.Message{
		"ModelMetadata": &pb.ModelMetadataRequest{Name: "nobody"}, "ModelConfig": &pb.ModelConfigRequest{Name: "nobody"},
		"ModelStatistics": &pb.ModelStatisticsRequest{Name: "nobody"}, "ModelReady": &pb.ModelReadyRequest{Name: "nobody"},
	} {
		is(t, method, r.call(t, method, q, new(pb.ServerLiveResponse)), codes.NotFound, "'nobody' not found")
	}
}

func TestStatisticsHaveTheSizesOfBatches(t *testing.T) {
	r := start(t, nil, "batched", "echo")
	for name, want := range map[string]int{"batched": 2, "echo": 0} {
		var s pb.ModelStatisticsResponse
		if err := r.call(t, "ModelStatistics", &pb.ModelStatisticsRequest{Name: name}, &s); err != nil {
			t.Fatal(err)
		}
		batches := s.GetModelStats()[0].GetBatchStats()
		if len(batches) != want {
			t.Fatalf("%s: %v", name, batches)
		}
		if want == 0 {
			continue
		}
		if b := batches[1]; b.GetBatchSize() != 7 || b.GetComputeInfer().GetCount() != 1 || b.GetComputeInfer().GetNs() != 6 || b.GetComputeInput().GetCount() != 1 {
			t.Errorf("%v", b)
		}
	}
}

func TestModelsAreListedButNotChanged(t *testing.T) {
	r := start(t, nil, "echo", "seen/3", "broken")
	var index pb.RepositoryIndexResponse
	var other repository.RepositoryIndexResponse
	if err := r.call(t, "RepositoryIndex", &pb.RepositoryIndexRequest{}, &index); err != nil || len(index.GetModels()) != 3 {
		t.Fatalf("%v %v", &index, err)
	}
	if m := index.GetModels(); m[0].GetName() != "broken" || m[0].GetState() != "UNAVAILABLE" || !strings.Contains(m[0].GetReason(), "NameError") || m[2].GetName() != "seen" || m[2].GetVersion() != "3" || m[2].GetState() != "READY" {
		t.Errorf("%v", m)
	}
	const mlserver = "/inference.model_repository.ModelRepositoryService/"
	if err := r.Invoke(t.Context(), mlserver+"RepositoryIndex", &repository.RepositoryIndexRequest{Ready: true}, &other); err != nil || len(other.GetModels()) != 2 {
		t.Errorf("%v %v", &other, err)
	}
	for method, q := range map[string]proto.Message{
		"/inference.GRPCInferenceService/RepositoryModelLoad":   &pb.RepositoryModelLoadRequest{ModelName: "echo"},
		"/inference.GRPCInferenceService/RepositoryModelUnload": &pb.RepositoryModelUnloadRequest{RepositoryName: "echo"}, // as KServe's clients
		mlserver + "RepositoryModelLoad":                        &repository.RepositoryModelLoadRequest{ModelName: "echo"},
		mlserver + "RepositoryModelUnload":                      &repository.RepositoryModelUnloadRequest{ModelName: "echo"},
	} {
		err := r.Invoke(t.Context(), method, q, new(pb.RepositoryModelLoadResponse))
		is(t, method, err, codes.PermissionDenied, "'echo' cannot be changed here")
	}
}

func TestTheHealthOfEndpointsIsThatOfServices(t *testing.T) {
	r := start(t, nil, "echo", "broken")
	health := healthpb.NewHealthClient(r)
	for name, want := range map[string]healthpb.HealthCheckResponse_ServingStatus{
		"": healthpb.HealthCheckResponse_SERVING, "inference.GRPCInferenceService": healthpb.HealthCheckResponse_SERVING,
		"echo": healthpb.HealthCheckResponse_SERVING, "broken": healthpb.HealthCheckResponse_NOT_SERVING,
	} {
		if got, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: name}); err != nil || got.GetStatus() != want {
			t.Errorf("%q: %v %v", name, got, err)
		}
	}
	_, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "nobody"})
	is(t, "an unknown service", err, codes.NotFound, "'nobody' is not configured")
	all, err := health.List(t.Context(), &healthpb.HealthListRequest{})
	if err != nil || len(all.GetStatuses()) != 5 || all.GetStatuses()["broken"].GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("%v %v", all, err)
	}
	watch, err := health.Watch(t.Context(), &healthpb.HealthCheckRequest{Service: "nobody"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := watch.Recv(); err != nil || got.GetStatus() != healthpb.HealthCheckResponse_SERVICE_UNKNOWN {
		t.Errorf("a watched unknown service: %v %v", got, err)
	}
}

func TestAStoppingInstanceTellsItsWatchersAndFinishesItsRequests(t *testing.T) {
	r := start(t, func(_ *inference.Options, f *grpcfront.Options) { f.DrainDelay = 3 * time.Second }, "waits", "echo")
	watch, err := healthpb.NewHealthClient(r).Watch(context.Background(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := watch.Recv(); err != nil || got.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("%v %v", got, err)
	}
	idle := r.stream(t)
	send(t, idle, floats("echo", 1, 2))
	if _, err := next(t, idle); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()
	if got, err := watch.Recv(); err != nil || got.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("%v %v", got, err)
	}
	if _, err := r.infer(t, floats("echo", 1, 2)); err != nil { // balancers have not noticed yet
		t.Errorf("while it lingers: %v", err)
	}
	_, err = watch.Recv()
	is(t, "a watcher", err, codes.Unavailable, "stopping")
	_, err = next(t, idle)
	is(t, "an idle stream", err, codes.Unavailable, "stopping")
	if err := within(t, "the stop", stopped); err != nil {
		t.Error(err)
	}
}

func TestTheServicesAreReflected(t *testing.T) {
	r := start(t, nil)
	s, err := reflectionpb.NewServerReflectionClient(r).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(q *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
		t.Helper()
		if err := s.Send(q); err != nil {
			t.Fatal(err)
		}
		a, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	listed := ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
	var names []string
	for _, service := range listed.GetListServicesResponse().GetService() {
		names = append(names, service.GetName())
	}
	for _, want := range []string{"grpc.health.v1.Health", "inference.GRPCInferenceService", "inference.model_repository.ModelRepositoryService"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not listed: %v", want, names)
		}
	}
	// A client without our .proto files finds every method, and the messages that it takes.
	found := ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "inference.GRPCInferenceService"}})
	messages := map[string]bool{}
	var methods []string
	for _, b := range found.GetFileDescriptorResponse().GetFileDescriptorProto() {
		var file descriptorpb.FileDescriptorProto
		if err := proto.Unmarshal(b, &file); err != nil {
			t.Fatal(err)
		}
		for _, m := range file.GetMessageType() {
			messages["."+file.GetPackage()+"."+m.GetName()] = true
		}
		for _, service := range file.GetService() {
			for _, m := range service.GetMethod() {
				methods = append(methods, m.GetName())
				defer func() {
					if !messages[m.GetInputType()] || !messages[m.GetOutputType()] {
						t.Errorf("%s: %s or %s is not described", m.GetName(), m.GetInputType(), m.GetOutputType())
					}
				}()
			}
		}
	}
	if len(methods) != 12 {
		t.Errorf("methods: %v", methods)
	}
	for _, method := range methods { // each is there
		err := r.call(t, method, &pb.ServerLiveRequest{}, new(pb.ServerLiveResponse))
		if err != nil && strings.Contains(err.Error(), "unknown method") {
			t.Error(err)
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}
