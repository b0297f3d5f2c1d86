// Package controlplane is the embedded control plane: a server of the ClearML API and
// a ClearML file server on one data folder, for installations without a ClearML server
// of their own.
//
// It owns the data folder (database, files, credentials), the two HTTP servers, and
// the change feed that notifies other parts of this process of writes. It never opens a
// socket (the caller does), never reads configuration, and does not know the inference
// side, which uses the API over HTTP like every client.
package controlplane

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"clearmlserving/controlplane/api"
	"clearmlserving/controlplane/files"
	"clearmlserving/controlplane/intake"
	"clearmlserving/controlplane/store"
	"clearmlserving/controlplane/ui"
	"clearmlserving/serving"
	"clearmlserving/storage"
	"clearmlserving/timeseries/embedded"
)

// Options are the places of the data and the addresses of the control plane.
type Options struct {
	// DataDir is the folder of all data; it is created if it is missing. Copying it while no
	// server uses it moves the installation. Required.
	DataDir string
	// DatabaseURL names a PostgreSQL database, postgres://user:password@host:5432/name, that
	// several servers may share. Empty: a file in DataDir.
	DatabaseURL string
	// API is the open socket of the ClearML API. Required.
	API net.Listener
	// Files is the open socket of the file server, which is also at /files/ of the API's
	// socket. Nil: only there.
	Files net.Listener
	// APIURL and FilesURL are the addresses by which clients reach the servers. The default
	// is the sockets' addresses.
	APIURL, FilesURL string
	// AccessKey and SecretKey, if set, are accepted instead of credentials that are made and kept in DataDir.
	AccessKey, SecretKey string
	// InstanceCA is a PEM file of authorities for the certificates of instances, besides those
	// of Authorities: the playground of the web pages sends requests to instances.
	InstanceCA string
	// Authorities returns the trusted authorities. Nil: those of the machine.
	Authorities func() (*x509.CertPool, error)
	// TimeSeries is read at /prometheus of the API's socket, and instances write their samples there;
	// the caller runs it. Nil: there are none here, and TimeSeriesElsewhere says where they are.
	TimeSeries          *embedded.Store
	TimeSeriesElsewhere string
	// Series answers the charts of the web pages. Nil: there are no time series. ServiceLabel is the label of
	// its series with the id of their service, empty if they have none.
	Series       ui.Series
	ServiceLabel string
	// Recorded returns the newest recorded requests to a url for the web pages, the newest first,
	// at most this many. Nil: no recordings are at hand.
	Recorded func(url serving.EndpointURL, most int) []serving.Exchange
	// Version is the version of this program, for server.info and backups.
	Version string
	// FilesPlace stores the files below FilesRoot, such as a bucket. Nil: the data folder.
	FilesPlace storage.Adapter
	FilesRoot  string
	// Places are the buckets, by scheme, in which files are removed together with their models
	// and artifacts, if the bucket is configured by name. Nil: none.
	Places storage.Adapters
	// BodyWindow is the time in which 64 KiB of a request's body must arrive, or its end; 0
	// means 30 s. Uploads of files have a longer window.
	BodyWindow time.Duration
	// EventsRetention is how long reports of tasks (console, scalars, plots) are kept; 0
	// means forever.
	EventsRetention time.Duration
	// Now is the clock of all time stamps; nil means time.Now.
	Now func() time.Time
	// Ready is called once, by Run, when requests are accepted. May be nil.
	Ready func()
	// DrainDelay is how long requests are still accepted after the end of Run's context, while /readyz answers 503
	// and each answer closes its connection: the time that a load balancer needs to notice. 0 is for servers without one.
	DrainDelay time.Duration
	// Grace is how long Run waits for running requests when it stops; 0 means 10 s.
	Grace time.Duration
	// Logger gets messages for operators; nil discards them.
	Logger *slog.Logger
}

// Server is a control plane on a data folder. New opens the folder; Run or Close releases it.
type Server struct {
	opts        Options
	log         *slog.Logger
	feed        Feed
	store       store.Store
	own         Feed          // of this server's writes only
	ownWrites   *Subscription // to own, for other servers on the database
	files       *files.Server
	credentials api.Credentials
	calls       *api.Server
	prometheus  *prometheus
	web         *site
	draining    atomic.Bool // Run's context has ended
	closing     sync.Once
	closeErr    error
}

// New opens the data folder. In an empty one it creates the first user, with credentials in
// credentials.json, readable by this user of the machine only. It starts nothing. On error
// the sockets stay open and belong to the caller.
//
// The error is store.ErrInUse if another process uses the folder, and store.ErrReadOnly or
// store.ErrFull if it cannot be written.
func New(opts Options) (*Server, error) {
	opts.Logger = cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))
	opts.Grace = cmp.Or(opts.Grace, 10*time.Second)
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.API == nil {
		return nil, errors.New("open the control plane: no socket for the API was given")
	}
	opts.setURLs()
	s := &Server{opts: opts, log: opts.Logger}
	if err := s.open(context.Background()); err != nil {
		return nil, errors.Join(fmt.Errorf("open the control plane in %s: %w", opts.DataDir, err), s.Close())
	}
	return s, nil
}

func (o *Options) setURLs() {
	o.APIURL = cmp.Or(o.APIURL, "http://"+o.API.Addr().String())
	files := o.APIURL + "/files"
	if o.Files != nil {
		files = "http://" + o.Files.Addr().String()
	}
	o.FilesURL = cmp.Or(o.FilesURL, files)
}

// open opens the parts in the order of their dependencies. The database comes first: its
// lock excludes a second process from everything else.
func (s *Server) open(ctx context.Context) error {
	if err := os.MkdirAll(s.opts.DataDir, 0o700); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	if s.opts.DatabaseURL == "" {
		if err := s.checkDatabaseFile(); err != nil {
			return err
		}
	}
	var err error
	if s.store, err = OpenStore(ctx, s.opts.DataDir, s.opts.DatabaseURL, s.log); err != nil {
		return err
	}
	s.ownWrites = s.own.Subscribe()
	bodies := intake.New()
	if s.opts.BodyWindow > 0 {
		bodies.Window = s.opts.BodyWindow
	}
	auth := api.NewAuth(api.AuthOptions{Store: s.store, Logger: s.log, Now: s.opts.Now})
	if s.opts.AccessKey != "" {
		s.credentials = api.Credentials{AccessKey: s.opts.AccessKey, SecretKey: s.opts.SecretKey}
		err = auth.EnsureGiven(ctx, s.credentials)
	} else {
		s.credentials, err = keepCredentials(ctx, s.opts.DataDir, auth, s.log)
	}
	if err != nil {
		return err
	}
	s.files, err = files.New(files.Options{
		Dir: filepath.Join(s.opts.DataDir, "files"), Place: s.opts.FilesPlace, PlaceURL: s.opts.FilesRoot, Auth: fileAuth{auth}, Bodies: bodies,
		Logger: s.log,
	})
	if err != nil {
		return err
	}
	calls := api.New(api.Options{
		Store: s.store, Auth: auth, Bodies: bodies, Version: s.opts.Version, Logger: s.log, Files: s.remover(),
		APIURL: s.opts.APIURL, OnChange: s.changed, Now: s.opts.Now,
	})
	s.calls = calls
	s.prometheus = newPrometheus(auth, calls, bodies, s.opts, s.log)
	s.web, err = newSite(calls, s.files, s.prometheus, bodies, &s.draining, s.opts, s.log)
	return err
}

// remover removes files for the API.
func (s *Server) remover() *remover {
	r := &remover{files: s.files, own: []string{s.opts.FilesURL + "/", s.opts.APIURL + "/files/"}, places: s.opts.Places}
	if s.opts.FilesPlace != nil && storage.Scheme(s.opts.FilesRoot) != "file" {
		r.root = strings.TrimRight(s.opts.FilesRoot, "/") + "/"
	}
	return r
}

// Credentials returns the access key and secret of credentials.json, or those that were given.
func (s *Server) Credentials() (access, secret string) {
	return s.credentials.AccessKey, s.credentials.SecretKey
}

// LoginLink returns an address that logs in one browser, once and within the hour, as the
// user of credentials.json.
func (s *Server) LoginLink(ctx context.Context) (string, error) {
	return s.web.pages.Link(ctx, s.credentials.AccessKey, s.credentials.SecretKey)
}

// Feed returns the change feed, which rings after each committed write of a task, a
// model, or a project.
func (s *Server) Feed() *Feed { return &s.feed }

// Run serves until ctx ends, and DrainDelay longer, or until a socket fails. It then waits for running requests and closes
// the sockets and the data folder. It is called at most once; when it returns, nothing of
// the server is running. A stop by ctx is no error.
func (s *Server) Run(ctx context.Context) error {
	err := s.serve(ctx)
	return errors.Join(err, s.Close())
}

func (s *Server) serve(ctx context.Context) error {
	group, running := errgroup.WithContext(context.WithoutCancel(ctx)) // running ends with the first socket that fails
	running, end := context.WithCancel(running)
	defer end()
	window := s.web.bodies.Window
	sockets := []*socket{newSocket("api", s.opts.API, s.web, window, &s.draining, s.log)}
	if s.opts.Files != nil {
		sockets = append(sockets, newSocket("files", s.opts.Files, s.files, window, &s.draining, s.log))
	}
	for _, socket := range sockets {
		group.Go(socket.serve)
	}
	group.Go(func() error { return s.exchangeNews(running) })
	group.Go(func() error { return s.expireEvents(running) })
	s.log.Info("control plane ready", "api", s.opts.APIURL, "files", s.opts.FilesURL, "data_dir", s.opts.DataDir)
	if s.opts.Ready != nil {
		s.opts.Ready()
	}
	select {
	case <-ctx.Done():
		s.drain(running)
	case <-running.Done():
	}
	end()
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.Grace)
	defer cancel()
	for _, socket := range sockets {
		group.Go(func() error { return socket.stop(limit) })
	}
	err := group.Wait()
	s.log.Info("control plane stopped")
	return err
}

// drain continues to serve for DrainDelay, unless a socket fails.
func (s *Server) drain(running context.Context) {
	s.draining.Store(true)
	if s.opts.DrainDelay <= 0 {
		return
	}
	s.log.Info("stop delayed for load balancers", "for", s.opts.DrainDelay)
	timer := time.NewTimer(s.opts.DrainDelay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-running.Done():
	}
}

// Close releases the data folder, for servers that never run; Run does it itself. Further
// calls return the result of the first.
func (s *Server) Close() error {
	s.closing.Do(func() {
		var errs []error
		if s.files != nil {
			errs = append(errs, s.files.Close())
		}
		if s.store != nil {
			errs = append(errs, s.store.Close())
		}
		s.closeErr = errors.Join(errs...)
	})
	return s.closeErr
}

// fileAuth applies the API's authentication to the file server.
type fileAuth struct{ auth *api.Auth }

func (f fileAuth) Authenticate(r *http.Request) error {
	identify := f.auth.Authenticate
	reading := r.Method == http.MethodGet || r.Method == http.MethodHead
	if reading {
		identify = f.auth.AuthenticateDownload
	}
	who, err := identify(r)
	if told := (*api.Error)(nil); errors.As(err, &told) {
		return fmt.Errorf("%w (%w)", files.ErrUnknown, err)
	}
	if err == nil && !reading && (who.Role == api.RoleGuest || who.Role == api.RoleService) {
		return files.ErrForbidden
	}
	return err
}
