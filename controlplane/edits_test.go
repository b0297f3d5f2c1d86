package controlplane_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"clearmlserving/controlplane"
	"clearmlserving/controlplane/ui"
)

// unconditional stands in for a ClearML server without conditional writes: it passes on
// every call, but neither the extension nor its conditions, and each call takes 10 to
// 100 ms.
type unconditional struct{ next http.RoundTripper }

func (u unconditional) RoundTrip(r *http.Request) (*http.Response, error) {
	pause := func() { time.Sleep(5*time.Millisecond + rand.N(45*time.Millisecond)) }
	pause()
	defer pause()
	if strings.HasSuffix(r.URL.Path, "/tasks.edit_configuration") {
		text, err := without(r.Body, "if_match")
		if err != nil {
			return nil, err
		}
		r = r.Clone(r.Context())
		r.Body, r.ContentLength, r.GetBody = io.NopCloser(bytes.NewReader(text)), int64(len(text)), nil
	}
	resp, err := u.next.RoundTrip(r)
	if err != nil || !strings.HasSuffix(r.URL.Path, "/server.info") {
		return resp, err
	}
	text, err := without(resp.Body, "data", "extensions")
	if err != nil {
		return nil, err
	}
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	resp.Header.Set("Content-Length", strconv.Itoa(len(text)))
	return resp, nil
}

// without reads a JSON object and leaves out the value at a path of names.
func without(body io.ReadCloser, path ...string) ([]byte, error) {
	defer func() { _ = body.Close() }()
	var content map[string]any
	if err := json.NewDecoder(body).Decode(&content); err != nil {
		return nil, err
	}
	at := content
	for _, name := range path[:len(path)-1] {
		at, _ = at[name].(map[string]any)
	}
	delete(at, path[len(path)-1])
	return json.Marshal(content)
}

// The pages edit through the same client as the command line, whose edits e2e tries
// beside those of the original. CLEARML_SERVING_TEST_EDITS: how many edits, 16 by default.
func TestPagesThatEditAtOnceOnAServerWithoutConditionsLoseNothingSilently(t *testing.T) {
	edits := 16
	if text := os.Getenv("CLEARML_SERVING_TEST_EDITS"); text != "" {
		var err error
		if edits, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	const writers = 8
	r := start(t, controlplane.Options{})
	m := r.furnish(t, "at once")
	pages, err := ui.New(ui.Options{API: unconditional{r.client.Transport}, APIURL: r.api, FilesURL: r.files})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(pages)
	t.Cleanup(server.Close)
	there := *r
	there.api = server.URL

	var mu sync.Mutex // guards what follows
	stored := map[string]bool{}
	var failed []string
	var all sync.WaitGroup
	for w := range writers {
		v := there.stranger(t)
		if status, page := v.get("/login"); status != http.StatusOK {
			t.Fatalf("login: %d %.300s", status, page)
		}
		if status, page := v.post("/login", "access_key", r.access, "secret_key", r.secret); status != http.StatusOK {
			t.Fatalf("login: %d %.300s", status, page)
		}
		all.Go(func() {
			for i := range edits / writers {
				name := fmt.Sprintf("w%d-%03d", w, i)
				status, page := v.post("/models/"+m.model+"/deploy", "service", m.service, "engine", "sklearn", "endpoint", name)
				mu.Lock()
				if status == http.StatusOK && strings.Contains(page, "is stored") {
					stored[name] = true
				} else {
					failed = append(failed, fmt.Sprintf("%s: %d %.300s", name, status, page))
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	var task struct {
		Task struct {
			Configuration map[string]struct{ Value string }
		}
	}
	r.call(t, "tasks.get_by_id", map[string]any{"task": m.service}, &task)
	for name := range stored {
		if !strings.Contains(task.Task.Configuration["endpoints"].Value, `"`+name+`"`) {
			t.Errorf("%s is lost although its page said that it is stored", name)
		}
	}
	t.Logf("%d edits stored, %d said to have failed: %v", len(stored), len(failed), failed)
	if len(stored) < edits*3/4 {
		t.Errorf("only %d of %d edits were stored: %v", len(stored), edits, failed)
	}
}
