package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"clearmlserving/controlplane"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"clearml-serving": main})
}

// TestScripts runs testdata/script/*.txtar: the program itself against the real
// embedded control plane, which each script gets for itself. Beside the commands
// of testscript there are:
//
//	exits CODE WORDS…     run clearml-serving, check its exit code
//	capture NAME REGEXP   set a variable to the first group found in the last stdout
//	api CALL JSON [NAME]  make a call of the ClearML API; with NAME, set it to the answer's id
//	answers FILE          check the last answer of api against lines, each a regular expression
//	instance KEY NAME FILE
//	                      record an instance of service $SID whose report is the file
//	                      (with variables); $TASK_KEY is its task
//	status FILE           serve the file (with variables) as the /status of an inference service
//	readfile URL FILE     check that a stored file has that content
//	expand FILE TO        write the file with variables in it
//	folder DIR PATH BODY [WORDS…]
//	                      run "clearml-serving inference --folder DIR" without a ClearML server on free
//	                      ports, post the body to the path once it is ready, and end it; folder.out is the answer
//	runs WORDS…           run "clearml-serving run" on free ports until it has printed what
//	                      ends it, ask what it printed once, and interrupt it; stdout is its own
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               startServer,
		Condition: func(name string) (bool, error) {
			if name != "onnxruntime" {
				return false, fmt.Errorf("unknown condition %q", name)
			}
			return os.Getenv("CLEARML_SERVING_TEST_ONNXRUNTIME") != "", nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": scriptExits, "capture": scriptCapture, "api": scriptAPI, "answers": scriptAnswers,
			"status": scriptStatus, "feedback": scriptFeedback, "instance": scriptInstance, "readfile": scriptReadFile, "runs": scriptRuns, "folder": scriptFolder,
			"expand": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(os.Expand(ts.ReadFile(args[0]), ts.Getenv)), 0o600))
			},
		},
	})
}

// serverKey finds the script's control plane in its environment's values.
type serverKey struct{}

// testServer is the control plane of one script.
type testServer struct {
	api, files, access, secret string
	answer                     string // of the last call of api
}

func startServer(env *testscript.Env) error {
	var l [2]net.Listener
	for i := range l {
		var err error
		if l[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return err
		}
	}
	dir := filepath.Join(env.WorkDir, "home", "data")
	ready := make(chan struct{})
	server, err := controlplane.New(controlplane.Options{
		DataDir: dir, API: l[0], Files: l[1], Version: "test", Grace: time.Second, Ready: func() { close(ready) },
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := server.Run(ctx); err != nil {
			env.T().Log("control plane: ", err)
		}
	})
	env.Defer(func() {
		cancel()
		running.Wait()
	})
	<-ready
	s := &testServer{api: "http://" + l[0].Addr().String(), files: "http://" + l[1].Addr().String()}
	s.access, s.secret = server.Credentials()
	env.Values[serverKey{}] = s
	env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
	env.Setenv("CLEARML_SERVING_HOME", dir)
	env.Setenv("CLEARML_API_HOST", s.api)
	env.Setenv("API_ADDR", l[0].Addr().String())
	env.Setenv("CLEARML_FILES_HOST", s.files)
	env.Setenv("FILES_HOST", s.files)
	env.Setenv("FILES_NAME", strings.Replace(s.files, "127.0.0.1", "localhost", 1)) // the same server, by another name
	env.Setenv("CLEARML_WEB_HOST", s.api)
	env.Setenv("CLEARML_API_ACCESS_KEY", s.access)
	env.Setenv("CLEARML_API_SECRET_KEY", s.secret)
	env.Setenv("ONNXRUNTIME", os.Getenv("CLEARML_SERVING_TEST_ONNXRUNTIME"))
	for name, folder := range map[string]string{"MODELS": "../../onnxruntime/testdata", "ORIGINAL": "../../docker/testdata/original"} {
		path, err := filepath.Abs(folder)
		if err != nil {
			return err
		}
		env.Setenv(name, path)
	}
	return nil
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: exits CODE WORDS…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec("clearml-serving", args[1:]...); err != nil {
		var exit interface{ ExitCode() int }
		if !errors.As(err, &exit) {
			ts.Fatalf("clearml-serving %s: %v", strings.Join(args[1:], " "), err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("clearml-serving %s: exit code %d, want %d\n%s%s", strings.Join(args[1:], " "), got, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

func scriptCapture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: capture NAME REGEXP")
	}
	out := ts.ReadFile("stdout")
	m := regexp.MustCompile(args[1]).FindStringSubmatch(out)
	if len(m) < 2 {
		ts.Fatalf("%s is not found in:\n%s", args[1], out)
	}
	ts.Setenv(args[0], m[1])
}

func scriptAPI(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: api CALL JSON [NAME]")
	}
	s := ts.Value(serverKey{}).(*testServer)
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, s.api+"/"+args[0], strings.NewReader(args[1]))
	ts.Check(err)
	req.SetBasicAuth(s.access, s.secret)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	ts.Check(err)
	var answer struct {
		Data json.RawMessage `json:"data"`
	}
	ts.Check(json.Unmarshal(text, &answer))
	if resp.StatusCode != http.StatusOK {
		ts.Fatalf("%s: %s", args[0], text)
	}
	var b bytes.Buffer
	ts.Check(json.Indent(&b, answer.Data, "", "  "))
	s.answer = b.String()
	if len(args) == 3 {
		var made struct {
			ID string `json:"id"`
		}
		ts.Check(json.Unmarshal(answer.Data, &made))
		ts.Setenv(args[2], made.ID)
	}
}

func scriptAnswers(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: [!] answers REGEXP")
	}
	s := ts.Value(serverKey{}).(*testServer)
	if regexp.MustCompile(args[0]).MatchString(s.answer) == neg {
		ts.Fatalf("answer, looked for %s:\n%s", args[0], s.answer)
	}
}

// scriptFeedback makes the service of "status" take feedback and show its quality: feedback FILE. FILE
// has the report that it shows. Each truth is joined, but for the key "late".
func scriptFeedback(ts *testscript.TestScript, _ bool, args []string) {
	report := ts.ReadFile(args[0])
	rows := ts.ReadFile(args[1])
	status := []byte(`{"service_id": "` + ts.Getenv("SID") + `"}`)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var err error
		switch {
		case r.URL.Path == "/status":
			_, err = w.Write(status)
		case !strings.HasPrefix(r.URL.Path, "/feedback/"):
			w.WriteHeader(http.StatusNotFound)
		case r.Method == http.MethodPost:
			var items []map[string]any
			if json.NewDecoder(r.Body).Decode(&items) != nil || items[0]["key"] == nil {
				w.WriteHeader(http.StatusUnprocessableEntity)
				_, err = w.Write([]byte(`{"detail": "[0].key is missing"}`))
				break
			}
			late := 0
			for _, item := range items {
				if item["key"] == "late" {
					late++
				}
			}
			_, err = fmt.Fprintf(w, `{"accepted": %d, "joined": %d, "pending": %d, "duplicate": 0}`, len(items), len(items)-late, late)
		case r.URL.Query().Get("rows") == "0":
			_, err = w.Write([]byte(rows))
		case r.URL.Query().Has("rows"):
		default:
			_, err = w.Write([]byte(report))
		}
		ts.Check(err)
	}))
	ts.Defer(server.Close)
	ts.Setenv("SERVE", server.URL)
}

func scriptStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: status FILE")
	}
	body := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/status" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, body)
	})}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) }) // ends with Close
	ts.Defer(func() {
		_ = server.Close()
		serving.Wait()
	})
	ts.Setenv("SERVE", "http://"+l.Addr().String())
}

func scriptInstance(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: instance KEY NAME FILE")
	}
	variable := "TASK_" + args[0]
	if ts.Getenv(variable) == "" {
		scriptAPI(ts, false, []string{"tasks.create", fmt.Sprintf(`{"name":"an instance","type":"inference","parent":%q}`, ts.Getenv("SID")), variable})
	}
	task := ts.Getenv(variable)
	report := strings.TrimSpace(os.Expand(ts.ReadFile(args[2]), ts.Getenv))
	if report != "" {
		report = strings.Replace(report, "{", fmt.Sprintf(`{"instance":%q,`, args[1]), 1)
	}
	text, err := json.Marshal(report)
	ts.Check(err)
	scriptAPI(ts, false, []string{"tasks.started", fmt.Sprintf(`{"task":%q,"force":true}`, task)})
	scriptAPI(ts, false, []string{"tasks.edit_configuration", fmt.Sprintf(`{"task":%q,"force":true,"configuration":[{"name":"serving_instance","value":%s}]}`, task, text)})
}

func scriptReadFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: readfile URL FILE")
	}
	s := ts.Value(serverKey{}).(*testServer)
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, args[0], nil)
	ts.Check(err)
	req.SetBasicAuth(s.access, s.secret)
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	ts.Check(err)
	if want := ts.ReadFile(args[1]); resp.StatusCode != http.StatusOK || string(text) != want {
		ts.Fatalf("%s: %s, %d bytes\n%.200s\nwant %q", args[0], resp.Status, len(text), text, want)
	}
}

// runPatience is how long "run" may take, on a machine that does much beside.
const runPatience = 2 * time.Minute

func scriptFolder(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: folder DIR PATH BODY [WORDS…]")
	}
	words := append([]string{"inference", "--folder", args[0], "--data-dir", ts.MkAbs("served")}, args[3:]...)
	words = append(words, anyPorts("serve", "grpc", "admin")...)
	var said bytes.Buffer
	variables := []string{"PATH", "HOME", "TMPDIR"} // and nothing about a server
	follow(ts, words, variables, &said, func(ctx context.Context, line string, service *os.Process) {
		found := regexp.MustCompile(`predictions +(\S+)/serve/`).FindStringSubmatch(line)
		if found == nil {
			return
		}
		for ctx.Err() == nil {
			resp, err := http.Get(found[1] + "/readyz") //nolint:gosec // the address is our own
			ts.Check(err)
			ts.Check(resp.Body.Close())
			if resp.StatusCode == http.StatusOK {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		fmt.Fprintln(&said, answerTo(ts, found[1]+args[1], args[2]))
		ts.Check(service.Signal(syscall.SIGTERM))
	})
	ts.Check(os.WriteFile(ts.MkAbs("folder.out"), said.Bytes(), 0o600))
}

func scriptRuns(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: runs WORDS…")
	}
	words := append([]string{"run"}, args...)
	words = append(words, anyPorts("serve", "grpc", "api", "files", "admin")...)
	variables := []string{"PATH", "HOME", "TMPDIR", "CLEARML_SERVING_HOME", "CLEARML_API_HOST", "CLEARML_FILES_HOST", "CLEARML_API_ACCESS_KEY", "CLEARML_API_SECRET_KEY", "BROWSED"}
	var said bytes.Buffer
	asked := false
	follow(ts, words, variables, &said, func(_ context.Context, line string, service *os.Process) {
		fmt.Fprintln(&said, line)
		if asked || !strings.HasPrefix(line, "Ctrl-C") && !strings.HasPrefix(line, "It is kept") {
			return
		}
		asked = true
		if found := regexp.MustCompile(`curl -X POST (\S+) .* -d '([^']*)'`).FindStringSubmatch(said.String()); found != nil {
			fmt.Fprintf(&said, "asked: %s\n", answerTo(ts, found[1], found[2]))
		}
		ts.Check(service.Signal(os.Interrupt))
	})
	ts.Check(os.WriteFile(ts.MkAbs("run.out"), said.Bytes(), 0o600))
}

// anyPorts are the words for sockets with free ports.
func anyPorts(sockets ...string) (words []string) {
	for _, name := range sockets {
		words = append(words, "--"+name+"-addr", "127.0.0.1:0")
	}
	return words
}

// answerTo asks with a body of JSON, and returns the status and the body of the answer.
func answerTo(ts *testscript.TestScript, url, body string) string {
	resp, err := http.Post(url, "application/json", strings.NewReader(body)) //nolint:gosec // the address is our own
	ts.Check(err)
	answer, err := io.ReadAll(resp.Body)
	ts.Check(errors.Join(err, resp.Body.Close()))
	return fmt.Sprintf("%s %s", resp.Status, answer)
}

// follow runs clearml-serving with these variables of the script, and calls each with the lines that it prints. each
// ends it.
func follow(ts *testscript.TestScript, words, variables []string, said fmt.Stringer, each func(ctx context.Context, line string, service *os.Process)) {
	program, err := exec.LookPath("clearml-serving")
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), runPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, words...)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range variables {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	ts.Check(cmd.Start())
	for lines := bufio.NewScanner(out); lines.Scan(); {
		each(ctx, lines.Text(), cmd.Process)
	}
	err = cmd.Wait()
	ts.Logf("%s%s", said, errs.String())
	if err != nil {
		ts.Fatalf("clearml-serving %s: %v", strings.Join(words, " "), err)
	}
}
