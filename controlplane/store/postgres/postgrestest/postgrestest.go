// Package postgrestest gives tests PostgreSQL databases of their own on one real server,
// which it starts for the tests of a package.
//
// It owns the server and its folder until the package's tests are over. It never uses a
// server that runs on the machine already.
package postgrestest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"clearmlserving/controlplane/store/postgres"
	"clearmlserving/leaktest"
)

// Required is the variable of the environment under which a missing PostgreSQL fails the
// tests instead of skipping them.
const Required = "CLEARML_SERVING_E2E_POSTGRES"

// Server is a PostgreSQL that starts with the first test that asks for a database. The
// zero value is ready.
type Server struct {
	once    sync.Once
	missing string // why there is none
	dir     string
	port    int
	cmd     *exec.Cmd
	ended   chan struct{} // closed when cmd has ended
	log     bytes.Buffer
	made    atomic.Int64
}

// Main runs the tests of a package, stops the server, and then looks for goroutines that
// are left. It returns the exit code.
func Main(m interface{ Run() int }, s *Server) int {
	code := m.Run()
	s.Stop()
	if err := leaktest.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func (s *Server) start() error {
	bin, err := programs()
	if err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp("", "postgrestest"); err != nil {
		return err
	}
	owner, err := owner()
	if err != nil {
		return err
	}
	if owner != nil {
		if err := os.Chown(s.dir, int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
	}
	data := filepath.Join(s.dir, "data")
	initdb := s.command(owner, filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	if err := initdb.Run(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, s.log.String())
	}
	for range 10 {
		if err = s.serve(bin, data, owner); !errors.Is(err, errEnded) {
			return err
		}
	}
	return err
}

// errEnded is a server that has ended by itself: another program may have been given its
// port meanwhile.
var errEnded = errors.New("postgres ended while it started")

// serve starts the server on a free port and waits until it answers.
func (s *Server) serve(bin, data string, owner *syscall.Credential) (err error) {
	if s.port, err = freePort(); err != nil {
		return err
	}
	s.cmd = s.command(owner, filepath.Join(bin, "postgres"), "-D", data, "-p", strconv.Itoa(s.port), "-k", "",
		"-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "max_connections=200")
	if err := s.cmd.Start(); err != nil {
		s.cmd = nil
		return fmt.Errorf("start postgres: %w", err)
	}
	s.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) { // ends with the process; Stop waits for it
		_ = cmd.Wait() // how it ended is in its log
		close(ended)
	}(s.cmd, s.ended)
	return s.await(data)
}

// programs finds the folder of PostgreSQL's programs, the newest where there are several.
func programs() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	if len(found) > 0 {
		slices.SortFunc(found, func(a, b string) int { return len(a) - len(b) })
		return filepath.Dir(found[len(found)-1]), nil
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", errors.New("there is no PostgreSQL on this machine: apt-get install postgresql")
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	return filepath.Dir(path), nil
}

// owner is whom the server runs as: it refuses to run as root.
func owner() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL doesn't run as root, and there is no user for it: %w", err)
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

func (s *Server) command(as *syscall.Credential, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = s.dir
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as, Pdeathsig: syscall.SIGTERM}
	return cmd
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}

// await waits until the server of this folder answers.
func (s *Server) await(data string) error {
	limit, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	for {
		err := s.answers(limit, data)
		if err == nil {
			return nil
		}
		select {
		case <-s.ended:
			return fmt.Errorf("%w: %s", errEnded, s.log.String())
		case <-limit.Done():
			return fmt.Errorf("postgres doesn't answer: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// answers asks whoever listens on the port for its folder: it must be ours.
func (s *Server) answers(ctx context.Context, data string) error {
	conn, err := pgx.Connect(ctx, s.url("postgres"))
	if err != nil {
		return err
	}
	var theirs string
	err = conn.QueryRow(ctx, "SHOW data_directory").Scan(&theirs)
	if err == nil && theirs != data {
		err = fmt.Errorf("on port %d another server answers, of %s", s.port, theirs)
	}
	return errors.Join(err, conn.Close(ctx))
}

func (s *Server) url(database string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", s.port, database)
}

// Stop ends the server at once, whoever uses it, and removes its folder.
func (s *Server) Stop() {
	if s.cmd != nil {
		_ = s.cmd.Process.Signal(syscall.SIGQUIT) // at once: nothing of it is kept
		<-s.ended
		s.cmd = nil
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}

// URL makes an empty database and returns its URL, or skips the test when there is no
// PostgreSQL.
func (s *Server) URL(t *testing.T) string {
	t.Helper()
	s.once.Do(func() {
		if err := s.start(); err != nil {
			s.Stop()
			s.missing = err.Error()
		}
	})
	if s.missing != "" {
		if os.Getenv(Required) != "" {
			t.Fatalf("PostgreSQL is required here: %s", s.missing)
		}
		t.Skip("no PostgreSQL: " + s.missing)
	}
	name := "test" + strconv.FormatInt(s.made.Add(1), 10)
	conn, err := pgx.Connect(t.Context(), s.url("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.Exec(t.Context(), "CREATE DATABASE "+name)
	if err := errors.Join(err, conn.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	return s.url(name)
}

// New opens an empty database and closes it at the test's end.
func (s *Server) New(t *testing.T) *postgres.Store {
	t.Helper()
	return Open(t, s.URL(t))
}

// Open opens the database of a URL and closes it at the test's end.
func Open(t *testing.T, url string) *postgres.Store {
	t.Helper()
	db, err := postgres.Open(t.Context(), postgres.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close the database: %v", err)
		}
	})
	return db
}
