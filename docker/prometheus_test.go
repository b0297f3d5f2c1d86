package docker

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Prometheus itself accepts the configuration of the compose files, and the one that docs/compose.md shows for a
// Prometheus alone.
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
	page, err := os.ReadFile("../docs/compose.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile("(?s)```\n(scrape_configs:.*?)```").FindSubmatch(page)
	if shown == nil {
		t.Fatal("docs/compose.md shows no configuration of Prometheus")
	}
	for name, text := range map[string]string{"compose": string(ours), "alone": string(shown[1])} {
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

func TestAlertmanagerAcceptsItsConfiguration(t *testing.T) {
	amtool, err := exec.LookPath("amtool")
	if err != nil {
		t.Skip("there is no amtool: make compose-check installs it")
	}
	if out, err := exec.CommandContext(t.Context(), amtool, "check-config", "alertmanager.yml").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
