package torchserve

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
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
	"google.golang.org/protobuf/encoding/protowire"

	"clearmlserving/inference/engine"
	"clearmlserving/mar"
	"clearmlserving/serving"
)

// fake is a TorchServe. What a model does depends on the name of its handler.
type fake struct {
	t           *testing.T
	rest, admin *httptest.Server
	grpc        net.Listener
	dir         string

	mu          sync.Mutex
	models      map[string]*fakeModel
	keys        map[string]string // by kind
	renewed     int
	registered  int
	unregistred []string
	seen        http.Header // of the last request
	query       string

	stopped atomic.Bool // as by SIGSTOP: it takes connections and answers nothing
	garbage atomic.Bool
	noAPI   atomic.Bool
	noAdmin bool        // its management API is known over REST only
	died    atomic.Bool // the workers of all models have
}

type fakeModel struct {
	handler, url    string
	min, max, batch int
	delay, timeout  string
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{t: t, dir: t.TempDir(), models: map[string]*fakeModel{}, keys: map[string]string{"management": "m0", "inference": "i0", "API": "api"}}
	if err := os.Mkdir(filepath.Join(f.dir, "store"), 0o755); err != nil {
		t.Fatal(err)
	}
	f.writeKeys(time.Hour)
	f.admin = httptest.NewServer(f.faulty(http.HandlerFunc(f.manage)))
	f.rest = httptest.NewServer(f.faulty(http.HandlerFunc(f.predict)))
	t.Cleanup(f.admin.Close)
	t.Cleanup(f.rest.Close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.grpc = listener
	server := grpc.NewServer(grpc.ForceServerCodecV2(plainCodec{}), grpc.UnknownServiceHandler(f.call))
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(running.Wait)
	t.Cleanup(server.Stop)
	return f
}

// at is where the engine finds the server.
func (f *fake) at() (Server, error) {
	return Server{
		REST: f.rest.URL, Management: f.admin.URL, GRPC: f.grpc.Addr().String(), Admin: f.overGRPC(), Store: filepath.Join(f.dir, "store"), Keys: f.keyFile(), Log: filepath.Join(f.dir, "model_log.log"),
	}, nil
}

func (f *fake) overGRPC() string {
	if f.noAdmin {
		return ""
	}
	return f.grpc.Addr().String()
}

func (f *fake) keyFile() string { return filepath.Join(f.dir, "key_file.json") }

// writeKeys writes the key file. f.mu is held, or nobody else is there.
func (f *fake) writeKeys(valid time.Duration) {
	text := fmt.Sprintf(`{"management": {"key": %q, "expiration time": %q}, "inference": {"key": %q, "expiration time": %q}, "API": {"key": %q}}`,
		f.keys["management"], time.Now().Add(valid).UTC().Format(time.RFC3339Nano), f.keys["inference"], time.Now().Add(valid).UTC().Format(time.RFC3339Nano), f.keys["API"])
	if err := os.WriteFile(f.keyFile(), []byte(text), 0o600); err != nil {
		f.t.Error(err)
	}
}

// changeKeys makes the server's keys others than those of the file, or of what clients have read.
func (f *fake) changeKeys(inFile bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys["management"], f.keys["inference"] = f.keys["management"]+"x", f.keys["inference"]+"x"
	if inFile {
		f.writeKeys(time.Hour)
	}
}

func (f *fake) faulty(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case f.stopped.Load():
			<-r.Context().Done()
		case f.garbage.Load():
			_, _ = io.WriteString(w, "\x00garbage")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func refuse(w http.ResponseWriter, code int, kind, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(refusal{code, kind, message})
}

func (f *fake) allowed(w http.ResponseWriter, r *http.Request, kind string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Header.Get("Authorization") == "Bearer "+f.keys[kind] {
		return true
	}
	refuse(w, 400, "InvalidKeyException", "Token Authorization failed. Token either incorrect, expired, or not provided correctly")
	return false
}

func (f *fake) manage(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/token" {
		if !f.allowed(w, r, "API") {
			return
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.renewed++
		f.keys[r.URL.Query().Get("type")] = fmt.Sprintf("renewed%d", f.renewed)
		f.writeKeys(time.Hour)
		return
	}
	if !f.allowed(w, r, "management") {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	name := strings.TrimPrefix(r.URL.Path, "/models/")
	model := f.models[name]
	switch {
	case r.URL.Path == "/models" && r.Method == http.MethodPost:
		f.register(w, r.URL.Query())
	case r.URL.Path == "/models":
		type entry struct {
			Name string `json:"modelName"`
		}
		list := []entry{}
		for name := range f.models {
			list = append(list, entry{name})
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"models": list})
	case model == nil:
		refuse(w, 404, "ModelNotFoundException", "Model not found: "+name)
	case r.Method == http.MethodDelete:
		delete(f.models, name)
		f.unregistred = append(f.unregistred, name)
		_, _ = io.WriteString(w, `{"status": "unregistered"}`)
	case r.Method == http.MethodPut:
		model.min, _ = strconv.Atoi(r.URL.Query().Get("min_worker"))
		model.max, _ = strconv.Atoi(r.URL.Query().Get("max_worker"))
		_, _ = io.WriteString(w, `{"status": "scaled"}`)
	default:
		workers := []map[string]any{}
		for i := range model.min {
			state := "READY"
			if f.died.Load() {
				state = "UNLOADING"
			}
			workers = append(workers, map[string]any{"id": strconv.Itoa(9000 + i), "status": state})
		}
		_ = json.NewEncoder(w).Encode([]map[string]any{{"modelName": name, "minWorkers": model.min, "maxWorkers": model.max, "workers": workers}})
	}
}

// register registers an archive of the store, or of a file. f.mu is held.
func (f *fake) register(w http.ResponseWriter, q url.Values) {
	name := q.Get("model_name")
	if f.noAPI.Load() {
		refuse(w, 405, "MethodNotAllowedException", "Requested method is not allowed, please refer to API document.")
		return
	}
	if f.models[name] != nil {
		refuse(w, 409, "ConflictStatusException", "Model version 1.0 is already registered for model "+name)
		return
	}
	file, local := strings.CutPrefix(q.Get("url"), "file://")
	if !local {
		file = filepath.Join(f.dir, "store", q.Get("url"))
	}
	handler, err := handlerOf(file)
	if err != nil {
		refuse(w, 404, "ModelNotFoundException", "Model not found in model store: "+q.Get("url"))
		return
	}
	switch handler {
	case "broken.py":
		said := "2026-11-30T12:00:00,000 [INFO ] W-9000-" + name + "_1.0-stdout MODEL_LOG - "
		text := said + "Traceback (most recent call last):\n" + said + `  File "broken.py", line 3, in initialize` + "\n" + said + "ValueError: no such weights\n"
		if err := os.WriteFile(filepath.Join(f.dir, "model_log.log"), []byte(text), 0o600); err != nil {
			f.t.Error(err)
		}
		refuse(w, 500, "InternalServerException", "Failed to start workers for model "+name+" version: 1.0")
		return
	case "invalid.py":
		refuse(w, 400, "InvalidModelException", "Model version is not defined.")
		return
	}
	workers, _ := strconv.Atoi(q.Get("initial_workers"))
	batch, _ := strconv.Atoi(q.Get("batch_size"))
	f.registered++
	f.models[name] = &fakeModel{handler: handler, url: q.Get("url"), min: workers, max: workers, batch: batch, delay: q.Get("max_batch_delay"), timeout: q.Get("response_timeout")}
	_, _ = io.WriteString(w, `{"status": "registered"}`)
}

func handlerOf(file string) (string, error) {
	z, err := zip.OpenReader(file)
	if err != nil {
		return "", err
	}
	defer z.Close() //nolint:errcheck // only read from
	r, err := z.Open(mar.ManifestName)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return "", err
	}
	m, err := mar.ParseManifest(text)
	return m.Model.Handler, err
}

func (f *fake) model(name string) *fakeModel {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.models[name]
}

func (f *fake) predict(w http.ResponseWriter, r *http.Request) {
	if !f.allowed(w, r, "inference") {
		return
	}
	if r.URL.Path == "/ping" {
		_, _ = io.WriteString(w, `{"status": "Healthy"}`)
		return
	}
	name := strings.TrimPrefix(r.URL.Path, "/predictions/")
	model := f.model(name)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	f.mu.Lock()
	f.seen, f.query = r.Header.Clone(), r.URL.RawQuery
	f.mu.Unlock()
	if model == nil {
		refuse(w, 404, "ModelNotFoundException", "Model not found: "+name)
		return
	}
	switch model.handler {
	case "echo.py":
		w.Header().Set("X-Request-Id", "theirs")
		w.Header().Set("Pragma", "no-cache")
		w.Header().Set("X-Model", "fake")
		_, _ = fmt.Fprintf(w, `{"got": %q}`, body)
	case "waits.py":
		<-r.Context().Done()
	case "refuses.py":
		refuse(w, 503, "InternalServerException", "Prediction failed")
	case "status.py":
		w.WriteHeader(418)
		_, _ = io.WriteString(w, `{"code": 1}`)
	case "dies.py":
		refuse(w, 500, "InternalServerException", "Worker died.")
	case "cut.py":
		if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
			_ = conn.Close()
		}
	case "full.py":
		refuse(w, 503, "ServiceUnavailableException", `Model "m" has no worker to serve inference request. Please use scale workers API to add workers.`)
	case "streams.py":
		for i := range 3 {
			_, _ = fmt.Fprintf(w, "piece %d of %s;", i, body)
			w.(http.Flusher).Flush()
		}
	}
}

// call answers over gRPC.
func (f *fake) call(_ any, stream grpc.ServerStream) error {
	if f.stopped.Load() {
		<-stream.Context().Done()
		return stream.Context().Err()
	}
	method, _ := grpc.MethodFromServerStream(stream)
	md, _ := metadata.FromIncomingContext(stream.Context())
	kind := "inference"
	if strings.HasPrefix(method, management) {
		kind = "management"
	}
	f.mu.Lock()
	key := f.keys[kind]
	f.mu.Unlock()
	if given := md.Get("authorization"); len(given) != 1 || given[0] != "Bearer "+key || md.Get("protocol")[0] != "gRPC" {
		return status.Error(codes.PermissionDenied, "Token Authorization failed. Token either incorrect, expired, or not provided correctly")
	}
	var message []byte
	if err := stream.RecvMsg(&message); err != nil {
		return err
	}
	if method == pingMethod {
		return stream.SendMsg(reply([]byte(`{"status": "Healthy"}`)))
	}
	if kind == "management" {
		return f.manageGRPC(stream, strings.TrimPrefix(method, management), message)
	}
	name, body := decodeRequest(message)
	model := f.model(name)
	if model == nil {
		return status.Error(codes.Internal, "Model not found: "+name+"\norg.pytorch.serve.archive.model.ModelNotFoundException")
	}
	switch model.handler {
	case "waits.py":
		<-stream.Context().Done()
		return stream.Context().Err()
	case "refuses.py":
		return status.Error(codes.Internal, "Prediction failed\norg.pytorch.serve.http.InternalServerException")
	case "streams.py":
		for i := range 3 {
			if err := stream.SendMsg(reply(fmt.Appendf(nil, "piece %d of %s;", i, body))); err != nil {
				return err
			}
		}
		return nil
	}
	return stream.SendMsg(reply(fmt.Appendf(nil, `{"got": %q}`, body)))
}

// manageGRPC answers the management API over gRPC as that over REST.
func (f *fake) manageGRPC(stream grpc.ServerStream, method string, message []byte) error {
	fields := map[protowire.Number]string{}
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		message = message[n:]
		if kind == protowire.VarintType {
			value, n := protowire.ConsumeVarint(message)
			fields[number], message = strconv.FormatUint(value, 10), message[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(message)
		fields[number], message = string(value), message[n:]
	}
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/models?"+url.Values{
		"batch_size": {fields[1]}, "initial_workers": {fields[3]}, "max_batch_delay": {fields[4]}, "model_name": {fields[5]}, "response_timeout": {fields[6]}, "url": {fields[9]},
	}.Encode(), nil)
	switch method {
	case "ScaleWorker":
		r = httptest.NewRequest(http.MethodPut, "/models/"+fields[1]+"?min_worker="+fields[4]+"&max_worker="+fields[3], nil)
	case "UnregisterModel":
		r = httptest.NewRequest(http.MethodDelete, "/models/"+fields[1], nil)
	}
	f.mu.Lock()
	r.Header.Set("Authorization", "Bearer "+f.keys["management"])
	f.mu.Unlock()
	f.manage(w, r)
	if w.Code == http.StatusOK {
		return stream.SendMsg(reply(w.Body.Bytes()))
	}
	var failed refusal
	_ = json.Unmarshal(w.Body.Bytes(), &failed)
	switch failed.Status {
	case 409:
		return status.Error(codes.Unknown, "")
	case 404:
		return status.Error(codes.NotFound, failed.Message+"\norg.pytorch.serve."+failed.Type)
	case 400:
		return status.Error(codes.InvalidArgument, failed.Message+"\norg.pytorch.serve."+failed.Type)
	case 405:
		return status.Error(codes.PermissionDenied, failed.Message+"\norg.pytorch.serve."+failed.Type)
	}
	return status.Error(codes.Internal, failed.Message+"\norg.pytorch.serve.http."+failed.Type)
}

func reply(body []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), body)
}

// decodeRequest decodes a PredictionsRequest with one input.
func decodeRequest(message []byte) (name string, body []byte) {
	for len(message) > 0 {
		number, _, n := protowire.ConsumeTag(message)
		message = message[n:]
		value, n := protowire.ConsumeBytes(message)
		message = message[n:]
		switch number {
		case 1:
			name = string(value)
		case 3:
			for len(value) > 0 {
				field, _, n := protowire.ConsumeTag(value)
				value = value[n:]
				part, n := protowire.ConsumeBytes(value)
				value = value[n:]
				if field == 2 {
					body = part
				}
			}
		}
	}
	return name, body
}

// archiveOf writes an archive with this handler.
func archiveOf(t *testing.T, handler, content string) string {
	t.Helper()
	var b bytes.Buffer
	err := mar.Pack(t.Context(), &b, mar.Contents{
		Manifest: mar.Manifest{Runtime: "python", Model: mar.Model{Name: "m", Version: "1.0", Handler: handler}},
		Texts:    map[string][]byte{handler: []byte(content)},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "m.mar")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// run runs an engine with the server of the role.
func run(t *testing.T, f *fake) *Engine {
	t.Helper()
	return runAs(t, Options{Dir: t.TempDir(), Server: f.at, Keys: f.keyFile()})
}

func runAs(t *testing.T, o Options) *Engine {
	t.Helper()
	e := New(o)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { _ = e.Run(ctx, nil) })
	t.Cleanup(running.Wait)
	t.Cleanup(stop)
	return e
}

func spec(t *testing.T, handler string, aux map[string]any) engine.Spec {
	t.Helper()
	e := serving.Endpoint{EngineType: serving.EngineTorchServe, ServingURL: "m"}
	if aux != nil {
		e.AuxiliaryCfg = aux
	}
	return engine.Spec{URL: "m", Endpoint: e, ModelPath: archiveOf(t, handler, "x = 1")}
}
