//go:build linux

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const composePage = "docs/compose.md"

// composeSection is a section of the page, at its lines, with nothing before it.
func composeSection(t *testing.T, title string) []byte {
	t.Helper()
	source, err := os.ReadFile(filepath.Join(root, composePage))
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(source), "\n### "+title+"\n")
	if !found {
		t.Fatalf("%s has no section %s", composePage, title)
	}
	section, _, _ := strings.Cut(rest, "\n##")
	return []byte(strings.Repeat("\n", strings.Count(before, "\n")+2) + section + "\n")
}

// composeKafka starts a broker with the settings that docker/docker-compose.yml and overlays/ports.yml give to theirs. Its
// address is the published one; inside is that for the other containers.
func (s *system) composeKafka(t *testing.T) (k *kafka, inside string) {
	t.Helper()
	published, other, controller := freePort(t), freePort(t), freePort(t)
	options, err := cli.NewProjectOptions([]string{filepath.Join(root, "docker/docker-compose.yml"), filepath.Join(root, "docker/overlays/ports.yml")}, cli.WithEnv([]string{
		"CLEARML_API_ACCESS_KEY=access", "CLEARML_API_SECRET_KEY=0123456789abcdef", "CLEARML_SERVING_ADMIN_TOKEN=token", "KAFKA_PORT=" + published,
	}))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const name = "clearml-serving-kafka"
	inside = "127.0.0.1:" + other
	here := strings.NewReplacer(name+":9092", inside, name+":9093", "127.0.0.1:"+controller, "://:9092", "://"+inside, "://:9093", "://127.0.0.1:"+controller,
		"://:9094", "://127.0.0.1:"+published, "/var/lib/kafka/data", "@DIR@/data")
	var properties strings.Builder
	var names []string
	for variable, value := range project.Services[name].Environment {
		property, ok := strings.CutPrefix(variable, "KAFKA_") // as the image makes its settings
		if !ok || value == nil {
			t.Fatalf("%s has %s, which is no setting of Kafka", name, variable)
		}
		property = strings.ToLower(strings.ReplaceAll(property, "_", "."))
		fmt.Fprintf(&properties, "%s=%s\n", property, here.Replace(*value))
		names = append(names, property)
	}
	file := filepath.Join(s.dir, "compose.properties")
	if err := os.WriteFile(file, []byte(properties.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	k = s.broker(t, published, controller, file)
	s.knowsSettings(t, k, names)
	return k, inside
}

// administrator is a client of a broker.
func administrator(t *testing.T, address string) *kadm.Client {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(address))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return kadm.NewClient(client)
}

// knowsSettings checks that a broker knows each of the settings: it would start with others too, and not use them.
func (s *system) knowsSettings(t *testing.T, k *kafka, names []string) {
	t.Helper()
	var brokers kadm.ResourceConfigs
	s.eventually(t, patience, "the broker tells its settings", func() (err error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		brokers, err = administrator(t, k.address).DescribeBrokerConfigs(ctx, 1)
		return err
	})
	known := map[string]bool{}
	for _, broker := range brokers {
		for _, c := range broker.Configs {
			known[c.Key] = c.Value != nil // of a setting that it does not know it tells no value
		}
	}
	for _, name := range names {
		if !known[name] {
			t.Errorf("the compose file gives Kafka the setting %s, which it does not know", name)
		}
	}
}

// typed runs a command of a page in a shell that finds the program and Kafka's kafka-topics.sh.
func (s *system) typed(t *testing.T, of step, replaced *strings.Replacer) string {
	t.Helper()
	programs := filepath.Join(s.dir, "programs")
	script := "#!/bin/sh\nexec java -cp '" + filepath.Join(root, ".cache/kafka/lib/*") + "' org.apache.kafka.tools.TopicCommand \"$@\"\n" // as Kafka's own script does
	if err := errors.Join(os.MkdirAll(programs, 0o755), os.WriteFile(filepath.Join(programs, "kafka-topics.sh"), []byte(script), 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(binary, filepath.Join(programs, "clearml-serving")); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	env := append(slices.Clone(s.sdk), "CLEARML_SERVING_HOME="+s.data, "PATH="+programs+":"+os.Getenv("PATH"))
	r := s.command(t, env, "bash", "-c", replaced.Replace(of.command))
	if r.code != 0 {
		t.Fatalf("%s: %s: %v", of.where, of.command, r)
	}
	return r.out
}

// TestKafkaAndPrometheusAsThePageSays follows docs/compose.md: a broker with the settings of the compose files, the topics that
// an administrator makes, the setting of the service, and a Prometheus with the configuration that is shown.
func TestKafkaAndPrometheusAsThePageSays(t *testing.T) {
	s := installBeforeKafka(t)
	k, inside := s.composeKafka(t)
	const token = "0123456789abcdef0123456789abcdef"
	s.start(t, role{env: []string{"CLEARML_SERVING_ADMIN_TOKEN=" + token}})
	id := s.defineKnown(t)

	steps, err := stepsOf(composePage, composeSection(t, "Kafka"))
	if err != nil {
		t.Fatal(err)
	}
	ran := map[string]int{}
	for _, of := range steps {
		program, _, _ := strings.Cut(of.command, " ")
		if program == "docker" { // go test ./docker loads what these start
			continue
		}
		// The administrator's programs are outside of the containers, the services of the compose files inside.
		broker := k.address
		if program == "clearml-serving" {
			broker = inside
		}
		s.typed(t, of, strings.NewReplacer("kafka:9092", broker, "<service_id>", id))
		ran[program]++
	}
	if ran["kafka-topics.sh"] != 2 || ran["clearml-serving"] != 1 {
		t.Fatalf("%s has the commands %v", composePage, ran)
	}
	const ofMessages, ofCounts = "clearml_inference_stats", "clearml_serving_statistics_state"
	topics, err := administrator(t, k.address).ListTopics(t.Context(), ofMessages, ofCounts)
	if err != nil {
		t.Fatal(err)
	}
	if len(topics[ofMessages].Partitions) != 4 || len(topics[ofCounts].Partitions) != 1 {
		t.Errorf("the commands made %v", topics)
	}

	port := freePort(t)
	c := &replica{url: "http://127.0.0.1:" + port}
	c.daemon = s.daemon(t, "statistics", nil, // its broker is that of the service
		binary, "--id", id, "statistics", "--statistics-addr", "127.0.0.1:"+port, "--replica", "statistics", "--data-dir", filepath.Join(s.dir, "statistics"))
	c.reads(t)
	prometheus := s.scrapingAsThePageSays(t, token, c.url)
	const total = 400
	var sent known
	sent.send(t, s.urls["serve"], 0, total)
	s.eventually(t, 2*patience, "all requests are counted, each once", func() error {
		got, err := samples(t, s, c.url+"/metrics")
		if err != nil {
			return err
		}
		return differs(got, sent.wanted())
	})
	for expr, want := range map[string]float64{
		`sum(clearml_serving_requests_total{job="clearml-serving",outcome="answered"})`: total,
		`known_1:_count_total{job="clearml-inference-stats"}`:                           sent.sums["known/1"]["n"],
		`sum(up)`: 2,
		`sum(scrape_samples_scraped{job="clearml-serving"}) > bool 100`: 1,
	} {
		s.eventually(t, patience, expr+" is in Prometheus", func() error {
			got, err := number(t, prometheus, expr)
			if err == nil && got != want {
				err = fmt.Errorf("%s is %v, want %v", expr, got, want)
			}
			return err
		})
	}
	status, rules := roundTrip(http.MethodGet, prometheus+"/api/v1/rules?type=alert", "", nil)
	if status != http.StatusOK || !strings.Contains(rules, `"name":"ClearML`) {
		t.Errorf("Prometheus has not loaded the alerts: %d %.300s", status, rules)
	}
}

// scrapingAsThePageSays starts Prometheus in a folder like /etc/prometheus, with the configuration of the page.
func (s *system) scrapingAsThePageSays(t *testing.T, token, statistics string) (address string) {
	t.Helper()
	shown := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindStringSubmatch(string(composeSection(t, "Prometheus")))
	if shown == nil {
		t.Fatalf("%s shows no configuration of Prometheus", composePage)
	}
	dir := filepath.Join(s.dir, "etc-prometheus")
	rules, err := os.ReadFile(filepath.Join(root, "monitoring/prometheus/rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	host := func(url string) string { return strings.TrimPrefix(url, "http://") }
	text := strings.NewReplacer("/etc/prometheus/", dir+"/", `"instance-1:8083", "instance-2:8083"`, `"`+host(s.urls["admin"])+`"`, "statistics:9999", host(statistics)).Replace(shown[1])
	config := filepath.Join(dir, "prometheus.yml")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "admin-token"), []byte(token+"\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "rules.yml"), rules, 0o600), os.WriteFile(config, []byte("global: {scrape_interval: 1s}\n"+text), 0o600)); err != nil {
		t.Fatal(err)
	}
	at := "127.0.0.1:" + freePort(t)
	s.background(t, "prometheus", nil, "prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(s.dir, "prometheus"), "--web.listen-address="+at)
	return "http://" + at
}
