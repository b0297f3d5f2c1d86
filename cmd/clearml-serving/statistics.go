package main

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"clearmlserving/clearml"
	"clearmlserving/recurring"
	"clearmlserving/serving"
	"clearmlserving/statistics"
	"clearmlserving/statistics/definitions"
	"clearmlserving/statistics/kafka"
)

// defaultBroker is where the original's statistics container looks for Kafka.
const defaultBroker = "localhost:9092"

// oddReplica matches what Kafka does not take in the name of a member.
var oddReplica = regexp.MustCompile(`[^a-zA-Z0-9._-]`)

func statisticsCommand(a *app) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "statistics",
		Short: "Count the statistics that inference services send over Kafka",
		Long: `Count the statistics of requests that inference services send over Kafka, ours and the
original's, and expose them to Prometheus at /metrics.

It counts for the service of --id, --name or CLEARML_SERVING_TASK_ID, else the first active one,
and follows the variables that "metrics add" defines. Several replicas share the work. Each message is
counted once, also if a replica is killed: the counts are stored in Kafka. A replica that
starts again continues its counters, by its name.`,
		Example: `  clearml-serving --id <service_id> statistics --kafka kafka:9092
  CLEARML_SERVING_TASK_ID=<service_id> CLEARML_DEFAULT_KAFKA_SERVE_URL=kafka:9092 CLEARML_SERVING_PORT=9999 clearml-serving statistics`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runStatistics(cmd.Context(), name) },
	}
	cmd.Flags().StringVar(&name, "name", "", "name of the serving service (default: the first active one)")
	mark(cmd.Flags(), "name", markOurs)
	a.declare(cmd.Flags(), "kafka", "statistics-addr", "replica", "addr-fallback", "admin-tls-cert", "admin-tls-key", "admin-tls-client-ca")
	return cmd
}

func (a *app) runStatistics(ctx context.Context, name string) error {
	return a.runRole(ctx, slog.LevelInfo, func(sockets *sockets) ([]part, error) {
		config, err := a.clearmlConfig()
		poll, err2 := a.duration("poll-freq", time.Minute)
		access, err3 := a.kafkaAccess()
		if err := cmp.Or(err, err2, err3); err != nil {
			return nil, err
		}
		summary := recurring.NewHandler(sockets.log.Handler())
		log := slog.New(summary).With("part", "statistics")
		client, err := clearml.New(clearml.Options{Config: config, Logger: log, ClientName: "clearml-serving-" + compatVersion})
		if err != nil {
			return nil, err
		}
		want := statisticsSocket
		want.credentials = a.text("admin-token") != ""
		listener, err := sockets.open(ctx, want)
		if err != nil {
			return nil, err
		}
		if listener.Open() {
			log.Warn("every machine that reaches this address can read the statistics; set CLEARML_SERVING_ADMIN_TOKEN to require a token", "url", listener.URL())
		}
		id := a.serviceID
		if id == "" && name == "" {
			id = a.text("service-id")
		}
		replica := a.setting("replica")
		if oddReplica.MatchString(replica.value) {
			return nil, replica.refuse("give letters, digits, dots, - and _ only")
		}
		role := &statisticsRole{
			access: access, servers: cmp.Or(a.text("kafka"), defaultBroker), token: a.text("admin-token"), log: log,
			replica: cmp.Or(replica.value, oddReplica.ReplaceAllString(instanceName(listener.Port()), "-")),
		}
		role.follower = definitions.New(definitions.Options{
			Client: client, ServiceID: id, ServiceName: name, Poll: poll, Logger: log,
			Read: func(s serving.Service) {
				if reader := role.reading(); reader != nil {
					reader.Use(s.Parameters.KafkaServiceServer)
				}
			},
		})
		return []part{{"statistics", func(ctx context.Context, ready func()) error {
			defer summary.Flush()
			a.print.line("clearml-serving %s counts statistics", version)
			a.print.line("  %-12s %s/metrics", "metrics", listener.URL())
			if err := sockets.announce(); err != nil {
				return err
			}
			ready()
			return role.run(ctx, listener)
		}}}, nil
	})
}

// statisticsRole counts the messages of one service.
type statisticsRole struct {
	access                  kafka.Access
	servers, replica, token string
	follower                *definitions.Follower
	log                     *slog.Logger

	mu     sync.Mutex // guards reader and page
	reader *kafka.Reader
	page   http.Handler
}

func (s *statisticsRole) reading() *kafka.Reader {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reader
}

// run answers scrapes at once, and counts once the service has been read.
func (s *statisticsRole) run(ctx context.Context, listener net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() {
		service, err := s.follower.Choose(ctx)
		if err != nil {
			return // ctx has ended
		}
		if err := s.count(ctx, service, &parts); err != nil {
			s.log.Error("statistics are not counted", "err", err)
		}
	})
	err := serveOperators(ctx, listener, s.handler(), s.log)
	cancel()
	return err
}

// count counts the messages of the service until ctx ends.
func (s *statisticsRole) count(ctx context.Context, service *clearml.Service, parts *sync.WaitGroup) error {
	reader := kafka.NewReader(kafka.ReaderOptions{
		Service: service.ID, Replica: s.replica, Servers: s.servers, Access: s.access, Definitions: s.follower, Logger: s.log,
	})
	page, err := statistics.AggregateHandler(reader.Collector(s.follower.Names), s.log)
	if err != nil {
		return err
	}
	reader.Use(service.General[serving.ParamKafkaServiceServer])
	s.mu.Lock()
	s.reader, s.page = reader, page
	s.mu.Unlock()
	s.log.Info("counting", "service_id", service.ID, "service", service.Name)
	parts.Go(func() { s.follower.Run(ctx) })
	parts.Go(func() { s.follower.RecordTask(ctx, service) })
	reader.Run(ctx)
	return nil
}

// handler answers with the metrics at every path, as the original does, besides the probes.
func (s *statisticsRole) handler() http.Handler {
	mux := http.NewServeMux()
	handleProbes(mux, func() string {
		err := s.follower.Ready()
		if reader := s.reading(); err == nil && reader != nil {
			err = reader.Ready()
		}
		if err != nil {
			return err.Error()
		}
		return ""
	})
	mux.Handle("GET /", operatorsOnly(s.token, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		page := s.page
		s.mu.Unlock()
		if page == nil {
			http.Error(w, "the serving service has not been read yet", http.StatusServiceUnavailable)
			return
		}
		page.ServeHTTP(w, r)
	})))
	return mux
}
