package docker

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Prometheus itself accepts the configuration of the compose files, the one that docs/compose.md shows for a Prometheus
// of one's own, and the example of monitoring/.
func TestPrometheusAcceptsTheConfigurations(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("there is no promtool: make compose-check installs it")
	}
	dir := t.TempDir()
	token := filepath.Join(dir, "admin-token")
	if err := os.WriteFile(token, []byte("token"), 0o600); err != nil {
		t.Fatal(err)
	}
	rules, err := filepath.Abs("../monitoring/prometheus/rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	ours, err := os.ReadFile("prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("../monitoring/prometheus/prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	shown := blocks(t, "compose.md", "yaml")
	if len(shown) != 1 {
		t.Fatalf("docs/compose.md shows %d configurations of Prometheus, want one", len(shown))
	}
	for name, text := range map[string]string{"compose": string(ours), "alone": shown[0], "example": string(example)} {
		text = regexp.MustCompile(`/(run/secrets|etc/prometheus)/admin-token`).ReplaceAllString(text, token)
		text = strings.ReplaceAll(strings.ReplaceAll(text, "/etc/prometheus/rules.yml", rules), "[rules.yml]", "["+rules+"]")
		file := filepath.Join(dir, name+".yml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), promtool, "check", "config", file).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// The commands of promtool that docs/compose.md has do what it says, in the folder of this repository.
func TestTheCommandsOfPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("there is no promtool: make compose-check installs it")
	}
	ran := 0
	for _, command := range commands(t, "compose.md", "promtool ") {
		ran++
		cmd := exec.CommandContext(t.Context(), promtool, strings.Fields(command)[1:]...)
		cmd.Dir = ".."
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "SUCCESS") {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
	}
	if ran == 0 {
		t.Error("docs/compose.md has no command of promtool")
	}
}
