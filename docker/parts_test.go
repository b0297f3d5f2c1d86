package docker

import (
	"bytes"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v3"
)

const ports = "overlays/ports.yml"

// blocks are the fenced blocks of a page that have a language.
func blocks(t *testing.T, page, language string) (found []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../docs", page))
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		if block[1] == language {
			found = append(found, block[2])
		}
	}
	return found
}

// commands are the commands of a page that begin so, each on one line.
func commands(t *testing.T, page, prefix string) (found []string) {
	t.Helper()
	for _, block := range blocks(t, page, "bash") {
		for line := range strings.Lines(strings.ReplaceAll(block, "\\\n", "")) {
			if strings.HasPrefix(line, prefix) {
				found = append(found, strings.TrimSpace(line))
			}
		}
	}
	return found
}

func value(t *testing.T, p *types.Project, service, name string) string {
	t.Helper()
	v := p.Services[service].Environment[name]
	if v == nil {
		t.Errorf("%s is not given %s", service, name)
		return ""
	}
	return *v
}

// Each part is left out by one line of the env file, with every compose file, and nothing else is.
func TestPartsAreLeftOut(t *testing.T) {
	for variable, out := range map[string][]string{
		"":                        nil,
		"KAFKA_CONTAINERS=0":      {"clearml-serving-kafka"},
		"STATISTICS_CONTAINERS=0": {"clearml-serving-statistics"},
		"PROMETHEUS_CONTAINERS=0": {"clearml-serving-alertmanager", "clearml-serving-prometheus"},
		"GRAFANA_CONTAINERS=0":    {"clearml-serving-grafana"},
	} {
		for _, file := range composeFiles(t) {
			p, err := load(t, file, append(slices.Clone(filled), variable))
			if err != nil {
				t.Fatalf("%s with %s: %v", file, variable, err)
			}
			var left []string
			for name, s := range p.Services {
				if s.GetScale() == 0 {
					left = append(left, name)
				}
			}
			if slices.Sort(left); !slices.Equal(left, out) {
				t.Errorf("%s with %q leaves out %v, want %v", file, variable, left, out)
			}
		}
	}
}

// A Kafka of one's own reaches those that use it with all that it wants, and none reaches them if it is set to nothing.
func TestAKafkaOfOnesOwn(t *testing.T) {
	for _, tc := range []struct {
		name string
		env  []string
		want map[string]string
	}{
		{"ours", nil, map[string]string{"CLEARML_DEFAULT_KAFKA_SERVE_URL": "clearml-serving-kafka:9092", "CLEARML_SERVING_KAFKA_TLS": ""}},
		{"another", []string{
			"CLEARML_DEFAULT_KAFKA_SERVE_URL=kafka:9092", "CLEARML_SERVING_KAFKA_TLS=true", "CLEARML_SERVING_KAFKA_SASL=plain", "CLEARML_SERVING_KAFKA_USER=u", "CLEARML_SERVING_KAFKA_PASSWORD=p",
		}, map[string]string{
			"CLEARML_DEFAULT_KAFKA_SERVE_URL": "kafka:9092", "CLEARML_SERVING_KAFKA_TLS": "true", "CLEARML_SERVING_KAFKA_SASL": "plain", "CLEARML_SERVING_KAFKA_USER": "u", "CLEARML_SERVING_KAFKA_PASSWORD": "p",
		}},
		{"none", []string{"CLEARML_DEFAULT_KAFKA_SERVE_URL="}, map[string]string{"CLEARML_DEFAULT_KAFKA_SERVE_URL": ""}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := load(t, "docker-compose.yml", append(slices.Clone(filled), tc.env...))
			if err != nil {
				t.Fatal(err)
			}
			for _, service := range []string{"clearml-serving-inference", "clearml-serving-statistics"} {
				for name, want := range tc.want {
					if got := value(t, p, service, name); got != want {
						t.Errorf("%s has %s=%q, want %q", service, name, got, want)
					}
				}
			}
		})
	}
}

// ports.yml goes over every compose file, opens ports on this machine only, and changes nothing else but Kafka's listeners.
func TestPortsForOtherPrograms(t *testing.T) {
	want := map[string]string{
		"clearml-serving-inference": "8083", "clearml-serving-statistics": "9999", "clearml-serving-prometheus": "9090", "clearml-serving-kafka": "9092",
	}
	for _, file := range composeFiles(t) {
		before, err := load(t, file, filled)
		if err != nil {
			t.Fatal(err)
		}
		after, err := loadAll(t, []string{file, ports}, filled)
		if err != nil {
			t.Fatalf("%s with %s: %v", file, ports, err)
		}
		if got, want := after.ServiceNames(), before.ServiceNames(); !slices.Equal(got, want) {
			t.Errorf("%s: services %v, want %v", file, got, want)
		}
		for name, s := range after.Services {
			more := slices.DeleteFunc(slices.Clone(s.Ports), func(p types.ServicePortConfig) bool {
				return slices.ContainsFunc(before.Services[name].Ports, func(had types.ServicePortConfig) bool { return had.Published == p.Published })
			})
			switch {
			case want[name] == "" && len(more) > 0, want[name] != "" && len(more) != 1:
				t.Errorf("%s: %s opens %v", file, name, more)
			case len(more) == 1 && (more[0].HostIP != "127.0.0.1" || more[0].Published != want[name]):
				t.Errorf("%s: %s opens %s at %q, want %s on this machine", file, name, more[0].Published, more[0].HostIP, want[name])
			}
		}
	}
}

// Clients that come by the published port are told that address: with another one they could connect, and do nothing.
func TestKafkaTellsItsAddress(t *testing.T) {
	p, err := loadAll(t, []string{"docker-compose.yml", ports}, append(slices.Clone(filled), "PUBLISH_ADDR=10.0.0.5", "KAFKA_PORT=19092"))
	if err != nil {
		t.Fatal(err)
	}
	const kafka = "clearml-serving-kafka"
	port := p.Services[kafka].Ports[0]
	if port.HostIP != "10.0.0.5" || port.Published != "19092" {
		t.Errorf("opened at %s:%s", port.HostIP, port.Published)
	}
	if got := value(t, p, kafka, "KAFKA_ADVERTISED_LISTENERS"); !strings.HasSuffix(got, ",OUTSIDE://10.0.0.5:19092") {
		t.Errorf("it tells %s", got)
	}
	if got := value(t, p, kafka, "KAFKA_LISTENERS"); port.Target != 9094 || !strings.HasSuffix(got, ",OUTSIDE://:9094") {
		t.Errorf("the port leads to %d, it listens at %s", port.Target, got)
	}
}

// What the page says to type is of these files: each command names files and services that exist, each line of the env
// file a variable that is read.
func TestWhatThePageSaysToType(t *testing.T) {
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
	lines := 0
	for _, block := range blocks(t, "compose.md", "text") {
		env := slices.Clone(filled)
		for line := range strings.Lines(block) {
			name, _, ok := strings.Cut(strings.TrimSpace(line), "=")
			if !ok || !strings.Contains(used.String(), "${"+name) {
				t.Errorf("no compose file reads %s", line)
			}
			env = append(env, strings.TrimSpace(line))
			lines++
		}
		if _, err := load(t, "docker-compose.yml", env); err != nil {
			t.Errorf("with\n%s%v", block, err)
		}
	}
	typed := commands(t, "compose.md", "docker compose ")
	if lines == 0 || len(typed) == 0 {
		t.Fatalf("docs/compose.md has %d lines of an env file and %d commands", lines, len(typed))
	}
	for _, command := range typed {
		var files, services []string
		for words := strings.Fields(command)[2:]; len(words) > 0; words = words[1:] {
			switch {
			case words[0] == "-f":
				files, words = append(files, words[1]), words[1:]
			case words[0] != "up" && words[0] != "-d":
				services = append(services, words[0])
			}
		}
		if files == nil {
			files = []string{"docker-compose.yml"}
		}
		p, err := loadAll(t, files, filled)
		if err != nil {
			t.Errorf("%s: %v", command, err)
			continue
		}
		for _, name := range services {
			s, ok := p.Services[name]
			if !ok {
				t.Errorf("%s: there is no service %s", command, name)
			}
			if len(s.DependsOn) > 0 { // the page says that it runs alone
				t.Errorf("%s starts %v too", command, s.GetDependencies())
			}
		}
	}
}

// dataSources and providers are the files of Grafana's folders datasources and dashboards, with the fields that its documentation
// has (https://grafana.com/docs/grafana/latest/administration/provisioning/). Grafana ignores others, a mistyped one too.
type (
	dataSources struct {
		APIVersion  int `yaml:"apiVersion"`
		Datasources []struct {
			Name, Type, UID, Access, URL, User, Database string
			OrgID                                        int `yaml:"orgId"`
			Version                                      int
			BasicAuth                                    bool              `yaml:"basicAuth"`
			BasicAuthUser                                string            `yaml:"basicAuthUser"`
			WithCredentials                              bool              `yaml:"withCredentials"`
			IsDefault                                    bool              `yaml:"isDefault"`
			JSONData                                     map[string]any    `yaml:"jsonData"`
			SecureJSONData                               map[string]string `yaml:"secureJsonData"`
			Editable                                     bool
		}
	}
	providers struct {
		APIVersion int `yaml:"apiVersion"`
		Providers  []struct {
			Name, Type, Folder string
			OrgID              int    `yaml:"orgId"`
			FolderUID          string `yaml:"folderUid"`
			DisableDeletion    bool   `yaml:"disableDeletion"`
			UpdateInterval     int    `yaml:"updateIntervalSeconds"`
			AllowUIUpdates     bool   `yaml:"allowUiUpdates"`
			Options            struct {
				Path      string
				Structure bool `yaml:"foldersFromFilesStructure"`
			}
		}
	}
)

// provisioned reads a file as Grafana does, which replaces variables of its environment, but takes no unknown field.
func provisioned(t *testing.T, file string, env func(string) string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../monitoring/grafana/provisioning", file))
	if err != nil {
		t.Fatal(err)
	}
	decoder := yaml.NewDecoder(bytes.NewReader([]byte(os.Expand(string(text), env))))
	decoder.KnownFields(true)
	if err := decoder.Decode(into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// Grafana of the compose files finds Prometheus and the dashboards where its provisioning says they are. The container of
// docs/monitoring.md has the same.
func TestGrafanaFindsPrometheusAndTheDashboards(t *testing.T) {
	p, err := load(t, "docker-compose.yml", filled)
	if err != nil {
		t.Fatal(err)
	}
	grafana := p.Services["clearml-serving-grafana"]
	var sources dataSources
	var known providers
	env := func(name string) string { return value(t, p, "clearml-serving-grafana", name) }
	provisioned(t, "datasources/prometheus.yml", env, &sources)
	provisioned(t, "dashboards/clearml-serving.yml", env, &known)
	if sources.APIVersion != 1 || known.APIVersion != 1 || len(sources.Datasources) != 1 || len(known.Providers) != 1 {
		t.Fatalf("provisioned: %+v, %+v", sources, known)
	}

	source := sources.Datasources[0]
	at, err := url.Parse(source.URL)
	if err != nil || at.Scheme != "http" || at.Port() != "9090" { // where Prometheus listens unless it is told otherwise
		t.Errorf("Prometheus is asked at %q, %v", source.URL, err)
	}
	network := p.Services["clearml-serving-prometheus"].Networks["clearml-serving-backend"]
	if network == nil || !slices.Contains(network.Aliases, at.Hostname()) || slices.ContainsFunc(p.Services["clearml-serving-prometheus"].Command, func(arg string) bool { return strings.HasPrefix(arg, "--web.listen-address") }) {
		t.Errorf("Prometheus is not %s in the network of Grafana: %+v", at.Host, network)
	}
	if source.Type != "prometheus" || source.Access != "proxy" || !source.IsDefault {
		t.Errorf("the data source: %+v", source)
	}

	mounts := map[string]string{}
	for _, v := range grafana.Volumes {
		if v.Type == types.VolumeTypeBind {
			mounts[v.Target] = v.Source
		}
	}
	if provider := known.Providers[0]; provider.Type != "file" || filepath.Base(mounts[provider.Options.Path]) != "dashboards" {
		t.Errorf("dashboards are read from %q, mounted are %v", provider.Options.Path, mounts)
	} else if found, err := filepath.Glob(filepath.Join(mounts[provider.Options.Path], "*.json")); err != nil || len(found) == 0 {
		t.Errorf("no dashboards in %s: %v", mounts[provider.Options.Path], err)
	}

	run := commands(t, "monitoring.md", "docker run ")
	if len(run) != 1 {
		t.Fatalf("docs/monitoring.md has %d commands of docker, want one", len(run))
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	alone := map[string]string{}
	for words := strings.Fields(run[0]); len(words) > 1; words = words[1:] {
		if words[0] == "-v" {
			from, to, _ := strings.Cut(words[1], ":")
			alone[to] = strings.ReplaceAll(from, "$PWD", root)
		}
	}
	for to, from := range mounts {
		if alone[to] != from {
			t.Errorf("docs/monitoring.md mounts %q at %s, the compose file %s", alone[to], to, from)
		}
	}
	if !strings.Contains(run[0], " -e PROMETHEUS_URL=http") || !strings.HasSuffix(run[0], grafana.Image) {
		t.Errorf("docs/monitoring.md starts another Grafana than %s, or does not tell it where Prometheus is: %s", grafana.Image, run[0])
	}
}

// PROMETHEUS_URL is Grafana's way to another Prometheus, PROMETHEUS_CONFIG another configuration of ours.
func TestAPrometheusOfOnesOwn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "prometheus.yml")
	p, err := load(t, "docker-compose.yml", append(slices.Clone(filled), "PROMETHEUS_CONTAINERS=0", "PROMETHEUS_URL=https://other/prometheus", "PROMETHEUS_CONFIG="+file))
	if err != nil {
		t.Fatal(err)
	}
	var sources dataSources
	provisioned(t, "datasources/prometheus.yml", func(name string) string { return value(t, p, "clearml-serving-grafana", name) }, &sources)
	if got := sources.Datasources[0].URL; got != "https://other/prometheus" {
		t.Errorf("Grafana asks %s", got)
	}
	if !slices.ContainsFunc(p.Services["clearml-serving-prometheus"].Volumes, func(v types.ServiceVolumeConfig) bool {
		return v.Source == file && v.Target == "/etc/prometheus/prometheus.yml"
	}) {
		t.Errorf("Prometheus has %v", p.Services["clearml-serving-prometheus"].Volumes)
	}
}
