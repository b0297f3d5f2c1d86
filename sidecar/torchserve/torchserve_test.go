package torchserve

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// python writes a stand-in for an interpreter that prints these lines, and returns its path.
func python(t *testing.T, lines ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "python")
	text := "#!/bin/sh\n"
	for _, line := range lines {
		text += "echo '" + line + "'\n"
	}
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

// home is a folder with the package, and returns that of its module ts.
func home(t *testing.T) string {
	t.Helper()
	ts := filepath.Join(t.TempDir(), "ts")
	if err := os.MkdirAll(filepath.Join(ts, "frontend"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(ts, "frontend", "model-server.jar"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return ts
}

func TestTheServerListensOnLoopbackWithKeys(t *testing.T) {
	ts := home(t)
	o := Options{Dir: t.TempDir(), Python: python(t, Version, ts), Java: "java", Port: 7080, MaxBody: 1 << 40, VMArgs: []string{"-Xmx1g"}, Env: []string{"PATH=/bin"}}
	where := o.Where()
	for _, folder := range []string{where.Store, filepath.Dir(where.Keys)} { // of a former run
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(where.Keys, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	command, err := o.Prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(o.Dir, "config.properties"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if strings.HasSuffix(name, "_address") && !strings.HasPrefix(strings.TrimPrefix(value, "http://"), "127.0.0.1") {
			t.Errorf("%s is %s", name, value)
		}
	}
	for _, want := range []string{"disable_token_authorization=false\n", "allowed_urls=none\n", "enable_model_api=true\n", "max_request_size=2147483647\n", "grpc_management_port=7084\n"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the configuration has no %s: %s", want, text)
		}
	}
	args := strings.Join(command.Args, " ")
	if command.Path != "java" || !strings.Contains(args, "-Xmx1g") || !strings.Contains(args, "-s "+where.Store) || !strings.Contains(args, "-ncs") || command.Dir != filepath.Dir(where.Keys) {
		t.Errorf("%+v", command)
	}
	if _, err := os.Stat(where.Keys); err == nil {
		t.Error("the keys of a former run are taken for those of the new one")
	}
}

func TestOtherReleasesAreNotRun(t *testing.T) {
	ts := home(t)
	for says, interpreter := range map[string]string{
		"has torchserve 0.11.1: only 0.12.0 is run": python(t, "0.11.1", ts),
		"has no package torchserve":                 python(t),
		"has no server":                             python(t, Version, "/nowhere/ts"),
		"process not started":                       "/nowhere/python",
	} {
		_, err := Options{Dir: t.TempDir(), Python: interpreter, Java: "java", Port: 1}.Prepare(t.Context())
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
}

func TestAnInterpreterThatHangsIsNotWaitedFor(t *testing.T) {
	file := filepath.Join(t.TempDir(), "python")
	if err := os.WriteFile(file, []byte("#!/bin/sh\nexec sleep 600\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := (Options{Python: file, Env: []string{"PATH=/usr/bin:/bin"}}).find(t.Context(), 50*time.Millisecond); err == nil || !strings.Contains(err.Error(), "has not said within 50ms") {
		t.Errorf("%v", err)
	}
}

func TestTheProbeNeedsAServerThatWorks(t *testing.T) {
	answer := `{"models": []}`
	status := http.StatusOK
	var server *httptest.Server
	for attempt := 0; server == nil; attempt++ {
		port, err := FreePort(t.Context(), 7080)
		if err != nil {
			t.Fatal(err)
		}
		listener, err := net.Listen("tcp", at(port+1))
		if err != nil {
			if attempt > 20 {
				t.Fatal(err)
			}
			continue // somebody was faster
		}
		server = &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer k" {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			w.WriteHeader(status)
			_, _ = fmt.Fprint(w, answer)
		})}}
		server.Start()
		t.Cleanup(server.Close)
	}
	_, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "http://"), ":")
	first, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Dir: t.TempDir(), Port: first - 1}
	if err := Free(t.Context(), o.Port); err == nil {
		t.Error("a port that is taken is free")
	}
	probe := func() error { return o.Probe(context.WithoutCancel(t.Context()), server.Client()) }
	if err := probe(); err == nil || !strings.Contains(err.Error(), "keys yet") {
		t.Errorf("without keys: %v", err)
	}
	if err := os.MkdirAll(filepath.Dir(o.Where().Keys), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.Where().Keys, []byte(`{"management": {"key": "k"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := probe(); err == nil || !strings.Contains(err.Error(), "over gRPC yet") {
		t.Errorf("without gRPC: %v", err)
	}
	for _, address := range []string{o.Where().GRPC, o.Where().Admin} {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = listener.Close() })
	}
	for _, tc := range []struct {
		status int
		answer string
		works  bool
	}{
		{200, `{"models": []}`, true},
		{400, `{"code": 400, "type": "InvalidKeyException"}`, true},
		{200, `garbage`, false},
		{200, `{}`, false},
		{500, `{"models": []}`, false},
	} {
		status, answer = tc.status, tc.answer
		if err := probe(); (err == nil) != tc.works {
			t.Errorf("%d %s: %v", tc.status, tc.answer, err)
		}
	}
}
