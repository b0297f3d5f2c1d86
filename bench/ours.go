package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// bench is shared by all measurements: the embedded control plane, which ours and the original use,
// the models, and the deployments.
type bench struct {
	plan     plan
	root     string // of the checkout
	dir      string // all output of a run
	binary   string
	environ  []string // the control plane's address and credentials for the SDK and for us
	lock     *os.File // held during the run
	control  *server
	services map[string]string // id of the serving service, by what it serves
	versions map[string]string
}

// The numerical libraries of every server use one thread per process, because rows are few.
const oneThread = "OMP_NUM_THREADS=1"

// prepare starts the control plane and trains the models.
func prepare(ctx context.Context, p plan) (_ *bench, err error) {
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	b := &bench{plan: p, root: root, dir: filepath.Join(root, "bench/.work"), binary: filepath.Join(root, "bin/clearml-serving"), services: map[string]string{}}
	if b.lock, err = lock(b.dir); err != nil {
		return nil, err
	}
	for _, old := range []string{"data", "ours", "servers", "home"} { // the models stay
		if err := os.RemoveAll(filepath.Join(b.dir, old)); err != nil {
			return nil, err
		}
	}
	for _, made := range []string{"models", "servers", "home"} {
		if err := os.MkdirAll(filepath.Join(b.dir, made), 0o755); err != nil {
			return nil, err
		}
	}
	say("setting up: the control plane and the models")
	if b.control, err = b.startControl(ctx); err != nil {
		return nil, err
	}
	if err := b.setUp(ctx); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *bench) close() error { return errors.Join(b.control.stop(), b.lock.Close()) }

// lock keeps a second run out of the folder: the two would disturb and remove each other's data.
func lock(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	file, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another benchmark is running in this checkout (%s is locked): %w", file.Name(), err), file.Close())
	}
	return file, nil
}

func (b *bench) data() string   { return filepath.Join(b.dir, "data") }
func (b *bench) models() string { return filepath.Join(b.dir, "models") }
func (b *bench) python() string { return filepath.Join(b.root, ".venv-bench/bin/python") }

func (b *bench) startControl(ctx context.Context) (*server, error) {
	s, err := start(b.dir, "control.log", nil, b.binary, "server", "--data-dir", b.data(), "--api-addr", "127.0.0.1:0", "--files-addr", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.patience = ourStopPatience
	return s, s.wait(ctx, pollEvery, func() error {
		urls, err := readURLs(b.data())
		if err != nil {
			return err
		}
		if urls["api"] == "" {
			return errors.New("its address is not yet known")
		}
		return nil
	})
}

func (b *bench) setUp(ctx context.Context) error {
	text, err := output(ctx, b.dir, nil, b.binary, "env", "--data-dir", b.data(), "--format", "json")
	if err != nil {
		return err
	}
	var variables map[string]string
	if err := json.Unmarshal(text, &variables); err != nil {
		return fmt.Errorf("read the variables of clearml-serving env: %w", err)
	}
	for name, value := range variables {
		b.environ = append(b.environ, name+"="+value)
	}
	// The SDK runs git in one thread while another forks its reporter; if the fork inherits git's
	// pipe, Task.close waits five minutes. Sequential runs are safe.
	settings := filepath.Join(b.dir, "home/clearml.conf")
	if err := os.WriteFile(settings, []byte("sdk { development { vcs_repo_detect_async: false } }\n"), 0o600); err != nil {
		return err
	}
	b.environ = append(b.environ, "CLEARML_CONFIG_FILE="+settings, "HOME="+filepath.Join(b.dir, "home"))
	if err := b.train(ctx, "lr.pkl"); err != nil {
		return err
	}
	if err := b.convert(ctx); err != nil {
		return err
	}
	b.versions, err = b.readVersions(ctx)
	return err
}

// train trains the models, unless those of the same script exist.
func (b *bench) train(ctx context.Context, file string, words ...string) error {
	script := filepath.Join(b.root, "bench/models/train.py")
	made, errMade := os.Stat(filepath.Join(b.models(), file))
	written, err := os.Stat(script)
	if err != nil {
		return err
	}
	if errMade == nil && made.ModTime().After(written.ModTime()) {
		return nil
	}
	_, err = output(ctx, b.dir, nil, b.python(), append([]string{script, b.models()}, words...)...)
	return err
}

// convert converts a model to ONNX, if the environment for that exists.
func (b *bench) convert(ctx context.Context) error {
	python := filepath.Join(b.root, ".venv-bench-triton/bin/python")
	if _, err := os.Stat(python); err != nil {
		say("no ONNX models: %v", err)
		return nil
	}
	_, err := output(ctx, b.dir, nil, python, filepath.Join(b.root, "bench/models/convert.py"), b.models())
	return err
}

// endpoint is the deployment of an endpoint in ours and the original.
type endpoint struct {
	engine, code, model string
	aux                 []string
}

var stackedUpTo64 = []string{"max_batch_size=64", "dynamic_batching.max_queue_delay_microseconds=0"}

// accelerated: without code and without Python.
var accelerated = []string{"accelerate=true"}

var endpoints = map[string]endpoint{
	"null":           {engine: "custom", code: "null"},
	"lr":             {engine: "sklearn", code: "lr", model: "lr.pkl"},
	"lr_batched":     {engine: "sklearn", code: "lr", model: "lr.pkl", aux: stackedUpTo64},
	"rf":             {engine: "sklearn", code: "rows", model: "rf.pkl"},
	"rf_batched":     {engine: "sklearn", code: "rows", model: "rf.pkl", aux: stackedUpTo64},
	"xgb":            {engine: "xgboost", code: "xgb", model: "xgb.json"},
	"json":           {engine: "custom", code: "json"},
	"binary":         {engine: "custom", code: "binary"},
	"async":          {engine: "custom_async", code: "async"},
	"pipeline":       {engine: "custom_async", code: "pipeline"},
	"lr_own":         {engine: "custom", code: "own_lr", model: "lr.pkl"},
	"lr_own_batched": {engine: "custom", code: "own_lr_batched", model: "lr.pkl", aux: stackedUpTo64},
	"rf_own":         {engine: "custom", code: "own_rows", model: "rf.pkl"},
	"rf_own_batched": {engine: "custom", code: "own_rows_batched", model: "rf.pkl", aux: stackedUpTo64},
	"lr_native":      {engine: "sklearn", model: "lr.pkl", aux: accelerated},
	"rf_native":      {engine: "sklearn", model: "rf.pkl", aux: accelerated},
	"xgb_native":     {engine: "xgboost", model: "xgb.json", aux: accelerated},
	"rf_onnx":        {engine: "onnx", model: "rf.onnx"},
	embeddingCase:    {engine: "onnx", model: embeddingCase + ".onnx"},
	torchModel:       {engine: torchServe, model: "torch.pt"}, // with a handler of ours
	chatModel:        {engine: "openai"},
	"burn":           {engine: "custom", code: "burn"},
	"big":            {engine: "sklearn", code: "rows", model: "big.pkl"},
}

// deploy creates a serving service with these endpoints, as a user would, once. "name=lr" is the
// endpoint lr under another name.
func (b *bench) deploy(ctx context.Context, names []string) (string, error) {
	key := strings.Join(names, ",")
	if id := b.services[key]; id != "" {
		return id, nil
	}
	id, err := b.create(ctx, fmt.Sprintf("bench %d", len(b.services)+1))
	if err != nil {
		return "", err
	}
	for _, name := range names {
		url, like, other := strings.Cut(name, "=")
		if !other {
			like = name
		}
		if err := b.addEndpoint(ctx, id, url, endpoints[like]); err != nil {
			return "", err
		}
	}
	b.services[key] = id
	return id, nil
}

// create creates a serving service and returns its id.
func (b *bench) create(ctx context.Context, name string) (string, error) {
	text, err := b.cli(ctx, "create", "--name", name, "--json")
	if err != nil {
		return "", err
	}
	var created struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(text[max(bytes.IndexByte(text, '{'), 0):], &created); err != nil || created.ID == "" {
		return "", fmt.Errorf("read the service's id from %q: %w", text, err)
	}
	return created.ID, nil
}

func (b *bench) addEndpoint(ctx context.Context, service, url string, e endpoint) error {
	args := []string{"--id", service, "model", "add", "--engine", e.engine, "--endpoint", url}
	if e.code != "" {
		args = append(args, "--preprocess", filepath.Join(b.root, "bench/code", e.code, "preprocess.py"))
	}
	if e.model != "" {
		if err := b.upload(ctx, service, e.model); err != nil {
			return err
		}
		args = append(args, "--name", e.model, "--project", "bench")
	}
	if len(e.aux) > 0 {
		args = append(append(args, "--aux-config"), e.aux...)
	}
	_, err := b.cli(ctx, args...)
	return err
}

func (b *bench) upload(ctx context.Context, service, file string) error {
	if b.services[file] != "" {
		return nil
	}
	_, err := b.cli(ctx, "--id", service, "model", "upload", "--name", file, "--project", "bench", "--path", b.modelFile(file))
	if err == nil {
		b.services[file] = service
	}
	return err
}

func (b *bench) modelFile(name string) string {
	if name == embeddingCase+".onnx" {
		return b.embeddingModel()
	}
	return filepath.Join(b.models(), name)
}

func (b *bench) cli(ctx context.Context, args ...string) ([]byte, error) {
	return output(ctx, b.dir, b.environ, b.binary, append(args, "--data-dir", b.data())...)
}

// startOurs starts only the inference service: its control plane is another process, as for the
// original, and is not counted on either side.
func startOurs(ctx context.Context, b *bench, d deployment) (*server, error) {
	s, err := launchOurs(ctx, b, d)
	if err != nil {
		return nil, err
	}
	return s, s.wait(ctx, pollEvery, func() error {
		urls, err := readURLs(oursData(b))
		if err != nil {
			return err
		}
		s.url, s.grpc = urls["serve"], urls["grpc"]
		return get(ctx, s.url+"/livez")
	})
}

func oursData(b *bench) string { return filepath.Join(b.dir, "ours") }

// launchOurs does not wait for the service.
func launchOurs(ctx context.Context, b *bench, d deployment) (*server, error) {
	id, err := b.deploy(ctx, d.names)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(filepath.Join(oursData(b), "endpoints.json")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	port := d.port
	if port == 0 {
		if port, err = freePort(); err != nil {
			return nil, err
		}
	}
	env := append([]string{oneThread, "CLEARML_SERVING_NUM_PROCESS=" + strconv.Itoa(d.workers), "CLEARML_SERVING_PYTHON=" + b.python()}, b.environ...)
	if library := b.onnxRuntime(); library != "" {
		env = append(env, "CLEARML_SERVING_ONNXRUNTIME="+library)
	}
	s, err := start(b.dir, "servers/ours.log", append(env, d.env...), b.binary, "--id", id, "inference", "--data-dir", oursData(b),
		"--serve-addr", fmt.Sprintf("127.0.0.1:%d", port), "--grpc-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.url, s.patience = fmt.Sprintf("http://127.0.0.1:%d", port), ourStopPatience
	return s, nil
}

// onnxRuntime is the library with which Triton's Python backend runs the same models; "" if there is none.
func (b *bench) onnxRuntime() string {
	found, _ := filepath.Glob(filepath.Join(b.root, ".venv-bench-triton/lib/python*/site-packages/onnxruntime/capi/libonnxruntime.so.*")) // the pattern is valid
	if len(found) == 0 {
		return ""
	}
	return found[0]
}

func readURLs(folder string) (urls map[string]string, err error) {
	return urls, readJSON(filepath.Join(folder, "endpoints.json"), &urls)
}

func readJSON(file string, to any) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, to)
}

// constantAnswer is answered by our listener itself.
const constantAnswer = "/livez"

var methodOf = map[string]string{constantCase: http.MethodGet}
