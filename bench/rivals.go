package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
)

// The names of the measured servers.
const (
	ours       = "ours"
	original   = "original"
	originalGC = "original without garbage collector"
	fastAPI    = "fastapi"
	mosec      = "mosec"
	mlServer   = "mlserver"
	litServe   = "litserve"
	bentoML    = "bentoml"
	coglet     = "coglet"
	triton     = "triton"
	torchServe = "torchserve"
	llamaCpp   = "llama.cpp"
	standIn    = "stand-in"
)

// deployment is the endpoints of a server, and its number of processes.
type deployment struct {
	names   []string // of endpoints; "name=lr" is lr under another name
	workers int
	port    int // 0 for a free one
	env     []string
}

// side is one of the measured servers.
type side struct {
	name  string
	start func(ctx context.Context, b *bench, d deployment) (*server, error)
	path  string // of an endpoint, with %s for its name
	// shared means that its processes accept from one socket, so that connections are uneven: the
	// load generator spreads them.
	shared bool
	// ids means that each answer has its own id.
	ids bool
	// body converts a request to the server's own protocol; nil keeps it.
	body func(endpoint string, body []byte) ([]byte, error)
	// answer extracts our answer from the server's own protocol; nil keeps it.
	answer func(text []byte) (any, error)
	// values: its answer is the value of our "y", not our whole answer.
	values bool
}

var sides = []side{
	{name: ours, start: startOurs, path: "/serve/%s"},
	{name: original, start: startOriginal, path: "/serve/%s", shared: true},
	{name: originalGC, start: startOriginalWithoutGC, path: "/serve/%s", shared: true},
	{name: fastAPI, start: startFastAPI, path: "/%s", shared: true},
	{name: mosec, start: startMosec, path: "/%s"},
	{name: mlServer, start: startMLServer, path: "/v2/models/%s/infer", ids: true, body: asV2, answer: fromV2, values: true},
	{name: litServe, start: startLitServe, path: "/%s", shared: true},
	{name: bentoML, start: startBentoML, path: "/%s", shared: true},
	{name: coglet, start: startCoglet, path: "/predictions%.0s", ids: true, body: asCog, answer: fromCog},
	{name: triton, start: startTriton, path: "/v2/models/%s/infer"},
	{name: torchServe, start: startTorchServe},
	{name: llamaCpp, start: startLlama},
	{name: standIn, start: startStandIn},
}

// startOriginal starts the original as its container does.
func startOriginal(ctx context.Context, b *bench, d deployment) (*server, error) {
	id, err := b.deploy(ctx, d.names)
	if err != nil {
		return nil, err
	}
	port := d.port
	if port == 0 {
		if port, err = freePort(); err != nil {
			return nil, err
		}
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	args := []string{"-m", "uvicorn", "clearml_serving.serving.main:app", "--host", "127.0.0.1", "--port", strconv.Itoa(port), "--loop", "uvloop", "--log-level", "warning"}
	if d.workers > 1 {
		args = []string{
			"-m", "gunicorn", "--preload", "clearml_serving.serving.main:app", "--workers", strconv.Itoa(d.workers),
			"--worker-class", "uvicorn_worker.UvicornWorker", "--timeout", "600", "--log-level", "warning", "--bind", address,
		}
	}
	env := append([]string{oneThread, "CLEARML_SERVING_TASK_ID=" + id, "UVICORN_SERVE_LOOP=uvloop"}, b.environ...)
	s, err := start(filepath.Join(b.dir, "servers"), "original.log", append(env, d.env...), filepath.Join(b.root, ".venv-bench-original/bin/python"), args...)
	if err != nil {
		return nil, err
	}
	s.url = "http://" + address
	return s, s.wait(ctx, pollEvery, func() error { return get(ctx, s.url+"/openapi.json") })
}

// startOriginalWithoutGC shows the part of Python's garbage collector in the original's tail
// latency.
func startOriginalWithoutGC(ctx context.Context, b *bench, d deployment) (*server, error) {
	d.env = append(d.env, "PYTHONPATH="+filepath.Join(b.root, "bench/rivals/without_gc"))
	return startOriginal(ctx, b, d)
}

func startFastAPI(ctx context.Context, b *bench, d deployment) (*server, error) {
	return startRival(ctx, b, d, fastAPI, "/openapi.json", func(port string) []string {
		return []string{
			"-m", "uvicorn", "server:app", "--port", port, "--workers", strconv.Itoa(d.workers),
			"--loop", "uvloop", "--http", "httptools", "--log-level", "warning", "--no-access-log",
		}
	})
}

func startMosec(ctx context.Context, b *bench, d deployment) (*server, error) {
	return startRival(ctx, b, d, mosec, "/", func(port string) []string {
		return []string{filepath.Join(b.root, "bench/rivals/mosec/server.py"), "--address", "127.0.0.1", "--port", port, "--log-level", "warning", "--timeout", "60000", "--capacity", "2048"}
	})
}

func startLitServe(ctx context.Context, b *bench, d deployment) (*server, error) {
	return startRival(ctx, b, d, litServe, "/health", func(port string) []string {
		return []string{filepath.Join(b.root, "bench/rivals/litserve/server.py"), port}
	})
}

func startBentoML(ctx context.Context, b *bench, d deployment) (*server, error) {
	return startRival(ctx, b, d, bentoML, "/readyz", func(port string) []string {
		return []string{"-m", "bentoml", "serve", "service:Bench", "--host", "127.0.0.1", "--port", port, "--working-dir", filepath.Join(b.root, "bench/rivals/bentoml")}
	})
}

func startCoglet(ctx context.Context, b *bench, d deployment) (*server, error) {
	// It starts "python" from the PATH.
	d.env = append(d.env, "PATH="+filepath.Join(b.root, ".venv-bench-coglet/bin")+":"+os.Getenv("PATH"), "COG_MAX_CONCURRENCY=256", "COG_LOG_LEVEL=error")
	return startRival(ctx, b, d, coglet, "/health-check", func(port string) []string {
		return []string{filepath.Join(b.root, "bench/rivals/coglet/server.py"), port}
	})
}

// asCog is the body of a request to coglet's only predictor.
func asCog(endpoint string, body []byte) ([]byte, error) {
	return json.Marshal(map[string]any{"input": map[string]any{"case": endpoint, "data": json.RawMessage(body)}})
}

func fromCog(text []byte) (any, error) {
	var answer struct{ Output any }
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, err
	}
	return answer.Output, nil
}

func startTriton(ctx context.Context, b *bench, d deployment) (*server, error) {
	return startV2(ctx, b, d, triton)
}

func startMLServer(ctx context.Context, b *bench, d deployment) (*server, error) {
	return startV2(ctx, b, d, mlServer)
}

// startV2 starts a server whose start.py takes a folder and a port, and which has gRPC at the next port.
func startV2(ctx context.Context, b *bench, d deployment, name string) (*server, error) {
	var grpc string
	s, err := startRival(ctx, b, d, name, "/v2/health/ready", func(port string) []string {
		number, _ := strconv.Atoi(port) // startRival has made it
		grpc = fmt.Sprintf("grpc://127.0.0.1:%d", number+1)
		return []string{filepath.Join(b.root, "bench/rivals", name, "start.py"), filepath.Join(b.dir, "servers", name), port}
	})
	if err == nil {
		s.grpc = grpc
	}
	return s, err
}

// startRival starts a server of bench/rivals in its own environment.
func startRival(ctx context.Context, b *bench, d deployment, name, ready string, args func(port string) []string) (*server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	folder := filepath.Join(b.root, "bench/rivals")
	s, err := start(filepath.Join(b.dir, "servers"), name+".log", append([]string{
		oneThread, "PYTHONDONTWRITEBYTECODE=1", "PYTHONPATH=" + folder + ":" + filepath.Join(folder, name),
		"HOME=" + filepath.Join(b.dir, "home"), "BENTOML_DO_NOT_TRACK=True",
		"BENCH_ROOT=" + b.root, "BENCH_MODELS=" + b.models(), "BENCH_WORKERS=" + strconv.Itoa(d.workers), "BENCH_CASES=" + strings.Join(d.names, ","),
	}, d.env...), filepath.Join(b.root, ".venv-bench-"+name, "bin/python"), args(strconv.Itoa(port))...)
	if err != nil {
		return nil, err
	}
	s.url = fmt.Sprintf("http://127.0.0.1:%d", port)
	return s, s.wait(ctx, pollEvery, func() error { return get(ctx, s.url+ready) })
}

// asV2 is the same numbers in MLServer's protocol.
func asV2(_ string, body []byte) ([]byte, error) {
	m, err := matrixOf(body)
	if err != nil {
		return nil, err
	}
	o, err := v2JSON.request("", "", "", input{name: "x"}, m)
	return o.Body, err
}

func fromV2(text []byte) (any, error) {
	var v2 struct {
		Outputs []struct{ Data []any }
	}
	if err := json.Unmarshal(text, &v2); err != nil {
		return nil, err
	}
	if len(v2.Outputs) != 1 {
		return nil, fmt.Errorf("%d outputs", len(v2.Outputs))
	}
	return v2.Outputs[0].Data, nil
}

// same compares an answer with ours by value, because servers format JSON differently.
func (s *side) same(got, want []byte) error {
	var a any
	var b map[string]any
	err := errors.Join(json.Unmarshal(got, &a), json.Unmarshal(want, &b))
	expect := any(b)
	if err == nil && s.answer != nil {
		if a, err = s.answer(got); err == nil && s.values {
			expect = b["y"]
			if _, list := expect.([]any); !list {
				expect = []any{expect}
			}
		}
	}
	if err != nil {
		return fmt.Errorf("compare %.200s with %.200s: %w", got, want, err)
	}
	if !reflect.DeepEqual(a, expect) {
		return fmt.Errorf("answered %.300s, ours %.300s", got, want)
	}
	return nil
}
