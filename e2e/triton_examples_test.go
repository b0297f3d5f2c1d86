//go:build tritonexamples

package e2e_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// examples is the folder src/python/examples of a checkout of NVIDIA's client. No package has them, so that these
// tests are built by make e2e-triton-examples only.
func examples(t *testing.T) string {
	t.Helper()
	folder := os.Getenv("CLEARML_SERVING_TRITON_EXAMPLES")
	if folder == "" {
		t.Fatal("CLEARML_SERVING_TRITON_EXAMPLES names no folder")
	}
	return folder
}

// httpExamples are the examples of NVIDIA's client for HTTP with the arguments that they need, and what becomes of
// them. grpcExamples are those for gRPC.
var httpExamples = []struct {
	command string
	works   bool
}{
	{"simple_http_infer_client.py", true},
	{"simple_http_infer_client.py --request-compression-algorithm gzip --response-compression-algorithm gzip", true},
	{"simple_http_aio_infer_client.py", true},
	{"simple_http_async_infer_client.py", true},
	{"simple_http_string_infer_client.py", true},
	{"simple_http_sequence_sync_infer_client.py", true},
	{"simple_http_sequence_sync_infer_client.py --dyna", true},
	{"simple_http_health_metadata.py", false}, // it wants the server's name to be triton
	{"simple_http_model_control.py", false},   // models are loaded by the configuration
	{"simple_http_shm_client.py", false},      // no shared memory of clients
	{"simple_http_shm_string_client.py", false},
	{"simple_http_cudashm_client.py", false},
	{"reuse_infer_objects_client.py", false},
}

func TestTritonExamplesOverHTTP(t *testing.T) {
	s := openProtocols(t)
	address, err := net.ResolveTCPAddr("tcp", strings.TrimPrefix(s.urls["serve"], "http://"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range httpExamples {
		words := strings.Fields(e.command)
		cmd := exec.Command(filepath.Join(root, ".venv-v2-triton/bin/python"), append(words, "--url", address.String())...)
		cmd.Dir = examples(t)
		printed, err := cmd.CombinedOutput()
		if (err == nil) != e.works {
			t.Errorf("%s: %v\n%s", e.command, err, printed)
		}
	}
}

// grpcExamples are the examples of NVIDIA's client for gRPC with the arguments that they need, and what becomes of them.
var grpcExamples = []struct {
	command string
	works   bool
}{
	{"grpc_client.py", true},
	{"grpc_explicit_byte_content_client.py", true},
	{"grpc_explicit_int8_content_client.py", true},
	{"grpc_explicit_int_content_client.py", true},
	{"simple_grpc_aio_infer_client.py", true},
	{"simple_grpc_aio_sequence_stream_infer_client.py", true},
	{"simple_grpc_aio_sequence_stream_infer_client.py --dyna", true},
	{"simple_grpc_async_infer_client.py", true},
	{"simple_grpc_custom_args_client.py", true},
	{"simple_grpc_custom_repeat.py", true},
	{"simple_grpc_infer_client.py", true},
	{"simple_grpc_infer_client.py -C gzip", true},
	{"simple_grpc_keepalive_client.py", true},
	{"simple_grpc_sequence_stream_infer_client.py", true},
	{"simple_grpc_sequence_stream_infer_client.py --dyna", true},
	{"simple_grpc_sequence_sync_infer_client.py", true},
	{"simple_grpc_sequence_sync_infer_client.py --dyna", true},
	{"simple_grpc_string_infer_client.py", true},
	{"simple_grpc_health_metadata.py", false}, // it wants the server's name to be triton
	{"simple_grpc_model_control.py", false},   // models are loaded by the configuration
	{"simple_grpc_shm_client.py", false},      // no shared memory of clients
	{"simple_grpc_shm_string_client.py", false},
	{"simple_grpc_cudashm_client.py", false},
}

func TestTritonExamplesOverGRPC(t *testing.T) {
	s := openProtocols(t)
	for _, e := range grpcExamples {
		cmd := exec.Command(filepath.Join(root, ".venv-v2-triton/bin/python"), append(strings.Fields(e.command), "-u", s.grpcAddress())...)
		cmd.Dir = examples(t)
		printed, err := cmd.CombinedOutput()
		if (err == nil) != e.works {
			t.Errorf("%s: %v\n%s", e.command, err, printed)
		}
	}
}
