package instance

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"clearmlserving/clearml"
	"clearmlserving/serving"
)

// listServer stores the calls about the list of endpoints; without the list it does not support them.
type listServer struct {
	lacks bool

	mu    sync.Mutex // guards calls
	calls []string
	told  []map[string]any // reports about endpoints
}

func (l *listServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	name := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	data, code, msg := map[string]any{}, http.StatusOK, ""
	var told clearml.Container
	_ = json.Unmarshal(body, &told)
	switch {
	case name == "auth.login":
		data["token"] = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJhcGlfdmVyc2lvbiI6IjIuMzEifQ.x"
	case l.lacks:
		code, msg = http.StatusNotFound, "Unable to find endpoint for name "+name+" and version 2.31"
	}
	var fields map[string]any
	_ = json.Unmarshal(body, &fields)
	l.mu.Lock()
	if fields["endpoint_name"] != nil {
		l.told = append(l.told, fields)
	}
	if name != "auth.login" {
		l.calls = append(l.calls, strings.TrimSpace(strings.TrimPrefix(name, "serving.")+" "+told.EndpointName))
	}
	l.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"meta": map[string]any{"result_code": code, "result_msg": msg, "id": "1"}, "data": data})
}

func (l *listServer) taken() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	calls := l.calls
	l.calls = nil
	return calls
}

func listing(t *testing.T, l *listServer) *Task {
	t.Helper()
	server := httptest.NewServer(l)
	t.Cleanup(server.Close)
	client, err := clearml.New(clearml.Options{Config: clearml.Config{
		API: clearml.Setting{Value: server.URL}, AccessKey: clearml.Setting{Value: "a"}, SecretKey: clearml.NewSecret("s", ""),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return New(Options{Client: client, URL: "http://host:1", Logger: slog.New(slog.DiscardHandler)})
}

func listedStatus(urls ...serving.EndpointURL) serving.Status {
	var s serving.Status
	for _, url := range urls {
		s.Endpoints = append(s.Endpoints, serving.EndpointReport{URL: url, ModelID: "M", State: "ready"})
	}
	return s
}

func TestEndpointsAreOnTheServersListFromTheirStartToTheirEnd(t *testing.T) {
	l := &listServer{}
	r := listing(t, l)
	var c containers
	for _, step := range []struct {
		status serving.Status
		want   []string
	}{
		{listedStatus("a"), []string{"register_container a", "container_status_report a"}},
		{listedStatus("a", "b"), []string{"container_status_report a", "register_container b", "container_status_report b"}},
		{listedStatus("b"), []string{"container_status_report b", "unregister_container"}},
	} {
		if err := c.report(t.Context(), r, step.status, "S", nil, serving.Usage{}); err != nil {
			t.Fatal(err)
		}
		if got := l.taken(); !slices.Equal(got, step.want) {
			t.Errorf("told %q, want %q", got, step.want)
		}
	}
	if err := c.end(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if got := l.taken(); !slices.Equal(got, []string{"unregister_container"}) {
		t.Errorf("at the end told %q", got)
	}
}

func TestAServerWithoutAListIsAskedOnce(t *testing.T) {
	l := &listServer{lacks: true}
	r := listing(t, l)
	var c containers
	for range 3 {
		if err := c.report(t.Context(), r, listedStatus("a", "b"), "S", nil, serving.Usage{}); err != nil {
			t.Fatal(err)
		}
	}
	if got := l.taken(); len(got) != 1 {
		t.Errorf("asked %q, want once", got)
	}
}

// A server replaces the registered properties by the reported ones.
func TestEachReportHoldsAllThatIsKnownOfAnEndpoint(t *testing.T) {
	l := &listServer{}
	r := listing(t, l)
	planned := map[serving.EndpointURL]serving.PlannedEndpoint{"a/2": {Endpoint: serving.Endpoint{
		ServingURL: "a", Version: "2", ModelID: "M", PreprocessArtifact: "py_code_a",
		Tensors: serving.Tensors{InputSize: []any{[]any{1, 28, 28}, []any{4}}, InputType: []string{"float32", "int64"}},
	}}}
	var c containers
	for range 2 {
		if err := c.report(t.Context(), r, listedStatus("a/2"), "S", planned, serving.Usage{CPU: 50, Memory: 3 << 20}); err != nil {
			t.Fatal(err)
		}
	}
	if len(l.told) != 3 {
		t.Fatalf("told %d times, want 3", len(l.told))
	}
	for _, fields := range l.told {
		for name, want := range map[string]any{
			"model_version": "2", "preprocess_artifact": "py_code_a", "input_type": "float32, int64", "input_size": float64(28*28*4 + 4*8), "model_source": "ClearML",
		} {
			if fields[name] != want {
				t.Errorf("%s is %v, want %v", name, fields[name], want)
			}
		}
		machine, _ := fields["machine_stats"].(map[string]any)
		cores, _ := machine["cpu_usage"].([]any)
		if machine["memory_used"] != 3.0 || len(cores) != runtime.NumCPU() {
			t.Errorf("machine_stats are %v", machine)
		}
	}
}

func TestTheSizeOfInputsIsToldWhereItIsKnown(t *testing.T) {
	for name, tc := range map[string]struct {
		size  []any
		types []string
		want  int64
	}{
		"none":          {nil, nil, 0},
		"one":           {[]any{[]any{2, 3}}, []string{"float64"}, 48},
		"not in a list": {[]any{2, 3}, []string{"TYPE_FP32"}, 24},
		"open":          {[]any{[]any{-1, 3}}, []string{"float32"}, 0},
		"no type":       {[]any{[]any{1}, []any{1}}, []string{"int8"}, 0},
		"texts":         {[]any{[]any{1}}, []string{"string"}, 0},
		"huge":          {[]any{[]any{1 << 62, 1 << 62}}, []string{"int64"}, 0},
	} {
		if got := inputBytes(serving.Tensors{InputSize: tc.size, InputType: tc.types}); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}
