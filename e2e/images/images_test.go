// Package images has no code: its tests build the container images and run them with podman, under the limits of a
// cluster. make e2e-images makes the base images, since no registry is asked.
package images

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// patience is for a busy machine: nothing here is about speed.
const patience = 5 * time.Minute

const codeText = `class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        if data.get("hold"):
            Preprocess.held = bytearray(data["hold"] << 20)
        if data.get("orphan"):
            import subprocess
            subprocess.run(["sh", "-c", "setsid sleep 1 & exit 0"])
        if data.get("wait"):
            import time
            time.sleep(data["wait"])
        return {"sum": data["x"] + 1}
`

func TestMain(m *testing.M) {
	if os.Getenv("CLEARML_SERVING_E2E_IMAGES") == "" {
		fmt.Println("the images are not tested: make e2e-images does")
		return
	}
	os.Exit(m.Run())
}

// command runs a program in the tree's root and returns what it prints.
func command(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = "../.."
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, out.String(), errs.String())
	}
	return strings.TrimSpace(out.String()), err
}

func must(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := command(t, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// build builds targets with a tag, and returns what is in them: layers by their content, and the configuration. The id of an
// image has the builder's own notes of its cache too.
func build(t *testing.T, tag, more string, targets ...string) map[string]string {
	t.Helper()
	t.Setenv("TAG", tag)
	t.Setenv("IMAGE_ARGS", "--pull-never --network host "+more)
	must(t, "scripts/images.sh", targets...)
	ids := map[string]string{}
	for _, target := range targets {
		ids[target] = must(t, "podman", "inspect", "--format", "{{.Size}} {{json .RootFS}} {{json .Config}}", "localhost/clearml-serving-"+target+":"+tag)
	}
	return ids
}

var all = []string{"inference", "up", "native", "statistics", "server"}

func TestTwoBuildsAreTheSameToTheLastBit(t *testing.T) {
	first := build(t, "latest", "", all...)
	second := build(t, "again", "--no-cache", "inference", "native", "statistics", "server")
	maps.Copy(second, build(t, "again", "", "up")) // inference with other settings
	for _, target := range all {
		if first[target] != second[target] {
			t.Errorf("%s: %s, then %s", target, first[target], second[target])
		}
		size, _, _ := strings.Cut(first[target], " ")
		bytes, _ := strconv.Atoi(size)
		t.Logf("%s: %d MB", target, bytes/1e6)
	}
}

// container is one that runs.
type container struct {
	t    *testing.T
	name string
}

// hardened is how a cluster with restricted pod security runs a container.
var hardened = []string{"--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--pids-limit", "512", "--pull", "never"}

func start(t *testing.T, image string, more ...string) container {
	t.Helper()
	c := container{t, strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-")) + "-" + strconv.Itoa(int(time.Now().UnixNano()%1e6))}
	options, args := more, []string(nil)
	for i, word := range more {
		if word == "--" {
			options, args = more[:i], more[i+1:]
		}
	}
	words := append(append(append([]string{"run", "-d", "--name", c.name}, hardened...), options...), image)
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := command(t, "podman", "logs", "--tail", "60", c.name)
			t.Logf("%s says:\n%s", c.name, out)
		}
		_, _ = command(t, "podman", "rm", "-f", "-t", "2", c.name)
	})
	must(t, "podman", append(words, args...)...)
	return c
}

func (c container) inspect(format string) string {
	c.t.Helper()
	return must(c.t, "podman", "inspect", "--format", format, c.name)
}

// data is a folder for the container's user, on memory.
func data() []string {
	return []string{"--tmpfs", "/var/lib/clearml-serving:rw,mode=2777,size=1g"}
}

// ask sends a request from within the container's network.
func (c container) ask(method, url, body string, header ...string) (int, string) {
	c.t.Helper()
	args := []string{"-t", c.inspect("{{.State.Pid}}"), "-n", "curl", "-s", "-m", "120", "-X", method, "-w", "\n%{http_code}", url}
	for _, h := range header {
		args = append(args, "-H", h)
	}
	if body != "" {
		args = append(args, "-H", "Content-Type: application/json", "-d", body)
	}
	out, _ := command(c.t, "nsenter", args...) // the status is 000 if there is no answer
	answer, code, _ := cut(out)
	status, _ := strconv.Atoi(code)
	return status, answer
}

// cut splits at the last line.
func cut(out string) (before, last string, ok bool) {
	i := strings.LastIndexByte(out, '\n')
	if i < 0 {
		return "", out, false
	}
	return out[:i], out[i+1:], true
}

// until waits for a state.
func until(t *testing.T, what string, yes func() bool) {
	t.Helper()
	for begun := time.Now(); !yes(); time.Sleep(200 * time.Millisecond) {
		if time.Since(begun) > patience {
			t.Fatalf("still not: %s", what)
		}
	}
}

func (c container) ready() {
	c.t.Helper()
	until(c.t, "ready", func() bool {
		if state := c.inspect("{{.State.Status}}"); state != "running" {
			c.t.Fatalf("%s is %s with %s", c.name, state, c.inspect("{{.State.ExitCode}}"))
		}
		status, _ := c.ask("GET", "http://127.0.0.1:8080/readyz", "")
		return status == http.StatusOK
	})
}

// sums is an image that serves the code above without a ClearML server.
func sums(t *testing.T) string {
	t.Helper()
	const image = "localhost/sums:latest"
	if _, err := command(t, "podman", "image", "exists", image); err == nil {
		return image
	}
	dir := t.TempDir()
	code := filepath.Join(dir, "sums.py")
	if err := os.WriteFile(code, []byte(codeText), 0o644); err != nil {
		t.Fatal(err)
	}
	must(t, "dist/images/linux-"+arch(t)+"/clearml-serving", "build", code, "--output", filepath.Join(dir, "image"), "--base", "localhost/clearml-serving-inference:latest")
	must(t, "buildah", "build", "--quiet", "--format", "docker", "--pull-never", "--network", "none", "-t", image, filepath.Join(dir, "image"))
	return image
}

func arch(t *testing.T) string { t.Helper(); return must(t, "go", "env", "GOARCH") }

func TestAnImageOfARevisionServesUnderTheLimitsOfACluster(t *testing.T) {
	c := start(t, sums(t), append(data(), "--network", "none", "--memory", "512m", "--memory-swap", "512m", "--cpus", "1")...)
	c.ready()
	if status, answer := c.ask("POST", "http://127.0.0.1:8080/serve/sums", `{"x": 41}`); status != 200 || answer != `{"sum":42}` {
		t.Errorf("%d %s", status, answer)
	}
	if user := c.inspect("{{.Config.User}}"); user != "10001:0" {
		t.Errorf("it runs as %s", user)
	}
	pid := c.inspect("{{.State.Pid}}")
	text, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Uid:\t10001", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("its first process lacks %q", want)
		}
	}
	if out, err := command(t, "podman", "exec", c.name, "clearml-serving", "probe", "--ready"); err != nil || !strings.Contains(out, "alive") {
		t.Errorf("probe: %v", err)
	}
	must(t, "podman", "healthcheck", "run", c.name)
	out, _ := command(t, "podman", "exec", c.name, "sh", "-c", "echo x > /serving/x")
	_ = out
	if _, err := command(t, "podman", "exec", c.name, "sh", "-c", "echo x > /usr/x"); err == nil || !strings.Contains(err.Error(), "ead-only") {
		t.Errorf("the root can be written to: %v", err)
	}
	// The memory budget is a share of the container's limit, not of the machine's memory.
	_, status := c.ask("GET", "http://127.0.0.1:8080/status", "")
	var told struct {
		Workers struct {
			Limit int64 `json:"limit"`
		} `json:"workers_memory"`
	}
	if err := json.Unmarshal([]byte(status), &told); err != nil || !strings.Contains(status, "workers_memory") {
		t.Errorf("status: %v %s", err, status)
	}
}

func TestProcessOneRemovesOrphansAndEndsWithItsRequests(t *testing.T) {
	c := start(t, sums(t), append(data(), "--network", "none", "--memory", "512m", "--memory-swap", "512m")...)
	c.ready()
	pid := c.inspect("{{.State.Pid}}")
	// One that user code leaves behind, and one of another command in the container.
	if status, answer := c.ask("POST", "http://127.0.0.1:8080/serve/sums", `{"x": 1, "orphan": true}`); status != 200 {
		t.Errorf("%d %s", status, answer)
	}
	must(t, "podman", "exec", c.name, "sh", "-c", "setsid sleep 1 >/dev/null 2>&1 & exit 0")
	until(t, "no process is left dead", func() bool {
		out, _ := command(t, "podman", "exec", c.name, "sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null | grep sleep || true")
		return out == ""
	})
	// A request that runs is answered; then the container ends by itself.
	answered := make(chan string, 1)
	go func() {
		status, answer := c.ask("POST", "http://127.0.0.1:8080/serve/sums", `{"x": 1, "wait": 3}`)
		answered <- fmt.Sprint(status, answer)
	}()
	until(t, "the request runs", func() bool {
		_, status := c.ask("GET", "http://127.0.0.1:8080/status", "")
		return strings.Contains(status, `"in_use": 1`)
	})
	must(t, "kill", "-TERM", pid)
	if got := <-answered; got != `200{"sum":2}` {
		t.Errorf("the request that ran: %s", got)
	}
	until(t, "it has ended", func() bool { return c.inspect("{{.State.Status}}") == "exited" })
	if code := c.inspect("{{.State.ExitCode}}"); code != "0" {
		t.Errorf("exit code %s", code)
	}
}

func TestASecondSignalEndsProcessOneAtOnce(t *testing.T) {
	c := start(t, sums(t), append(data(), "--network", "none", "--memory", "512m", "--memory-swap", "512m")...)
	c.ready()
	pid := c.inspect("{{.State.Pid}}")
	go c.ask("POST", "http://127.0.0.1:8080/serve/sums", `{"x": 1, "wait": 100}`)
	until(t, "the request runs", func() bool {
		_, status := c.ask("GET", "http://127.0.0.1:8080/status", "")
		return strings.Contains(status, `"in_use": 1`)
	})
	must(t, "kill", "-TERM", pid)
	until(t, "it stops", func() bool {
		out, err := exec.CommandContext(t.Context(), "podman", "logs", c.name).CombinedOutput()
		return err == nil && strings.Contains(string(out), "a second signal ends at once")
	})
	must(t, "kill", "-TERM", pid)
	until(t, "it has ended", func() bool { return c.inspect("{{.State.Status}}") == "exited" })
}

func TestWithoutSharedMemory(t *testing.T) {
	c := start(t, sums(t), append(data(), "--network", "none", "--ipc", "none")...)
	c.ready()
	if _, err := command(t, "podman", "exec", c.name, "test", "-d", "/dev/shm"); err == nil {
		t.Skip("there is a /dev/shm after all")
	}
	big := `{"x": 1, "more": "` + strings.Repeat("a", 100_000) + `"}`
	for _, body := range []string{`{"x": 1}`, big} {
		if status, answer := c.ask("POST", "http://127.0.0.1:8080/serve/sums", body); status != 200 {
			t.Errorf("%d %s", status, answer)
		}
	}
}

// With too little memory the service says so and ends, instead of being killed again and again without a word.
func TestWithTooLittleMemoryItSaysSo(t *testing.T) {
	for limit, serves := range map[string]bool{"16m": false, "24m": false, "48m": true} {
		t.Run(limit, func(t *testing.T) {
			c := start(t, sums(t), append(data(), "--network", "none", "--memory", limit, "--memory-swap", limit)...)
			if serves {
				c.ready()
				return
			}
			until(t, "it has ended", func() bool { return c.inspect("{{.State.Status}}") == "exited" })
			logs, err := exec.CommandContext(t.Context(), "podman", "logs", c.name).CombinedOutput()
			if code := c.inspect("{{.State.ExitCode}}"); err != nil || code != "1" || !strings.Contains(string(logs), "of memory, and the service alone needs 32 MiB") {
				t.Errorf("it ended with %s: %s (%v)", code, logs, err)
			}
		})
	}
}

// A request that takes more memory than there is costs its worker, not the service.
func TestARequestBeyondTheLimitIsRefusedWithTheReason(t *testing.T) {
	c := start(t, sums(t), append(data(), "--network", "none", "--memory", "160m", "--memory-swap", "160m", "--restart", "on-failure:3")...)
	c.ready()
	for range 3 {
		status, answer := c.ask("POST", "http://127.0.0.1:8080/serve/sums", `{"x": 1, "hold": 400}`)
		if status < 500 || !strings.Contains(strings.ToLower(answer), "memory") {
			t.Errorf("%d %s", status, answer)
		}
	}
	until(t, "it serves on", func() bool {
		status, answer := c.ask("POST", "http://127.0.0.1:8080/serve/sums", `{"x": 1}`)
		return status == 200 && answer == `{"sum":2}`
	})
	if restarts := c.inspect("{{.RestartCount}}"); restarts != "0" {
		t.Errorf("the service was started again %s times", restarts)
	}
}

// What the original's compose file gives its containers, with its defaults.
func originals(server string) []string {
	env := map[string]string{
		"CLEARML_WEB_HOST": server + ":8008", "CLEARML_API_HOST": server + ":8008", "CLEARML_FILES_HOST": server + ":8081",
		"CLEARML_API_ACCESS_KEY": "ACCESS", "CLEARML_API_SECRET_KEY": "0123456789abcdef", "CLEARML_SERVING_TASK_ID": "", "CLEARML_INFERENCE_TASK_ID": "",
		"CLEARML_SERVING_POLL_FREQ": "1.0", "CLEARML_DEFAULT_SERVE_SUFFIX": "serve", "CLEARML_DEFAULT_BASE_SERVE_URL": "http://127.0.0.1:8080/serve",
		"CLEARML_DEFAULT_KAFKA_SERVE_URL": "127.0.0.1:9092", "CLEARML_DEFAULT_TRITON_GRPC_ADDR": "", "CLEARML_USE_GUNICORN": "", "CLEARML_SERVING_RESTART_ON_FAILURE": "",
		"CLEARML_SERVING_NUM_PROCESS": "", "CLEARML_EXTRA_PYTHON_PACKAGES": "", "CLEARML_ENABLE_ENDPOINT_TELEMETRY": "1", "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "",
		"AWS_DEFAULT_REGION": "", "GOOGLE_APPLICATION_CREDENTIALS": "", "AZURE_STORAGE_ACCOUNT": "", "AZURE_STORAGE_KEY": "",
	}
	var options []string
	for name, value := range env {
		options = append(options, "-e", name+"="+value)
	}
	return options
}

func TestTheOriginalsComposeFileWorksWithOtherImages(t *testing.T) {
	server := start(t, "localhost/clearml-serving-server:latest", append(data(), "--network", "none",
		"-e", "CLEARML_SERVING_ACCESS_KEY=ACCESS", "-e", "CLEARML_SERVING_SECRET_KEY=0123456789abcdef")...)
	until(t, "the server answers", func() bool {
		status, _ := server.ask("GET", "http://127.0.0.1:8008/livez", "")
		return status == 200
	})
	must(t, "podman", "healthcheck", "run", server.name)
	pid := server.inspect("{{.State.Pid}}")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "sums.py"), []byte(codeText), 0o644); err != nil {
		t.Fatal(err)
	}
	cli := func(words ...string) string {
		args := []string{
			"-t", pid, "-n", "env", "CLEARML_API_HOST=http://127.0.0.1:8008", "CLEARML_WEB_HOST=http://127.0.0.1:8008", "CLEARML_FILES_HOST=http://127.0.0.1:8081",
			"CLEARML_API_ACCESS_KEY=ACCESS", "CLEARML_API_SECRET_KEY=0123456789abcdef", "CLEARML_SERVING_HOME=" + dir, "dist/images/linux-" + arch(t) + "/clearml-serving",
		}
		return must(t, "nsenter", append(args, words...)...)
	}
	cli("create", "--name", "sums")
	cli("model", "add", "--engine", "custom", "--endpoint", "sums", "--preprocess", filepath.Join(dir, "sums.py"))
	together := []string{"--network", "container:" + server.name}
	// Its containers run as they are there: the root can be written to, and there is no seccomp.
	inference := start(t, "localhost/clearml-serving-inference:latest", append(append(append(together, originals("http://127.0.0.1")...), data()...), "-e", "CLEARML_SERVING_PORT=8080")...)
	inference.ready()
	if status, answer := inference.ask("POST", "http://127.0.0.1:8080/serve/sums", `{"x": 1}`); status != 200 || answer != `{"sum":2}` {
		t.Errorf("%d %s", status, answer)
	}
	statistics := start(t, "localhost/clearml-serving-statistics:latest", append(append(together, originals("http://127.0.0.1")...), data()...)...)
	until(t, "the statistics answer", func() bool {
		status, _ := statistics.ask("GET", "http://127.0.0.1:9999/metrics", "")
		return status == 200
	})
	must(t, "podman", "healthcheck", "run", statistics.name)
	for _, c := range []container{statistics, inference, server} {
		must(t, "podman", "stop", "-t", "60", c.name)
		if code := c.inspect("{{.State.ExitCode}}"); code != "0" {
			t.Errorf("%s ended with %s", c.name, code)
		}
	}
}

func TestEverythingInOneContainer(t *testing.T) {
	c := start(t, "localhost/clearml-serving-up:latest", append(data(), "--network", "none")...)
	until(t, "the server answers", func() bool {
		status, _ := c.ask("GET", "http://127.0.0.1:8008/livez", "")
		return status == 200
	})
	must(t, "podman", "exec", c.name, "clearml-serving", "create", "--name", "sums")
	c.ready()
	must(t, "podman", "healthcheck", "run", c.name)
	if status, _ := c.ask("GET", "http://127.0.0.1:8008/", "", "Accept: text/html"); status != 200 && status != 302 && status != 303 {
		t.Errorf("the web pages answer %d", status)
	}
}

// The bare image has nothing but the program: no shell, no Python.
func TestTheImageWithoutPythonServesWhatGoComputes(t *testing.T) {
	python := os.Getenv("CLEARML_SERVING_TEST_PYTHON")
	if python == "" {
		python = "../../.venv/bin/python"
	}
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), python, "-c", `
import joblib, sys
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
x, y = load_iris(return_X_y=True)
joblib.dump(RandomForestClassifier(n_estimators=10, random_state=1, n_jobs=1).fit(x, y), sys.argv[1])
`, filepath.Join(dir, "iris.pkl")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	must(t, "dist/images/linux-"+arch(t)+"/clearml-serving", "build", filepath.Join(dir, "iris.pkl"), "--native", "--output", filepath.Join(dir, "image"), "--base", "localhost/clearml-serving-inference:latest")
	must(t, "buildah", "build", "--quiet", "--format", "docker", "--pull-never", "--network", "none", "--build-arg", "NATIVE_BASE=localhost/clearml-serving-native:latest",
		"-t", "localhost/iris:latest", filepath.Join(dir, "image"))
	c := start(t, "localhost/iris:latest", append(data(), "--network", "none", "--memory", "128m", "--memory-swap", "128m")...)
	c.ready()
	if status, answer := c.ask("POST", "http://127.0.0.1:8080/serve/iris", `[[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]]`); status != 200 || answer != "[0,2]" {
		t.Errorf("%d %s", status, answer)
	}
	// What Go leaves to Python is refused with the reason.
	status, answer := c.ask("POST", "http://127.0.0.1:8080/serve/iris", `{"unknown": 1}`)
	if status < 400 || !strings.Contains(strings.ToLower(answer), "python") {
		t.Errorf("%d %s", status, answer)
	}
	if _, err := command(t, "podman", "exec", c.name, "sh", "-c", "true"); err == nil {
		t.Error("there is a shell")
	}
	size := must(t, "podman", "inspect", "--format", "{{.Size}}", "localhost/iris:latest")
	t.Logf("an image of a forest without Python: %s bytes", size)
}

// A program of another architecture fails when the image is built, with the reason.
func TestAProgramOfAnotherArchitectureIsToldAtTheBuild(t *testing.T) {
	dir := t.TempDir()
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[arch(t)]
	if err := os.CopyFS(dir, os.DirFS("../../requirements")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"clearml-serving", "clearml-serving-static"} {
		// An ELF header of the other architecture is enough for the kernel to refuse it.
		machine := map[string]byte{"amd64": 0x3e, "arm64": 0xb7}[other]
		header := append([]byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, machine, 0, 1, 0, 0, 0}, make([]byte, 4096)...)
		path := filepath.Join(dir, "dist/images/linux-"+arch(t), name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, header, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "requirements"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "image.txt"), filepath.Join(dir, "requirements/image.txt")); err != nil {
		t.Fatal(err)
	}
	_, err := command(t, "buildah", "build", "--quiet", "--format", "docker", "--timestamp", "0", "--layers", "--pull-never", "--network", "host", "--build-arg", "PROGRAMS=prebuilt", "--build-arg", "TARGETARCH="+arch(t),
		"-f", "docker/Dockerfile", "--target", "inference", "-t", "localhost/other:latest", dir)
	if err == nil || !strings.Contains(err.Error(), "and the program it was given is not") {
		t.Errorf("%v", err)
	}
}
