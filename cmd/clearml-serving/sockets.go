package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"clearmlserving/listen"
)

// sockets opens the listeners of a role and lists them in DATA_DIR/endpoints.json for
// other processes of this machine, for as long as they are open.
type sockets struct {
	app    *app
	log    *slog.Logger
	dir    string
	before map[string]string // name -> url of the run before
	urls   map[string]string
	opened []*listen.Listener

	mu     sync.Mutex       // guards the rest: a stop may come while announce is under way
	file   *listen.Registry // endpoints.json, nil until announced
	hidden bool             // the process is stopping
}

// lastAddresses keeps the addresses of the last run, so that with
// --addr-fallback the next one takes the same: files that were uploaded are
// registered under them.
const lastAddresses = "last-addresses.json"

// filesAddresses keeps every address that the file server of this data folder has had.
// Files stay registered under the address they were uploaded to; readers map it to the
// present one by this list.
const filesAddresses = "files-addresses.json"

// socket describes a listener that a role wants.
type socket struct {
	name   string // in endpoints.json
	option string // of its address
	// credentials: clients must show some. open: other machines may connect without.
	// Neither: loopback only.
	credentials, open bool
	tls               string // the option of its certificate begins so
}

var (
	serveSocket = socket{name: "serve", option: "serve-addr", open: true, tls: "tls"}
	grpcSocket  = socket{name: "grpc", option: "grpc-addr", open: true, tls: "tls"}
	apiSocket   = socket{name: "api", option: "api-addr", credentials: true, tls: "api-tls"}
	filesSocket = socket{name: "files", option: "files-addr", credentials: true, tls: "api-tls"}
	adminSocket = socket{name: "admin", option: "admin-addr", tls: "admin-tls"}

	statisticsSocket = socket{name: "statistics", option: "statistics-addr", open: true, tls: "admin-tls"}
)

func (a *app) newSockets(dataDir string, log *slog.Logger) *sockets {
	s := &sockets{app: a, log: log, dir: dataDir, urls: map[string]string{}}
	var err error
	if s.before, err = s.readList(lastAddresses, "the addresses of the last run are unknown"); err != nil {
		log.Warn("cannot read address list", "file", lastAddresses, "err", err)
	}
	return s
}

// asideSuffix is added to the name of a damaged file that is not needed to start.
const asideSuffix = ".damaged"

// readList reads a list of addresses, empty if there is none. A damaged one is set aside;
// effect says what its loss means.
func (s *sockets) readList(name, effect string) (map[string]string, error) {
	file := filepath.Join(s.dir, name)
	known, err := listen.ReadRegistry(file)
	if errors.Is(err, listen.ErrDamaged) {
		if failed := os.Rename(file, file+asideSuffix); failed != nil {
			return map[string]string{}, fmt.Errorf("rename damaged %s: %w", name, errors.Join(err, failed))
		}
		s.log.Warn("damaged address list set aside", "file", name, "kept_as", name+asideSuffix, "effect", effect, "err", err)
		err = nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if known.URLs == nil {
		known.URLs = map[string]string{}
	}
	return known.URLs, err
}

// open opens one listener. With --addr-fallback a taken address is replaced by
// the one of the run before or, that taken too, by a free one: addresses of
// files that were uploaded stay valid over restarts.
func (s *sockets) open(ctx context.Context, want socket) (*listen.Listener, error) {
	fallback, err := s.app.on("addr-fallback")
	if err != nil {
		return nil, err
	}
	addr, err := s.app.address(want.option)
	if err != nil {
		return nil, err
	}
	o := listen.Options{Name: want.name, Addr: addr, Flag: "--" + want.option, Credentials: want.credentials, AllowOpen: want.open, Logger: s.log}
	o.TLS = s.app.tlsFiles(want.tls)
	if before, err := url.Parse(s.before[want.name]); fallback && err == nil && before.Host != "" {
		o.Addr = before.Host
	}
	l, err := listen.Open(ctx, o)
	var taken *listen.InUseError
	if errors.As(err, &taken) && fallback {
		o.Addr, o.FreeFallback = addr, true
		l, err = listen.Open(ctx, o)
	}
	if errors.As(err, &taken) {
		return nil, hint(err, "Try: --addr-fallback   (takes a free port instead of each one that is in use, and prints it)")
	}
	if err != nil {
		return nil, err
	}
	if l.Wanted() != "" {
		s.log.Warn("address in use, listening on a free port", "listener", want.name, "taken", l.Wanted(), "url", l.URL())
	}
	s.opened = append(s.opened, l)
	s.urls[want.name] = l.URL()
	if want.name == grpcSocket.name {
		s.urls[want.name] = l.GRPC()
	}
	return l, nil
}

// openForRequests opens the listeners of the data plane: for clients of HTTP and of gRPC, and for
// operators.
func (s *sockets) openForRequests(ctx context.Context) (serve, remote, admin *listen.Listener, err error) {
	if serve, err = s.open(ctx, serveSocket); err != nil {
		return nil, nil, nil, err
	}
	if remote, err = s.open(ctx, grpcSocket); err != nil {
		return nil, nil, nil, err
	}
	operators := adminSocket
	operators.credentials = s.app.text("admin-token") != ""
	admin, err = s.open(ctx, operators)
	return serve, remote, admin, err
}

// address is the configured address of a listener. Containers of the original are given
// a port only, in CLEARML_SERVING_PORT, and answer on every interface.
func (a *app) address(option string) (string, error) {
	addr := a.setting(option)
	if (option != serveSocket.option && option != statisticsSocket.option) || addr.source != sourceDefault {
		return addr.value, nil
	}
	port := a.setting("serving-port")
	// Kubernetes sets this variable in pods beside a Service that is called clearml-serving.
	if port.value == "" || strings.HasPrefix(port.value, "tcp://") {
		return addr.value, nil
	}
	if _, err := strconv.ParseUint(port.value, 10, 16); err != nil {
		return "", port.refuse("give the number of a port, 0 to 65535")
	}
	return net.JoinHostPort("0.0.0.0", port.value), nil
}

// tlsFiles reads the options of a certificate, nil when none is given.
func (a *app) tlsFiles(prefix string) *listen.TLSFiles {
	f := listen.TLSFiles{Cert: a.text(prefix + "-cert"), Key: a.text(prefix + "-key")}
	if prefix != "api-tls" { // its callers show credentials anyway
		f.ClientCA = a.text(prefix + "-client-ca")
	}
	if f == (listen.TLSFiles{}) {
		return nil
	}
	return &f
}

// announce lists the listeners in endpoints.json, once everything behind them can be
// used. The entry of another live process on the same data folder, as "server" beside
// "inference", is not replaced.
func (s *sockets) announce() error {
	last := maps.Clone(s.before)
	maps.Copy(last, s.urls)
	if err := listen.NewRegistry(filepath.Join(s.dir, lastAddresses)).SetAll(last); err != nil {
		return fmt.Errorf("write %s: %w", lastAddresses, err)
	}
	file := filepath.Join(s.dir, "endpoints.json")
	if other, err := listen.ReadRegistry(file); err == nil && other.PID != os.Getpid() && processLives(other.PID) {
		s.log.Warn("endpoints.json belongs to another process", "pid", other.PID)
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hidden {
		return nil
	}
	s.file = listen.NewRegistry(file)
	if err := s.file.SetAll(s.urls); err != nil {
		return fmt.Errorf("write endpoints.json: %w", err)
	}
	return nil
}

// keepFilesAddress adds the address of the file server to those it had.
func (s *sockets) keepFilesAddress() error {
	now, serves := s.urls[filesSocket.name]
	if !serves {
		return nil
	}
	all, err := s.readList(filesAddresses, "files registered under an earlier address are not found")
	if err != nil {
		return fmt.Errorf("read %s: %w", filesAddresses, err)
	}
	if before := s.before[filesSocket.name]; before != "" {
		all[before] = "files" // of a version that kept no list
	}
	others := bare(s.app.text("files-url"))
	if all[now] != "" && (others == "" || all[others] != "") {
		return nil
	}
	all[now] = "files"
	if others != "" {
		all[others] = "files" // which this process need not be able to reach
	}
	if err := listen.NewRegistry(filepath.Join(s.dir, filesAddresses)).SetAll(all); err != nil {
		return fmt.Errorf("write %s: %w", filesAddresses, err)
	}
	return nil
}

// processLives tells whether there is a process of that number.
func processLives(pid int) bool {
	p, err := os.FindProcess(pid)
	return err == nil && pid > 0 && p.Signal(syscall.Signal(0)) == nil
}

// hide removes what announce wrote: a stopping process must not be found, and the next
// one may announce itself.
func (s *sockets) hide() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hidden = true
	if s.file == nil {
		return
	}
	if err := s.file.Remove(); err != nil {
		s.log.Warn("cannot remove endpoints.json", "err", err)
	}
}

// close closes the listeners that are still open.
func (s *sockets) close() {
	s.hide()
	for _, l := range s.opened {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			s.log.Debug("close listener", "listener", l.Name(), "err", err)
		}
	}
}

// greet says where everything is and what comes next.
func (a *app) greet(s *sockets) {
	p := &a.print
	p.line("clearml-serving %s is up", version)
	for _, row := range []struct{ name, label, suffix string }{
		{"serve", "predictions", "/serve/<endpoint>"}, {"serve", "try them", "/docs"}, {"grpc", "gRPC", ""}, {"api", "ClearML API", ""}, {"files", "files", ""}, {"admin", "status", "/status"},
	} {
		if u, ok := s.urls[row.name]; ok {
			p.line("  %-12s %s%s", row.label, u, row.suffix)
		}
	}
	if _, ok := s.urls["api"]; ok {
		command := "clearml-serving env"
		if a.setting("data-dir").value != "" {
			command += " --data-dir " + shellWord(s.dir)
		}
		p.line("Point the SDK here with:  eval \"$(%s)\"", command)
	}
}
