package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"clearmlserving/clearml"
	"clearmlserving/controlplane"
	"clearmlserving/serving"
	"clearmlserving/statistics/definitions"
	"clearmlserving/statistics/message"
)

// startPlane starts a control plane and returns a client of it.
func startPlane(t *testing.T) *clearml.Client {
	t.Helper()
	var l [2]net.Listener
	for i := range l {
		var err error
		if l[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	ready := make(chan struct{})
	server, err := controlplane.New(controlplane.Options{
		DataDir: t.TempDir(), API: l[0], Files: l[1], Version: "test", Grace: time.Second, Ready: func() { close(ready) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := server.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	<-ready
	access, secret := server.Credentials()
	own := func(value string) clearml.Setting { return clearml.Setting{Value: value, From: "the test"} }
	client, err := clearml.New(clearml.Options{Logger: slog.New(slog.DiscardHandler), Config: clearml.Config{
		API: own("http://" + l[0].Addr().String()), Files: own("http://" + l[1].Addr().String()), Web: own("http://" + l[0].Addr().String()),
		AccessKey: own(access), SecretKey: clearml.NewSecret(secret, "the test"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// fakeKafka starts a broker in this process; send sends messages to it.
func fakeKafka(t *testing.T) (servers string, send func(messages ...string)) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, message.Topic))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster.ListenAddrs()[0], func(messages ...string) {
		t.Helper()
		client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.DefaultProduceTopic(message.Topic))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		for _, text := range messages {
			if err := client.ProduceSync(t.Context(), kgo.StringRecord(text)).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestTheRoleStatisticsCountsByTheDefinitionsOfItsService(t *testing.T) {
	ctx, client := t.Context(), startPlane(t)
	servers, send := fakeKafka(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	role := &statisticsRole{servers: servers, replica: "one", token: "secret", log: slog.New(slog.DiscardHandler)}
	role.follower = definitions.New(definitions.Options{Client: client, Poll: time.Minute, Logger: role.log, Read: func(s serving.Service) {
		if reader := role.reading(); reader != nil {
			reader.Use(s.Parameters.KafkaServiceServer)
		}
	}})
	stopped, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		if err := role.run(stopped, listener); err != nil {
			t.Error(err)
		}
	})
	stop := func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(stop)
	get := func(path, token string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+listener.Addr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	wants := func(lines ...string) {
		t.Helper()
		var text string
		for begun := time.Now(); time.Since(begun) < 2*time.Minute; time.Sleep(10 * time.Millisecond) {
			missing := ""
			_, text = get("/metrics", "secret")
			for _, line := range lines {
				if !strings.Contains("\n"+text, "\n"+line+"\n") {
					missing = line
				}
			}
			if missing == "" {
				return
			}
		}
		t.Fatalf("missing one of %q in\n%s", lines, text)
	}

	// Before there is a service, it lives, but is not ready.
	if status, _ := get("/livez", ""); status != http.StatusOK {
		t.Errorf("/livez: %d", status)
	}
	if status, text := get("/readyz", ""); status != http.StatusServiceUnavailable {
		t.Errorf("/readyz: %d %s", status, text)
	}
	id, err := client.CreateService(ctx, clearml.NewService{Name: "counted", Project: "DevOps"})
	if err != nil {
		t.Fatal(err)
	}
	define := func(section serving.Section, text string) {
		t.Helper()
		if err := client.EditConfiguration(ctx, id, []clearml.ConfigObject{{Name: string(section), Value: clearml.Text(text)}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	define(serving.SectionEndpoints, `{"m/x": {"engine_type": "custom", "serving_url": "m", "version": "x"}}`)
	define(serving.SectionMetrics, `{"m/*": {"endpoint": "m/*", "metrics": {"x": {"type": "scalar", "buckets": [1, 2]}}}}`)
	for {
		if status, _ := get("/readyz", ""); status == http.StatusOK {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if status, _ := get("/metrics", "wrong"); status != http.StatusUnauthorized {
		t.Errorf("with a wrong token: %d", status)
	}

	send(`[{"_latency": 0.01, "_count": 1, "_url": "m/x", "x": 1.5}]`, "poison")
	wants(`m_x:x_bucket{le="2.0"} 1.0`, `m_x:_count_total 1.0`, `clearml_serving_variable_distribution_sum{endpoint="m",variable="x",version="x"} 1.5`,
		`clearml_serving_statistics_skipped_total{reason="no_list"} 1`, `clearml_serving_statistics_reading 1`)

	// A variable is counted from its first record on, also if its definition is new.
	time.Sleep(2100 * time.Millisecond) // definitions are not read more often
	define(serving.SectionMetrics, `{"m/*": {"endpoint": "m/*", "metrics": {"x": {"type": "scalar", "buckets": [1, 2]}, "e": {"type": "enum", "buckets": ["a"]}}}}`)
	send(`[{"_latency": 0.01, "_count": 1, "_url": "m/x", "x": 0, "e": "a"}]`)
	wants(`m_x:e_bucket{enum="a"} 1.0`, `m_x:x_count 2.0`)

	// The service names other brokers.
	other, sendOther := fakeKafka(t)
	if err := client.SetServiceParameter(ctx, id, serving.ParamKafkaServiceServer, other, "str"); err != nil {
		t.Fatal(err)
	}
	sendOther(`[{"_latency": 0.01, "_count": 5, "_url": "other"}]`)
	wants("other:_count_total 5.0")

	tasks := func(status string) int {
		t.Helper()
		found, err := client.Tasks(ctx, clearml.TaskFilter{Name: "^counted - statistics controller$", Types: []string{"monitor"}, Statuses: []string{status}, Hidden: true})
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	if n := tasks(clearml.StatusInProgress); n != 1 {
		t.Errorf("%d tasks in progress", n)
	}
	stop()
	if n := tasks(clearml.StatusStopped); n != 1 {
		t.Errorf("%d tasks stopped", n)
	}
}
