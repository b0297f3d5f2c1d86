// Package triton keeps the model repository of a Triton server in step with the configuration of a service: it puts the
// models of endpoints of the engine triton into the repository, writes their config.pbtxt, and loads and unloads them
// by Triton's model control, the old model serving until the new one is ready. It fulfils the contract of engines, so
// that package reconcile follows the configuration; requests go to Triton itself.
package triton

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/retry"
	"clearmlserving/serving"
	"clearmlserving/sidecar"
)

// Options of a Repository.
type Options struct {
	// Dir is the folder of the repository. Its content is replaced.
	Dir string
	// Server is Triton's process, Control the client of it.
	Server  *sidecar.Server
	Control *Control
	Logger  *slog.Logger
}

// Repository holds the models of Triton.
type Repository struct {
	o Options

	// alone is held for reading by each load, and for writing by that of a model that is suspected to have ended Triton.
	alone sync.RWMutex

	mu      sync.Mutex // guards the rest
	models  map[string]*holding
	suspect map[string]bool     // names of models that were being loaded when Triton ended
	fatal   map[string]fatality // by the name of a model
	serial  int
}

// fatality tells that a model has ended Triton.
type fatality struct{ fingerprint, text string }

// holding is a name in the repository. Its fields, except model, are guarded by the lock of the Repository.
type holding struct {
	turn  chan struct{} // has one place: for what works on this name
	url   serving.EndpointURL
	users int    // models and loads with this name
	model *model // that Triton serves, nil for none
}

// New prepares a repository in a folder, which is emptied: Triton does not run yet.
func New(o Options) (*Repository, error) {
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	r := &Repository{o: o, models: map[string]*holding{}, suspect: map[string]bool{}, fatal: map[string]fatality{}}
	for _, dir := range []string{r.repository(), r.staging()} {
		if err := os.RemoveAll(dir); err != nil {
			return nil, err
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// repository is the folder that Triton reads; staging has what is on its way there, or away.
func (r *Repository) repository() string { return filepath.Join(r.o.Dir, "models") }
func (r *Repository) staging() string    { return filepath.Join(r.o.Dir, "staging") }

// Models is the folder that Triton reads.
func Models(dir string) string { return filepath.Join(dir, "models") }

// hold takes the name of an endpoint's model. Two endpoints may have the same name: the second waits.
func (r *Repository) hold(url serving.EndpointURL) (string, *holding, error) {
	name := serving.TritonModel(url)
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.models[name]
	if h == nil {
		h = &holding{turn: make(chan struct{}, 1), url: url}
		r.models[name] = h
	}
	if h.url != url {
		return "", nil, &engine.LoadError{Text: fmt.Sprintf("the model of this endpoint is called %s in Triton, as that of endpoint '%s': rename one of the two", name, h.url)}
	}
	h.users++
	return name, h, nil
}

// drop gives a name back.
func (r *Repository) drop(name string, h *holding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h.users--; h.users == 0 {
		delete(r.models, name)
	}
}

// Load implements engine.Loader: Triton serves the model when it returns.
func (r *Repository) Load(ctx context.Context, spec engine.Spec) (engine.Model, error) {
	if spec.ModelPath == "" {
		return nil, &engine.LoadError{Text: "the endpoint has no model: give --model-id, or --name and --project", Final: true}
	}
	name, h, err := r.hold(spec.URL)
	if err != nil {
		return nil, err
	}
	m := &model{r: r, name: name, held: h, spec: spec}
	if err := r.put(ctx, m); err != nil {
		r.drop(name, h)
		return nil, err
	}
	return m, nil
}

// put brings a model into the repository and into Triton, in the place of the one with its name.
func (r *Repository) put(ctx context.Context, m *model) error {
	r.mu.Lock()
	deadly := r.fatal[m.name]
	r.serial++
	staged := filepath.Join(r.staging(), fmt.Sprintf("new-%d", r.serial))
	r.mu.Unlock()
	if deadly.text != "" && deadly.fingerprint == fingerprint(m.spec) {
		return &engine.LoadError{Text: deadly.text}
	}
	if err := lay(m.spec, staged); err != nil {
		return errors.Join(asLoadError(err, "the model cannot be put into Triton's repository"), os.RemoveAll(staged))
	}
	defer os.RemoveAll(staged) //nolint:errcheck // emptied at the next start
	select {
	case m.held.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-m.held.turn }()
	server, err := r.running(ctx)
	if err != nil {
		return err
	}
	place := filepath.Join(r.repository(), m.name)
	before := staged + ".before"
	replaced := exists(place)
	if replaced {
		if err := os.Rename(place, before); err != nil {
			return err
		}
	}
	if err := os.Rename(staged, place); err != nil {
		return err
	}
	if err := r.loadHere(ctx, m, server); err != nil {
		// Triton goes on with what it has loaded; after a restart it finds that again.
		undone := os.RemoveAll(place)
		if replaced && undone == nil {
			undone = os.Rename(before, place)
		}
		if undone != nil {
			r.o.Logger.Error("model before cannot be put back", "model", m.name, "err", undone)
		}
		if _, refusal := errors.AsType[*refused](err); !refusal { // Triton goes on with a load that nobody waits for
			r.mu.Lock()
			serves := m.held.model
			r.mu.Unlock()
			if serves != nil {
				serves.stale = true
			}
		}
		return err
	}
	r.mu.Lock()
	m.held.model = m
	r.mu.Unlock()
	return os.RemoveAll(before)
}

// fingerprint tells one content of a name from another.
func fingerprint(spec engine.Spec) string {
	return fmt.Sprintf("%s %v %v", spec.ModelPath, spec.Endpoint.AuxiliaryCfg, spec.Endpoint.Tensors)
}

func asLoadError(err error, what string) error {
	if _, ok := errors.AsType[*engine.LoadError](err); ok {
		return err
	}
	return &engine.LoadError{Text: what + ": " + err.Error(), Err: err}
}

// running waits until Triton can be asked. A Triton that ends again and again is not waited for.
func (r *Repository) running(ctx context.Context) (sidecar.Status, error) {
	for {
		changed := r.o.Server.Changed()
		status := r.o.Server.Status()
		switch status.State {
		case sidecar.StateReady:
			return status, nil
		case sidecar.StateWaiting:
			return status, &engine.LoadError{Text: "Triton does not run: " + status.Reason + lastOf(status.LastLines)}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return status, context.Cause(ctx)
		}
	}
}

// lastOf is the line of a log that says why Triton has ended: the last one, or a refusal of its flags before the text
// of its usage.
func lastOf(lines []string) string {
	if i := slices.IndexFunc(lines, func(line string) bool { return strings.Contains(line, "unrecognized option") }); i >= 0 {
		return ": " + lines[i]
	}
	for _, line := range slices.Backward(lines) {
		if line != "" {
			return ": " + line
		}
	}
	return ""
}

// loadHere makes Triton load a model that is in its place.
func (r *Repository) loadHere(ctx context.Context, m *model, server sidecar.Status) error {
	r.mu.Lock()
	suspected := r.suspect[m.name]
	r.mu.Unlock()
	if suspected {
		r.alone.Lock()
		defer r.alone.Unlock()
	} else {
		r.alone.RLock()
		defer r.alone.RUnlock()
	}
	before := r.stubsOf(m.name)
	err := r.o.Control.load(ctx, m.name)
	if err == nil {
		m.stale = false
		m.stubs = r.stubsOf(m.name)
		maps.DeleteFunc(m.stubs, func(pid int, _ bool) bool { return before[pid] }) // of the model before
		r.mu.Lock()
		delete(r.suspect, m.name)
		delete(r.fatal, m.name)
		r.mu.Unlock()
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if refusal, ok := errors.AsType[*refused](err); ok {
		return &engine.LoadError{Text: "Triton refuses the model: " + r.complete(ctx, refusal.words, m.name), Final: true, Err: err}
	}
	return r.lost(ctx, m, server, err)
}

// lost is the error of a load whose answer did not come: Triton may have ended because of the model. A model that did
// so is not loaded again until it changes.
func (r *Repository) lost(ctx context.Context, m *model, server sidecar.Status, err error) error {
	limit := time.NewTimer(lostPatience)
	defer limit.Stop()
	for {
		changed := r.o.Server.Changed()
		now := r.o.Server.Status()
		if now.Restarts > server.Restarts {
			return r.blame(m, now)
		}
		select {
		case <-changed:
		case <-limit.C:
			return &engine.LoadError{Text: "Triton did not answer: " + err.Error(), Err: err}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// blame finds the model that has ended Triton: one that was being loaded is loaded alone next time.
func (r *Repository) blame(m *model, server sidecar.Status) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	what := fmt.Sprintf("Triton ended while it loaded the model (%s)", server.LastDeath+lastOf(server.LastLines))
	if !r.suspect[m.name] { // the cause may be another one
		r.suspect[m.name] = true
		return &engine.LoadError{Text: what + ": it is loaded alone next time"}
	}
	what += ", twice: it is not loaded again until it changes, or this process is started again"
	r.fatal[m.name] = fatality{fingerprint(m.spec), what}
	return &engine.LoadError{Text: what}
}

// lostPatience is how long the end of Triton may take to be seen.
const lostPatience = 5 * time.Second

// complete adds to Triton's words what only its log says: of a configuration that cannot be read, the answer tells no
// more than that.
func (r *Repository) complete(ctx context.Context, words, name string) string {
	words = strings.TrimRight(words, " \n;")
	if !strings.HasSuffix(words, "failed to poll from model repository") {
		return words
	}
	const tries, pause = 20, 50 * time.Millisecond
	for range tries { // the answer may come before the lines
		if said := saidOf(r.o.Server.Log(), name); said != "" {
			return words + ": " + said
		}
		if retry.Sleep(ctx, pause) != nil {
			break
		}
	}
	return words
}

// saidOf finds what the log says last about a model that cannot be polled.
func saidOf(log []string, name string) string {
	for i, line := range slices.Backward(log) {
		_, said, found := strings.Cut(line, "] ")
		if !strings.HasPrefix(line, "E") || !found || !strings.Contains(said, "'"+name+"'") {
			continue
		}
		said = strings.Trim(said, `"`)
		if i > 0 { // the line before has the place in the text
			if _, place, found := strings.Cut(log[i-1], "Error parsing text-format "); found {
				said += " (" + place + ")"
			}
		}
		return said
	}
	return ""
}

// Run loads all models again after Triton was started again, and follows their states, until ctx ends. Models are
// loaded one after the other, so that one which ends Triton is known.
func (r *Repository) Run(ctx context.Context) error {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	starts := 0
	for {
		changed := r.o.Server.Changed()
		if now := r.o.Server.Status(); now.Ready() {
			if starts != 0 && now.Starts != starts {
				r.reload(ctx, now)
			}
			starts = now.Starts
			r.look(ctx)
		}
		select {
		case <-changed:
		case <-look.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// lookEvery is the time between two looks at the states of the models.
const lookEvery = 2 * time.Second

// served lists the models that Triton should serve, by name.
func (r *Repository) served() []*model {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*model
	for _, name := range slices.Sorted(maps.Keys(r.models)) {
		if m := r.models[name].model; m != nil {
			all = append(all, m)
		}
	}
	return all
}

// reload loads the models into a Triton that was started again.
func (r *Repository) reload(ctx context.Context, server sidecar.Status) {
	for _, m := range r.served() {
		m.set(serving.StateLoading, "Triton was started again, and loads it")
	}
	for _, m := range r.served() {
		select {
		case m.held.turn <- struct{}{}:
		case <-ctx.Done():
			return
		}
		r.mu.Lock()
		current := m.held.model == m
		r.mu.Unlock()
		var err error
		if current {
			err = r.loadHere(ctx, m, server)
		}
		<-m.held.turn
		switch {
		case err != nil && ctx.Err() == nil:
			m.set(serving.StateFailed, err.Error())
			r.o.Logger.Error("model not loaded again", "model", m.name, "endpoint", m.spec.URL, "reason", err)
		case current && err == nil:
			m.set(serving.StateReady, "")
			r.o.Logger.Info("model loaded again", "model", m.name, "endpoint", m.spec.URL)
		}
		if r.o.Server.Status().Starts != server.Starts {
			return // the loop of Run begins again
		}
	}
}

// look compares the states of the models with what they should be.
func (r *Repository) look(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, lookEvery)
	defer cancel()
	index, err := r.o.Control.index(limited)
	if err != nil {
		return // the probe of the server says why
	}
	for _, m := range r.served() {
		select {
		case m.held.turn <- struct{}{}: // else it is being loaded
		default:
			continue
		}
		if state := index[m.name]; state.State == readyState {
			r.revive(ctx, m)
		} else if m.state() == serving.StateReady {
			m.set(serving.StateFailed, fmt.Sprintf("Triton says that it is %s (%s)", cmp.Or(state.State, "not loaded"), state.Reason))
			r.o.Logger.Error("model is not loaded any more", "model", m.name, "endpoint", m.spec.URL, "state", state.State, "reason", state.Reason)
		}
		<-m.held.turn
	}
}

// model is a model of an endpoint in Triton. It implements engine.Model; requests do not come here.
type model struct {
	r    *Repository
	name string
	held *holding
	spec engine.Spec

	stubs map[int]bool // the processes of the Python backend that Triton started for it; guarded by the turn of held
	stale bool         // Triton may have loaded another version in its place; guarded by the turn of held

	mu     sync.Mutex // guards the rest
	now    serving.State
	reason string
	closed bool
}

func (m *model) set(state serving.State, reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now, m.reason = state, reason
}

func (m *model) state() serving.State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return cmp.Or(m.now, serving.StateReady)
}

// Infer implements engine.Model.
func (m *model) Infer(context.Context, *engine.Request) (*engine.Response, error) {
	return nil, &engine.Error{Kind: engine.KindUnavailable, Endpoint: m.spec.URL, Text: "this process holds the model for Triton and answers no requests: ask an inference service"}
}

// Status implements engine.Model.
func (m *model) Status() serving.ModelReport {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return serving.ModelReport{State: serving.StateClosed}
	}
	if server := m.r.o.Server.Status(); !server.Ready() {
		state := serving.StateFailed
		if server.State == sidecar.StateStarting {
			state = serving.StateLoading
		}
		return serving.ModelReport{State: state, Reason: "Triton is " + string(server.State) + ": " + server.Reason, Restarts: server.Restarts, LastDeath: server.LastDeath}
	}
	return serving.ModelReport{State: cmp.Or(m.now, serving.StateReady), Reason: m.reason}
}

// Close implements engine.Model: it unloads the model, unless another one has its name.
func (m *model) Close(ctx context.Context) error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	defer m.r.drop(m.name, m.held)
	select {
	case m.held.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-m.held.turn }()
	m.r.mu.Lock()
	current := m.held.model == m
	if current {
		m.held.model = nil
	}
	m.r.mu.Unlock()
	if !current {
		return nil
	}
	var err error
	if m.r.o.Server.Status().Ready() {
		if err = m.r.o.Control.unload(ctx, m.name); err != nil {
			err = fmt.Errorf("unload %s from Triton: %w", m.name, err)
		}
	}
	return errors.Join(err, os.RemoveAll(filepath.Join(m.r.repository(), m.name)))
}
