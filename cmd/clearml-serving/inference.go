package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"clearmlserving/clearml"
	"clearmlserving/inference"
	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/native"
	"clearmlserving/inference/engine/onnx"
	"clearmlserving/inference/engine/python"
	"clearmlserving/inference/engine/v2server"
	"clearmlserving/inference/grpcfront"
	"clearmlserving/inference/instance"
	"clearmlserving/inference/reconcile"
	"clearmlserving/inference/rest"
	"clearmlserving/inference/rollout"
	"clearmlserving/operations"
	"clearmlserving/process"
	"clearmlserving/recurring"
	"clearmlserving/serving"
	"clearmlserving/statistics"
	"clearmlserving/storage"
	"clearmlserving/timeseries"
	"clearmlserving/timeseries/gather"
	"clearmlserving/tracing"
	"clearmlserving/worker"
	"clearmlserving/worker/host"
)

func inferenceCommand(a *app) *cobra.Command {
	var name, endpoint string
	var check bool
	cmd := &cobra.Command{
		Use:   "inference",
		Short: "Run the inference service alone",
		Long: `Run the inference service alone, for a serving service on any ClearML server: the
one that clearml.conf and the CLEARML_ variables name, as the SDK reads them.

It serves the service of --id, --name or CLEARML_SERVING_TASK_ID, else the first
active one, and follows its configuration every CLEARML_SERVING_POLL_FREQ minutes.
When the ClearML server is away it goes on with what it knew last, also at start.

With --folder it needs no ClearML server: it serves what "clearml-serving build" has
written, or a model file or a folder as "clearml-serving run" takes it.`,
		Example: `  clearml-serving --id <service_id> inference
  CLEARML_SERVING_TASK_ID=<service_id> CLEARML_SERVING_POLL_FREQ=0.1 clearml-serving inference --serve-addr 0.0.0.0:8080
  clearml-serving inference --folder /mnt/models --endpoint churn`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			folder, err := a.folderOption()
			switch {
			case err != nil:
				return err
			case folder != "":
				return a.runFolder(cmd.Context(), folder, firstOf(endpoint, a.text("folder-endpoint")), check)
			case check || endpoint != "":
				return usagef(cmd, "--check and --endpoint are for --folder")
			}
			return a.runInference(cmd.Context(), name)
		},
	}
	cmd.Flags().StringVar(&endpoint, "endpoint", "", "name of the endpoint of a model that --folder names (default: that of the file or folder)")
	mark(cmd.Flags(), "endpoint", markOurs)
	cmd.Flags().BoolVar(&check, "check", false, "with --folder: load everything, make the Python environments of endpoints, and end; fails if something cannot be served")
	mark(cmd.Flags(), "check", markOurs)
	a.declare(cmd.Flags(), "folder")
	cmd.Flags().StringVar(&name, "name", "", "name of the serving service (default: the first active one)")
	mark(cmd.Flags(), "name", markOurs)
	a.declareInference(cmd.Flags())
	a.declare(cmd.Flags(), "prometheus-url", "remote-write-url")
	return cmd
}

// declareInference adds the flags of every role that serves requests.
func (a *app) declareInference(flags *pflag.FlagSet) {
	a.declare(flags, "serve-addr", "grpc-addr", "admin-addr", "addr-fallback", "python", "max-body", "max-connections", "drain-delay", "stop-timeout",
		"tls-cert", "tls-key", "tls-client-ca", "admin-tls-cert", "admin-tls-key", "admin-tls-client-ca", "cors-origin", "worker-user", "memory-budget", "request-log", "kafka", "onnxruntime-library", "triton-grpc-addr", "triton-grpc-compression", "torchserve-keys")
}

func (a *app) runInference(ctx context.Context, name string) error {
	return a.runRole(ctx, slog.LevelInfo, func(sockets *sockets) ([]part, error) {
		config, err := a.clearmlConfig()
		if err != nil {
			return nil, err
		}
		poll, err := a.duration("poll-freq", time.Minute)
		if err != nil {
			return nil, err
		}
		log := sockets.log.With("part", "metrics")
		queue, err := a.remoteWrite(log)
		if err != nil {
			return nil, err
		}
		metrics, push := &gather.Source{}, newPusher(log)
		serve, err := a.newInference(ctx, inferenceSetup{sockets: sockets, config: config, name: name, poll: poll, metrics: metrics, push: push})
		if err != nil {
			return nil, err
		}
		return []part{inferencePart(serve, func() error {
			a.greet(sockets)
			return sockets.announce()
		}), push.part(metrics, queue)}, nil
	})
}

// inferenceSetup is what differs between the roles that serve requests.
type inferenceSetup struct {
	sockets *sockets
	config  clearml.Config
	name    string            // of the service
	changes reconcile.Changes // nil: looks at the service, where the server is the embedded one
	poll    time.Duration
	metrics *gather.Source         // gets the instance's metrics
	others  []prometheus.Collector // metrics of other parts of the process, for scrapes
	push    *pusher                // gets the client and the id of the instance's record; nil: none
	query   timeseries.Querier     // evaluates the conditions of canaries; nil: seriesOf

	// folder is served instead of a service of a ClearML server; nil: it is not.
	folder *reconcile.Folder
	made   madeFolders
	// status, if set, gets the function that returns the newest status.
	status func(func() serving.Status)
}

// newInference puts the data plane together: core, fronts, engines, followers. What it
// returns runs all of them. It opens its sockets last, so that an instance that cannot
// start for another reason opens no port; the caller closes them.
func (a *app) newInference(ctx context.Context, setup inferenceSetup) (run func(context.Context) error, err error) {
	dir := setup.sockets.dir
	console := instance.NewConsole(setup.sockets.log.Handler(), func(w io.Writer) slog.Handler { return newLogHandler(w, slog.LevelInfo, false) })
	summary := recurring.NewHandler(console)
	log := slog.New(summary).With("part", "inference")
	o, err := a.coreOptions()
	if err != nil {
		return nil, err
	}
	front, err := a.restOptions()
	if err != nil {
		return nil, err
	}
	if err := a.makeRoom(setup.sockets); err != nil {
		return nil, err
	}
	var client *clearml.Client // nil: there is no ClearML server
	if setup.folder != nil {
		o.Source, o.Files = setup.folder, setup.folder
		err = a.folderFiles(dir, setup.folder, log)
	} else if client, err = clearml.New(clearml.Options{Config: setup.config, Logger: log, ClientName: "clearml-serving-" + compatVersion}); err == nil {
		o.Files, err = a.modelFiles(dir, client, log)
	}
	if err != nil {
		return nil, err
	}
	budget, err := a.memoryBudget(log)
	if err != nil {
		return nil, err
	}
	tracer, err := newTracer(ctx, log)
	if err != nil {
		return nil, err
	}
	python, err := a.pythonEngine(dir, setup.config, setup.made, budget, tracer != nil, log)
	if err != nil {
		return nil, err
	}
	engines, err := a.loaders(dir, dir, setup.made, python, python, log)
	if err != nil {
		return nil, err
	}
	if front.Identity, err = serving.NewIdentity(); err != nil {
		return nil, err
	}
	serve, remote, admin, err := setup.sockets.openForRequests(ctx)
	if err != nil {
		return nil, err
	}
	id := a.serviceID
	if id == "" && setup.name == "" {
		id = a.text("service-id")
	}
	front.Listener, front.Admin, front.AdminToken, front.Logger = serve, admin, a.text("admin-token"), log
	o.Engines, o.Exposed, o.Logger = engines.table(), serve.Open() || remote.Open(), log
	o.Tracer, front.Tracer = tracer, tracer
	if budget != nil {
		o.WorkersMemory = budget.Status
	}
	o.Instance, o.Poll, o.RecordingsDir = instanceName(serve.Port()), setup.poll, recordingsDir(dir)
	health := process.NewHealthMeter(dir, os.Environ())
	var decider *rollout.Decider // nil without a ClearML server: nobody can move a canary
	if client != nil {
		source := &reconcile.ClearMLSource{Client: client, ServiceID: id, ServiceName: setup.name, Logger: log}
		var changed func()
		if setup.changes == nil {
			looks := reconcile.NewServiceChanges(source)
			setup.changes, changed = looks, looks.Look
		}
		o.Source, o.Changes = source, setup.changes
		o.Journal = &reconcile.ClearMLJournal{Client: client, Files: o.Files, Logger: log}
		o.CacheFile = filepath.Join(dir, "inference", "state-"+cacheName(id, setup.name)+".json")
		if setup.query == nil {
			if setup.query, err = a.seriesOf(client); err != nil {
				return nil, err
			}
		}
		transport, err := a.transport()
		if err != nil {
			return nil, err
		}
		o.Control = func(ctx context.Context, id string, name serving.EndpointURL, load bool, by string) ([]serving.EndpointURL, error) {
			s, err := operations.Open(ctx, client, id)
			if err != nil {
				return nil, err
			}
			urls, err := s.SetLoaded(ctx, name, load, by)
			if changed != nil {
				changed()
			}
			return urls, err
		}
		hooks := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		decider = rollout.New(rollout.Options{Client: client, Query: setup.query, HTTP: hooks, Changed: changed, Logger: log})
		o.Rollout = decider.Report
		opened := func(task string) {
			python.SetInstanceTask(task)
			decider.Opened(task)
			if setup.push != nil {
				setup.push.opened(task)
			}
		}
		if setup.push != nil {
			setup.push.client = client
		}
		o.Followers = []reconcile.Follower{instance.New(instance.Options{
			Client: client, TaskID: a.text("inference-task-id"), Name: o.Instance, URL: firstOf(bare(a.text("instance-url")), serve.URL()), Suffix: front.Suffix,
			Key: front.Identity.Public(), Usage: usageMeter(), Machine: health.Measure, Console: console, Opened: opened, Logger: log,
		}), decider}
	}
	metrics := statistics.Open(filepath.Join(dir, "inference", "statistics-"+cacheName(id, setup.name)), log)
	sender, err := a.statisticsSender(filepath.Join(dir, "inference", "statistics-queue-"+cacheName(id, setup.name)), metrics, log)
	if err != nil {
		return nil, err
	}
	o.Recorder, o.Recent, o.Followers = metrics, metrics.Recent, append(o.Followers, recordFollower{metrics, health}, sendFollower{sender})
	truths, follower, err := a.feedbackStore(dir, client, front.Identity, log)
	if err != nil {
		return nil, err
	}
	logged, err := a.requestLog(dir, log)
	if err != nil {
		return nil, err
	}
	front.Feedback, o.Observers, o.Followers = truths, []inference.Observer{truths, logged}, append(o.Followers, follower, requestLogFollower{logged})
	core := inference.New(o)
	if decider != nil {
		decider.Arms(core.Arms)
	}
	if setup.status != nil {
		setup.status(core.Status)
	}
	if front.Metrics, err = metrics.Handler(core.Status, log, append(setup.others, truths, logged)...); err != nil {
		return nil, err
	}
	if setup.metrics.Gatherer, err = metrics.Gatherer(core.Status, truths, logged); err != nil {
		return nil, err
	}
	setup.metrics.Labels = func() map[string]string {
		s := core.Status()
		return map[string]string{gather.Service: s.ServiceID, gather.ServiceName: s.ServiceName, gather.Instance: o.Instance}
	}
	fronts := []inference.Front{rest.New(core, front), grpcfront.New(core, grpcfront.Options{
		Listener: remote, Tracer: tracer, DrainDelay: front.DrainDelay, StopTimeout: front.StopTimeout, MaxBody: front.MaxBody, MaxConnections: front.MaxConnections, Version: version, Logger: log,
	})}
	return func(ctx context.Context) error {
		defer summary.Flush()
		err := core.Run(ctx, fronts...)
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastSpans)
		defer cancel()
		if err := tracer.Close(last); err != nil { // the receiver may be away
			log.Warn("traces not sent", "err", err)
		}
		return errors.Join(err, metrics.Close())
	}, nil
}

// lastSpans bounds the time for the last spans at the end.
const lastSpans = 3 * time.Second

// newTracer returns what sends traces, nil if the environment does not ask for it.
func newTracer(ctx context.Context, log *slog.Logger) (*tracing.Tracer, error) {
	yes, unusable := tracing.Configured(os.Getenv)
	if unusable != "" {
		log.Warn("no traces are sent", "reason", unusable)
	}
	if !yes {
		return nil, nil //nolint:nilnil // documented
	}
	log.Info("traces are sent")
	return tracing.New(ctx, version, log)
}

// recordFollower tells the statistics which endpoints there are and what they log.
type recordFollower struct {
	metrics *statistics.Metrics
	health  *process.HealthMeter
}

// Planned implements reconcile.Follower.
func (f recordFollower) Planned(_ *reconcile.State, plan serving.Plan, _ bool) {
	f.metrics.Follow(plan)
}

// StatusChanged implements reconcile.Follower.
func (recordFollower) StatusChanged(func() serving.Status) {}

// Run implements inference.FollowerRunner.
func (f recordFollower) Run(ctx context.Context, status func() serving.Status) error { //nolint:unparam // of the interface
	var watch sync.WaitGroup
	watch.Go(func() {
		f.metrics.Watch(ctx, statistics.Watcher{Health: f.health.Measure, Usage: process.UsageOf}, status)
	})
	f.metrics.Run(ctx)
	watch.Wait()
	return nil
}

// modelFiles fetches models and code into the cache of the data folder.
func (a *app) modelFiles(dataDir string, client *clearml.Client, log *slog.Logger) (reconcile.Files, error) {
	places, rewrites, err := a.places(dataDir, client)
	if err != nil {
		return nil, err
	}
	cache, err := storage.NewCache(storage.CacheOptions{Dir: filepath.Join(dataDir, "cache"), Adapters: places, Rewrites: rewrites, Logger: log})
	if err != nil {
		return nil, err
	}
	return reconcile.CachedFiles{Cache: cache, Logger: log}, nil
}

// makeRoom renames files that are in the place of a folder of the data plane. The
// content of all these folders can be made again.
func (a *app) makeRoom(s *sockets) error {
	for _, name := range []string{"cache", "native", "onnxruntime", "runtime", "environments", "recordings", "inference", "feedback", "request-log", "request-log-spool", "torchserve"} {
		path := filepath.Join(s.dir, name)
		if info, err := os.Stat(path); err != nil || info.IsDir() {
			continue
		}
		if err := reconcile.SetAside(path); err != nil {
			return fmt.Errorf("rename the file in the place of folder %s: %w", path, err)
		}
		s.log.Warn("file in the place of a folder set aside", "folder", path, "kept_as", path+".damaged")
	}
	return nil
}

// instanceName tells this instance apart from others of its service, on this
// machine and elsewhere.
func instanceName(port int) string {
	machine, err := os.Hostname()
	if err != nil {
		machine = "unknown host"
	}
	return fmt.Sprintf("%s:%d", machine, port)
}

// usageMeter tells what this process and its workers use, with the processor's
// share since the call before.
func usageMeter() func() serving.Usage {
	var before process.TreeUsage
	var at time.Time
	return func() serving.Usage {
		now, ok := process.Usage()
		if !ok {
			return serving.Usage{}
		}
		u := serving.Usage{Memory: now.Memory, Processes: now.Processes}
		if used := now.CPU - before.CPU; !at.IsZero() && used > 0 { // less: a process has ended
			u.CPU = 100 * used.Seconds() / time.Since(at).Seconds()
		}
		before, at = now, time.Now()
		return u
	}
}

// cacheName keeps the states of services apart that are served from one data folder.
func cacheName(id, name string) string {
	return "service-" + plainName(firstOf(id, name))
}

// plainName replaces all but letters, digits, - and _.
func plainName(text string) string { return oddCharacter.ReplaceAllString(text, "_") }

var oddCharacter = regexp.MustCompile(`[^a-zA-Z0-9_-]`)

// coreOptions reads the settings of the data plane's core.
func (a *app) coreOptions() (inference.Options, error) {
	timeout, err := a.duration("request-timeout", time.Second)
	maxBody, err2 := a.whole("max-body")
	share, err3 := a.share("metric-log-freq")
	return inference.Options{RequestTimeout: timeout, MaxAnswer: int64(maxBody) << 20, LogShare: &share}, errors.Join(err, err2, err3)
}

// restOptions reads the settings of the front for HTTP clients.
func (a *app) restOptions() (rest.Options, error) {
	maxBody, err := a.whole("max-body")
	maxConns, err2 := a.whole("max-connections")
	origins, err3 := a.origins()
	drain, err4 := a.seconds("drain-delay")
	stop, err5 := a.seconds("stop-timeout")
	return rest.Options{
		Version: version,
		Suffix:  strings.Trim(a.text("serve-suffix"), "/"), MaxBody: int64(maxBody) << 20, MaxConnections: maxConns, Origins: origins, DrainDelay: drain, StopTimeout: stop,
	}, errors.Join(err, err2, err3, err4, err5)
}

// acceleratedEngine computes models in Go whose endpoints ask for it, or converts them, and leaves the others to inPython.
// What was proven when an image was built is not proven again.
func acceleratedEngine(dataDir string, made madeFolders, inPython engine.Loader, workers *python.Engine, converted *onnx.Engine, log *slog.Logger) *native.Engine {
	o := native.Options{
		ONNX: converted, ONNXRuntime: converted.Library,
		Python: inPython, Workers: workers, Host: workers.Host(), Dir: filepath.Join(dataDir, "native"), Made: made.native, RuntimeDir: filepath.Join(dataDir, "runtime"), Logger: log,
	}
	if made.writes && made.native != "" {
		o.Dir, o.Made = made.native, ""
	}
	return native.New(o)
}

// pythonEngine finds the interpreter. Without one the instance still starts: its
// endpoints say what is missing.
func (a *app) pythonEngine(dataDir string, config clearml.Config, made madeFolders, budget *worker.Budget, traced bool, log *slog.Logger) (*python.Engine, error) {
	env := a.workerEnv(config)
	account, env, err := a.workerAccount(dataDir, env)
	workers, err2 := a.whole("num-process")
	files, err3 := a.whole("worker-open-files")
	maxBody, err4 := a.whole("max-body")
	if err := cmp.Or(err, err2, err3, err4); err != nil {
		return nil, err
	}
	return python.New(python.Options{Workers: workers, Traced: traced, Logger: log, Host: host.New(host.Options{
		Worker: worker.Options{
			RuntimeDir: filepath.Join(dataDir, "runtime"), ZygoteEnv: env, Account: account, OpenFiles: files, Budget: budget, Logger: log,
			Ahead: worker.NewAhead(int64(min(maxBody, 256)) << 20),
		},
		Find: func(ctx context.Context) (*worker.Environment, error) {
			found, err := a.findPython(ctx, env)
			if err != nil {
				log.Error("no Python interpreter can run models", "err", err)
			} else {
				log.Info("python found", "python", found.Python, "version", found.Version)
			}
			return found, err
		},
		Env: env, Environments: a.environments(dataDir, made, log), Extra: a.extraPackages(),
	})}), nil
}

// v2Engine asks Triton and other servers of the V2 protocol.
func (a *app) v2Engine(workers *python.Engine, log *slog.Logger) (*v2server.Engine, error) {
	compressed, err := a.on("triton-grpc-compression")
	if err != nil {
		return nil, err
	}
	return v2server.New(v2server.Options{
		Python: workers, Triton: a.text("triton-grpc-addr"), TritonCompression: compressed, Variable: os.Getenv, Logger: log,
	}), nil
}

// recordingsDir is where an instance keeps recorded requests.
func recordingsDir(dataDir string) string { return filepath.Join(dataDir, "recordings") }

// inferencePart serves requests; then is called once they are taken.
func inferencePart(serve func(context.Context) error, then func() error) part {
	return part{"inference", func(ctx context.Context, ready func()) error {
		if err := then(); err != nil { // the sockets are open: connections wait from here
			return err
		}
		ready()
		return serve(ctx)
	}}
}
