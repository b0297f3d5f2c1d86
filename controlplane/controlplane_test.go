package controlplane_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"clearmlserving/controlplane"
	"clearmlserving/controlplane/store"
	"clearmlserving/controlplane/store/postgres/postgrestest"
)

var postgresServer postgrestest.Server

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m, &postgresServer)) }

func socket(t *testing.T) net.Listener {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// running is a control plane on free ports.
type running struct {
	*controlplane.Server
	api, files, access, secret string
	client                     *http.Client
	stop                       func() error // stops it and waits
}

// start runs a control plane on a folder until the test ends.
func start(t *testing.T, opts controlplane.Options) *running {
	t.Helper()
	if opts.DataDir == "" {
		opts.DataDir = t.TempDir()
	}
	opts.API, opts.Files = socket(t), socket(t)
	ready := make(chan struct{})
	opts.Ready = func() { close(ready) }
	s, err := controlplane.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1) // one result, so that the goroutine never waits
	go func() { ended <- s.Run(ctx) }()
	<-ready
	r := &running{
		Server: s, api: "http://" + opts.API.Addr().String(), files: "http://" + opts.Files.Addr().String(),
		client: &http.Client{Transport: &http.Transport{ExpectContinueTimeout: time.Minute}},
	}
	r.access, r.secret = s.Credentials()
	r.stop = sync.OnceValue(func() error {
		cancel()
		r.client.CloseIdleConnections()
		return <-ended
	})
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// send makes a request as the first user unless headers say otherwise.
func (r *running) send(t *testing.T, method, url, body string, headers ...string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(r.access, r.secret)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(text)
}

func (r *running) token(t *testing.T) string {
	t.Helper()
	_, _, text := r.send(t, "GET", r.api+"/auth.login", "")
	var answer struct{ Data struct{ Token string } }
	if err := json.Unmarshal([]byte(text), &answer); err != nil || answer.Data.Token == "" {
		t.Fatalf("login: %s, %v", text, err)
	}
	return answer.Data.Token
}

const (
	formType = "multipart/form-data; boundary=XX"
	formBody = "--XX\r\nContent-Disposition: form-data; name=\"%s\"; filename=\"%s\"\r\n\r\n%s\r\n--XX--\r\n"
)

func TestLoginUploadAndRangedDownload(t *testing.T) {
	r := start(t, controlplane.Options{})
	bearer := "Bearer " + r.token(t)
	name := "/P one/T [a].1/models/sk model.pkl"
	status, _, answer := r.send(t, "POST", r.files+"/", fmt.Sprintf(formBody, name, name, "0123456789"),
		"Authorization", bearer, "Content-Type", formType)
	if status != 200 {
		t.Fatalf("upload: %d %s", status, answer)
	}
	for _, base := range []string{r.files, r.api + "/files", r.api + "/files/"} {
		url := base + "/P%20one/T%20%5Ba%5D.1/models/sk%20model.pkl"
		status, h, got := r.send(t, "GET", url, "", "Authorization", bearer, "Range", "bytes=3-5")
		if status != 206 || got != "345" || h.Get("Content-Range") != "bytes 3-5/10" {
			t.Errorf("GET %s: %d %q", url, status, got)
		}
		if status, _, _ := r.send(t, "GET", url, "", "Authorization", ""); status != 401 {
			t.Errorf("GET %s without a token: %d; want 401", url, status)
		}
		if status, _, _ := r.send(t, "GET", url, "", "Authorization", "Bearer x", "Cookie", "clearml_token_basic="+bearer[7:], "Sec-Fetch-Site", "same-site"); status != 200 {
			t.Errorf("GET %s with the cookie from a page of this machine: %d; want 200", url, status)
		}
		if status, _, _ := r.send(t, "DELETE", url, "", "Authorization", "Bearer x", "Cookie", "clearml_token_basic="+bearer[7:], "Sec-Fetch-Site", "cross-site"); status != 401 {
			t.Errorf("DELETE %s with the cookie from another page: %d; want 401", url, status)
		}
	}
}

// The SDK forks while it holds a connection: an answer on one that both processes have
// reaches either of them.
func TestNoConnectionIsKeptForPythonWhichForks(t *testing.T) {
	r := start(t, controlplane.Options{})
	for _, c := range []struct {
		agent string
		kept  bool
	}{{"python-requests/2.32.5", false}, {"clearml-serving", true}, {"", true}} {
		for _, ask := range []struct{ method, url, body string }{
			{"GET", r.api + "/v2.23/tasks.get_all", "{}"},
			{"GET", r.api + "/v2.23/tasks.get_by_id", `{"task":"none"}`},
			{"GET", r.api + "/files/none", ""},
			{"GET", r.files + "/", ""},
		} {
			req, err := http.NewRequestWithContext(t.Context(), ask.method, ask.url, strings.NewReader(ask.body))
			if err != nil {
				t.Fatal(err)
			}
			req.SetBasicAuth(r.access, r.secret)
			req.Header.Set("User-Agent", c.agent)
			resp, err := r.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.Close == c.kept {
				t.Errorf("%q at %s: the connection ends with the answer: %v", c.agent, ask.url, resp.Close)
			}
		}
	}
}

func TestTraversalIsAnsweredNotFoundOnBothSockets(t *testing.T) {
	r := start(t, controlplane.Options{})
	for _, base := range []string{r.files, r.api} {
		prefix := ""
		if base == r.api {
			prefix = "/files"
		}
		for _, path := range []string{"/../credentials.json", "/%2e%2e/clearml.db", "/..%2fcredentials.json", "/%252e%252e/credentials.json", `/..\credentials.json`, "//../credentials.json"} {
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(base, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			key := base64.StdEncoding.EncodeToString([]byte(r.access + ":" + r.secret))
			_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Basic %s\r\nConnection: close\r\n\r\n", prefix+path, key)
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatalf("%s%s: %v", prefix, path, err)
			}
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			_ = conn.Close()
			if resp.StatusCode != 404 || bytes.Contains(body, []byte("secret_key")) {
				t.Errorf("GET %s%s: %d %s; want 404", prefix, path, resp.StatusCode, body)
			}
		}
	}
}

func TestRestartKeepsTokensCredentialsAndFiles(t *testing.T) {
	dir := t.TempDir()
	first := start(t, controlplane.Options{DataDir: dir})
	bearer := "Bearer " + first.token(t)
	if status, _, answer := first.send(t, "PUT", first.files+"/p/a", "kept"); status != 200 {
		t.Fatalf("PUT: %d %s", status, answer)
	}
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	second := start(t, controlplane.Options{DataDir: dir})
	if second.access != first.access || second.secret != first.secret {
		t.Errorf("the credentials changed")
	}
	if status, _, text := second.send(t, "POST", second.api+"/v2.23/users.get_current_user", "{}", "Authorization", bearer); status != 200 {
		t.Errorf("token of before: %d %s", status, text)
	}
	if status, _, text := second.send(t, "GET", second.files+"/p/a", "", "Authorization", bearer); status != 200 || text != "kept" {
		t.Errorf("file of before: %d %s", status, text)
	}
}

func TestCredentialsFileIsForItsOwnerOnly(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "credentials.json")
	r := start(t, controlplane.Options{DataDir: dir})
	checkMode := func() {
		t.Helper()
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
		}
	}
	checkMode()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var kept map[string]string
	if err := json.Unmarshal(text, &kept); err != nil || kept["access_key"] != r.access || kept["secret_key"] != r.secret {
		t.Errorf("file: %s, %v", text, err)
	}
	db, err := os.ReadFile(filepath.Join(dir, "clearml.db"))
	if err != nil || bytes.Contains(db, []byte(r.secret)) {
		t.Errorf("the database holds the secret, or %v", err)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}

	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if opened := start(t, controlplane.Options{DataDir: dir}); opened.access != r.access {
		t.Errorf("credentials changed")
	} else if err := opened.stop(); err != nil {
		t.Fatal(err)
	}
	checkMode()

	for name, damage := range map[string]func() error{
		"missing":              func() error { return os.Remove(path) },
		"damaged":              func() error { return os.WriteFile(path, []byte("{"), 0o600) },
		"of another database":  func() error { return os.WriteFile(path, []byte(`{"access_key":"A","secret_key":"B"}`), 0o600) },
		"empty after a crash":  func() error { return os.WriteFile(path, nil, 0o600) },
		"without a secret key": func() error { return os.WriteFile(path, []byte(`{"access_key":"`+r.access+`"}`), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := damage(); err != nil {
				t.Fatal(err)
			}
			again := start(t, controlplane.Options{DataDir: dir})
			again.token(t)
			checkMode()
			// Those made before are still good for whoever uses them.
			old := base64.StdEncoding.EncodeToString([]byte(r.access + ":" + r.secret))
			if status, _, text := again.send(t, "GET", again.api+"/auth.login", "", "Authorization", "Basic "+old); status != 200 {
				t.Errorf("old credentials: %d %s", status, text)
			}
		})
	}
}

func TestSecondServerOnAFolderIsRefused(t *testing.T) {
	dir := t.TempDir()
	start(t, controlplane.Options{DataDir: dir})
	_, err := controlplane.New(controlplane.Options{DataDir: dir, API: socket(t)})
	if !errors.Is(err, store.ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("second New: %v; want store.ErrInUse with the folder", err)
	}
}

// What counts is the processors' time of this process: how long it lasts depends on
// who else wants them, and on the disk.
func TestStartTakesLessThanATenthOfASecond(t *testing.T) {
	const limit = slowdown * 100 * time.Millisecond
	used := func() time.Duration {
		t.Helper()
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	best := time.Hour
	for range 20 { // what earlier tests have started may still end
		began := used()
		r := start(t, controlplane.Options{})
		r.send(t, "GET", r.api+"/livez", "")
		if best = min(best, used()-began); best < limit {
			return
		}
	}
	t.Errorf("from New on an empty folder to the first answer: %v of work at best; want under %v", best, limit)
}

func TestWritesRingTheFeed(t *testing.T) {
	r := start(t, controlplane.Options{})
	changes := r.Feed().Subscribe()
	if status, _, text := r.send(t, "POST", r.api+"/v2.23/projects.create", `{"name":"rings","description":""}`); status != 200 {
		t.Fatalf("create: %d %s", status, text)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := changes.Next(ctx); err != nil {
		t.Errorf("after a write: %v", err)
	}
}

func TestPageForPeopleTellsNoSecret(t *testing.T) {
	r := start(t, controlplane.Options{Version: "1.2.3"})
	status, h, page := r.send(t, "GET", r.api+"/", "", "Authorization", "", "Accept", "text/html,*/*")
	if status != 200 || !strings.HasPrefix(h.Get("Content-Type"), "text/html") || strings.Contains(h.Get("Content-Security-Policy"), "unsafe") {
		t.Errorf("%d %v", status, h)
	}
	for _, want := range []string{"Log in", "clearml-serving ui", "clearml-serving env"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, secret := range []string{r.access, r.secret, "1.2.3"} {
		if strings.Contains(page, secret) {
			t.Errorf("the page holds %q", secret)
		}
	}
	if status, _, text := r.send(t, "GET", r.api+"/", ""); status != 400 || !strings.Contains(text, `"meta"`) {
		t.Errorf("GET / of a program: %d %s; want an envelope", status, text)
	}
	if status, _, text := r.send(t, "GET", r.api+"/livez", "", "Authorization", ""); status != 200 || text != "ok\n" {
		t.Errorf("livez: %d %q", status, text)
	}
}

func TestUnknownCallIsLoggedOnce(t *testing.T) {
	var out bytes.Buffer
	var mu sync.Mutex
	log := slog.New(slog.NewTextHandler(lockedWriter{&mu, &out}, nil))
	r := start(t, controlplane.Options{Logger: log})
	for range 3 {
		if status, _, _ := r.send(t, "GET", r.api+"/v2.99/pipelines.start_it", ""); status != 404 {
			t.Errorf("status %d; want 404", status)
		}
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if n := strings.Count(out.String(), "unknown call"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, out.String())
	}
	if strings.Contains(out.String(), r.secret) {
		t.Errorf("the log holds the secret")
	}
}

type lockedWriter struct {
	mu  *sync.Mutex
	out io.Writer
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.Write(p)
}

// Browsers open connections ahead of need; the stop must not wait for them. net/http
// would, for five seconds each, so the shortest of several stops tells.
func TestStopWaitsForRequestsButNotForSilentConnections(t *testing.T) {
	best := time.Hour
	for range 20 { // the machine may stand still as long, now and then
		if best = min(best, stopWithASilentConnection(t)); best < 3*time.Second {
			return
		}
	}
	t.Errorf("the stop took %v at best", best)
}

// stopWithASilentConnection checks that a running upload is answered, and tells how
// long the stop took.
func stopWithASilentConnection(t *testing.T) time.Duration {
	t.Helper()
	r := start(t, controlplane.Options{Grace: time.Hour})
	addr := strings.TrimPrefix(r.files, "http://")
	silent, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	body, feed := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), "PUT", r.files+"/p/slow", body)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(r.access, r.secret)
	req.Header.Set("Expect", "100-continue") // the body is sent once the handler reads it
	status := make(chan int, 1)              // one result, so that the goroutine never waits
	go func() {
		resp, err := r.client.Do(req)
		if err != nil {
			status <- 0
			return
		}
		_ = resp.Body.Close()
		status <- resp.StatusCode
	}()
	if _, err := feed.Write([]byte("first half, ")); err != nil { // taken: the request runs
		t.Fatal(err)
	}
	stopped := make(chan error, 1) // one result, so that the goroutine never waits
	began := time.Now()
	go func() { stopped <- r.stop() }()
	if _, err := feed.Write([]byte("second half")); err != nil {
		t.Fatal(err)
	}
	_ = feed.Close()
	if got := <-status; got != 200 {
		t.Errorf("the running upload ended with %d; want 200", got)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	return time.Since(began)
}

func TestStopBreaksOffWhatDoesNotEnd(t *testing.T) {
	r := start(t, controlplane.Options{Grace: 20 * time.Millisecond})
	body, feed := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), "PUT", r.files+"/p/endless", body)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(r.access, r.secret)
	req.Header.Set("Expect", "100-continue") // the body is sent once the handler reads it
	ended := make(chan error, 1)             // one result, so that the goroutine never waits
	go func() {
		resp, err := r.client.Do(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		ended <- err
	}()
	if _, err := feed.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	_ = feed.CloseWithError(io.ErrClosedPipe)
	if err := <-ended; err == nil {
		t.Error("the endless upload was answered; want it broken off")
	}
}

func TestFailedSocketEndsTheServer(t *testing.T) {
	api, files := socket(t), socket(t)
	ready := make(chan struct{})
	s, err := controlplane.New(controlplane.Options{DataDir: t.TempDir(), API: api, Files: files, Ready: func() { close(ready) }})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1) // one result, so that the goroutine never waits
	go func() { ended <- s.Run(t.Context()) }()
	<-ready
	if err := files.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "serve files on "+files.Addr().String()) {
		t.Errorf("Run: %v; want it to name the socket", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close after Run: %v", err)
	}
}

// A load balancer that has not noticed the stop yet loses no call.
func TestAServerThatDrainsIsNotReadyAndAnswersOnConnectionsThatItCloses(t *testing.T) {
	api, files := socket(t), socket(t)
	ready := make(chan struct{})
	s, err := controlplane.New(controlplane.Options{DataDir: t.TempDir(), API: api, Files: files, DrainDelay: time.Hour, Ready: func() { close(ready) }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1) // one result, so that the goroutine never waits
	go func() { ended <- s.Run(ctx) }()
	<-ready
	r := &running{Server: s, api: "http://" + api.Addr().String(), files: "http://" + files.Addr().String(), client: &http.Client{Transport: &http.Transport{}}}
	r.access, r.secret = s.Credentials()
	asked := func(url string) (status int, closes bool) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth(r.access, r.secret)
		resp, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode, resp.Close
	}
	if status, closes := asked(r.api + "/readyz"); status != http.StatusOK || closes {
		t.Errorf("before the stop: %d, closes the connection: %t", status, closes)
	}
	stop()
	for status := http.StatusOK; status != http.StatusServiceUnavailable; time.Sleep(time.Millisecond) {
		status, _, _ = r.send(t, "GET", r.api+"/readyz", "") // fails the test if it is not answered
	}
	for url, want := range map[string]int{r.api + "/auth.login": http.StatusOK, r.api + "/livez": http.StatusOK, r.files + "/none": http.StatusNotFound} {
		if status, closes := asked(url); status != want || !closes {
			t.Errorf("%s: %d, closes the connection: %t; want %d, and the end of the connection", url, status, closes, want)
		}
	}
	if err := files.Close(); err != nil { // nothing is left to wait for
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "serve files on ") {
		t.Errorf("Run: %v; want it to name the socket", err)
	}
}

func TestFolderThatCannotBeUsedIsNamed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := controlplane.New(controlplane.Options{DataDir: filepath.Join(file, "data"), API: socket(t)}); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("New: %v; want an error with the folder", err)
	}
	if _, err := controlplane.New(controlplane.Options{DataDir: t.TempDir()}); err == nil {
		t.Error("New without a socket: no error")
	}
}

func TestClientsTellHowOldAStampIsByTheClockThatStamps(t *testing.T) {
	for _, ahead := range []time.Duration{6 * time.Hour, -6 * time.Hour} {
		r := start(t, controlplane.Options{Now: func() time.Time { return time.Now().Add(ahead) }})
		status, header, text := r.send(t, "POST", r.api+"/tasks.create", `{"name":"the task","type":"training"}`)
		var made struct{ Data struct{ ID string } }
		if err := json.Unmarshal([]byte(text), &made); err != nil || status != 200 {
			t.Fatal(status, text, err)
		}
		_, _, text = r.send(t, "POST", r.api+"/tasks.get_by_id", `{"task":"`+made.Data.ID+`"}`)
		var read struct {
			Data struct {
				Task struct {
					LastUpdate time.Time `json:"last_update"`
				}
			}
		}
		if err := json.Unmarshal([]byte(text), &read); err != nil {
			t.Fatal(text, err)
		}
		told, err := http.ParseTime(header.Get("Date"))
		if err != nil {
			t.Fatal(err)
		}
		for what, at := range map[string]time.Time{"the answer's date": told, "the stamp": read.Data.Task.LastUpdate} {
			if off := time.Until(at) - ahead; off.Abs() > time.Minute {
				t.Errorf("%s is %v from a clock that is %v ahead", what, off, ahead)
			}
		}
	}
}
