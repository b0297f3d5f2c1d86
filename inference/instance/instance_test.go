package instance_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/inference/instance"
	"clearmlserving/inference/reconcile"
	"clearmlserving/serving"
)

// apiServer answers the calls for an instance's record and stores them.
type apiServer struct {
	mu    sync.Mutex
	calls []string
	down  bool
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	name := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	a.mu.Lock()
	a.calls = append(a.calls, name+" "+string(body))
	down := a.down
	a.mu.Unlock()
	data := map[string]any{}
	code := http.StatusOK
	switch {
	case down || err != nil:
		code = http.StatusInternalServerError
	case name == "auth.login":
		// header and claims of an unsigned token: the client only decodes it
		data["token"] = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJhcGlfdmVyc2lvbiI6IjIuMzEifQ.x"
	case name == "tasks.get_by_id":
		data["task"] = map[string]any{
			"id": "S", "name": "service", "status": "created", "project": "P",
			"configuration": map[string]any{"endpoints": map[string]any{"name": "endpoints", "value": "{}"}},
		}
	case name == "projects.get_by_id":
		data["project"] = map[string]any{"id": "P", "name": "DevOps"}
	case name == "tasks.create":
		data["id"] = "I"
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"meta": map[string]any{"result_code": code, "result_msg": "", "id": "1"}, "data": data})
}

func (a *apiServer) has(words ...string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, call := range a.calls {
		all := true
		for _, w := range words {
			all = all && strings.Contains(call, w)
		}
		if all {
			return true
		}
	}
	return false
}

func (a *apiServer) count(word string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for _, call := range a.calls {
		if strings.Contains(call, word) {
			n++
		}
	}
	return n
}

func TestInstanceIsRecordedAsTheOriginalDoes(t *testing.T) {
	api := &apiServer{}
	server := httptest.NewServer(api)
	defer server.Close()
	client, err := clearml.New(clearml.Options{Config: clearml.Config{
		API: clearml.Setting{Value: server.URL}, AccessKey: clearml.Setting{Value: "a"}, SecretKey: clearml.NewSecret("s", ""),
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	console := instance.NewConsole(slog.DiscardHandler, func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) })
	log := slog.New(console)
	r := instance.New(instance.Options{Client: client, Console: console, Logger: log, Name: "host:1", URL: "http://host:1"})
	log.Info("first words", "endpoint", "m/1")
	r.Planned(&reconcile.State{ServiceID: "S"}, serving.Plan{Endpoints: map[serving.EndpointURL]serving.PlannedEndpoint{"m/1": {}}}, true)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, loadingThenFailed(r)) }()
	for deadline := time.Now().Add(patience); !api.has("serving_instance", "no such file"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never reported: %q", api.calls)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for name, words := range map[string][]string{
		"its task":               {"tasks.create", `"name":"service - serve instance"`, `"type":"inference"`, `"system_tags":["service"]`},
		"its start":              {"tasks.started", `"task":"I"`},
		"the service's start":    {"tasks.started", `"task":"S"`},
		"the mirror":             {"tasks.edit_configuration", `"task":"I"`, `"endpoints"`},
		"the table of endpoints": {"events.add_batch", "Serving Endpoint Configuration", "preprocess_artifact"},
		"its report":             {"tasks.edit_configuration", `"task":"I"`, "serving_instance", "host:1", "loading"},
		"the change of state":    {"tasks.edit_configuration", `"task":"I"`, "serving_instance", "no such file"},
		"the console":            {"events.add_batch", "first words", "endpoint=m/1"},
		"its end":                {"tasks.stopped", `"task":"I"`},
	} {
		if !api.has(words...) {
			t.Errorf("%s was not told", name)
		}
	}
	if api.has("serving_instance", "user.py") {
		t.Error("the report holds a traceback")
	}
}

// loadingThenFailed is the status of an instance whose endpoint fails to load after
// its loading has been reported; it notifies r of the change.
func loadingThenFailed(r *instance.Task) func() serving.Status {
	asked := 0
	return func() serving.Status {
		e := serving.EndpointReport{URL: "m/1", State: "loading"}
		if asked++; asked > 1 {
			e.State, e.Failure = "failed", &serving.LoadFailure{Step: "load", Reason: "no such file", Traceback: "user.py, line 1"}
		} else {
			r.StatusChanged(nil)
		}
		return serving.Status{ServiceID: "S", Endpoints: []serving.EndpointReport{e}}
	}
}

func TestAReportThatDiffersInItsCountsOnlyIsNoNews(t *testing.T) {
	api := &apiServer{}
	server := httptest.NewServer(api)
	defer server.Close()
	client, err := clearml.New(clearml.Options{Config: clearml.Config{API: clearml.Setting{Value: server.URL}, AccessKey: clearml.Setting{Value: "a"}, SecretKey: clearml.NewSecret("s", "")}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	r := instance.New(instance.Options{Client: client, Logger: slog.New(slog.DiscardHandler)})
	r.Planned(&reconcile.State{ServiceID: "S"}, serving.Plan{}, true)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	looked := make(chan struct{}, 100)
	var requests uint64
	status := func() serving.Status {
		requests++
		looked <- struct{}{}
		return serving.Status{Endpoints: []serving.EndpointReport{{URL: "m", State: "ready", Counts: serving.Counts{Requests: requests}}}}
	}
	begun := time.Now()
	go func() { done <- r.Run(ctx, status) }()
	for range 3 {
		<-looked
		r.StatusChanged(nil)
	}
	<-looked
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	// Changed counts are reported periodically: on a slow machine that time may have passed.
	if n, most := api.count("serving_instance"), 1+int(time.Since(begun)/instance.CountsEvery); n < 1 || n > most {
		t.Errorf("%d reports were written, want 1 and at most %d", n, most)
	}
}

func TestAServerThatIsAwayNeverStopsTheInstance(t *testing.T) {
	api := &apiServer{down: true}
	server := httptest.NewServer(api)
	defer server.Close()
	client, err := clearml.New(clearml.Options{Config: clearml.Config{API: clearml.Setting{Value: server.URL}, Token: clearml.NewSecret("t", "")}, Retry: clearml.Retry{Attempts: 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	r := instance.New(instance.Options{Client: client, Logger: slog.New(slog.DiscardHandler)})
	r.Planned(&reconcile.State{ServiceID: "S"}, serving.Plan{}, true)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := r.Run(ctx, func() serving.Status { return serving.Status{} }); err != nil {
		t.Fatalf("ended with %v", err)
	}
}
