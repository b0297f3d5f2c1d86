package docker

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
)

// stages are the instructions of docker/Dockerfile by target, without those of the targets that it is made from.
func stages(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, part := range regexp.MustCompile(`(?m)^FROM `).Split(string(text), -1)[1:] {
		head, rest, _ := strings.Cut(part, "\n")
		words := strings.Fields(head)
		found[words[len(words)-1]] = rest
	}
	return found
}

// The original's compose files are used with only the names of the images changed: what they ask of their images must exist
// in ours. cmd/clearml-serving checks the variables, and make e2e-images runs the images so.
func TestTheOriginalsComposeFilesFitOurImages(t *testing.T) {
	files, err := filepath.Glob("testdata/original/docker-compose*.yml")
	if err != nil || len(files) != 6 {
		t.Fatalf("files: %v, %v", files, err)
	}
	ours := stages(t)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			p, err := load(t, file, filled)
			if err != nil {
				t.Fatal(err)
			}
			seen := map[string]bool{}
			for name, s := range p.Services {
				role, ok := strings.CutPrefix(strings.TrimSuffix(s.Image, ":latest"), "clearml/clearml-serving-")
				if !ok {
					continue
				}
				role = strings.TrimSuffix(role, "-intel")
				seen[role] = true
				stage := ours[role]
				if role == "triton" {
					engine, err := os.ReadFile("engine.Dockerfile")
					if err != nil {
						t.Fatal(err)
					}
					stage = string(engine)
				}
				checkOriginals(t, s, stage)
				if s.ContainerName != name {
					t.Errorf("%s is %s in the network, and others know it by its name", name, s.ContainerName)
				}
			}
			if want := strings.Contains(file, "triton"); !seen["inference"] || !seen["statistics"] || seen["triton"] != want {
				t.Errorf("its containers: %v", seen)
			}
		})
	}
}

// checkOriginals compares a service of the original with the image that takes its place.
func checkOriginals(t *testing.T, s types.ServiceConfig, stage string) {
	t.Helper()
	if stage == "" {
		t.Fatalf("%s: there is no image that takes its place", s.Name)
	}
	// The image runs without arguments as its CMD and its user say, and nothing is mounted into it.
	if len(s.Command) > 0 || len(s.Entrypoint) > 0 || s.User != "" || s.WorkingDir != "" || len(s.Volumes) > 0 || s.HealthCheck != nil {
		t.Errorf("%s: command %v, entry point %v, user %q, folder %q, volumes %v, check %v", s.Name, s.Command, s.Entrypoint, s.User, s.WorkingDir, s.Volumes, s.HealthCheck)
	}
	exposed := strings.Fields(strings.Join(regexp.MustCompile(`(?m)^EXPOSE (.*)$`).FindAllString(stage, -1), " "))
	port := "8001"
	if m := regexp.MustCompile(`CLEARML_SERVING_PORT=(\d+)`).FindStringSubmatch(stage); m != nil {
		port = m[1]
	}
	if !slices.Contains(exposed, port) {
		t.Errorf("%s: our image listens at %s and exposes %v", s.Name, port, exposed)
	}
	if given := s.Environment["CLEARML_SERVING_PORT"]; given != nil {
		port = *given
	}
	for _, p := range s.Ports {
		if !slices.Contains(exposed, port) || p.Published != "8080" || p.Target != 8080 || port != "8080" {
			t.Errorf("%s: it publishes %s as %d, and the service listens at %s", s.Name, p.Published, p.Target, port)
		}
	}
	if s.Deploy != nil && s.Deploy.Resources.Limits != nil {
		t.Errorf("%s: limits %v", s.Name, s.Deploy.Resources.Limits)
	}
}

// Its Prometheus scrapes the statistics at the port at which our image has them.
func TestTheOriginalsPrometheusFindsOurStatistics(t *testing.T) {
	text, err := os.ReadFile("testdata/original/prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	if want := "clearml-serving-statistics:9999"; !strings.Contains(string(text), want) || !strings.Contains(stages(t)["statistics"], "CLEARML_SERVING_PORT=9999") {
		t.Errorf("the original scrapes %s, and our image listens elsewhere", want)
	}
}
