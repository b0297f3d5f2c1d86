package kafka

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/big"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"clearmlserving/serving"
	"clearmlserving/statistics"
	"clearmlserving/statistics/message"
)

// fixed are definitions that the test changes.
type fixed struct {
	mu      sync.Mutex
	version int
	all     map[string]serving.Metric
	renewed func()
}

func (f *fixed) Version() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.version
}

func (f *fixed) For(serving.EndpointURL) map[string]serving.Metric {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.all
}

func (f *fixed) Renew(context.Context) {
	if f.renewed != nil {
		f.renewed()
	}
}

func (f *fixed) set(all map[string]serving.Metric) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = all
	f.version++
}

func counter() *fixed { return &fixed{all: map[string]serving.Metric{"n": {Type: "counter"}}} }

// reads runs a Reader until the test ends, or until stop.
func reads(t *testing.T, servers, replica string, definitions Definitions) (r *Reader, stop func()) {
	t.Helper()
	r = NewReader(ReaderOptions{Service: "s", Replica: replica, Servers: servers, Definitions: definitions, Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(stop)
	return r, stop
}

// produce sends messages, each with one record of value n.
func produce(t *testing.T, servers string, messages ...*kgo.Record) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(servers, ",")...), kgo.DefaultProduceTopic(message.Topic), kgo.UnknownTopicRetries(100))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.ProduceSync(t.Context(), messages...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func numbered(from, to int) (messages []*kgo.Record) {
	for i := from; i < to; i++ {
		url := fmt.Sprintf("m/%d", i%17)
		messages = append(messages, &kgo.Record{Key: []byte(url), Value: fmt.Appendf(nil, `[{"_latency": 0.01, "_count": 2, "_url": %q, "n": %d}]`, url, i)})
	}
	return messages
}

// value adds up the series of a metric of several Readers.
func value(t *testing.T, name string, readers ...*Reader) (sum float64) {
	t.Helper()
	for _, r := range readers {
		registry := prometheus.NewRegistry()
		registry.MustRegister(r.Collector(statistics.NamesOf))
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == name {
					sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
				}
			}
		}
	}
	return sum
}

// wantCounts waits until the Readers have counted the numbers below n, each once.
func wantCounts(t *testing.T, n int, readers ...*Reader) {
	t.Helper()
	want := map[string]float64{
		"clearml_serving_requests_total": 2 * float64(n), "clearml_serving_request_duration_seconds": float64(n), "clearml_serving_sampled_requests_total": float64(n),
		"clearml_serving_variable_total": 2 * float64(n) * float64(n-1) / 2, "clearml_serving_statistics_messages_total": float64(n), "clearml_serving_statistics_records_total": float64(n),
	}
	eventually(t, "counted", func() error {
		for name, wanted := range want {
			if got := value(t, name, readers...); got != wanted {
				return fmt.Errorf("%s is %v, want %v", name, got, wanted)
			}
		}
		return nil
	})
}

func TestEachMessageIsCountedOnceOverRestartsAndTheCountersContinue(t *testing.T) {
	_, servers := broker(t)
	r, stop := reads(t, servers, "a", counter())
	eventually(t, "ready", r.Ready)
	produce(t, servers, numbered(0, 500)...)
	wantCounts(t, 500, r)
	stop()
	produce(t, servers, numbered(500, 700)...)
	r, _ = reads(t, servers, "a", counter())
	wantCounts(t, 700, r)
}

func TestMessagesOfBeforeTheFirstStartAreCounted(t *testing.T) {
	_, servers := broker(t, kfake.SeedTopics(3, message.Topic))
	produce(t, servers, numbered(0, 100)...)
	r, _ := reads(t, servers, "a", counter())
	wantCounts(t, 100, r)
}

func TestAGroupThatKafkaHasForgottenContinuesWhereItStopped(t *testing.T) {
	_, servers := broker(t)
	first, stopFirst := reads(t, servers, "a", counter())
	second, stopSecond := reads(t, servers, "b", counter())
	eventually(t, "ready", func() error { return errors.Join(first.Ready(), second.Ready()) })
	produce(t, servers, numbered(0, 300)...)
	wantCounts(t, 300, first, second)
	stopFirst()
	stopSecond()
	client, err := kgo.NewClient(kgo.SeedBrokers(servers))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	eventually(t, "the group is gone", func() error {
		deleted, err := kadm.NewClient(client).DeleteGroups(t.Context(), first.group())
		return errors.Join(err, deleted.Error())
	})
	produce(t, servers, numbered(300, 400)...)
	first, _ = reads(t, servers, "a", counter())
	wantCounts(t, 400, first, second) // the counters of the second one are those of its end
}

func TestReplicasShareTheMessagesAndTheirSumIsExact(t *testing.T) {
	_, servers := broker(t)
	first, _ := reads(t, servers, "a", counter())
	eventually(t, "ready", first.Ready)
	produce(t, servers, numbered(0, 300)...)
	wantCounts(t, 300, first)
	second, stop := reads(t, servers, "b", counter())
	eventually(t, "both read", func() error {
		for _, r := range []*Reader{first, second} {
			r.mu.Lock()
			n := len(r.assigned)
			r.mu.Unlock()
			if n == 0 || n == partitions {
				return fmt.Errorf("replica %s has %d partitions", r.o.Replica, n)
			}
		}
		return nil
	})
	produce(t, servers, numbered(300, 1000)...)
	wantCounts(t, 1000, first, second)
	if n := value(t, "clearml_serving_statistics_messages_total", second); n == 0 {
		t.Error("the second one has counted nothing")
	}
	stop()
	produce(t, servers, numbered(1000, 1300)...)
	wantCounts(t, 1300, first, second) // the counters of the second one are those of its end
	again, _ := reads(t, servers, "b", counter())
	wantCounts(t, 1300, first, again)
}

func TestTransactionsThatFailAtRandomNeitherLoseNorDouble(t *testing.T) {
	cluster, servers := broker(t)
	random := rand.New(rand.NewPCG(3, 4)) //nolint:gosec // the same at each run
	var mu sync.Mutex                     // guards random and failures
	failures := 0
	for _, key := range []int16{int16(kmsg.EndTxn), int16(kmsg.Produce), int16(kmsg.TxnOffsetCommit), int16(kmsg.AddOffsetsToTxn)} {
		cluster.ControlKey(key, func(req kmsg.Request) (kmsg.Response, error, bool) {
			cluster.KeepControl()
			mu.Lock()
			defer mu.Unlock()
			if failures >= 20 || random.IntN(4) > 0 {
				return nil, nil, false
			}
			failures++
			if random.IntN(2) == 0 {
				return nil, errors.New("the connection is closed"), true
			}
			if r, ok := req.(*kmsg.TxnOffsetCommitRequest); ok {
				resp := r.ResponseKind().(*kmsg.TxnOffsetCommitResponse) //nolint:forcetypeassert // its own kind
				for _, topic := range r.Topics {
					answered := kmsg.NewTxnOffsetCommitResponseTopic()
					answered.Topic, answered.TopicID = topic.Topic, topic.TopicID
					for _, p := range topic.Partitions {
						one := kmsg.NewTxnOffsetCommitResponseTopicPartition()
						one.Partition, one.ErrorCode = p.Partition, kerr.RebalanceInProgress.Code
						answered.Partitions = append(answered.Partitions, one)
					}
					resp.Topics = append(resp.Topics, answered)
				}
				return resp, nil, true
			}
			return nil, nil, false
		})
	}
	r, _ := reads(t, servers, "a", counter())
	s, _ := run(t, SenderOptions{Lanes: 1, Servers: servers})
	for i := range 30 {
		for n := 100 * i; n < 100*(i+1); n++ {
			s.Forward(0, serving.Sample{URL: "m", Latency: time.Second, Weight: 2, Variables: fmt.Appendf(nil, `{"n":%d}`, n)})
		}
		time.Sleep(50 * time.Millisecond)
	}
	eventually(t, "counted", func() error {
		if got := value(t, "clearml_serving_variable_total", r); got != 2*3000*2999/2 {
			return fmt.Errorf("sum %v", got)
		}
		return nil
	})
	if got := value(t, "clearml_serving_sampled_requests_total", r); got != 3000 {
		t.Errorf("%v records", got)
	}
	mu.Lock()
	defer mu.Unlock()
	t.Logf("%d failures", failures)
}

func TestPoisonMessagesAreCountedAndSkipped(t *testing.T) {
	_, servers := broker(t, kfake.SeedTopics(1, message.Topic))
	r, _ := reads(t, servers, "a", counter())
	var messages []*kgo.Record
	for _, value := range []string{"", "{}", "\xff\x00", `[1, {}, {"_url": "m", "_latency": "x"}, {"_url": "m/0", "_latency": 0.01, "_count": 2, "n": 0}]`, strings.Repeat("[", 100_000)} {
		messages = append(messages, &kgo.Record{Value: []byte(value)})
	}
	produce(t, servers, append(messages, numbered(1, 10)...)...)
	eventually(t, "counted", func() error {
		report := r.Report()
		if report.Records != 10 || report.Messages != 14 || fmt.Sprint(report.Skipped) != "map[builtin:1 endpoints:0 no_list:4 no_object:1 no_url:1]" {
			return fmt.Errorf("%+v", report)
		}
		return nil
	})
}

func TestStoredCountsThatCannotBeReadStopNothing(t *testing.T) {
	_, servers := broker(t)
	r, stop := reads(t, servers, "a", counter())
	eventually(t, "ready", r.Ready)
	produce(t, servers, numbered(0, 170)...) // ten for each of 17 endpoints
	wantCounts(t, 170, r)
	stop()
	group := r.group()
	produce(t, servers, &kgo.Record{Topic: StateTopic, Key: []byte(stateKey(group, "a", "m/3")), Value: []byte(`{"records": -`)},
		&kgo.Record{Topic: StateTopic, Key: []byte(stateKey(group, "a", "")), Value: []byte("\xff")})
	produce(t, servers, numbered(170, 187)...)
	r, _ = reads(t, servers, "a", counter())
	eventually(t, "counted", func() error {
		// The counts of m/3 and the number of messages begin anew.
		requests, messages := value(t, "clearml_serving_requests_total", r), r.Report().Messages
		if requests != 2*(16*11+1) || messages != 17 {
			return fmt.Errorf("%v requests, %d messages", requests, messages)
		}
		return nil
	})
}

func TestDefinitionsChangeWhileMessagesAreRead(t *testing.T) {
	_, servers := broker(t, kfake.SeedTopics(1, message.Topic))
	definitions := counter()
	definitions.renewed = func() { // the service has had the variable since before its first value
		definitions.set(map[string]serving.Metric{"n": {Type: "counter"}, "x": {Type: "scalar", Buckets: []any{1.0}}})
	}
	r, _ := reads(t, servers, "a", definitions)
	produce(t, servers, &kgo.Record{Value: []byte(`[{"_url": "m", "x": 0.5, "n": 1}, {"_url": "m", "x": 2, "n": 1}]`)})
	eventually(t, "counted with the definition", func() error {
		if got := value(t, "clearml_serving_variable_distribution", r); got != 2 {
			return fmt.Errorf("%v values", got)
		}
		return nil
	})
}

func TestAServerThatDoesNotAnswerTakesOnlyAMomentOfATransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		definitions, renewals := counter(), 0
		definitions.renewed = func() { renewals++; time.Sleep(5 * time.Second) }
		tx := &transaction{reader: NewReader(ReaderOptions{Definitions: definitions, Logger: slog.New(slog.DiscardHandler)})}
		ctx, cancel := context.WithTimeout(t.Context(), endWithin)
		defer cancel()
		tx.begin(ctx)
		for i := range 10 { // of variables that are not known
			tx.add(&kgo.Record{Value: fmt.Appendf(nil, `[{"_url": "m/%d", "other": 1}]`, i)})
		}
		if renewals != 1 || ctx.Err() != nil || len(tx.dirty) != 10 {
			t.Errorf("definitions were read %d times, %d endpoints, context: %v", renewals, len(tx.dirty), ctx.Err())
		}
	})
}

func TestKafkaThatComesLaterIsRead(t *testing.T) {
	port := freePort(t)
	servers := fmt.Sprintf("127.0.0.1:%d", port)
	r, _ := reads(t, servers, "a", counter())
	eventually(t, "the reason is known", func() error {
		if err := r.Ready(); err == nil || !strings.Contains(err.Error(), "refused") {
			return fmt.Errorf("%w", err)
		}
		return nil
	})
	broker(t, kfake.Ports(port))
	produce(t, servers, numbered(0, 10)...)
	wantCounts(t, 10, r)
	_, other := broker(t)
	r.Use(other) // the service names other brokers
	produce(t, other, numbered(0, 5)...)
	wantCounts(t, 5, r)
}

func TestASecondReplicaOfTheSameNameIsNamedAsTheCause(t *testing.T) {
	err := explain(fmt.Errorf("end: %w", kerr.ProducerFenced), "host:9999")
	if !strings.Contains(err.Error(), `"host:9999"`) || !strings.Contains(err.Error(), "--replica") {
		t.Error(err)
	}
	if err := explain(kerr.TopicAuthorizationFailed, "x"); !strings.Contains(err.Error(), StateTopic) {
		t.Error(err)
	}
}

// certificate makes a certificate for this machine.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(crand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestBothEndsConnectOverTLSWithEachMechanismOfSASL(t *testing.T) {
	pair, pool := certificate(t)
	for _, mechanism := range Mechanisms()[1:] {
		_, servers := broker(t, kfake.EnableSASL(), kfake.Superuser(strings.ToUpper(mechanism), "user", "secret"), kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}))
		access := Access{TLS: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, Mechanism: mechanism, User: "user", Password: "secret"}
		s, _ := run(t, SenderOptions{Lanes: 1, Servers: servers, Access: access})
		r := NewReader(ReaderOptions{Service: "s", Replica: "a", Servers: servers, Access: access, Definitions: counter(), Logger: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { r.Run(ctx) })
		forward(s, "m", 0, 10)
		eventually(t, mechanism, func() error {
			if report := r.Report(); report.Records != 10 {
				return fmt.Errorf("%+v, %w", report, r.Ready())
			}
			return nil
		})
		cancel()
		running.Wait()

		wrong := access
		wrong.Password = "wrong"
		s, _ = run(t, SenderOptions{Lanes: 1, Servers: servers, Access: wrong, Dir: t.TempDir()})
		forward(s, "m", 0, 10)
		eventually(t, "a wrong password loses nothing", func() error {
			if f := s.Forwarding(); f.Waiting != 10 || f.Sent != 0 {
				return fmt.Errorf("%+v", f)
			}
			return nil
		})
	}
}

func TestAnAccessThatCannotWorkIsRefused(t *testing.T) {
	for _, wrong := range []Access{{Mechanism: "plain"}, {Mechanism: "plain", User: "u"}, {Mechanism: "kerberos", User: "u", Password: "p"}} {
		if err := wrong.Validate(); err == nil {
			t.Errorf("%+v", wrong)
		}
	}
	if err := (Access{}).Validate(); err != nil {
		t.Error(err)
	}
}

// An administrator who makes the topic of the counts before us makes it as we would.
func TestThePageMakesTheTopicOfTheCountsAsWeDo(t *testing.T) {
	page, err := os.ReadFile("../../docs/compose.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(strings.ReplaceAll(string(page), "\\\n", ""), "--create --topic "+StateTopic+" ")
	command, _, _ := strings.Cut(rest, "\n")
	want := map[string]string{}
	for name, value := range stateSettings() {
		want[name] = *value
	}
	given := map[string]string{}
	for _, setting := range regexp.MustCompile(`--config (\S+)=(\S+)`).FindAllStringSubmatch(command, -1) {
		given[setting[1]] = setting[2]
	}
	if !maps.Equal(given, want) || !strings.HasPrefix(command, "--partitions 1 ") {
		t.Errorf("docs/compose.md makes it with %q, we with one partition and %v", command, want)
	}
}
