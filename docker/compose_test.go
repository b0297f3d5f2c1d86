// Package docker has no code: its tests load the compose files with the library that docker compose itself uses.
package docker

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// filled is what a user puts into the env file.
var filled = []string{
	"CLEARML_API_ACCESS_KEY=access", "CLEARML_API_SECRET_KEY=0123456789abcdef", "CLEARML_SERVING_ADMIN_TOKEN=token", "VLLM_MODEL=model",
}

func load(t *testing.T, file string, env []string) (*types.Project, error) {
	t.Helper()
	return loadAll(t, []string{file}, env)
}

// loadAll loads files, each over the ones before it, as "docker compose -f A -f B" does.
func loadAll(t *testing.T, files, env []string) (*types.Project, error) {
	t.Helper()
	options, err := cli.NewProjectOptions(files, cli.WithWorkingDirectory("."), cli.WithEnv(env), cli.WithResolvedPaths(true))
	if err != nil {
		t.Fatal(err)
	}
	return options.LoadProject(context.Background())
}

func composeFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("docker-compose*.yml")
	if err != nil || len(files) < 7 {
		t.Fatalf("compose files: %v, %v", files, err)
	}
	return files
}

func TestEveryComposeFileIsAProjectOfItsOwn(t *testing.T) {
	base := []string{"clearml-serving-alertmanager", "clearml-serving-grafana", "clearml-serving-inference", "clearml-serving-kafka", "clearml-serving-prometheus", "clearml-serving-statistics"}
	more := map[string]string{
		"docker-compose-triton.yml": "clearml-serving-triton", "docker-compose-triton-gpu.yml": "clearml-serving-triton", "docker-compose-torchserve.yml": "clearml-serving-torchserve",
		"docker-compose-llamacpp.yml": "clearml-serving-llamacpp", "docker-compose-vllm.yml": "clearml-serving-vllm", "docker-compose-server.yml": "clearml-serving-server",
	}
	for _, file := range composeFiles(t) {
		t.Run(file, func(t *testing.T) {
			p, err := load(t, file, filled)
			if err != nil {
				t.Fatal(err)
			}
			want := slices.Clone(base)
			if service := more[file]; service != "" {
				want = append(want, service)
				slices.Sort(want)
			}
			if got := p.ServiceNames(); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
				t.Errorf("services %v, want %v", got, want)
			}
			for name, s := range p.Services {
				checkService(t, name, s)
			}
			gpu := slices.ContainsFunc(slices.Collect(maps.Values(p.Services)), func(s types.ServiceConfig) bool {
				return s.Deploy != nil && s.Deploy.Resources.Reservations != nil && len(s.Deploy.Resources.Reservations.Devices) > 0
			})
			if wants := strings.Contains(file, "gpu") || strings.Contains(file, "vllm"); gpu != wants {
				t.Errorf("reserves a GPU: %t, want %t", gpu, wants)
			}
		})
	}
}

// pinned is an image with a tag that does not move.
var pinned = regexp.MustCompile(`^[a-z0-9.-]+\.[a-z]+/[a-z0-9/._-]+:[a-z-]*v?b?[0-9][0-9a-z.-]*$`)

func checkService(t *testing.T, name string, s types.ServiceConfig) {
	t.Helper()
	switch {
	case strings.HasPrefix(s.Image, "clearml-serving-"):
		if s.Build == nil {
			t.Errorf("%s: %s has no build", name, s.Image)
			break
		}
		if _, err := os.Stat(filepath.Join(s.Build.Context, s.Build.Dockerfile)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	case !pinned.MatchString(s.Image):
		t.Errorf("%s: image %s is not pinned to a version of a named registry", name, s.Image)
	}
	for _, v := range s.Volumes {
		if v.Type != types.VolumeTypeBind {
			continue
		}
		if _, err := os.Stat(v.Source); err != nil && !strings.HasSuffix(v.Source, "/models") { // the user's
			t.Errorf("%s: %v", name, err)
		}
	}
	if s.Restart == "" {
		t.Errorf("%s is not started again", name)
	}
	if _, ok := s.Networks["clearml-serving-backend"]; !ok && s.NetworkMode != "service:clearml-serving-inference" {
		t.Errorf("%s is not in the network of the others", name)
	}
}

// What is missing is told by its name, before anything starts.
func TestAMissingSecretIsToldByItsName(t *testing.T) {
	for _, missing := range []string{"CLEARML_API_ACCESS_KEY", "CLEARML_API_SECRET_KEY", "CLEARML_SERVING_ADMIN_TOKEN"} {
		env := slices.DeleteFunc(slices.Clone(filled), func(v string) bool { return strings.HasPrefix(v, missing+"=") })
		if _, err := load(t, "docker-compose.yml", env); err == nil || !strings.Contains(err.Error(), missing) {
			t.Errorf("without %s: %v", missing, err)
		}
	}
}

// Each variable of example.env has a use, and what it leaves empty is what must be given.
func TestExampleEnvironmentFits(t *testing.T) {
	text, err := os.ReadFile("example.env")
	if err != nil {
		t.Fatal(err)
	}
	var used strings.Builder
	for _, pattern := range []string{"docker-compose*.yml", "overlays/*.yml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			used.Write(content)
		}
	}
	for line := range strings.Lines(string(text)) {
		name, _, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "#"), "=")
		if ok && !strings.Contains(name, " ") && !strings.Contains(used.String(), "${"+name) {
			t.Errorf("no compose file reads %s", name)
		}
	}
}

// The variables that the original's compose file passes reach the inference service here too.
func TestTheOriginalsVariablesReachTheirServices(t *testing.T) {
	p, err := load(t, "docker-compose-triton.yml", append(slices.Clone(filled), "CLEARML_SERVING_PORT=9000", "CLEARML_EXTRA_PYTHON_PACKAGES=scipy==1.0"))
	if err != nil {
		t.Fatal(err)
	}
	for service, names := range map[string][]string{
		"clearml-serving-inference": {
			"CLEARML_WEB_HOST", "CLEARML_API_HOST", "CLEARML_FILES_HOST", "CLEARML_API_ACCESS_KEY", "CLEARML_API_SECRET_KEY", "CLEARML_SERVING_TASK_ID", "CLEARML_INFERENCE_TASK_ID",
			"CLEARML_SERVING_PORT", "CLEARML_SERVING_POLL_FREQ", "CLEARML_DEFAULT_SERVE_SUFFIX", "CLEARML_DEFAULT_BASE_SERVE_URL", "CLEARML_DEFAULT_KAFKA_SERVE_URL",
			"CLEARML_DEFAULT_TRITON_GRPC_ADDR", "CLEARML_USE_GUNICORN", "CLEARML_SERVING_NUM_PROCESS", "CLEARML_EXTRA_PYTHON_PACKAGES", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
			"AWS_DEFAULT_REGION", "GOOGLE_APPLICATION_CREDENTIALS", "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY",
		},
		"clearml-serving-statistics": {"CLEARML_API_HOST", "CLEARML_API_ACCESS_KEY", "CLEARML_SERVING_TASK_ID", "CLEARML_DEFAULT_KAFKA_SERVE_URL", "CLEARML_SERVING_POLL_FREQ"},
		"clearml-serving-triton":     {"CLEARML_API_HOST", "CLEARML_API_ACCESS_KEY", "CLEARML_SERVING_TASK_ID", "CLEARML_TRITON_POLL_FREQ", "CLEARML_TRITON_METRIC_FREQ"},
	} {
		for _, name := range names {
			if _, ok := p.Services[service].Environment[name]; !ok {
				t.Errorf("%s is not given %s", service, name)
			}
		}
	}
	inference := p.Services["clearml-serving-inference"]
	if got := inference.Environment["CLEARML_DEFAULT_TRITON_GRPC_ADDR"]; got == nil || *got != "clearml-serving-triton:8001" {
		t.Errorf("Triton's address: %v", got)
	}
	if ports := inference.Ports; len(ports) != 1 || ports[0].Published != "9000" || ports[0].Target != 9000 {
		t.Errorf("ports %v, want 9000 on both sides", ports)
	}
}

// TorchServe answers loopback addresses only, and tells instances by a file in the data folder where it is. It needs no
// credentials, and gets none.
func TestTorchServeIsReachedByTheInstance(t *testing.T) {
	p, err := load(t, "docker-compose-torchserve.yml", filled)
	if err != nil {
		t.Fatal(err)
	}
	server := p.Services["clearml-serving-torchserve"]
	if server.NetworkMode != "service:clearml-serving-inference" || len(server.Environment) > 0 {
		t.Errorf("network %q, variables %v", server.NetworkMode, server.Environment)
	}
	for _, name := range []string{"clearml-serving-inference", "clearml-serving-torchserve"} {
		volumes := p.Services[name].Volumes
		if len(volumes) != 1 || volumes[0].Source != "inference" || volumes[0].Target != "/var/lib/clearml-serving" {
			t.Errorf("%s has %v, want the data folder that both have", name, volumes)
		}
	}
}

// Ports that others reach are those that want keys, or that are meant for everybody.
func TestWhatIsPublished(t *testing.T) {
	open := []string{"clearml-serving-inference", "clearml-serving-server"}
	for _, file := range composeFiles(t) {
		p, err := load(t, file, filled)
		if err != nil {
			t.Fatal(err)
		}
		for name, s := range p.Services {
			for _, port := range s.Ports {
				if port.HostIP != "127.0.0.1" && !slices.Contains(open, name) {
					t.Errorf("%s: %s publishes %s on %q", file, name, port.Published, port.HostIP)
				}
			}
		}
	}
}

// The images' context has every package of the program, and .dockerignore leaves out the rest of the tree.
func TestTheContextOfTheImagesHasEveryPackage(t *testing.T) {
	ignored, err := os.ReadFile("../.dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "../cmd/clearml-serving").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		path, ours := strings.CutPrefix(strings.TrimSpace(line), "clearmlserving/")
		top, _, _ := strings.Cut(path, "/")
		if ours && !strings.Contains(string(ignored), "\n!"+top+"\n") {
			t.Errorf(".dockerignore leaves out %s, of which the program is made", top)
		}
	}
}
