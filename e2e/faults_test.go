//go:build linux

package e2e_test

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// withNeighbour is an installation with an endpoint "steady" under continuous load. It must
// go on answering in spite of all faults of a test.
func withNeighbour(t *testing.T) (s *system, service string) {
	t.Helper()
	s = up(t)
	service = createdID(t, s.must(t, "create", "--name", "faults"))
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "steady", "--preprocess", code("echo.py"), "--wait")
	c := s.clients(1, "steady", `{"x": 1}`, func(answer string) error { return answerError(http.StatusOK, answer, `{"echo":{"x":1}}`) })
	t.Cleanup(func() { c.end(t) })
	return s, service
}

func TestAClientsMistakeIsAnsweredAsTheClientsMistake(t *testing.T) {
	s, _ := withNeighbour(t)
	url := s.urls["serve"] + "/serve/steady"
	tests := []struct {
		name        string
		url         string
		contentType string
		body        string
		header      []string
		status      int
		words       []string
	}{
		{"an endpoint that does not exist", s.urls["serve"] + "/serve/nobody", "application/json", `{}`, nil, 404, []string{"endpoint was not found", "nobody"}},
		{"a version that does not exist", url + "/7", "application/json", `{}`, nil, 404, []string{"steady/7"}},
		{"a path outside the endpoints", s.urls["serve"] + "/other", "application/json", `{}`, nil, 404, []string{"Not Found"}},
		{"JSON that breaks off", url, "application/json", `{"x": `, nil, 422, []string{"json_invalid", "detail"}},
		{"JSON that is none", url, "application/json", `hello`, nil, 422, []string{"json_invalid"}},
		{"text that is not UTF-8", url, "application/json", "{\"x\": \"\xff\"}", nil, 422, []string{"detail"}},
		{"gzip that is none", url, "application/json", `{}`, []string{"Content-Encoding", "gzip"}, 400, []string{"There was an error parsing the body"}},
		{"an unknown encoding", url, "application/json", `{}`, []string{"Content-Encoding", "snappy"}, 415, []string{"snappy"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			status, body := roundTrip(http.MethodPost, test.url, test.contentType, strings.NewReader(test.body), test.header...)
			if status != test.status {
				t.Errorf("status %d, want %d", status, test.status)
			}
			wantWords(t, "the answer", body, test.words...)
			wantNoTrace(t, "the answer", body)
		})
	}
	t.Run("a method that endpoints don't take", func(t *testing.T) {
		if status, body := s.get(t, url); status != http.StatusMethodNotAllowed {
			t.Errorf("GET was answered %d %s, want 405", status, body)
		}
	})
	t.Run("a body of another type reaches user code as bytes", func(t *testing.T) {
		status, body := roundTrip(http.MethodPost, url, "text/plain", strings.NewReader("plain"))
		if status != http.StatusOK || body != `{"echo":"plain"}` {
			t.Errorf("answered %d %s", status, body)
		}
	})
}

func TestABodyTooLargeIsRefusedBeforeItIsRead(t *testing.T) {
	s, _ := withNeighbour(t)
	c, err := net.Dial("tcp", strings.TrimPrefix(s.urls["serve"], "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // only read from
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(c, "POST /serve/steady HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n{", int64(20)<<30)
	if err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 4096)
	n, err := c.Read(answer)
	if err != nil || !bytes.HasPrefix(answer[:n], []byte("HTTP/1.1 413")) {
		t.Errorf("20 GiB were answered %q (%v), want 413 at once", answer[:n], err)
	}
}

func TestAGzipBombIsRefusedAndNeverUnpackedWhole(t *testing.T) {
	s, _ := withNeighbour(t)
	var piece bytes.Buffer
	w := gzip.NewWriter(&piece)
	if _, err := io.CopyN(w, zeros{}, 16<<20); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	bomb := bytes.NewReader(bytes.Repeat(piece.Bytes(), 128)) // gzip may have several members; one of 2 GiB takes long to compress
	before := s.residentMB(t)
	status, body := roundTrip(http.MethodPost, s.urls["serve"]+"/serve/steady", "application/json", bomb, "Content-Encoding", "gzip")
	if status != http.StatusRequestEntityTooLarge {
		t.Errorf("a gzip bomb of 2 GiB was answered %d %s, want 413", status, body)
	}
	if grown := s.residentMB(t) - before; grown > 1000 {
		t.Errorf("the service grew by %d MB", grown)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// residentMB is the resident memory of the service's process.
func (s *system) residentMB(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var total, resident int
	if _, err := fmt.Sscan(string(text), &total, &resident); err != nil {
		t.Fatal(err)
	}
	return resident * os.Getpagesize() >> 20
}

func TestCodeThatCannotBeLoadedIsNamedAndConcernsNobodyElse(t *testing.T) {
	s, _ := withNeighbour(t)
	for file, words := range map[string][]string{
		"raises_at_import.py": {"py_code_broken", "the licence file is missing"},
		"raises_in_load.py":   {"py_code_broken", "the tokenizer could not be opened"},
		"no_class.py":         {"py_code_broken", "Preprocess"},
		"syntax_error.py":     {"py_code_broken", "syntax_error.py:2"},
	} {
		t.Run(file, func(t *testing.T) {
			r := s.cli(t, "model", "add", "--engine", "custom", "--endpoint", "broken", "--preprocess", code(file), "--wait")
			if r.code != 1 {
				t.Errorf("model add --wait ended with %d, want 1: %v", r.code, r)
			}
			status, body := s.ask(t, "broken", `{}`)
			if status != http.StatusServiceUnavailable { // a fault of the deployment, not of the client
				t.Errorf("the endpoint answered %d %s, want 503", status, body)
			}
			wantWords(t, "the answer", body, words...)
			wantNoTrace(t, "the answer", body)
			wantWords(t, "model list --verbose", s.must(t, "model", "list", "--verbose"), "broken", "failed", words[1])
			s.must(t, "model", "remove", "--endpoint", "broken")
		})
	}
}

func TestWhatUserCodeRaisesIsItsAnswer(t *testing.T) {
	s, _ := withNeighbour(t)
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "raising", "--preprocess", code("raises_in_process.py"), "--wait")
	for body, want := range map[string]struct {
		status int
		text   string
	}{
		`{"kind": "value"}`: {422, `{"detail":"Error [<class 'ValueError'>] processing request: x0 must not be negative"}`},
		`{"kind": "key"}`:   {500, `{"detail":"Error  [<class 'KeyError'>] processing request: 'weights'"}`},
	} {
		if status, got := s.ask(t, "raising", body); status != want.status || got != want.text {
			t.Errorf("%s was answered %d %s, want %d %s", body, status, got, want.status, want.text)
		}
	}
	s.eventually(t, patience, "the traceback is in the log, with the user's line", func() error {
		text, err := os.ReadFile(s.log)
		if err == nil && !strings.Contains(string(text), `raise KeyError(`) {
			err = fmt.Errorf("not yet")
		}
		return err
	})
}

func TestAModelFileThatIsNoneIsNamed(t *testing.T) {
	s, service := withNeighbour(t)
	file := filepath.Join(s.dir, "work", "not-a-model.pkl")
	if err := os.WriteFile(file, []byte("this is a shopping list"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.must(t, "--id", service, "model", "upload", "--name", "no model", "--project", "faults", "--path", file)
	r := s.cli(t, "model", "add", "--engine", "sklearn", "--endpoint", "broken", "--name", "no model", "--project", "faults", "--wait")
	if r.code != 1 {
		t.Errorf("model add --wait ended with %v, want 1", r)
	}
	wantWords(t, "model add --wait", r.out, "broken", "not-a-model.pkl")
	status, body := s.ask(t, "broken", `{}`)
	if status < 400 {
		t.Errorf("the endpoint answered %d %s", status, body)
	}
	wantWords(t, "the answer", body, "broken", "not-a-model.pkl")
	wantNoTrace(t, "the answer", body)
}

func TestAModelIDThatDoesNotExistIsNamed(t *testing.T) {
	s, _ := withNeighbour(t)
	const id = "0123456789abcdef0123456789abcdef"
	r := s.cli(t, "model", "add", "--engine", "sklearn", "--endpoint", "broken", "--model-id", id, "--wait")
	if r.code == 0 {
		t.Errorf("model add --wait ended with 0 for a model that does not exist: %v", r)
	}
	wantWords(t, "model add --wait", r.out, id)
	if r := s.cli(t, "model", "add", "--engine", "sklearn", "--endpoint", "other", "--name", "nobody's", "--project", "nowhere"); r.code != 3 && r.code != 1 {
		t.Errorf("model add of an unknown model ended with %v", r)
	} else {
		wantWords(t, "model add", r.out, "nowhere")
	}
}

func TestAnArchiveThatReachesOutsideIsRefused(t *testing.T) {
	s, service := withNeighbour(t)
	var archive bytes.Buffer
	w := zip.NewWriter(&archive)
	for name, text := range map[string]string{"__init__.py": "class Preprocess:\n    pass\n", "../../../escaped.txt": "out"} {
		f, err := w.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(archive.Bytes())
	url := s.upload(t, "/faults/code/archive.zip", archive.Bytes())
	s.call(t, "tasks.add_or_update_artifacts", map[string]any{"task": service, "force": true, "artifacts": []map[string]any{{
		"key": "py_code_escaping", "type": "archive", "mode": "output", "uri": url,
		"hash": hex.EncodeToString(sum[:]), "content_size": archive.Len(),
	}}})
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "escaping", "--preprocess", code("echo.py"))
	// The entry as a hostile user of the server would write it.
	s.call(t, "tasks.add_or_update_artifacts", map[string]any{"task": service, "force": true, "artifacts": []map[string]any{{
		"key": "py_code_escaping", "type": "archive", "mode": "output", "uri": url,
		"hash": hex.EncodeToString(sum[:]), "content_size": archive.Len(),
	}}})
	s.eventually(t, patience, "the archive is refused, by name", func() error {
		status, body := s.get(t, s.urls["serve"]+"/status")
		if status != http.StatusOK || !strings.Contains(body, "escaped.txt") {
			return fmt.Errorf("status says %d %s", status, body)
		}
		return nil
	})
	err := filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Name() == "escaped.txt" {
			t.Errorf("the archive wrote %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestAHangingRequestCostsOneWorkerOnly(t *testing.T) {
	t.Parallel() // mostly waits
	s := install(t)
	// Long enough for the neighbour, whose requests have the same limit.
	s.start(t, role{env: []string{"GUNICORN_SERVING_TIMEOUT=10"}})
	t.Cleanup(func() { s.stop(t) })
	s.must(t, "create")
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "steady", "--preprocess", code("echo.py"), "--wait")
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "hanging", "--preprocess", code("dies.py"), "--wait")
	c := s.clients(1, "steady", `{"x": 1}`, func(answer string) error { return answerError(http.StatusOK, answer, `{"echo":{"x":1}}`) })
	status, body := s.ask(t, "hanging", `{"how": "sleep", "seconds": 600}`)
	if status != http.StatusGatewayTimeout {
		t.Errorf("a request that hangs was answered %d %s, want 504 after 10 s", status, body)
	}
	wantWords(t, "the answer", body, "hanging")
	s.eventually(t, patience, "the endpoint answers again", func() error {
		status, got := s.ask(t, "hanging", `{}`)
		return statusError(status, got)
	})
	c.end(t)
}

func TestOutputOfUserCodeNeverBlocksIt(t *testing.T) {
	s, _ := withNeighbour(t)
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "chatty", "--preprocess", code("dies.py"), "--wait")
	if status, body := s.ask(t, "chatty", `{"how": "print", "megabytes": 50}`); status != http.StatusOK {
		t.Errorf("50 MB of output were answered %d %s", status, body)
	}
	info, err := os.Stat(s.log)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 20<<20 {
		t.Errorf("the log has grown to %d MB", info.Size()>>20)
	}
}
