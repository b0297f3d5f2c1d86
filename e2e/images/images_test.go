// Package images has no code: its tests build the container images and run them with podman, under the limits of a
// cluster. make e2e-images makes the base images, since no registry is asked.
package images

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
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
	// What is tested has the present programs. Steps of the build that have not changed come from the cache.
	if err := build("latest", "", all...); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// program is ours, as image-programs has built it.
var program = "dist/images/linux-" + runtime.GOARCH + "/clearml-serving"

// run runs a program in the tree's root and returns what it prints.
func run(name string, args ...string) (string, error) {
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

func command(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	return run(name, args...)
}

func must(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := command(t, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// build builds targets with a tag.
func build(tag, more string, targets ...string) error {
	_, err := run("env", append([]string{"TAG=" + tag, "IMAGE_ARGS=--pull-never --network host " + more, "scripts/images.sh"}, targets...)...)
	return err
}

// content is what is in an image: layers by their content, and the configuration. Its id and its size have the builder's own notes
// too.
func content(t *testing.T, image string) string {
	t.Helper()
	return must(t, "podman", "inspect", "--format", "{{json .RootFS}} {{json .Config}}", image)
}

var all = []string{"inference", "up", "native", "statistics", "server"}

func TestTwoBuildsAreTheSameToTheLastBit(t *testing.T) {
	if err := build("again", "--no-cache", "inference", "native", "statistics", "server"); err != nil {
		t.Fatal(err)
	}
	if err := build("again", "", "up"); err != nil { // inference with other settings
		t.Fatal(err)
	}
	for _, target := range all {
		first, second := content(t, "localhost/clearml-serving-"+target+":latest"), content(t, "localhost/clearml-serving-"+target+":again")
		if first != second {
			t.Errorf("%s: %s, then %s", target, first, second)
		}
		bytes, err := strconv.Atoi(must(t, "podman", "inspect", "--format", "{{.Size}}", "localhost/clearml-serving-"+target+":latest"))
		if err != nil {
			t.Error(err)
		}
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
	return startAs(t, image, append(slices.Clone(hardened), more...)...)
}

// startAs starts a container with these options of podman alone; what comes after "--" are the arguments of the image.
func startAs(t *testing.T, image string, more ...string) container {
	t.Helper()
	c := container{t, strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-")) + "-" + strconv.Itoa(int(time.Now().UnixNano()%1e6))}
	options, args := more, []string(nil)
	for i, word := range more {
		if word == "--" {
			options, args = more[:i], more[i+1:]
		}
	}
	words := slices.Concat([]string{"run", "-d", "--name", c.name}, options, []string{image}, args)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s says:\n%s", c.name, c.logs("--tail", "60"))
		}
		_, _ = command(t, "podman", "rm", "-f", "-v", "-t", "2", c.name)
	})
	must(t, "podman", words...)
	return c
}

// logs are what the container has written, on both of its outputs.
func (c container) logs(options ...string) string {
	c.t.Helper()
	out, err := exec.CommandContext(context.WithoutCancel(c.t.Context()), "podman", append(append([]string{"logs"}, options...), c.name)...).CombinedOutput()
	if err != nil {
		c.t.Errorf("%v: %s", err, out)
	}
	return string(out)
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

// sums is an image that serves the code above without a ClearML server. Each run of the tests builds it once.
func sums(t *testing.T) string {
	t.Helper()
	image, err := sumsImage()
	if err != nil {
		t.Fatal(err)
	}
	return image
}

var sumsImage = sync.OnceValues(func() (string, error) {
	const image = "localhost/sums:latest"
	dir, err := os.MkdirTemp("", "sums-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // of this machine's temporary folder
	code := filepath.Join(dir, "sums.py")
	if err := os.WriteFile(code, []byte(codeText), 0o644); err != nil {
		return "", err
	}
	if _, err := run(program, "build", code, "--output", filepath.Join(dir, "image"), "--base", "localhost/clearml-serving-inference:latest"); err != nil {
		return "", err
	}
	_, err = run("buildah", "build", "--quiet", "--format", "docker", "--pull-never", "--network", "none", "-t", image, filepath.Join(dir, "image"))
	return image, err
})

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
	for _, folder := range []string{"/usr", "/serving"} {
		if _, err := command(t, "podman", "exec", "--user", "0:0", c.name, "sh", "-c", "echo x > "+folder+"/x"); err == nil || !strings.Contains(err.Error(), "ead-only") {
			t.Errorf("%s can be written to: %v", folder, err)
		}
	}
	// The memory budget is a share of the container's limit, not of the machine's memory.
	_, status := c.ask("GET", "http://127.0.0.1:8080/status", "")
	var told struct {
		Workers struct {
			Budget int64 `json:"budget"`
		} `json:"workers_memory"`
	}
	if err := json.Unmarshal([]byte(status), &told); err != nil || told.Workers.Budget>>20 != 512*8/10 {
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
	// Its request outlasts everything below: only the second signal can end the service.
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		c.ask("POST", "http://127.0.0.1:8080/serve/sums", `{"x": 1, "wait": 500}`)
	}()
	until(t, "the request runs", func() bool {
		_, status := c.ask("GET", "http://127.0.0.1:8080/status", "")
		return strings.Contains(status, `"in_use": 1`)
	})
	must(t, "kill", "-TERM", pid)
	until(t, "it stops", func() bool {
		return strings.Contains(c.logs(), "a second signal ends at once")
	})
	time.Sleep(5 * time.Second)
	if state := c.inspect("{{.State.Status}}"); state != "running" {
		t.Fatalf("after the first signal it is %s with a request that runs", state)
	}
	must(t, "kill", "-TERM", pid)
	begun := time.Now()
	until(t, "it has ended", func() bool { return c.inspect("{{.State.Status}}") == "exited" })
	if took, code := time.Since(begun), c.inspect("{{.State.ExitCode}}"); took > 20*time.Second || code == "0" {
		t.Errorf("it ended %v after the second signal, with %s", took, code)
	}
	<-asked
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
			if code := c.inspect("{{.State.ExitCode}}"); code != "1" || !strings.Contains(c.logs(), "of memory, and the service alone needs 32 MiB") {
				t.Errorf("it ended with %s: %s", code, c.logs())
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

// The bare image has nothing but the program: no shell, no Python.
func TestTheImageWithoutPythonServesWhatGoComputes(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), python(t), "-c", `
import joblib, sys
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
x, y = load_iris(return_X_y=True)
joblib.dump(RandomForestClassifier(n_estimators=10, random_state=1, n_jobs=1).fit(x, y), sys.argv[1])
`, filepath.Join(dir, "iris.pkl")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	must(t, program, "build", filepath.Join(dir, "iris.pkl"), "--native", "--output", filepath.Join(dir, "image"), "--base", "localhost/clearml-serving-inference:latest")
	must(t, "buildah", "build", "--quiet", "--format", "docker", "--pull-never", "--network", "none", "--build-arg", "NATIVE_BASE=localhost/clearml-serving-native:latest",
		"-t", "localhost/iris:latest", filepath.Join(dir, "image"))
	c := start(t, "localhost/iris:latest", append(data(), "--network", "none", "--memory", "128m", "--memory-swap", "128m")...)
	c.ready()
	must(t, "podman", "healthcheck", "run", c.name)
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
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	if err := os.CopyFS(dir, os.DirFS("../../requirements")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"clearml-serving", "clearml-serving-static"} {
		// An ELF header of the other architecture is enough for the kernel to refuse it.
		machine := map[string]byte{"amd64": 0x3e, "arm64": 0xb7}[other]
		header := append([]byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, machine, 0, 1, 0, 0, 0}, make([]byte, 4096)...)
		path := filepath.Join(dir, "dist/images/linux-"+runtime.GOARCH, name)
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
	_, err := command(t, "buildah", "build", "--quiet", "--format", "docker", "--timestamp", "0", "--layers", "--pull-never", "--network", "host", "--build-arg", "PROGRAMS=prebuilt", "--build-arg", "TARGETARCH="+runtime.GOARCH,
		"-f", "docker/Dockerfile", "--target", "inference", "-t", "localhost/other:latest", dir)
	if err == nil || !strings.Contains(err.Error(), "and the program it was given is not") {
		t.Errorf("%v", err)
	}
}
