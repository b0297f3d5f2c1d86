package inference

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"clearmlserving/clearml"
	"clearmlserving/inference/reconcile"
	"clearmlserving/serving"
)

// listServer keeps the calls about the list of endpoints; without the list it knows none.
type listServer struct {
	lacks bool

	mu    sync.Mutex // guards calls
	calls []string
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
	l.mu.Lock()
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

func listing(t *testing.T, l *listServer) *Recording {
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
	return &Recording{Client: client, URL: "http://host:1", Logger: slog.New(slog.DiscardHandler)}
}

func listedStatus(urls ...serving.EndpointURL) Status {
	var s Status
	for _, url := range urls {
		s.Endpoints = append(s.Endpoints, reconcile.EndpointStatus{URL: url, ModelID: "M", State: "ready"})
	}
	return s
}

func TestEndpointsAreOnTheServersListFromTheirStartToTheirEnd(t *testing.T) {
	l := &listServer{}
	r := listing(t, l)
	var c containers
	for _, step := range []struct {
		status Status
		want   []string
	}{
		{listedStatus("a"), []string{"register_container a", "container_status_report a"}},
		{listedStatus("a", "b"), []string{"container_status_report a", "register_container b", "container_status_report b"}},
		{listedStatus("b"), []string{"container_status_report b", "unregister_container"}},
	} {
		if err := c.report(t.Context(), r, step.status, "S"); err != nil {
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
		if err := c.report(t.Context(), r, listedStatus("a", "b"), "S"); err != nil {
			t.Fatal(err)
		}
	}
	if got := l.taken(); len(got) != 1 {
		t.Errorf("asked %q, want once", got)
	}
}
