package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"go.yaml.in/yaml/v3"
)

func TestTheDashboardsInTheTreeAreTheGeneratedOnes(t *testing.T) {
	made := t.TempDir()
	if err := write(made); err != nil {
		t.Fatal(err)
	}
	want, have := files(t, made), files(t, "grafana/dashboards")
	if !slices.Equal(want, have) {
		t.Fatalf("the folder has %v, the program writes %v: run make monitoring", have, want)
	}
	for _, name := range want {
		if read(t, filepath.Join(made, name)) != read(t, filepath.Join("grafana/dashboards", name)) {
			t.Errorf("%s is not what the program writes: run make monitoring", name)
		}
	}
}

// Grafana's own schema decides: unknown fields, wrong types and unknown panels are errors.
func TestGrafanaAcceptsTheDashboards(t *testing.T) {
	plugins.RegisterDefaultPlugins()
	for _, name := range files(t, "grafana/dashboards") {
		var d dashboard.Dashboard //nolint:staticcheck // as in build.go
		// Without a mistake both return an empty list of errors, which is not nil.
		for _, err := range []error{d.UnmarshalJSONStrict([]byte(read(t, filepath.Join("grafana/dashboards", name)))), d.Validate()} {
			if err != nil && err.Error() != "" {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestEveryPanelUsesTheChosenDataSource(t *testing.T) {
	uids := map[string]bool{}
	for _, name := range files(t, "grafana/dashboards") {
		text := read(t, filepath.Join("grafana/dashboards", name))
		var d struct {
			UID    string
			Panels []struct {
				Title, Type string
				Datasource  struct{ UID string }
				GridPos     struct{ X, W int }
				Targets     []struct {
					Expr       string
					Datasource struct{ UID string }
				}
			}
		}
		if err := json.Unmarshal([]byte(text), &d); err != nil {
			t.Fatal(err)
		}
		if uids[d.UID] || d.UID == "" {
			t.Errorf("%s: uid %q is missing or used twice", name, d.UID)
		}
		uids[d.UID] = true
		if strings.Contains(text, "__inputs") || strings.Contains(text, "DS_PROMETHEUS") {
			t.Errorf("%s asks for an input, which provisioning does not give", name)
		}
		for _, p := range d.Panels {
			if p.Type == "row" {
				continue
			}
			if p.GridPos.W == 0 || p.GridPos.X+p.GridPos.W > 24 {
				t.Errorf("%s: %q does not fit the grid: %+v", name, p.Title, p.GridPos)
			}
			if p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
				t.Errorf("%s: %q has the data source %q and %d queries", name, p.Title, p.Datasource.UID, len(p.Targets))
			}
			for _, q := range p.Targets {
				if q.Datasource.UID != "${datasource}" || q.Expr == "" {
					t.Errorf("%s: a query of %q has the data source %q: %q", name, p.Title, q.Datasource.UID, q.Expr)
				}
			}
		}
	}
}

// A metric that no part of the program exposes makes an empty panel or an alert that never fires.
func TestDashboardsAndRulesUseMetricsOfTheReference(t *testing.T) {
	known := map[string]bool{}
	row := regexp.MustCompile("(?m)^\\| `(clearml_serving_[a-z_]+)` \\|")
	for _, page := range []string{"metrics.md", "feedback.md", "request-log.md"} {
		for _, name := range row.FindAllStringSubmatch(read(t, "../docs/"+page), -1) {
			known[name[1]] = true
		}
	}
	used := regexp.MustCompile(`clearml_serving_[a-z_0-9]+`)
	series := regexp.MustCompile(`_(bucket|sum|count)$`)
	texts := map[string]string{"rules.yml": read(t, "prometheus/rules.yml")}
	for _, name := range files(t, "grafana/dashboards") {
		// The regular expression over the kinds of variables names the metrics without their prefix.
		texts[name] = strings.ReplaceAll(read(t, filepath.Join("grafana/dashboards", name)), "clearml_serving_variable_(", "(")
	}
	for file, text := range texts {
		for _, name := range used.FindAllString(text, -1) {
			if !known[name] && !known[series.ReplaceAllString(name, "")] {
				t.Errorf("%s uses %s, which no page of docs/ describes", file, name)
			}
		}
	}
}

func TestEveryAlertSaysWhatToDoAndHasATest(t *testing.T) {
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert       string
				Labels      map[string]string
				Annotations map[string]string
			}
		}
	}
	var tests struct {
		Tests []struct {
			Cases []struct {
				Name string `yaml:"alertname"`
				Want []any  `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	decode(t, "prometheus/rules.yml", &rules)
	decode(t, "prometheus/rules_test.yml", &tests)
	fires := map[string]bool{}
	for _, group := range tests.Tests {
		for _, c := range group.Cases {
			fires[c.Name] = fires[c.Name] || len(c.Want) > 0
		}
	}
	count := 0
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			count++
			for _, part := range []string{"summary", "description", "runbook"} {
				if r.Annotations[part] == "" {
					t.Errorf("%s has no %s", r.Alert, part)
				}
			}
			if r.Labels["severity"] == "" {
				t.Errorf("%s has no severity", r.Alert)
			}
			if !fires[r.Alert] {
				t.Errorf("%s fires in no test of rules_test.yml", r.Alert)
			}
		}
	}
	if count == 0 {
		t.Error("there are no alerts")
	}
}

func files(t *testing.T, folder string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func decode(t *testing.T, path string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(read(t, path)), into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}
