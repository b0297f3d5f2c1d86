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
	"syscall"

	"clearmlserving/listen"
)

// sockets opens the listeners of a role and tells others of this machine about
// them, in DATA_DIR/endpoints.json for as long as they are open.
type sockets struct {
	app    *app
	log    *slog.Logger
	dir    string
	before map[string]string // name -> url of the run before
	urls   map[string]string
	opened []*listen.Listener
	told   *listen.Registry // nil until announced
}

// lastAddresses keeps the addresses of the last run, so that with
// --addr-fallback the next one takes the same: files that were uploaded are
// registered under them.
const lastAddresses = "last-addresses.json"

// filesAddresses keeps every address that the file server of this data folder ever
// had. Files stay registered under the one they were uploaded to; who reads them
// finds the server by this list when it has another.
const filesAddresses = "files-addresses.json"

// socket describes a listener that a role wants.
type socket struct {
	name   string // in endpoints.json
	option string // of its address
	// credentials: whoever connects must show some. open: it may be reached from
	// other machines without. Neither: loopback only.
	credentials, open bool
	tls               string   // the option of its certificate begins so
	protocols         []string // over TLS; nil for all
}

var (
	serveSocket = socket{name: "serve", option: "serve-addr", open: true, tls: "tls", protocols: []string{"http/1.1"}}
	apiSocket   = socket{name: "api", option: "api-addr", credentials: true, tls: "api-tls"}
	filesSocket = socket{name: "files", option: "files-addr", credentials: true, tls: "api-tls"}
	adminSocket = socket{name: "admin", option: "admin-addr", tls: "admin-tls"}
)

func (a *app) newSockets(dataDir string, log *slog.Logger) *sockets {
	s := &sockets{app: a, log: log, dir: dataDir, urls: map[string]string{}}
	if last, err := listen.ReadRegistry(filepath.Join(dataDir, lastAddresses)); err == nil {
		s.before = last.URLs
	} else if errors.Is(err, listen.ErrDamaged) {
		log.Warn("damaged file set aside: addresses of the last run are not known", "file", lastAddresses, "kept_as", lastAddresses+asideSuffix, "err", errors.Join(err, s.setAside(lastAddresses)))
	} else if !errors.Is(err, fs.ErrNotExist) {
		log.Warn("addresses of the last run cannot be read", "err", err)
	}
	return s
}

// asideSuffix is added to the name of a damaged file that is not needed to start.
const asideSuffix = ".damaged"

func (s *sockets) setAside(name string) error {
	file := filepath.Join(s.dir, name)
	return os.Rename(file, file+asideSuffix)
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
	o.TLS, o.Protocols = s.app.tlsFiles(want.tls), want.protocols
	if before, err := url.Parse(s.before[want.name]); fallback && err == nil && before.Host != "" {
		o.Addr = before.Host
	}
	l, err := listen.Open(ctx, o)
	var taken *listen.InUseError
	if errors.As(err, &taken) && fallback {
		o.Addr, o.FreeFallback = addr, true
		l, err = listen.Open(ctx, o)
	}
	if err != nil {
		return nil, err
	}
	if l.Wanted() != "" {
		s.log.Warn("address is taken, listening on a free one", "listener", want.name, "taken", l.Wanted(), "url", l.URL())
	}
	s.opened = append(s.opened, l)
	s.urls[want.name] = l.URL()
	return l, nil
}

// openForRequests opens the listeners of the data plane: for clients and for operators.
func (s *sockets) openForRequests(ctx context.Context) (serve, admin *listen.Listener, err error) {
	if serve, err = s.open(ctx, serveSocket); err != nil {
		return nil, nil, err
	}
	operators := adminSocket
	operators.credentials = s.app.text("admin-token") != ""
	admin, err = s.open(ctx, operators)
	return serve, admin, err
}

// address is where a listener shall be. Containers of the original are told their port
// alone, in CLEARML_SERVING_PORT, and answer requests on every interface.
func (a *app) address(option string) (string, error) {
	addr := a.setting(option)
	if option != serveSocket.option || addr.source != sourceDefault {
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

func portOf(addr net.Addr) string {
	_, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return "0"
	}
	return port
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

// announce tells where the listeners are; it is done when everything behind
// them can be used. Another process that serves on the same data folder, as
// "server" beside "inference", stays the one that is told about.
func (s *sockets) announce() error {
	last := maps.Clone(s.before)
	if last == nil {
		last = map[string]string{}
	}
	maps.Copy(last, s.urls)
	if err := listen.NewRegistry(filepath.Join(s.dir, lastAddresses)).SetAll(last); err != nil {
		return fmt.Errorf("keep the addresses for the next start: %w", err)
	}
	file := filepath.Join(s.dir, "endpoints.json")
	if other, err := listen.ReadRegistry(file); err == nil && other.PID != os.Getpid() && processLives(other.PID) {
		s.log.Warn("another process serves on this data folder, its addresses stay in endpoints.json", "pid", other.PID)
		return nil
	}
	s.told = listen.NewRegistry(file)
	if err := s.told.SetAll(s.urls); err != nil {
		return fmt.Errorf("tell where the listeners are: %w", err)
	}
	return nil
}

// keepFilesAddress adds the address of the file server to those it had.
func (s *sockets) keepFilesAddress() error {
	now, serves := s.urls[filesSocket.name]
	if !serves {
		return nil
	}
	file := filepath.Join(s.dir, filesAddresses)
	known, err := listen.ReadRegistry(file)
	switch {
	case errors.Is(err, listen.ErrDamaged):
		if err := s.setAside(filesAddresses); err != nil {
			return fmt.Errorf("set the damaged list of the file server's addresses aside: %w", err)
		}
		s.log.Warn("damaged file set aside: files registered under an earlier address are not found here unless they are listed again",
			"file", filesAddresses, "kept_as", filesAddresses+asideSuffix, "err", err)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("read the earlier addresses of the file server: %w", err)
	}
	all := maps.Clone(known.URLs)
	if all == nil {
		all = map[string]string{}
	}
	if before := s.before[filesSocket.name]; before != "" {
		all[before] = "files" // of a version that kept no list
	}
	if all[now] != "" {
		return nil
	}
	all[now] = "files"
	if err := listen.NewRegistry(file).SetAll(all); err != nil {
		return fmt.Errorf("keep the address of the file server: %w", err)
	}
	return nil
}

// processLives tells whether there is a process of that number.
func processLives(pid int) bool {
	p, err := os.FindProcess(pid)
	return err == nil && pid > 0 && p.Signal(syscall.Signal(0)) == nil
}

// hide takes back what announce told: from the moment of stopping nobody shall
// find us, and whoever starts after us may tell.
func (s *sockets) hide() {
	if s.told == nil {
		return
	}
	if err := s.told.Remove(); err != nil {
		s.log.Warn("endpoints.json stays behind", "err", err)
	}
}

// close closes what nobody serves on any more.
func (s *sockets) close() {
	s.hide()
	for _, l := range s.opened {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			s.log.Debug("close listener", "listener", l.Name(), "err", err)
		}
	}
}

// greet says where everything is and what comes next.
func (a *app) greet(dir string, urls map[string]string) {
	p := &a.print
	p.line("clearml-serving %s is up", version)
	for _, row := range []struct{ name, label, suffix string }{
		{"serve", "predictions", "/serve/<endpoint>"}, {"api", "ClearML API", ""}, {"files", "files", ""}, {"admin", "status", "/status"},
	} {
		if u, ok := urls[row.name]; ok {
			p.line("  %-12s %s%s", row.label, u, row.suffix)
		}
	}
	if _, ok := urls["api"]; ok {
		command := "clearml-serving env"
		if a.setting("data-dir").value != "" {
			command += " --data-dir " + shellWord(dir)
		}
		p.line("Point the SDK here with:  eval \"$(%s)\"", command)
	}
}
