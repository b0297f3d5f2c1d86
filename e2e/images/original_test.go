package images

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
)

// plane is an embedded ClearML server in a network that the containers of a compose file join.
type plane struct {
	container

	network string
}

// The name of the server in the network, and what is given for it in the env file of the original.
const serverName = "clearml-server"

var envFile = []string{
	"CLEARML_WEB_HOST=http://" + serverName + ":8008", "CLEARML_API_HOST=http://" + serverName + ":8008", "CLEARML_FILES_HOST=http://" + serverName + ":8081",
	"CLEARML_API_ACCESS_KEY=ACCESS", "CLEARML_API_SECRET_KEY=0123456789abcdef",
}

// newPlane starts the server. folder is mounted at /in, where its commands find files.
func newPlane(t *testing.T, folder string) plane {
	t.Helper()
	name := fmt.Sprintf("original-%d", time.Now().UnixNano()%1e9)
	must(t, "podman", "network", "create", name)
	t.Cleanup(func() { _, _ = command(t, "podman", "network", "rm", "-f", name) })
	c := start(t, "localhost/clearml-serving-server:latest", append(data(), "--network", name, "--network-alias", serverName, "-v", folder+":/in:ro",
		"-e", "CLEARML_SERVING_ACCESS_KEY=ACCESS", "-e", "CLEARML_SERVING_SECRET_KEY=0123456789abcdef",
		"-e", "CLEARML_SERVING_API_URL=http://"+serverName+":8008", "-e", "CLEARML_SERVING_FILES_URL=http://"+serverName+":8081")...)
	until(t, "the server answers", func() bool {
		status, _ := c.ask("GET", "http://127.0.0.1:8008/livez", "")
		return status == 200
	})
	must(t, "podman", "healthcheck", "run", c.name)
	return plane{c, name}
}

// cli runs a command of ours in the server's container.
func (p plane) cli(words ...string) string {
	p.t.Helper()
	args := []string{"exec"}
	for _, variable := range envFile {
		args = append(args, "-e", variable)
	}
	return must(p.t, "podman", append(append(args, p.name, "clearml-serving"), words...)...)
}

// composed starts a service of a compose file of the original with an image of ours, and otherwise as docker compose does: its
// root can be written to, the system calls are all allowed, and the data folder is a volume without a name.
func (p plane) composed(file, service, image string) container {
	p.t.Helper()
	options, err := cli.NewProjectOptions([]string{"../../docker/testdata/original/" + file}, cli.WithEnv(envFile))
	if err != nil {
		p.t.Fatal(err)
	}
	project, err := options.LoadProject(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	s := project.Services[service]
	words := []string{"--pull", "never", "--network", p.network, "--network-alias", service, "--network-alias", s.ContainerName, "--restart", s.Restart}
	for _, option := range s.SecurityOpt {
		words = append(words, "--security-opt", strings.Replace(option, ":", "=", 1))
	}
	for name, value := range s.Environment {
		if value != nil {
			words = append(words, "-e", name+"="+*value)
		}
	}
	for _, v := range s.Volumes {
		words = append(words, "-v", v.Source+":"+v.Target)
	}
	words = append(append(words, "--"), s.Command...)
	rest := s
	rest.Name, rest.Image, rest.ContainerName, rest.Restart, rest.Command, rest.Entrypoint = "", "", "", "", nil, nil
	rest.SecurityOpt, rest.Environment, rest.Volumes = nil, nil, nil
	rest.Ports, rest.Networks, rest.DependsOn = nil, nil, nil
	if !reflect.ValueOf(rest).IsZero() {
		p.t.Fatalf("%s of %s has more than the test gives: %+v", service, file, rest)
	}
	return startAs(p.t, image, words...)
}

// address is the container's in its network, where others reach its ports.
func (c container) address() string {
	c.t.Helper()
	return c.inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
}

// ends stops containers one after the other: each ends its work, and exits with 0.
func ends(t *testing.T, containers ...container) {
	t.Helper()
	for _, c := range containers {
		must(t, "podman", "stop", "-t", "60", c.name)
		if code := c.inspect("{{.State.ExitCode}}"); code != "0" {
			t.Errorf("%s ended with %s", c.name, code)
		}
	}
}

func TestTheOriginalsComposeFileWorksWithOtherImages(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "sums.py"), []byte(codeText), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	server := newPlane(t, dir)
	server.cli("create", "--name", "sums")
	server.cli("model", "add", "--engine", "custom", "--endpoint", "sums", "--preprocess", "/in/sums.py")
	const file = "docker-compose.yml"
	inference := server.composed(file, "clearml-serving-inference", "localhost/clearml-serving-inference:latest")
	statistics := server.composed(file, "clearml-serving-statistics", "localhost/clearml-serving-statistics:latest")
	inference.ready()
	if status, answer := inference.ask("POST", "http://"+inference.address()+":8080/serve/sums", `{"x": 1}`); status != 200 || answer != `{"sum":2}` {
		t.Errorf("%d %s", status, answer)
	}
	until(t, "the statistics answer", func() bool {
		status, _ := statistics.ask("GET", "http://"+statistics.address()+":9999/metrics", "")
		return status == 200
	})
	for _, c := range []container{inference, statistics} {
		must(t, "podman", "healthcheck", "run", c.name)
		if user := c.inspect("{{.Config.User}}"); user != "10001:0" {
			t.Errorf("%s runs as %s", c.name, user)
		}
	}

	// Users of the original give a configuration of the SDK instead, in the home of its images.
	conf := filepath.Join(dir, "clearml.conf")
	text := fmt.Sprintf(`api { web_server: "http://%[1]s:8008", api_server: "http://%[1]s:8008", files_server: "http://%[1]s:8081", credentials { access_key: "ACCESS", secret_key: "0123456789abcdef" } }`, serverName)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	second := startAs(t, "localhost/clearml-serving-inference:latest", "--pull", "never", "--network", server.network, "-v", conf+":/root/clearml.conf:ro")
	second.ready()
	if status, answer := second.ask("POST", "http://"+second.address()+":8080/serve/sums", `{"x": 2}`); status != 200 || answer != `{"sum":3}` {
		t.Errorf("%d %s", status, answer)
	}
	ends(t, second, statistics, inference, server.container)
}

// tritonBase is what NVIDIA's image has, as far as docker/engine.Dockerfile needs it: a real tritonserver with its Python backend, from the
// wheel that the benchmarks use. Its other backends are in no package.
const tritonBase = `FROM docker.io/library/python:3.11-slim-bookworm
ARG PACKAGES
RUN apt-get update && apt-get install -y --no-install-recommends libpython3.11 && rm -rf /var/lib/apt/lists/*
RUN python -m pip install --no-cache-dir --no-compile --no-deps ${PACKAGES}
RUN cd /usr/local/lib/python3.11/dist-packages/pytriton/tritonserver && mkdir -p /opt/tritonserver/backends && \
    ln -s "$PWD/bin" /opt/tritonserver/bin && cp -r backends/python /opt/tritonserver/backends/ && \
    cp python_backend_stubs/3.11/triton_python_backend_stub /opt/tritonserver/backends/python/ && \
    chmod 755 bin/tritonserver /opt/tritonserver/backends/python/triton_python_backend_stub
ENV LD_LIBRARY_PATH=/usr/local/lib/python3.11/dist-packages/nvidia_pytriton.libs
`

// pinned are the versions of packages in a file of requirements/, as words for pip.
func pinned(t *testing.T, file string, names ...string) string {
	t.Helper()
	text, err := os.ReadFile("../../requirements/" + file)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		word, _, _ := strings.Cut(line, " ")
		if name, _, ok := strings.Cut(word, "=="); ok && slices.Contains(names, name) {
			found = append(found, word)
		}
	}
	if len(found) != len(names) {
		t.Fatalf("%s has %v of %v", file, found, names)
	}
	return strings.Join(found, " ")
}

func TestTheOriginalsComposeFileWorksWithTriton(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(tritonBase), 0o644); err != nil {
		t.Fatal(err)
	}
	must(t, "buildah", "build", "--quiet", "--format", "docker", "--layers", "--pull-never", "--network", "host", "--build-arg", "PACKAGES="+pinned(t, "bench-triton.txt", "nvidia-pytriton", "numpy"), "-t", "localhost/tritonserver:latest", dir)
	must(t, "buildah", "build", "--quiet", "--format", "docker", "--pull-never", "--network", "none", "--build-arg", "ENGINE_IMAGE=localhost/tritonserver:latest", "--build-arg", "ROLE=triton",
		"--build-arg", "SERVING_IMAGE=localhost/clearml-serving-inference:latest", "-f", "docker/engine.Dockerfile", "-t", "localhost/clearml-serving-triton:latest", ".")
	models, err := filepath.Abs("../testdata/triton")
	if err != nil {
		t.Fatal(err)
	}
	server := newPlane(t, models)
	server.cli("create", "--name", "numbers")
	server.cli("--id", serviceID(server), "model", "upload", "--name", "double", "--project", "models", "--path", "/in/double")
	server.cli("model", "add", "--engine", "triton", "--endpoint", "double", "--name", "double", "--project", "models", "--input-name", "x", "--input-type", "float32", "--input-size", "1", "4",
		"--output-name", "y", "--output-type", "float32", "--output-size", "1", "4", "--aux-config", "backend=python")
	const file = "docker-compose-triton.yml"
	triton := server.composed(file, "clearml-serving-triton", "localhost/clearml-serving-triton:latest")
	inference := server.composed(file, "clearml-serving-inference", "localhost/clearml-serving-inference:latest")
	inference.ready()
	until(t, "Triton computes", func() bool {
		if state := triton.inspect("{{.State.Status}}"); state != "running" {
			t.Fatalf("Triton's container is %s with %s", state, triton.inspect("{{.State.ExitCode}}"))
		}
		status, answer := inference.ask("POST", "http://"+inference.address()+":8080/serve/double", `[[1, 2, 3, 4]]`)
		return status == 200 && answer == `[[2.0,4.0,6.0,8.0]]`
	})
	must(t, "podman", "healthcheck", "run", triton.name)
	status, err := os.ReadFile("/proc/" + triton.inspect("{{.State.Pid}}") + "/status")
	if err != nil || !strings.Contains(string(status), "Name:\tclearml-serving") || !strings.Contains(string(status), "Uid:\t10001") {
		t.Errorf("its first process: %v %s", err, status)
	}
	ends(t, triton, inference, server.container)
}

// serviceID is the id of the server's one service.
func serviceID(p plane) string {
	p.t.Helper()
	for word := range strings.FieldsSeq(p.cli("list", "--format", "original")) {
		if id := strings.Trim(word, "',"); len(id) == 32 && strings.Trim(id, "0123456789abcdef") == "" {
			return id
		}
	}
	p.t.Fatal("there is no service")
	return ""
}
