// Package kafka carries statistics over Kafka: a Sender in each inference instance, and a Reader that
// counts them. Both use the topic and the messages of the original.
package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// Access is how clients connect to the brokers.
type Access struct {
	// TLS encrypts; nil: plain text.
	TLS *tls.Config
	// Mechanism of SASL: "" for none, plain, scram-sha-256, or scram-sha-512.
	Mechanism      string
	User, Password string
}

// Mechanisms are the values of Access.Mechanism.
func Mechanisms() []string { return []string{"", "plain", "scram-sha-256", "scram-sha-512"} }

// Validate returns an error for an Access that cannot be used.
func (a Access) Validate() error {
	_, err := a.options()
	return err
}

func (a Access) options() ([]kgo.Opt, error) {
	var options []kgo.Opt
	if a.TLS != nil {
		options = append(options, kgo.DialTLSConfig(a.TLS.Clone()))
	}
	if a.Mechanism != "" && (a.User == "" || a.Password == "") {
		return nil, fmt.Errorf("kafka: SASL mechanism %s requires a user and a password", a.Mechanism)
	}
	switch a.Mechanism {
	case "":
	case "plain":
		options = append(options, kgo.SASL(plain.Auth{User: a.User, Pass: a.Password}.AsMechanism()))
	case "scram-sha-256":
		options = append(options, kgo.SASL(scram.Auth{User: a.User, Pass: a.Password}.AsSha256Mechanism()))
	case "scram-sha-512":
		options = append(options, kgo.SASL(scram.Auth{User: a.User, Pass: a.Password}.AsSha512Mechanism()))
	default:
		return nil, fmt.Errorf("kafka: unknown SASL mechanism %q", a.Mechanism)
	}
	return options, nil
}

// defaultPort is the port of a broker without one.
const defaultPort = "9092"

// seeds are the addresses in a list with commas.
func seeds(servers string) ([]string, error) {
	var all []string
	for one := range strings.SplitSeq(servers, ",") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		host, port, err := net.SplitHostPort(one)
		if err != nil {
			host, port = strings.Trim(one, "[]"), defaultPort
		}
		if host == "" || strings.ContainsAny(host, "/ ") {
			return nil, fmt.Errorf("kafka: %q is not an address of a broker: give host:port, several with commas", one)
		}
		all = append(all, net.JoinHostPort(host, port))
	}
	if len(all) == 0 {
		return nil, errors.New("kafka: no address of a broker is given")
	}
	return all, nil
}

// connect are the options of every client.
func connect(servers string, access Access, log *slog.Logger) ([]kgo.Opt, error) {
	addresses, err := seeds(servers)
	if err != nil {
		return nil, err
	}
	options, err := access.options()
	if err != nil {
		return nil, err
	}
	return append(options,
		kgo.SeedBrokers(addresses...), kgo.ClientID("clearml-serving"), kgo.WithLogger(clientLog{log}),
		kgo.MetadataMinAge(time.Second), kgo.DisableClientMetrics(),
	), nil
}

// brokers are those that a client is connected to. They change while it runs.
type brokers struct {
	mu      sync.Mutex // guards the fields below
	servers string
	end     context.CancelFunc // of the connection to servers, nil before the first
}

// use changes the brokers. That ends the connection to those before.
func (b *brokers) use(servers string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if servers == b.servers {
		return
	}
	b.servers = servers
	if b.end != nil {
		b.end()
	}
}

// connection returns the brokers, and a context for as long as they are the ones to use. The caller ends it.
func (b *brokers) connection(ctx context.Context) (_ context.Context, servers string, end context.CancelFunc) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ctx, b.end = context.WithCancel(ctx)
	return ctx, b.servers, b.end
}

// clientLog logs what the client library says at level debug: this package logs the state of the
// connection, not each attempt.
type clientLog struct{ log *slog.Logger }

// Level implements kgo.Logger.
func (l clientLog) Level() kgo.LogLevel {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		return kgo.LogLevelInfo
	}
	return kgo.LogLevelNone
}

// Log implements kgo.Logger.
func (l clientLog) Log(_ kgo.LogLevel, msg string, keyvals ...any) {
	l.log.Debug("kafka client", append([]any{"event", msg}, keyvals...)...)
}

// partitions is the number of partitions of a topic that is created: the maximum number of
// replicas that share its messages.
const partitions = 12

// ensureTopic creates a topic unless it exists.
func ensureTopic(ctx context.Context, client *kgo.Client, topic string, count int32, settings map[string]*string) error {
	admin := kadm.NewClient(client)
	known, err := admin.ListTopics(ctx, topic)
	if err != nil {
		return fmt.Errorf("look for topic %s: %w", topic, err)
	}
	if known.Has(topic) {
		return nil
	}
	_, err = admin.CreateTopic(ctx, count, -1, settings, topic)
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("create topic %s: %w", topic, err)
	}
	return nil
}
