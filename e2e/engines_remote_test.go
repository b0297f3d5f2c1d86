//go:build linux

package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// engineEnvironment is the Python of a real engine, which make e2e-engines makes.
func engineEnvironment(t *testing.T, name string) string {
	t.Helper()
	if os.Getenv("CLEARML_SERVING_E2E_ENGINES") == "" {
		t.Skip("needs real engines: make e2e-engines")
	}
	return filepath.Join(root, name, "bin", "python")
}

// triton is a real Triton server with the models of testdata/engines/triton.
type triton struct {
	*daemon
	http, grpc string // addresses
}

// ready waits until the server has loaded all models, or has ended.
func (d *daemon) ready(t *testing.T, url string) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(tick) {
		if status, _ := roundTrip(http.MethodGet, url, "", nil); status == http.StatusOK {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s is not ready:\n%s", d.name, lastLines(d.log()))
		}
	}
}

func (s *system) triton(t *testing.T) *triton {
	t.Helper()
	python := engineEnvironment(t, ".venv-bench-triton")
	http, grpc := freePort(t), freePort(t)
	tr := &triton{http: "127.0.0.1:" + http, grpc: "127.0.0.1:" + grpc}
	tr.daemon = s.daemon(t, "triton", nil, python, filepath.Join(root, "e2e/testdata/engines/triton.py"), filepath.Join(s.dir, "triton"), http, grpc)
	tr.ready(t, "http://"+tr.http+"/v2/health/ready")
	return tr
}

// tritonFlags describe the tensors of the models.
var tritonFlags = map[string][]string{
	"scale":  {"--version", "1", "--input-name", "x", "--input-type", "float32", "--input-size", "1", "3", "--output-name", "y", "--output-type", "float32", "--output-size", "1", "3"},
	"a/b":    {"--input-name", "a", "b", "--input-type", "int64", "float64", "--input-size", "[-1]", "[-1]", "--output-name", "sum", "flag", "--output-type", "float64", "bool", "--output-size", "[-1]", "[1]"},
	"words":  {"--input-name", "text", "--input-type", "str", "--input-size", "-1", "--output-name", "loud", "--output-type", "str", "--output-size", "-1"},
	"tokens": {"--input-name", "n", "--input-type", "int32", "--input-size", "1", "--output-name", "token", "--output-type", "int32", "--output-size", "1"},
	"faulty": {"--input-name", "x", "--input-type", "float32", "--input-size", "-1", "--output-name", "y", "--output-type", "float32", "--output-size", "-1"},
}

func (s *system) addTriton(t *testing.T, id, endpoint string, flags ...string) {
	t.Helper()
	s.must(t, slices.Concat([]string{"--id", id, "model", "add", "--engine", "triton", "--endpoint", endpoint}, tritonFlags[endpoint], flags, []string{"--wait"})...)
}

func TestEnginesTritonAnswersBehindOurEndpoints(t *testing.T) {
	s := up(t)
	tr := s.triton(t) // is ended before the instance is stopped, which looks for processes
	id := createdID(t, s.must(t, "create"))
	s.must(t, "--id", id, "config", "--triton-grpc-server", tr.grpc)
	for _, endpoint := range []string{"scale", "a/b", "words", "tokens", "faulty"} {
		s.addTriton(t, id, endpoint)
	}
	s.wants(t, "scale/1", `[[1, 2, 3], [0.5, 0, -1]]`, `[[2.0,4.0,6.0],[1.0,0.0,-2.0]]`)
	s.wants(t, "a/b", `{"a": [1, 2], "b": [0.5, 8]}`, `{"sum":[1.5,10.0],"flag":[true]}`)
	s.wants(t, "words", `["hi", "é"]`, `["HI","É"]`)
	s.wants(t, "tokens", `[3]`, "[0]\n[1]\n[2]\n")
	if status, body := s.ask(t, "scale/1", `[[1, 2]]`); status != 422 || !strings.Contains(body, "the model takes [? 3]") {
		t.Errorf("%d %s", status, body)
	}
	if status, body := s.ask(t, "faulty", `[1]`); status != 500 || !strings.Contains(body, "out of memory: 3 GiB are missing") {
		t.Errorf("the engine's own words: %d %s", status, body)
	}

	// User code around the model, and the Open Inference Protocol.
	s.addTriton(t, id, "scale", "--preprocess", code("around_tensors.py"))
	s.wants(t, "scale/1", `{"name": "n", "values": [1, 2, 3]}`, `{"name":"n","type":"float32","output":[[2.0,4.0,6.0]]}`)
	s.addTriton(t, id, "a/b", "--preprocess", code("around_tensors.py"))
	s.wants(t, "a/b", `{"name": "n", "a": [1, 2], "b": [0.5, 8]}`, `{"name":"n","outputs":[[1.5,10.0],[true]]}`)
	status, body := roundTrip(http.MethodPost, s.urls["serve"]+"/v2/models/words/infer", "application/json", strings.NewReader(`{"id":"q","inputs":[{"name":"text","datatype":"BYTES","shape":[1],"data":["a"]}]}`))
	if status != http.StatusOK || !strings.Contains(body, `"data":["A"]`) || !strings.Contains(body, `"id":"q"`) {
		t.Errorf("%d %s", status, body)
	}

	// The state of the address.
	if out := s.must(t, "--id", id, "model", "list", "--verbose"); !strings.Contains(out, tr.grpc) || !strings.Contains(out, "healthy") {
		t.Errorf("%s", out)
	}
	if _, body := s.get(t, s.urls["admin"]+"/metrics"); !strings.Contains(body, `clearml_serving_engine_address_healthy{address="`+tr.grpc+`",engine="triton"} 1`) {
		t.Errorf("%s", body)
	}

	// The model's process dies: its endpoint fails in the engine's words, the others answer.
	if status, body := s.askWithin("faulty", `[666]`, "2"); status != 504 && status != 500 { // it may never answer
		t.Errorf("%d %s", status, body)
	}
	s.eventually(t, patience, "the endpoint fails", func() error {
		status, body := s.askWithin("faulty", `[1]`, "2")
		if status != 500 || !strings.Contains(body, "not healthy") {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
	s.wants(t, "words", `["hi"]`, `["HI"]`)
}

// askWithin is ask with a time limit in seconds.
func (s *system) askWithin(endpoint, body, seconds string) (int, string) {
	return roundTrip(http.MethodPost, s.urls["serve"]+"/serve/"+endpoint, "application/json", strings.NewReader(body), "X-Request-Timeout", seconds)
}

// engineTraffic asks endpoints all the time, and counts their statuses.
type engineTraffic struct {
	stop     atomic.Bool
	clients  sync.WaitGroup
	mu       sync.Mutex
	statuses map[string]map[int]int
	wrong    []string
}

func (s *system) engineTraffic(t *testing.T, endpoints map[string][2]string) *engineTraffic {
	t.Helper()
	tr := &engineTraffic{statuses: map[string]map[int]int{}}
	for endpoint, exchange := range endpoints {
		tr.statuses[endpoint] = map[int]int{}
		for range 2 {
			tr.clients.Go(func() {
				for !tr.stop.Load() {
					status, body := s.askWithin(endpoint, exchange[0], "4")
					tr.mu.Lock()
					tr.statuses[endpoint][status]++
					if status == http.StatusOK && body != exchange[1] && len(tr.wrong) < 10 {
						tr.wrong = append(tr.wrong, body)
					}
					tr.mu.Unlock()
					time.Sleep(5 * time.Millisecond)
				}
			})
		}
	}
	return tr
}

func (tr *engineTraffic) count(endpoint string, status int) int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.statuses[endpoint][status]
}

func (tr *engineTraffic) end() {
	tr.stop.Store(true)
	tr.clients.Wait()
}

func TestEnginesFaultsOfTritonStayOnItsEndpoint(t *testing.T) {
	s := up(t)
	tr := s.triton(t) // is ended before the instance is stopped, which looks for processes
	id := createdID(t, s.must(t, "create"))
	s.must(t, "--id", id, "config", "--triton-grpc-server", tr.grpc)
	s.addTriton(t, id, "words")
	s.must(t, "--id", id, "model", "add", "--engine", "custom", "--endpoint", "echo", "--preprocess", code("echo.py"), "--wait")
	_, echoed := s.ask(t, "echo", `{"x":1}`)
	load := s.engineTraffic(t, map[string][2]string{"words": {`["hi"]`, `["HI"]`}, "echo": {`{"x":1}`, echoed}})
	answers := func(after string) {
		t.Helper()
		before := load.count("words", 200)
		took := s.eventually(t, patience, after, func() error {
			if load.count("words", 200) < before+5 {
				return errors.New("no answers")
			}
			return nil
		})
		t.Logf("%s: answers again after %v", after, took)
	}
	unavailable := func(fault string) {
		t.Helper()
		before := load.count("words", 503)
		took := s.eventually(t, patience, fault, func() error {
			if load.count("words", 503) < before+5 {
				return errors.New("no status 503")
			}
			return nil
		})
		status, body := s.ask(t, "words", `["hi"]`)
		t.Logf("%s: %d %s after %v", fault, status, body, took)
		if status != 503 || !strings.Contains(body, tr.grpc) {
			t.Errorf("%s: %d %s", fault, status, body)
		}
		reported := s.eventually(t, patience, "the report of the instance", func() error {
			if out := s.must(t, "--id", id, "model", "list", "--verbose"); !strings.Contains(out, "ejected") {
				return errors.New(out)
			}
			return nil
		})
		t.Logf("%s: in model list after %v more", fault, reported)
	}
	answers("the beginning")
	pid := tr.cmd.Process.Pid
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	unavailable("stopped")
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	answers("continued")
	tr.kill()
	unavailable("killed")
	tr.start(t)
	tr.ready(t, "http://"+tr.http+"/v2/health/ready")
	answers("restarted")
	load.end()
	for endpoint, statuses := range load.statuses {
		for status := range statuses {
			if endpoint == "echo" && status != 200 || endpoint == "words" && !slices.Contains([]int{200, 500, 503, 504}, status) {
				t.Errorf("%s: %v", endpoint, statuses)
			}
		}
	}
	if load.wrong != nil {
		t.Errorf("wrong answers: %q", load.wrong)
	}
	t.Logf("%v", load.statuses)
}

func TestEnginesMLServerAnswersBehindOurEndpoints(t *testing.T) {
	python := engineEnvironment(t, ".venv-bench-mlserver")
	s := up(t)
	httpPort, grpcPort := freePort(t), freePort(t)
	folder := filepath.Join(s.dir, "mlserver")
	var iris struct {
		Rows        [][]float64 `json:"rows"`
		Predictions []int       `json:"predictions"`
	}
	decode(t, s.python(t, python, filepath.Join(root, "e2e/testdata/engines/mlserver_model.py"), folder, httpPort, grpcPort, freePort(t)), &iris)
	server := s.daemon(t, "mlserver", nil, filepath.Join(filepath.Dir(python), "python"), "-m", "mlserver.cli.main", "start", folder)
	server.ready(t, "http://127.0.0.1:"+httpPort+"/v2/models/iris/ready")
	id := createdID(t, s.must(t, "create"))
	rows, err := json.Marshal(iris.Rows)
	if err != nil {
		t.Fatal(err)
	}
	for protocol, port := range map[string]string{"grpc": grpcPort, "rest": httpPort} {
		s.must(t, "--id", id, "model", "add", "--engine", "v2", "--endpoint", protocol, "--aux-config", "address=127.0.0.1:"+port, "model=iris", "protocol="+protocol, "--wait")
		status, body := s.ask(t, protocol, string(rows))
		var got []int
		if err := json.Unmarshal([]byte(strings.NewReplacer("[[", "[", "]]", "]", "],[", ",").Replace(body)), &got); err != nil || status != 200 || !slices.Equal(got, iris.Predictions) {
			t.Errorf("%s: %d %s, %v; want %v", protocol, status, body, err, iris.Predictions)
		}
		if status, body := s.ask(t, protocol, `[[1, 2]]`); status < 400 || !strings.Contains(body, "features") {
			t.Errorf("%s: a wrong shape: %d %s", protocol, status, body)
		}
	}
	if r := s.cli(t, "--id", id, "model", "add", "--engine", "v2", "--endpoint", "none", "--aux-config", "model=iris"); r.code == 0 || !strings.Contains(r.err+r.out, "auxiliary_cfg.address is missing") {
		t.Errorf("%v", r)
	}
}

func TestEnginesAnotherInstanceOfOursAnswersBehindOurEndpoints(t *testing.T) {
	engineEnvironment(t, ".venv")
	far := up(t)
	farID := createdID(t, far.must(t, "create"))
	simple := tensorFlags("int32", "[-1, 2]", []string{"INPUT0", "INPUT1"}, []string{"OUTPUT0", "OUTPUT1"})
	far.must(t, slices.Concat([]string{"--id", farID, "model", "add", "--engine", "custom", "--endpoint", "simple", "--version", "2", "--preprocess", filepath.Join(root, "e2e/testdata/protocols/simple.py")}, simple, []string{"--wait"})...)
	s := up(t)
	id := createdID(t, s.must(t, "create"))
	for protocol, socket := range map[string]string{"grpc": "grpc", "rest": "serve"} {
		address := far.urls[socket]
		address = address[strings.LastIndex(address, "/")+1:]
		s.must(t, "--id", id, "model", "add", "--engine", "v2", "--endpoint", protocol, "--aux-config", "address="+address, "model=simple", "version=2", "protocol="+protocol, "--wait")
		s.wants(t, protocol, `{"INPUT0":[[1,2]],"INPUT1":[[10,20]]}`, `{"OUTPUT0":[[11,22]],"OUTPUT1":[[-9,-18]]}`)
		if status, body := s.ask(t, protocol, `{"INPUT0":[[1,2]]}`); status != 422 || !strings.Contains(body, "INPUT1") {
			t.Errorf("%s: %d %s", protocol, status, body)
		}
	}
}
