package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"clearmlserving/clearml"
	"clearmlserving/inference/instance"
	"clearmlserving/inference/reconcile"
	"clearmlserving/inference/router"
	"clearmlserving/listen"
	"clearmlserving/recurring"
	"clearmlserving/serving"
	"clearmlserving/sidecar"
	"clearmlserving/sidecar/triton"
)

func tritonCommand(a *app) *cobra.Command {
	var name, project, id string
	cmd := &cobra.Command{
		Use:   "triton [FLAGS OF TRITONSERVER]",
		Short: "Run a Triton server with the models of a serving service",
		Long: `Run NVIDIA's Triton Inference Server with the models of a serving service: those of the endpoints
of the engine triton. It puts them into a model repository, writes their config.pbtxt, starts
tritonserver, and loads and unloads them as the configuration changes; a new model is loaded while the
one before serves. Inference services ask this Triton at the address of config --triton-grpc-server.

It serves the service of --serving-id, --id or CLEARML_SERVING_TASK_ID, else the first active one. The flags
are those of the original's container; what follows them is passed to tritonserver as it is.`,
		Example: `  clearml-serving --id <service_id> triton --t-grpc-port 8001
  clearml-serving triton -- --backend-directory=/opt/tritonserver/backends --log-verbose=1`,
		Annotations: map[string]string{markWords: ""},
		Args:        cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, words []string) error {
			words, err := helperArgs(cmd, a.text("triton-helper-args"), words)
			if err != nil {
				return err
			}
			return a.runTriton(cmd.Context(), tritonSetup{id: cmp.Or(id, a.serviceID), kind: name, words: words})
		},
	}
	cmd.Flags().StringVar(&id, "serving-id", "", "id of the serving service, as --id")
	cmd.Flags().StringVar(&name, "name", "triton engine", "end of the name of the task that records this process")
	cmd.Flags().StringVar(&project, "project", "", "without effect: the task is in the project of the serving service")
	for _, flag := range []string{"serving-id", "name", "project"} {
		mark(cmd.Flags(), flag, markOurs)
	}
	a.declare(cmd.Flags(), "inference-task-id", "update-frequency", "metric-frequency", "tritonserver", "triton-addr", "addr-fallback", "admin-tls-cert", "admin-tls-key", "admin-tls-client-ca")
	a.declare(cmd.Flags(), "t-http-port", "t-http-thread-count", "t-allow-grpc", "t-grpc-port", "t-grpc-infer-allocation-pool-size", "t-pinned-memory-pool-byte-size", "t-cuda-memory-pool-byte-size",
		"t-min-supported-compute-capability", "t-buffer-manager-thread-count", "t-log-verbose", "t-exit-on-error", "t-grpc-address", "t-metrics-port")
	return cmd
}

// helperArgs sets the flags that the words of an environment variable give, unless the command line has them, and
// returns the words for tritonserver.
func helperArgs(cmd *cobra.Command, variable string, words []string) ([]string, error) {
	var further []string
	given := strings.Fields(variable)
	for len(given) > 0 {
		word := given[0]
		given = given[1:]
		name, value, hasValue := strings.Cut(strings.TrimPrefix(word, "--"), "=")
		flag := cmd.Flags().Lookup(name)
		if flag == nil || !strings.HasPrefix(word, "--") {
			further = append(further, word)
			continue
		}
		if !hasValue && flag.NoOptDefVal != "" {
			value, hasValue = flag.NoOptDefVal, true
		}
		if !hasValue {
			if len(given) == 0 {
				return nil, fmt.Errorf("CLEARML_TRITON_HELPER_ARGS: --%s has no value", name)
			}
			value, given = given[0], given[1:]
		}
		if flag.Changed {
			continue
		}
		if err := cmd.Flags().Set(name, value); err != nil {
			return nil, fmt.Errorf("CLEARML_TRITON_HELPER_ARGS: --%s: %w", name, err)
		}
	}
	return append(further, words...), nil
}

// tritonSetup is what the command line says of a role.
type tritonSetup struct {
	id, kind string
	words    []string // for tritonserver
}

var tritonSocket = socket{name: "triton", option: "triton-addr", tls: "admin-tls"}

func (a *app) runTriton(ctx context.Context, setup tritonSetup) error {
	return a.runRole(ctx, slog.LevelInfo, func(sockets *sockets) ([]part, error) {
		role, err := a.newTriton(ctx, sockets, setup)
		if err != nil {
			return nil, err
		}
		return []part{{"triton", func(ctx context.Context, ready func()) error {
			defer role.summary.Flush()
			defer role.lock.Close() //nolint:errcheck // only locked
			a.print.line("clearml-serving %s keeps the models of Triton", version)
			a.print.line("  %-12s %s/status, /metrics", "operators", role.listener.URL())
			a.print.line("  %-12s %s", "gRPC", role.grpc)
			if err := sockets.announce(); err != nil {
				return err
			}
			ready()
			return role.run(ctx)
		}}}, nil
	})
}

// tritonRole is a Triton server with what keeps its models.
type tritonRole struct {
	listener *listen.Listener
	token    string
	grpc     string
	server   *sidecar.Server
	control  *triton.Control
	models   *triton.Repository
	follow   *reconcile.Reconciler
	record   *instance.Task
	client   *clearml.Client
	metrics  *prometheus.Registry
	every    time.Duration // between two reports of Triton's metrics
	started  time.Time
	summary  *recurring.Handler
	lock     *os.File
	log      *slog.Logger
	task     atomic.Pointer[string] // the id of the record
	loaded   atomic.Bool            // every endpoint that can load has loaded once
}

func (a *app) newTriton(ctx context.Context, sockets *sockets, setup tritonSetup) (role *tritonRole, err error) {
	config, err := a.clearmlConfig()
	poll, err2 := a.duration("update-frequency", time.Minute)
	every, err3 := a.duration("metric-frequency", time.Minute)
	if err := cmp.Or(err, err2, err3); err != nil {
		return nil, err
	}
	console := instance.NewConsole(sockets.log.Handler(), func(w io.Writer) slog.Handler { return newLogHandler(w, slog.LevelInfo, false) })
	summary := recurring.NewHandler(console)
	log := slog.New(summary).With("part", "triton")
	role = &tritonRole{token: a.text("admin-token"), every: every, started: time.Now(), summary: summary, log: log}
	dir := filepath.Join(sockets.dir, "triton")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if role.lock, err = lockFolder(dir); err != nil {
		return nil, fmt.Errorf("another process uses %s: stop it, or give this one another --data-dir: %w", dir, err)
	}
	defer func() {
		if err != nil {
			_ = role.lock.Close()
		}
	}()
	if role.client, err = clearml.New(clearml.Options{Config: config, Logger: log, ClientName: "clearml-serving-" + compatVersion}); err != nil {
		return nil, err
	}
	files, err := a.modelFiles(sockets.dir, role.client, log)
	if err != nil {
		return nil, err
	}
	command, err := a.tritonCommandLine(dir, setup.words)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	role.grpc, role.control = command.grpc, triton.NewControl(command.http, command.metrics)
	role.server = sidecar.New(sidecar.Options{
		Name: "tritonserver", Guard: []string{self, guardName, "--"}, Probe: role.control.Live, Logger: log, Grace: 35 * time.Second,
		Secrets: a.secrets(config), Command: func(context.Context) (sidecar.Command, error) { return command.Command, nil },
		Line: func(line string) { log.Info("tritonserver says", "line", line) },
	})
	if role.models, err = triton.New(triton.Options{Dir: dir, Server: role.server, Control: role.control, Logger: log}); err != nil {
		return nil, err
	}
	want := tritonSocket
	want.credentials = role.token != ""
	if role.listener, err = sockets.open(ctx, want); err != nil {
		return nil, err
	}
	id := cmp.Or(setup.id, a.text("service-id"))
	source := &reconcile.ClearMLSource{Client: role.client, ServiceID: id, Logger: log}
	name := instanceName(role.listener.Port())
	role.record = instance.New(instance.Options{
		Client: role.client, TaskID: a.text("inference-task-id"), Name: name, Role: "triton", Kind: setup.kind, Usage: usageMeter(), Console: console, Logger: log,
		Opened: func(task string) { role.task.Store(&task) },
	})
	role.follow = reconcile.New(reconcile.Options{
		Router: &router.Router{}, Source: source, Files: files, Loader: role.models, Changes: reconcile.NewServiceChanges(source), Poll: poll,
		CacheFile: filepath.Join(dir, "state-"+cacheName(id, "")+".json"), Instance: name, Holds: []string{serving.EngineTriton},
		Followers: []reconcile.Follower{role.record}, Logger: log,
	})
	role.metrics = prometheus.NewRegistry()
	return role, role.metrics.Register(tritonCollector{newServerCollector("triton", "tritonserver", role.server), role})
}

// secrets are the values of settings that are never printed.
func (a *app) secrets(config clearml.Config) []string {
	var all []string
	for _, o := range optionTable {
		if o.secret {
			all = append(all, a.text(o.name))
		}
	}
	for name, value := range config.Variables() {
		if strings.Contains(name, "KEY") || strings.Contains(name, "TOKEN") {
			all = append(all, value)
		}
	}
	return all
}

// tritonLine is a command line of tritonserver, with the addresses that it answers at.
type tritonLine struct {
	sidecar.Command

	http, metrics, grpc string
}

// leastThreads are the HTTP threads that Triton needs here: two loads, a look at the index, and the probe.
const leastThreads = 4

func (a *app) tritonCommandLine(dir string, words []string) (line tritonLine, err error) {
	program, err := a.findTriton()
	if err != nil {
		return line, err
	}
	if threads, err := a.whole("t-http-thread-count"); err != nil || threads > 0 && threads < leastThreads {
		return line, a.setting("t-http-thread-count").refuse(fmt.Sprintf("Triton loads models in these threads: give %d or more", leastThreads))
	}
	address := a.text("t-grpc-address")
	line.http = "http://127.0.0.1:" + a.text("t-http-port")
	line.metrics = "http://127.0.0.1:" + a.text("t-metrics-port")
	line.grpc = net.JoinHostPort(address, a.text("t-grpc-port"))
	line.Path = program
	line.Args = []string{
		"--model-repository=" + triton.Models(dir), "--model-control-mode=explicit", "--strict-readiness=false",
		// Who reaches the HTTP port can load any code.
		"--http-address=127.0.0.1", "--metrics-address=127.0.0.1", "--allow-metrics=true",
	}
	for _, flag := range []struct{ name, value string }{ // those of the original's container, in its order
		{"http-port", a.text("t-http-port")},
		{"http-thread-count", a.text("t-http-thread-count")},
		{"allow-grpc", a.text("t-allow-grpc")},
		{"grpc-port", a.text("t-grpc-port")},
		{"grpc-infer-allocation-pool-size", a.text("t-grpc-infer-allocation-pool-size")},
		{"pinned-memory-pool-byte-size", a.text("t-pinned-memory-pool-byte-size")},
		{"cuda-memory-pool-byte-size", a.text("t-cuda-memory-pool-byte-size")},
		{"min-supported-compute-capability", a.text("t-min-supported-compute-capability")},
		{"buffer-manager-thread-count", a.text("t-buffer-manager-thread-count")},
		{"log-verbose", a.text("t-log-verbose")},
		{"exit-on-error", a.text("t-exit-on-error")},
		{"grpc-address", a.text("t-grpc-address")},
		{"metrics-port", a.text("t-metrics-port")},
	} {
		if flag.value != "" {
			line.Args = append(line.Args, "--"+flag.name+"="+flag.value)
		}
	}
	if ip := net.ParseIP(address); ip == nil || !ip.IsLoopback() {
		// Requests need none of these; the key is known to nobody.
		line.Args = append(line.Args, "--grpc-restricted-protocol=model-repository,shared-memory,logging,trace:closed="+rand.Text())
	}
	line.Args = append(line.Args, words...)
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, "CLEARML_") && !strings.HasPrefix(name, "TRAINS_") {
			line.Env = append(line.Env, variable)
		}
	}
	return line, nil
}

// findTriton finds the program: as configured, else in PATH, else where NVIDIA's images have it.
func (a *app) findTriton() (string, error) {
	const inImages = "/opt/tritonserver/bin/tritonserver"
	if s := a.setting("tritonserver"); s.value != "" {
		if path, err := exec.LookPath(s.value); err == nil {
			return filepath.Abs(path)
		}
		return "", s.refuse("there is no such program")
	}
	if path, err := exec.LookPath("tritonserver"); err == nil {
		return filepath.Abs(path)
	}
	if exists(inImages) {
		return inImages, nil
	}
	return "", hint(errors.New("there is no tritonserver: it is neither in PATH nor at "+inImages), "Try: --tritonserver with the path of the program, or one of NVIDIA's images of Triton")
}

// status is that of the followed endpoints.
func (t *tritonRole) status() serving.Status {
	s := t.follow.Status()
	s.Started = t.started
	return s
}

// run runs Triton until ctx ends. The models are unloaded by the end of Triton, which is last.
func (t *tritonRole) run(ctx context.Context) error {
	serverCtx, stopServer := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServer()
	recordCtx, stopRecord := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRecord()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var server, record, parts sync.WaitGroup
	server.Go(func() { t.warn("triton", t.server.Run(serverCtx)) })
	record.Go(func() { t.warn("record", t.record.Run(recordCtx, t.status)) })
	parts.Go(func() { t.warn("models", t.models.Run(ctx)) })
	parts.Go(func() { t.report(ctx) })
	var served error
	parts.Go(func() {
		served = serveOperators(ctx, t.listener, t.pages().handler(), t.log)
		cancel()
	})
	err := t.follow.Run(ctx)
	parts.Wait()
	stopServer()
	server.Wait()
	stopRecord()
	record.Wait()
	return errors.Join(err, served)
}

func (t *tritonRole) warn(what string, err error) {
	if err != nil {
		t.log.Warn("part of the role has failed", "what", what, "err", err)
	}
}

// report sends Triton's metrics to the tasks of this process and of the service, as the original does.
func (t *tritonRole) report(ctx context.Context) {
	ticker := time.NewTicker(t.every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		task, service := t.task.Load(), t.follow.Status().ServiceID
		if task == nil || !t.server.Status().Ready() {
			continue
		}
		text, err := t.control.Scrape(ctx)
		if err == nil {
			err = t.client.AddEvents(ctx, scalars(triton.Scalars(text), *task, service, int64(time.Since(t.started).Seconds())))
		}
		if err != nil && ctx.Err() == nil {
			t.log.Warn("metrics of Triton not reported", "err", err)
		}
	}
}

// scalars are the events of values on both tasks.
func scalars(values []triton.Scalar, task, service string, iteration int64) []clearml.Event {
	var events []clearml.Event
	for _, v := range values {
		for _, on := range []struct{ task, series string }{{task, v.Series}, {service, v.Series + "." + task}} {
			events = append(events, clearml.Event{Type: clearml.EventScalar, Task: on.task, Metric: v.Title, Variant: on.series, Iter: &iteration, Value: &v.Value})
		}
	}
	return events
}

// pages are what operators get.
func (t *tritonRole) pages() *supervisorPages {
	return &supervisorPages{
		server: t.server, token: t.token, metrics: t.metrics, scrape: t.control.Scrape, log: t.log,
		obstacle: func() string {
			status, server := t.status(), t.server.Status()
			switch {
			case !server.Ready():
				return "Triton is " + string(server.State) + ": " + server.Reason
			case !status.Ready() && !t.loaded.Load(): // a further model is no reason to take the others away from clients
				return "models are being loaded"
			}
			t.loaded.Store(true)
			return ""
		},
		status: func() any {
			return struct {
				Server sidecar.Status `json:"server"`
				serving.Status
			}{t.server.Status(), t.status()}
		},
	}
}

// tritonCollector has the metrics of the role itself.
type tritonCollector struct {
	*serverCollector

	role *tritonRole
}

var tritonModel = prometheus.NewDesc("clearml_serving_triton_model_ready", "Whether Triton serves the model of an endpoint as configured.", []string{"endpoint", "model"}, nil)

// Describe implements prometheus.Collector.
func (c tritonCollector) Describe(to chan<- *prometheus.Desc) {
	c.serverCollector.Describe(to)
	to <- tritonModel
}

// Collect implements prometheus.Collector.
func (c tritonCollector) Collect(to chan<- prometheus.Metric) {
	c.serverCollector.Collect(to)
	for _, e := range c.role.status().Endpoints {
		to <- prometheus.MustNewConstMetric(tritonModel, prometheus.GaugeValue, truth(e.State == serving.StateReady), string(e.URL), serving.TritonModel(e.URL))
	}
}
