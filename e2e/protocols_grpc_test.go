//go:build linux

package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

// grpcAddress is the address for gRPC clients.
func (s *system) grpcAddress() string { return strings.TrimPrefix(s.urls["grpc"], "grpc://") }

// judgeGRPC runs a script of a gRPC client in its environment.
func (s *system) judgeGRPC(t *testing.T, environment, script string) {
	t.Helper()
	python := filepath.Join(root, ".venv-"+environment, "bin/python")
	if _, err := os.Stat(python); err != nil {
		t.Fatalf("no .venv-%s: make e2e-protocols", environment)
	}
	s.python(t, python, filepath.Join(root, "e2e/testdata/protocols", script), s.grpcAddress())
}

func TestProtocolsNvidiasClientGetsRightAnswersOverGRPC(t *testing.T) {
	s := openProtocols(t)
	s.judgeGRPC(t, "v2-triton", "judge_tritonclient_grpc.py")
	s.sameMessages(t)
}

func TestProtocolsOtherClientsGetRightAnswersOverGRPC(t *testing.T) {
	needsProtocols(t)
	s := openProtocols(t)
	t.Run("kserve", func(t *testing.T) { s.judgeGRPC(t, "v2-kserve", "judge_kserve_grpc.py") })
	t.Run("mlserver", func(t *testing.T) { s.judgeGRPC(t, "v2-mlserver", "judge_mlserver_grpc.py") })
	t.Run("open-inference-grpc", func(t *testing.T) { s.judgeGRPC(t, "v2-openinference", "judge_openinference_grpc.py") })
}

// sameMessages compares the messages that the server describes by reflection with those of NVIDIA's client: a field
// of the same name has the same number and type.
func (s *system) sameMessages(t *testing.T) {
	t.Helper()
	type field struct {
		number string
		kind   string
		many   bool
	}
	theirs := map[string]field{}
	lines := bufio.NewScanner(strings.NewReader(s.python(t, filepath.Join(root, ".venv-v2-triton/bin/python"), filepath.Join(root, "e2e/testdata/protocols/descriptors.py"))))
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		theirs[words[0]+" "+words[1]] = field{words[2], words[3], words[4] == "True"}
	}
	others := map[string]bool{ // fields that MLServer and KServe have added
		".inference.ModelMetadataResponse parameters": true, ".inference.ModelMetadataResponse.TensorMetadata parameters": true,
		".inference.RepositoryModelLoadResponse model_name": true, ".inference.RepositoryModelLoadResponse is_loaded": true,
		".inference.RepositoryModelUnloadResponse model_name": true, ".inference.RepositoryModelUnloadResponse is_unloaded": true,
	}
	compared := 0
	var compare func(m *descriptorpb.DescriptorProto, path string)
	compare = func(m *descriptorpb.DescriptorProto, path string) {
		for _, f := range m.GetField() {
			kind := f.GetTypeName()
			if kind == "" {
				kind = f.GetType().String()
			}
			name := path + " " + f.GetName()
			ours := field{strconv.Itoa(int(f.GetNumber())), kind, f.GetLabel() == descriptorpb.FieldDescriptorProto_LABEL_REPEATED}
			their, known := theirs[name]
			compared++
			if known && ours != their || !known && !others[name] && !strings.Contains(path, "MetadataResponse.") {
				t.Errorf("%s: %+v, NVIDIA's is %+v", name, ours, their)
			}
		}
		for _, inner := range m.GetNestedType() {
			compare(inner, path+"."+inner.GetName())
		}
	}
	conn, err := grpc.NewClient(s.grpcAddress(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // a test
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	reflected, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := reflected.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "inference.GRPCInferenceService"}}); err != nil {
		t.Fatal(err)
	}
	found, err := reflected.Recv()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range found.GetFileDescriptorResponse().GetFileDescriptorProto() {
		var file descriptorpb.FileDescriptorProto
		if err := proto.Unmarshal(b, &file); err != nil {
			t.Fatal(err)
		}
		for _, m := range file.GetMessageType() {
			compare(m, "."+file.GetPackage()+"."+m.GetName())
		}
	}
	if compared < 100 {
		t.Errorf("only %d fields are described", compared)
	}
}

// TestPerfAnalyzer runs NVIDIA's perf_analyzer, whose command is CLEARML_SERVING_PERF_ANALYZER. Its report has the
// server's times, which it takes from the statistics extension.
func TestPerfAnalyzer(t *testing.T) {
	command := strings.Fields(os.Getenv("CLEARML_SERVING_PERF_ANALYZER"))
	if len(command) == 0 {
		t.Skip("make e2e-perf-analyzer runs it")
	}
	s := openProtocols(t)
	for name, args := range map[string][]string{
		"HTTP":               {"-i", "http", "-u", strings.TrimPrefix(s.urls["serve"], "http://")},
		"gRPC":               {"-i", "grpc", "-u", s.grpcAddress()},
		"gRPC, batches":      {"-i", "grpc", "-u", s.grpcAddress(), "-b", "8"},
		"gRPC, one stream":   {"-i", "grpc", "-u", s.grpcAddress(), "--streaming", "-a"},
		"gRPC, 16 at once":   {"-i", "grpc", "-u", s.grpcAddress(), "-a", "--concurrency-range", "16"},
		"gRPC, a fixed rate": {"-i", "grpc", "-u", s.grpcAddress(), "--request-rate-range", "50"},
	} {
		t.Run(name, func(t *testing.T) {
			// A number of requests, because a busy machine is never stable for a time.
			args := append(append(command[1:len(command):len(command)], "-m", "simple", "--request-count", "200"), args...)
			printed, err := exec.Command(command[0], args...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, printed)
			}
			found := regexp.MustCompile(`Successful request count: (\d+)\s+Avg request latency: (\d+) usec \(overhead \d+ usec \+ queue \d+ usec \+ compute input \d+ usec \+ compute infer (\d+) usec \+ compute output \d+ usec\)`).FindSubmatch(printed)
			if found == nil || string(found[1]) == "0" || string(found[3]) == "0" {
				t.Errorf("no times of the server:\n%s", printed)
				return
			}
			t.Log(string(found[0]))
		})
	}
}

func TestProtocolsNvidiasClientsLoadAndUnloadModels(t *testing.T) {
	s := install(t)
	s.start(t, role{python: filepath.Join(root, ".venv-runtime/bin/python")})
	t.Cleanup(func() { s.stop(t) })
	id := createdID(t, s.must(t, "create"))
	s.must(t, "--id", id, "config", "--model-control", "on")
	flags := tensorFlags("int32", "[-1, 16]", []string{"INPUT0", "INPUT1"}, []string{"OUTPUT0", "OUTPUT1"})
	for _, endpoint := range [][]string{{"simple"}, {"versions", "--version", "1"}, {"versions", "--version", "2"}} {
		args := []string{"--id", id, "model", "add", "--engine", "custom", "--preprocess", filepath.Join(root, "e2e/testdata/protocols/simple.py"), "--wait", "--endpoint"}
		s.must(t, append(append(args, endpoint...), flags...)...)
	}
	s.judge(t, "v2-triton", "judge_model_control.py", strings.TrimPrefix(s.urls["grpc"], "grpc://"))
	// The command line takes back what a client has done.
	if _, text := roundTrip("POST", s.urls["serve"]+"/v2/repository/models/simple/unload", "application/json", nil); !strings.Contains(text, `"unload":true`) {
		t.Error(text)
	}
	s.eventually(t, patience, "the list tells it", func() error {
		if text := s.must(t, "--id", id, "model", "list", "--verbose"); !strings.Contains(text, "unloaded by a client at") {
			return errors.New(text)
		}
		return nil
	})
	s.must(t, "--id", id, "model", "load", "--endpoint", "simple", "--wait")
	if status, text := roundTrip("GET", s.urls["serve"]+"/v2/models/simple/ready", "", nil); status != 200 {
		t.Errorf("%d %s", status, text)
	}
}
