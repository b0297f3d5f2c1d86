package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"clearmlserving/atomicfile"
	"clearmlserving/inference/engine/python"
	"clearmlserving/inference/engine/torchserve"
	"clearmlserving/listen"
	"clearmlserving/sidecar"
	sidecartorchserve "clearmlserving/sidecar/torchserve"
)

// torchServeFolder is where the role torchserve keeps its files, and the engine its archives.
func torchServeFolder(dataDir string) string { return filepath.Join(dataDir, "torchserve") }

// torchServeState is the file in which the role torchserve tells instances with the same data folder where its server
// is.
func torchServeState(dataDir string) string {
	return filepath.Join(torchServeFolder(dataDir), "server.json")
}

// torchServeEngine registers models with TorchServe.
func (a *app) torchServeEngine(dataDir string, workers *python.Engine, log *slog.Logger) (*torchserve.Engine, error) {
	maxBody, err := a.whole("max-body")
	if err != nil {
		return nil, err
	}
	return torchserve.New(torchserve.Options{
		Dir: torchServeFolder(dataDir), Python: workers, MaxAnswer: int64(maxBody) << 20, Keys: a.text("torchserve-keys"), Logger: log,
		Server: func() (s torchserve.Server, err error) {
			text, err := os.ReadFile(torchServeState(dataDir))
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return s, errors.New("no TorchServe runs here: start one with clearml-serving torchserve and the same data folder, or give the address of another one in --aux-config")
			case err != nil:
				return s, fmt.Errorf("find the TorchServe of this machine: %w", err)
			}
			if err := json.Unmarshal(text, &s); err != nil {
				return s, fmt.Errorf("%s cannot be read: %w", torchServeState(dataDir), err)
			}
			return s, nil
		},
	}), nil
}

func torchServeCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "torchserve",
		Short: "Run a TorchServe for the instances on this machine",
		Long: `Run a TorchServe ` + sidecartorchserve.Version + ` for the inference services on this machine that have the same data folder:
they register the models of their endpoints of the engine torchserve with it. It listens on loopback
addresses only, requires keys, and is started again when it ends or hangs.

TorchServe is abandoned: faults, also those of security, are not repaired any more. "model import"
makes endpoints of its archives that need no TorchServe.`,
		Example: `  clearml-serving torchserve --torchserve-python /opt/torch/bin/python
  clearml-serving torchserve --torchserve-port 7080 --torchserve-vmargs "-Xmx2g"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runTorchServe(cmd.Context()) },
	}
	a.declare(cmd.Flags(), "torchserve-python", "torchserve-java", "torchserve-port", "torchserve-vmargs", "torchserve-addr", "addr-fallback", "max-body",
		"admin-tls-cert", "admin-tls-key", "admin-tls-client-ca")
	return cmd
}

var torchServeSocket = socket{name: "torchserve", option: "torchserve-addr", tls: "admin-tls"}

func (a *app) runTorchServe(ctx context.Context) error {
	return a.runRole(ctx, slog.LevelInfo, func(sockets *sockets) ([]part, error) {
		role, err := a.newTorchServe(ctx, sockets)
		if err != nil {
			return nil, err
		}
		return []part{{"torchserve", func(ctx context.Context, ready func()) error {
			where := role.o.Where()
			a.print.line("clearml-serving %s runs TorchServe %s", version, sidecartorchserve.Version)
			a.print.line("  %-12s %s/status, /metrics", "operators", role.listener.URL())
			a.print.line("  %-12s %s, gRPC %s", "inference", where.Inference, where.GRPC)
			ready() // endpoints.json of the data folder is the instance's
			return role.run(ctx)
		}}}, nil
	})
}

// torchServeRole is a TorchServe that is supervised.
type torchServeRole struct {
	o        sidecartorchserve.Options
	server   *sidecar.Server
	client   *http.Client
	listener *listen.Listener
	token    string
	state    string // the file for instances
	metrics  *prometheus.Registry
	log      *slog.Logger
}

func (a *app) newTorchServe(ctx context.Context, sockets *sockets) (*torchServeRole, error) {
	port, err := a.whole("torchserve-port")
	maxBody, err2 := a.whole("max-body")
	fallback, err3 := a.on("addr-fallback")
	if err := cmp.Or(err, err2, err3); err != nil {
		return nil, err
	}
	if port < 1 || port > 65536-sidecartorchserve.Ports {
		return nil, a.setting("torchserve-port").refuse("give the first of five ports")
	}
	if fallback {
		// Instances have the ports of the run before.
		if port, err = sidecartorchserve.FreePort(ctx, cmp.Or(lastTorchServePort(sockets.dir), port)); err != nil {
			return nil, err
		}
	} else if err := sidecartorchserve.Free(ctx, port); err != nil {
		return nil, hint(fmt.Errorf("TorchServe takes the ports %d to %d: %w", port, port+sidecartorchserve.Ports-1, err), "Try: --torchserve-port with another one, or --addr-fallback")
	}
	python, err := program(a.setting("torchserve-python"))
	java, err2 := program(a.setting("torchserve-java"))
	self, err3 := os.Executable()
	if err := cmp.Or(err, err2, err3); err != nil {
		return nil, err
	}
	folder := torchServeFolder(sockets.dir)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	role := &torchServeRole{
		o: sidecartorchserve.Options{
			Dir: filepath.Join(folder, "server"), Python: python, Java: java, Port: port, MaxBody: int64(maxBody) << 20, VMArgs: strings.Fields(a.text("torchserve-vmargs")),
			Env: a.passed([]string{"PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "JAVA_HOME", "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "OMP_NUM_THREADS", "MKL_NUM_THREADS"}, installerVariables, networkVariables),
		},
		client: &http.Client{Timeout: time.Minute}, token: a.text("admin-token"), state: torchServeState(sockets.dir), log: sockets.log.With("part", "torchserve"),
		metrics: prometheus.NewRegistry(),
	}
	if err := os.MkdirAll(role.o.Dir, 0o700); err != nil {
		return nil, err
	}
	role.server = sidecar.New(sidecar.Options{
		Name: "torchserve", Command: role.o.Prepare, Guard: []string{self, guardName, "--"}, Logger: role.log,
		Probe: func(ctx context.Context) error { return role.o.Probe(ctx, role.client) },
		Line:  func(line string) { role.log.Debug("torchserve says", "line", line) }, // its own log has it too
	})
	want := torchServeSocket
	want.credentials = role.token != ""
	if role.listener, err = sockets.open(ctx, want); err != nil {
		return nil, err
	}
	return role, role.metrics.Register(newServerCollector("torchserve", "TorchServe", role.server))
}

// lastTorchServePort is the first port of the server that ran last, 0 if there was none.
func lastTorchServePort(dataDir string) int {
	var s sidecartorchserve.Server
	text, err := os.ReadFile(torchServeState(dataDir))
	if err != nil || json.Unmarshal(text, &s) != nil {
		return 0
	}
	_, port, _ := strings.Cut(strings.TrimPrefix(s.Inference, "http://"), ":")
	n, err := strconv.Atoi(port)
	if err != nil || n < 1 || n > 65536-sidecartorchserve.Ports {
		return 0
	}
	return n
}

// program finds the program that a setting names.
func program(s setting) (string, error) {
	path, err := exec.LookPath(s.value)
	if err != nil {
		return "", s.refuse("there is no such program")
	}
	return filepath.Abs(path)
}

// run runs TorchServe until ctx ends. Instances find it by a file.
func (r *torchServeRole) run(ctx context.Context) error {
	where := r.o.Where()
	where.Operators = r.listener.URL()
	text, err := json.Marshal(where)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(r.state, text, 0o600); err != nil {
		return fmt.Errorf("tell instances where TorchServe is: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var front sync.WaitGroup
	var served error
	front.Go(func() {
		served = serveOperators(ctx, r.listener, r.pages().handler(), r.log)
		cancel()
	})
	err = r.server.Run(ctx)
	cancel()
	front.Wait()
	r.client.CloseIdleConnections()
	return errors.Join(err, served, r.o.Tidy())
}

// pages are what operators get.
func (r *torchServeRole) pages() *supervisorPages {
	return &supervisorPages{
		server: r.server, token: r.token, metrics: r.metrics, log: r.log,
		scrape: func(ctx context.Context) ([]byte, error) { return r.o.Scrape(ctx, r.client) },
		obstacle: func() string {
			if s := r.server.Status(); !s.Ready() {
				return "TorchServe is " + string(s.State) + ": " + s.Reason
			}
			return ""
		},
		status: func() any {
			return struct {
				Server  sidecar.Status           `json:"server"`
				Version string                   `json:"torchserve"`
				Where   sidecartorchserve.Server `json:"where"`
			}{r.server.Status(), sidecartorchserve.Version, r.o.Where()}
		},
	}
}
