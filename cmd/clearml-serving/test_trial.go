package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"clearmlserving/clearml"
	"clearmlserving/inference"
	"clearmlserving/inference/engine"
	"clearmlserving/inference/reconcile"
	"clearmlserving/serving"
	"clearmlserving/storage"
	"clearmlserving/storage/file"
	"clearmlserving/worker"
)

// trial runs code and a model in a real inference service of this process: it
// serves one endpoint from a configuration that nobody stored, and listens nowhere.
type trial struct {
	a       *app
	flags   testFlags
	dir     string // temporary, of this trial
	dataDir string
	config  clearml.Config
	files   reconcile.Files
	model   reconcile.Model
	stdin   []byte // what --request - gave
	stubs   stubs

	mu    sync.Mutex // guards paths
	paths []string   // old, new, …: where code was copied to, and where it came from
}

// trialAnswer is the answer to one request.
type trialAnswer struct {
	status      int
	contentType string
	body        []byte
	took        time.Duration
	differences []serving.Difference
	passed      bool
}

// localModel is the id of a model that is only a file.
const localModel = "local"

func (a *app) newTrial(ctx context.Context, f testFlags) (*trial, error) {
	dataDir, err := a.dataDir()
	if err != nil {
		return nil, err
	}
	t := &trial{a: a, flags: f, dataDir: dataDir}
	if t.stubs, err = readStubs(f.stub); err != nil {
		return nil, err
	}
	t.config, err = a.clearmlConfig()
	if err != nil && f.modelID != "" {
		return nil, err // without a model on a server, none is needed
	}
	if f.request == "-" {
		if t.stdin, err = io.ReadAll(a.sys.stdin); err != nil {
			return nil, fmt.Errorf("read the request from stdin: %w", err)
		}
	}
	if t.dir, err = os.MkdirTemp("", "clearml-serving-test-"); err != nil {
		return nil, fmt.Errorf("make a temporary folder: %w", err)
	}
	if err := t.openFiles(ctx); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (t *trial) close() { _ = os.RemoveAll(t.dir) } // the system clears its temporary folder in the end

// openFiles prepares where code and model come from. A model of the server is
// kept in the cache of the data folder, where a service finds it again.
func (t *trial) openFiles(ctx context.Context) error {
	log := slog.New(slog.DiscardHandler)
	if t.flags.modelID != "" {
		client, err := t.a.connect()
		if err != nil {
			return err
		}
		models, err := client.Models(ctx, clearml.ModelFilter{IDs: []string{t.flags.modelID}, WithArchived: true})
		if err != nil {
			return fmt.Errorf("look up model %s: %w", t.flags.modelID, err)
		}
		if len(models) == 0 {
			return notFound("model %s does not exist on the ClearML server", t.flags.modelID)
		}
		t.model.URI = models[0].URI
		t.files, err = t.a.modelFiles(t.dataDir, client, log)
		return err
	}
	cache, err := storage.NewCache(storage.CacheOptions{Dir: filepath.Join(t.dir, "cache"), Adapters: storage.Adapters{"file": file.Adapter{}}})
	if err != nil {
		return err
	}
	local := localFiles{Files: reconcile.CachedFiles{Cache: cache, Logger: log}}
	if t.flags.model != "" {
		full, err := filepath.Abs(t.flags.model)
		if err != nil {
			return fmt.Errorf("--model %s: %w", t.flags.model, err)
		}
		t.model.URI = "file://" + full
		if info, err := os.Stat(full); err == nil && info.IsDir() {
			local.folder = full // used as it is: packing it would cost its size
		}
	}
	t.files = local
	return nil
}

// localFiles brings files through a cache, but for one folder that is used in place.
type localFiles struct {
	reconcile.Files
	folder string
}

// Fetch fulfils reconcile.Files.
func (l localFiles) Fetch(ctx context.Context, f reconcile.File) (reconcile.Local, error) {
	if l.folder != "" && f.URL == "file://"+l.folder {
		return reconcile.Local{Path: l.folder, Release: func() {}}, nil
	}
	return l.Files.Fetch(ctx, f)
}

// questions reads the requests, and what their answers should be.
func (t *trial) questions() (list []serving.Exchange, recorded bool, err error) {
	data := t.stdin
	if t.flags.request != "-" {
		if data, err = os.ReadFile(t.flags.request); err != nil {
			return nil, false, fmt.Errorf("read the request: %w", err)
		}
	}
	if serving.LooksLikeExchanges(data) {
		if t.flags.expect != "" {
			return nil, false, fmt.Errorf("--request %s is a recording, which holds the expected answers: leave --expect out", t.flags.request)
		}
		if list, err = serving.ParseExchanges(data); err != nil {
			return nil, false, fmt.Errorf("--request %s: %w", t.flags.request, err)
		}
		return list, true, nil
	}
	q := serving.Exchange{Endpoint: serving.CleanURL(t.flags.endpoint), ContentType: t.flags.contentType, Body: data}
	if t.flags.expect != "" {
		if q.Answer, err = os.ReadFile(t.flags.expect); err != nil {
			return nil, false, fmt.Errorf("read the expected answer: %w", err)
		}
		if _, isJSON := jsonOrText(q.Answer).(json.RawMessage); !isJSON { // editors end files with a line break
			q.Answer = bytes.TrimRight(q.Answer, "\r\n")
		}
	}
	return []serving.Exchange{q}, false, nil
}

// state is the configuration with the one endpoint.
func (t *trial) state(ctx context.Context) (*reconcile.State, error) {
	aux, err := readAuxConfig(t.flags.aux)
	if err != nil {
		return nil, err
	}
	e := serving.Endpoint{EngineType: t.flags.engine, ServingURL: t.flags.endpoint, AuxiliaryCfg: aux}
	state := &reconcile.State{ServiceID: "test", ServiceName: "test", Artifacts: map[string]reconcile.Artifact{}, Models: map[serving.ModelID]reconcile.Model{}}
	if t.model.URI != "" {
		e.ModelID = serving.ModelID(firstOf(t.flags.modelID, localModel))
		state.Models[e.ModelID] = t.model
	}
	if t.flags.code != "" {
		code, err := t.copyCode(ctx)
		if err != nil {
			return nil, err
		}
		e.PreprocessArtifact = clearml.PreprocessArtifact(e.URL())
		state.Artifacts[e.PreprocessArtifact] = code
	}
	config := serving.Service{Endpoints: map[string]serving.Endpoint{}}
	if _, err := config.AddEndpoint(e); err != nil {
		return nil, err
	}
	text, err := config.Encode(serving.SectionEndpoints)
	if err != nil {
		return nil, err
	}
	state.Sections = map[serving.Section]json.RawMessage{serving.SectionEndpoints: json.RawMessage(text)}
	return state, nil
}

// copyCode brings the code where a service would have it: a file alone, a folder
// packed, so that what works here does not hang on what lies beside it.
func (t *trial) copyCode(ctx context.Context) (reconcile.Artifact, error) {
	c, err := t.a.packCode(ctx, t.flags.code)
	if err != nil {
		return reconcile.Artifact{}, err
	}
	defer c.remove()
	data, err := os.ReadFile(c.file)
	if err != nil {
		return reconcile.Artifact{}, fmt.Errorf("preprocessing code '%s': %w", t.flags.code, err)
	}
	dir := filepath.Join(t.dir, c.sha256[:12])
	target := filepath.Join(dir, c.name)
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(target, data, 0o600)); err != nil {
		return reconcile.Artifact{}, fmt.Errorf("copy preprocessing code '%s': %w", t.flags.code, err)
	}
	artifact := reconcile.Artifact{URI: "file://" + target, SHA256: c.sha256, Folder: c.kind == "archive"}
	local, err := t.files.Fetch(ctx, reconcile.File{URL: artifact.URI, SHA256: artifact.SHA256, Unpack: artifact.Folder})
	if err != nil {
		return artifact, fmt.Errorf("preprocessing code '%s': %w", t.flags.code, err)
	}
	t.mu.Lock()
	t.paths = []string{local.Path, strings.TrimRight(t.flags.code, "/")}
	t.mu.Unlock()
	local.Release()
	return artifact, nil
}

// shownPaths writes the user's own paths in place of those of the copy.
func (t *trial) shownPaths(text string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.NewReplacer(t.paths...).Replace(text)
}

// run starts a service, has the questions asked once it is ready, and stops it.
func (t *trial) run(ctx context.Context, use func(ask func(serving.Exchange) (trialAnswer, error)) error) (loaded time.Duration, failure *serving.LoadFailure, err error) {
	state, err := t.state(ctx)
	if err != nil {
		return 0, nil, err
	}
	log := slog.New(&outputHandler{next: t.a.logger(slog.LevelError + 1).Handler(), trial: t, out: &lockedWriter{w: t.a.sys.stderr}})
	o, err := t.a.coreOptions()
	if err != nil {
		return 0, nil, err
	}
	python, err := t.a.pythonEngine(t.dataDir, t.config, madeFolders{}, nil, false, log)
	if err != nil {
		return 0, nil, err
	}
	home, err := t.a.dataDir()
	if err != nil {
		home = t.dataDir // it has no library
	}
	engines, err := t.a.loaders(t.dataDir, home, madeFolders{}, python, stubbedEngine{python, t.stubs}, log)
	if err != nil {
		return 0, nil, err
	}
	watch := make(watcher, 1)
	o.Engines, o.Files, o.Source, o.Logger = engines.table(), t.files, fixedState{state}, log
	o.Followers = []reconcile.Follower{watch}
	service := inference.New(o)
	runCtx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- service.Run(runCtx) }() // waited for below
	begun := time.Now()
	failure, err = waitLoaded(ctx, service, watch)
	loaded = time.Since(begun)
	if err == nil && failure == nil {
		err = use(func(e serving.Exchange) (trialAnswer, error) { return t.ask(ctx, service, e) })
	}
	stop()
	return loaded, failure, errors.Join(err, <-ended)
}

// watcher is a follower that rings when the status may have changed.
type watcher chan struct{}

// Planned fulfils reconcile.Follower.
func (watcher) Planned(*reconcile.State, serving.Plan, bool) {}

// StatusChanged fulfils reconcile.Follower.
func (w watcher) StatusChanged(func() serving.Status) {
	select {
	case w <- struct{}{}:
	default: // it rings already
	}
}

// waitLoaded blocks until the one endpoint is ready or cannot be loaded.
func waitLoaded(ctx context.Context, service *inference.Service, changed watcher) (*serving.LoadFailure, error) {
	for {
		status := service.Status()
		for _, p := range status.Problems {
			return &serving.LoadFailure{Step: "configuration", Reason: p.Text}, nil
		}
		for _, e := range status.Endpoints {
			if e.Failure != nil {
				return e.Failure, nil
			}
			if e.State == "ready" {
				return nil, nil //nolint:nilnil // loaded: there is no failure
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (t *trial) ask(ctx context.Context, service *inference.Service, e serving.Exchange) (trialAnswer, error) {
	begun := time.Now()
	var resp *engine.Response
	ticket, failure := service.Admit(inference.Head{Endpoint: serving.CleanURL(t.flags.endpoint), ID: "test"})
	if failure == nil {
		resp, failure = service.AskWhole(ctx, ticket, &inference.Question{Request: engine.Request{ID: "test", Body: e.Body, ContentType: e.ContentType, Route: e.Route}})
	}
	if failure != nil {
		resp = failure.Response()
	}
	answer := trialAnswer{status: resp.Status, contentType: resp.ContentType, body: resp.Body, took: time.Since(begun)}
	if resp.Status >= 400 && utf8.Valid(resp.Body) {
		answer.body = []byte(t.shownPaths(string(resp.Body)))
	}
	return answer, ctx.Err()
}

// fixedState is a source whose configuration never changes.
type fixedState struct{ state *reconcile.State }

// Load fulfils reconcile.Source.
func (f fixedState) Load(context.Context, *reconcile.State) (*reconcile.State, error) {
	return f.state, nil
}

// outputHandler is a log handler that shows what user code prints as it is
// printed, and passes the rest on.
type outputHandler struct {
	next  slog.Handler
	trial *trial
	out   *lockedWriter
}

// Enabled fulfils slog.Handler.
func (h *outputHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || h.next.Enabled(ctx, level)
}

// Handle fulfils slog.Handler.
func (h *outputHandler) Handle(ctx context.Context, r slog.Record) error {
	user := false
	r.Attrs(func(fact slog.Attr) bool {
		if text, ok := fact.Value.Any().(worker.UserText); ok {
			h.out.mu.Lock()
			put(h.out.w, "%s", strings.TrimRight(h.trial.shownPaths(string(text)), "\n"))
			h.out.mu.Unlock()
			user = true
		}
		return true
	})
	if user || !h.next.Enabled(ctx, r.Level) {
		return nil
	}
	return h.next.Handle(ctx, r)
}

// WithAttrs fulfils slog.Handler.
func (h *outputHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &outputHandler{h.next.WithAttrs(attrs), h.trial, h.out}
}

// WithGroup fulfils slog.Handler.
func (h *outputHandler) WithGroup(name string) slog.Handler {
	return &outputHandler{h.next.WithGroup(name), h.trial, h.out}
}

// jsonOrText is a body for a JSON result: as JSON when it is that, else as text,
// else as base64.
func jsonOrText(body []byte) any {
	switch {
	case len(body) > 0 && json.Valid(body):
		return json.RawMessage(body)
	case utf8.Valid(body):
		return string(body)
	default:
		return object{{"base64", base64.StdEncoding.EncodeToString(body)}}
	}
}
