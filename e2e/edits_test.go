//go:build linux

package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// plainServer acts as a ClearML server without conditional writes: it forwards
// everything to the embedded server except the extension and its conditions, and
// each answer takes 10 to 100 ms.
func plainServer(t *testing.T, api string) string {
	t.Helper()
	target, err := url.Parse(api)
	if err != nil {
		t.Fatal(err)
	}
	pause := func() { time.Sleep(5*time.Millisecond + rand.N(45*time.Millisecond)) }
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: func(r *http.Response) error {
			defer pause()
			if !strings.HasSuffix(r.Request.URL.Path, "/server.info") {
				return nil
			}
			return rewriteJSON(&r.Body, r.Header, func(answer map[string]any) {
				if data, ok := answer["data"].(map[string]any); ok {
					delete(data, "extensions")
				}
			}, &r.ContentLength)
		},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pause()
		if strings.HasSuffix(r.URL.Path, "/tasks.edit_configuration") {
			if err := rewriteJSON(&r.Body, r.Header, func(body map[string]any) { delete(body, "if_match") }, &r.ContentLength); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// rewriteJSON changes a forwarded body.
func rewriteJSON(body *io.ReadCloser, header http.Header, change func(map[string]any), length *int64) error {
	text, err := io.ReadAll(*body)
	if err != nil {
		return err
	}
	var content map[string]any
	if err := json.Unmarshal(text, &content); err != nil {
		return err
	}
	change(content)
	if text, err = json.Marshal(content); err != nil {
		return err
	}
	*body, *length = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	header.Set("Content-Length", strconv.Itoa(len(text)))
	return nil
}

// The command line must notice when other writers overwrite its edits. Where the original's
// command line is installed (make e2e-original), it is the eighth writer: it reads
// the service and writes all of it seconds later, without regard to edits in between,
// so its own edits may be lost. CLEARML_SERVING_E2E_EDITS is the number of edits, 40 by default.
func TestCommandLinesEditingAtOnceLoseNothingSilently(t *testing.T) {
	edits := 40
	if text := os.Getenv("CLEARML_SERVING_E2E_EDITS"); text != "" {
		var err error
		if edits, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	const writers = 8
	s := up(t)
	id := createdID(t, s.must(t, "create", "--name", "edited at once"))
	env := []string{"CLEARML_API_HOST=" + plainServer(t, s.urls["api"])}
	echo := code("echo.py")
	s.must(t, "--id", id, "model", "add", "--engine", "custom", "--endpoint", "base", "--preprocess", echo)
	original := filepath.Join(root, ".venv-original/bin/python")
	if _, err := os.Stat(original); err != nil || os.Getenv("CLEARML_SERVING_E2E_ORIGINAL") == "" {
		original = ""
	}
	var mu sync.Mutex // guards the variables below
	stored := map[string]bool{}
	var failures []string
	theirs := 0 // of the original's writer
	ours := func(name string, words ...string) {
		r := s.cliWith(t, env, append([]string{"--id", id}, words...)...)
		mu.Lock()
		defer mu.Unlock()
		if r.code == 0 {
			stored[name] = true
			return
		}
		failures = append(failures, fmt.Sprintf("%s: %v", name, r))
		if !strings.Contains(r.out, "Error:") {
			t.Errorf("%s failed without a message: %v", name, r)
		}
	}
	var all sync.WaitGroup
	each := edits / writers
	for w := range writers {
		if w == 6 && original != "" {
			continue
		}
		all.Go(func() {
			for i := range each {
				name := fmt.Sprintf("w%d-%03d", w, i)
				switch {
				case w%2 == 0: // many edits of one record
					ours(name, "metrics", "add", "--endpoint", "base", "--variable-scalar", name+"=0,1")
				case w == 7:
					ours(name, "model", "add", "--engine", "custom", "--endpoint", name, "--preprocess", echo)
				default:
					ours(name, "model", "auto-update", "--engine", "custom", "--endpoint", name, "--name", "nobody", "--preprocess", echo)
				}
			}
		})
	}
	if original != "" {
		all.Go(func() {
			for theirs < each {
				s.command(t, slices.Concat(s.sdk, env), original, "-m", "clearml_serving", "--id", id, "metrics", "add",
					"--endpoint", "base", "--variable-value", fmt.Sprintf("theirs-%03d", theirs))
				theirs++
			}
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	sections := s.sections(t, id)
	for name := range stored {
		if !strings.Contains(sections, name) {
			t.Errorf("%s is lost although its command returned 0", name)
		}
	}
	for _, failure := range failures {
		t.Logf("reported as failed: %s", failure)
	}
	t.Logf("%d of our edits stored, %d reported as failed, %d of the original's", len(stored), len(failures), theirs)
	if len(stored) < (edits-theirs)*3/4 {
		t.Errorf("only %d of %d edits were stored", len(stored), edits)
	}
}

// sections are the texts of a service's configuration objects.
func (s *system) sections(t *testing.T, id string) string {
	t.Helper()
	status, body := roundTrip(http.MethodPost, s.urls["api"]+"/tasks.get_by_id", "application/json", strings.NewReader(`{"task": "`+id+`"}`), "Authorization", s.authorization(t))
	if status != http.StatusOK {
		t.Fatalf("tasks.get_by_id: %d %s", status, body)
	}
	var answer struct {
		Data struct {
			Task struct {
				Configuration map[string]struct{ Value string }
			}
		}
	}
	decode(t, body, &answer)
	var all strings.Builder
	for _, object := range answer.Data.Task.Configuration {
		all.WriteString(object.Value + "\n")
	}
	return all.String()
}
