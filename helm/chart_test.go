// Package helm has no code: its tests check the chart with helm and the programs that make chart-tools installs.
package helm

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const chart = "clearml-serving-go"

// tool returns a program of make chart-tools. Without them there is nothing to test with: make chart-check has them.
func tool(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("CLEARML_SERVING_CHART_TOOLS")
	if dir == "" {
		t.Skip("set CLEARML_SERVING_CHART_TOOLS, or: make chart-check")
	}
	return filepath.Join(dir, name)
}

func output(t *testing.T, stdin []byte, command string, args ...string) (out string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	text, err := cmd.CombinedOutput()
	return string(text), err
}

func valueSets(t *testing.T) []string {
	t.Helper()
	sets, err := filepath.Glob(chart + "/ci/*-values.yaml")
	if err != nil || len(sets) < 5 {
		t.Fatalf("sets of values: %v, %v", sets, err)
	}
	return sets
}

// render returns the objects of a set of values.
func render(t *testing.T, values string) []byte {
	t.Helper()
	return renderChart(t, chart, values)
}

func renderChart(t *testing.T, dir, values string) []byte {
	t.Helper()
	out, err := output(t, nil, tool(t, "helm"), "template", "serving", dir, "--namespace", "models", "--kube-version", "1.33.0", "-f", values)
	if err != nil {
		t.Fatalf("helm template -f %s: %v\n%s", values, err, out)
	}
	return []byte(out)
}

func TestChartIsCleanForHelm(t *testing.T) {
	for _, values := range valueSets(t) {
		if out, err := output(t, nil, tool(t, "helm"), "lint", "--strict", chart, "-f", values); err != nil {
			t.Errorf("%s: %v\n%s", values, err, out)
		}
	}
}

func TestChartUnits(t *testing.T) {
	out, err := output(t, nil, tool(t, "helm-unittest"), "--file", "tests/*_test.yaml", chart)
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// The objects of five sets of values are those that were read by a person. UPDATE=1 writes them.
func TestChartRendersTheGoldenFiles(t *testing.T) {
	for _, values := range valueSets(t) {
		name := strings.TrimSuffix(filepath.Base(values), "-values.yaml")
		golden := filepath.Join("testdata", name+".yaml")
		got := render(t, values)
		if os.Getenv("UPDATE") == "1" {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: the objects differ from %s: look at them, then UPDATE=1 make chart-check", values, golden)
		}
	}
}

// The schemas of the objects are those of the API server's release, in testdata/schemas: nothing is fetched.
func TestChartFitsTheSchemasOfKubernetes(t *testing.T) {
	for _, values := range valueSets(t) {
		out, err := output(t, render(t, values), tool(t, "kubeconform"), "-strict", "-summary", "-kubernetes-version", "1.33.0",
			"-schema-location", "testdata/schemas/{{.ResourceKind}}{{.KindSuffix}}.json", "-")
		if err != nil {
			t.Errorf("%s: %v\n%s", values, err, out)
		}
	}
}

func TestExamplesFitTheirSchemas(t *testing.T) {
	files, err := filepath.Glob("examples/*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("examples: %v, %v", files, err)
	}
	out, err := output(t, nil, tool(t, "kubeconform"), append([]string{"-strict", "-schema-location", "testdata/schemas/{{.ResourceKind}}{{.KindSuffix}}.json"}, files...)...)
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// ignored are the checks of kube-score that this chart does not follow.
var ignored = []string{
	"container-image-pull-policy",                   // Always asks a registry at each start, also while it is away
	"pod-networkpolicy",                             // networkPolicy.enabled: a policy does nothing, or too much, in a cluster that was not made for it
	"container-ephemeral-storage-request-and-limit", // the volumes have limits
	"statefulset-has-servicename",                   // only a headless service counts for it
	"container-security-context-user-group-id",      // of the pod
	"label-values",
}

func TestChartScores(t *testing.T) {
	for _, values := range valueSets(t) {
		// A limit of CPU slows requests down while processors are idle.
		args := []string{"score", "--output-format", "ci", "--kubernetes-version", "v1.33", "--ignore-container-cpu-limit"}
		for _, check := range ignored {
			args = append(args, "--ignore-test", check)
		}
		out, err := output(t, render(t, values), tool(t, "kube-score"), append(args, "-")...)
		critical := regexp.MustCompile(`(?m)^\[CRITICAL\].*$`).FindAllString(out, -1)
		// It fails for what is critical. Anything else, and silence, means that nothing was looked at.
		if err != nil && len(critical) == 0 || !strings.Contains(out, "[OK] serving-clearml-serving-go-inference apps/v1/Deployment") {
			t.Errorf("%s: kube-score: %v\n%s", values, err, out)
		}
		// Engines are images of others: vLLM has one answer to both probes, of which liveness has more patience.
		critical = slices.DeleteFunc(critical, func(line string) bool {
			return strings.Contains(line, "(engine) The pod has a container with a writable root") ||
				strings.HasPrefix(line, "[CRITICAL] serving-clearml-serving-go-chat ") && strings.Contains(line, "the same readiness and liveness probe")
		})
		if len(critical) > 0 {
			t.Errorf("%s: %v\n%s", values, err, strings.Join(critical, "\n"))
		}
	}
}

// object is what of an object may not change in an upgrade, or changes what others depend on.
type object struct {
	Kind     string
	Metadata struct{ Name string }
	Spec     map[string]any
	Data     map[string]any `yaml:"stringData"`
}

func objects(t *testing.T, text []byte) map[string]object {
	t.Helper()
	all := map[string]object{}
	for decoder := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var o object
		err := decoder.Decode(&o)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if o.Kind != "" {
			all[o.Kind+" "+o.Metadata.Name] = o
		}
	}
}

// changeable are the fields of a StatefulSet that the API lets change; it refuses an upgrade that changes others.
var changeable = []string{"replicas", "ordinals", "template", "updateStrategy", "persistentVolumeClaimRetentionPolicy", "minReadySeconds", "revisionHistoryLimit"}

// kept are the fields of an object that have to stay.
func kept(o object) map[string]any {
	fields := maps.Clone(o.Spec)
	switch o.Kind {
	case "StatefulSet":
		maps.DeleteFunc(fields, func(name string, _ any) bool { return slices.Contains(changeable, name) })
	case "Deployment":
		maps.DeleteFunc(fields, func(name string, _ any) bool { return name != "selector" })
	case "Service": // ports have tests of their own; a headless service cannot become another
		maps.DeleteFunc(fields, func(name string, _ any) bool { return name != "selector" && name != "clusterIP" && name != "type" })
	case "Secret": // what it holds is kept by lookup, under these keys
		fields = map[string]any{"keys": slices.Sorted(maps.Keys(o.Data))}
	default:
		return nil
	}
	return fields
}

// With the values of the version before, workloads, services and secrets keep their names and what the API does not let
// change. make chart-check names the commit.
func TestChartUpgradesTheOneBefore(t *testing.T) {
	commit := os.Getenv("CLEARML_SERVING_CHART_PREVIOUS")
	if tool(t, "helm"); commit == "" {
		t.Skip("set CLEARML_SERVING_CHART_PREVIOUS, or: make chart-check")
	}
	if out, err := output(t, nil, "git", "rev-parse", "--verify", "--quiet", commit+"^{commit}"); err != nil {
		t.Skipf("this clone has no commit %s, the version before (%v %s): the chart is not compared with it", commit, err, out)
	}
	before := t.TempDir()
	archive := filepath.Join(before, "chart.tar")
	// From the folder of this package on.
	for _, command := range [][]string{{"git", "archive", "-o", archive, commit, chart}, {"tar", "-xf", archive, "-C", before}} {
		if out, err := output(t, nil, command[0], command[1:]...); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
		}
	}
	sets, err := filepath.Glob(filepath.Join(before, chart, "ci", "*-values.yaml"))
	if err != nil || len(sets) == 0 {
		t.Fatalf("sets of values of %s: %v, %v", commit, sets, err)
	}
	compared := 0
	for _, values := range sets {
		now := objects(t, render(t, values))
		for name, old := range objects(t, renderChart(t, filepath.Join(before, chart), values)) {
			want := kept(old)
			if want == nil {
				continue
			}
			compared++
			if got, ok := now[name]; !ok {
				t.Errorf("%s: an upgrade removes %s", filepath.Base(values), name)
			} else if got := kept(got); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: an upgrade changes %s from %v to %v", filepath.Base(values), name, want, got)
			}
		}
	}
	t.Logf("%d workloads, services and secrets of %s stay", compared, commit)
}

// A wrong value is refused with its name before anything is made.
func TestWrongValuesAreToldByTheirName(t *testing.T) {
	for set, want := range map[string]string{
		"inference.replica=3":                          "replica",
		"inference.replicas=many":                      "replicas",
		"inference.cache.type=disk":                    "type",
		"clearml.apiHost=api.clear.ml":                 "apiHost",
		"clearml.serviceId=my-service":                 "serviceId",
		"server.database.url=mysql://h/d":              "url",
		"server.filesDestination=ftp://x":              "filesDestination",
		"kafka.servers=kafka":                          "servers",
		"inference.image.pullPolicy=Sometimes":         "pullPolicy",
		"engines.server.image.repository=x":            "server",
		"clearml.secretKey=short":                      "secretKey",
		"inference.service.port=99999":                 "port",
		"inference.podDisruptionBudget.minAvailable=1": "minAvailable",
		"inference.updateStrategy.type=OnDelete":       "type",
		"inference.ingress.enabled=true":               "inference.ingress.hosts",
		"server.ingress.enabled=true":                  "server.ingress.hosts",
		"inference.httpRoute.enabled=true":             "inference.httpRoute.parentRefs",
		"server.httpRoute.grpc=true":                   "grpc",
		"engines.x.image.repository=x,engines.x.ports.http=80,engines.x.autoscaling.enabled=true": "maxReplicas",
		"engines.x.image.repository=x,engines.x.ports.http=80,engines.x.readinessPath=/readyz":    "readinessPort",
		"engines.x.image.repository=x,engines.x.ports.http=80,engines.x.livenessPath=/livez":      "livenessPort",
	} {
		out, err := output(t, nil, tool(t, "helm"), "template", "serving", chart, "--set", set)
		if err == nil || !strings.Contains(out, want) || !strings.Contains(out, "schema") {
			t.Errorf("--set %s: %v, want %q of the schema\n%s", set, err, want, out)
		}
	}
}

// The alerts in the chart are those of monitoring/.
func TestChartHasTheAlerts(t *testing.T) {
	ours, err := os.ReadFile(filepath.Join(chart, "rules.yml"))
	theirs, err2 := os.ReadFile("../monitoring/prometheus/rules.yml")
	if err != nil || err2 != nil || !bytes.Equal(ours, theirs) {
		t.Errorf("helm/%s/rules.yml differs from monitoring/prometheus/rules.yml: copy it again", chart)
	}
}
