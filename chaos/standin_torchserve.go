package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"

	"clearmlserving/atomicfile"
)

// standTorchServe is a TorchServe whose models double a number, with its key file. Like the real one it has forgotten its
// models and keys when it is started again.
type standTorchServe struct {
	s     *standIn
	store string
	keys  map[string]string // by kind; nil: it wants none

	mu     sync.Mutex
	models map[string]bool
}

// standForTorchServe stands for java with TorchServe's arguments, of which it reads the configuration and the store.
func standForTorchServe(s *standIn, args []string) error {
	after := func(flag string) string {
		if i := slices.Index(args, flag); i >= 0 && i+1 < len(args) {
			return args[i+1]
		}
		return ""
	}
	text, err := os.ReadFile(after("-f"))
	if err != nil {
		return err
	}
	set := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		set[name] = strings.TrimPrefix(value, "http://")
	}
	t := &standTorchServe{s: s, store: after("-s"), models: map[string]bool{}}
	if model := set["load_models"]; model != "" {
		t.models[model] = true
	}
	if set["disable_token_authorization"] != "true" {
		t.keys = map[string]string{"management": rand.Text(), "inference": rand.Text(), "API": rand.Text()}
		file := map[string]any{}
		for kind, key := range t.keys {
			file[kind] = map[string]string{"key": key}
		}
		text, err := json.Marshal(file)
		if err != nil {
			return err
		}
		if err := atomicfile.Write("key_file.json", text, 0o600); err != nil { // in the folder in which it is started
			return err
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/ping", t.over(t.ping))
	mux.HandleFunc("/predictions/{model}", t.over(t.predict))
	mux.HandleFunc("/models", t.over(t.manage))
	mux.HandleFunc("/models/{model}", t.over(t.manage))
	overGRPC := []string{}
	for _, name := range []string{"grpc_inference_port", "grpc_management_port"} {
		overGRPC = append(overGRPC, net.JoinHostPort("127.0.0.1", set[name]))
	}
	return s.serve(mux, []string{set["inference_address"], set["management_address"]}, t.call, overGRPC)
}

// torchRefusal is an error of TorchServe.
type torchRefusal struct {
	Status  int    `json:"code"`
	Type    string `json:"type"`
	Message string `json:"message"`
}

func (r *torchRefusal) Error() string { return r.Message }

var errTorchKey = &torchRefusal{http.StatusBadRequest, "InvalidKeyException", "Token Authorization failed. Token either incorrect, expired, or not provided correctly"}

func noTorchModel(model string) error {
	return &torchRefusal{http.StatusNotFound, "ModelNotFoundException", "Model not found: " + model}
}

// over is a handler for an answer over HTTP.
func (t *standTorchServe) over(answer func(r *http.Request) ([]byte, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := answer(r)
		if refused, ok := errors.AsType[*torchRefusal](err); ok {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(refused.Status)
			_ = json.NewEncoder(w).Encode(refused) // the client may be gone
			return
		}
		if err == nil {
			_, _ = w.Write(body)
		}
	}
}

// opens reports whether an authorization has the key for something.
func (t *standTorchServe) opens(authorization, kind string) error {
	if t.keys != nil && authorization != "Bearer "+t.keys[kind] {
		return errTorchKey
	}
	return nil
}

func (t *standTorchServe) ping(r *http.Request) ([]byte, error) {
	return []byte(`{"status": "Healthy"}`), t.opens(r.Header.Get("Authorization"), "inference")
}

func (t *standTorchServe) predict(r *http.Request) ([]byte, error) {
	if err := t.opens(r.Header.Get("Authorization"), "inference"); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	answer, err := t.double(r.PathValue("model"), body)
	if err == nil {
		t.s.compute(r.Context())
	}
	return answer, err
}

// double is a model.
func (t *standTorchServe) double(model string, body []byte) ([]byte, error) {
	t.mu.Lock()
	known := t.models[model]
	t.mu.Unlock()
	if !known {
		return nil, noTorchModel(model)
	}
	n, err := strconv.Atoi(string(bytes.TrimSpace(body)))
	if err != nil {
		return nil, &torchRefusal{http.StatusServiceUnavailable, "InternalServerException", "Prediction failed"}
	}
	return strconv.AppendInt(nil, 2*int64(n), 10), nil
}

// manage is the management API.
func (t *standTorchServe) manage(r *http.Request) ([]byte, error) {
	if err := t.opens(r.Header.Get("Authorization"), "management"); err != nil {
		return nil, err
	}
	if model := r.PathValue("model"); model != "" {
		return t.one(r.Method, model)
	}
	if r.Method == http.MethodPost {
		return t.register(r.URL.Query().Get("model_name"), r.URL.Query().Get("url"))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	list := []map[string]string{}
	for model := range t.models {
		list = append(list, map[string]string{"modelName": model})
	}
	return json.Marshal(map[string]any{"models": list})
}

// one tells of a model, or removes it.
func (t *standTorchServe) one(method, model string) ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.models[model] {
		return nil, noTorchModel(model)
	}
	if method == http.MethodDelete {
		delete(t.models, model)
		return []byte(`{"status": "unregistered"}`), nil
	}
	return fmt.Appendf(nil, `[{"modelName": %q, "minWorkers": 1, "maxWorkers": 1, "workers": [{"id": "9000", "status": "READY"}]}]`, model), nil
}

// register registers an archive of the store.
func (t *standTorchServe) register(model, archive string) ([]byte, error) {
	if _, err := os.Stat(filepath.Join(t.store, archive)); err != nil {
		return nil, &torchRefusal{http.StatusNotFound, "ModelNotFoundException", "Model not found in model store: " + archive}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.models[model] {
		return nil, &torchRefusal{http.StatusConflict, "ConflictStatusException", "Model version 1.0 is already registered for model " + model}
	}
	t.models[model] = true
	return []byte(`{"status": "registered"}`), nil
}

// call answers over gRPC.
func (t *standTorchServe) call(_ any, stream grpc.ServerStream) error {
	path, _ := grpc.MethodFromServerStream(stream)
	method, kind := path[strings.LastIndex(path, "/")+1:], "inference"
	if strings.Contains(path, ".management.") {
		kind = "management"
	}
	authorization := ""
	if found := metadata.ValueFromIncomingContext(stream.Context(), "authorization"); len(found) == 1 {
		authorization = found[0]
	}
	if t.opens(authorization, kind) != nil {
		return status.Error(codes.PermissionDenied, errTorchKey.Message)
	}
	var message emptypb.Empty // all of its fields are unknown ones
	if err := stream.RecvMsg(&message); err != nil {
		return err
	}
	fields := textsOf(message.ProtoReflect().GetUnknown())
	var answer []byte
	var err error
	switch method {
	case "Ping":
		answer = []byte(`{"status": "Healthy"}`)
	case "Predictions":
		input := textsOf([]byte(fields[3]))
		if answer, err = t.double(fields[1], []byte(input[2])); err == nil {
			t.s.compute(stream.Context())
		}
	case "RegisterModel":
		answer, err = t.register(fields[5], fields[9])
	case "UnregisterModel":
		answer, err = t.one(http.MethodDelete, fields[1])
	default:
		return status.Error(codes.Unimplemented, method)
	}
	if refused, ok := errors.AsType[*torchRefusal](err); ok {
		if refused.Status == http.StatusConflict { // it says nothing there
			return status.Error(codes.Unknown, "")
		}
		return status.Error(codes.Internal, refused.Message+"\norg.pytorch.serve."+refused.Type)
	}
	var reply emptypb.Empty
	reply.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), answer))
	return stream.SendMsg(&reply)
}

// textsOf are the fields of a message that are bytes.
func textsOf(message []byte) map[protowire.Number]string {
	texts := map[protowire.Number]string{}
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return texts
		}
		message = message[n:]
		if kind == protowire.BytesType {
			if value, length := protowire.ConsumeBytes(message); length >= 0 {
				texts[number] = string(value)
			}
		}
		if n = protowire.ConsumeFieldValue(number, kind, message); n < 0 {
			return texts
		}
		message = message[n:]
	}
	return texts
}
