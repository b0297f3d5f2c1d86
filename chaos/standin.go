package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"

	"clearmlserving/atomicfile"
)

// The moods of a stand-in.
const (
	standHonest  = ""
	standSlow    = "slow"    // each piece of an answer is late by standPause
	standLate    = "late"    // answers, but not those to probes, come after the deadline of the clients
	standGarbage = "garbage" // what it sends is not of its protocol
	standLies    = "lies"    // its answers are broken JSON
)

const (
	standPause = 100 * time.Millisecond
	standDelay = 3 * time.Second
	// bindPatience is the time in which the port of a process that has ended must be free.
	bindPatience = 10 * time.Second
)

// standIn is a process of this program that stands for the server of an engine, with models that double numbers. The folder of
// its name has a file with its mood, and one with its address.
type standIn struct {
	dir  string
	http http.Server
	grpc *grpc.Server
}

// standIns are the servers for which this program stands, by the name under which it is started: a link to it.
var standIns = map[string]func(s *standIn, args []string) error{ //nolint:gochecknoglobals // a constant table
	"llm": standForLLM, "java": standForTorchServe, "tritonserver": standForTriton,
}

// run serves until ctx ends.
func (s *standIn) run(ctx context.Context, stand func(s *standIn, args []string) error, args []string) error {
	defer context.AfterFunc(ctx, func() {
		_ = s.http.Close()
		if s.grpc != nil {
			s.grpc.Stop()
		}
	})()
	if err := stand(s, args); ctx.Err() == nil {
		return err
	}
	return nil
}

// mood is how it behaves now.
func (s *standIn) mood() string {
	text, err := os.ReadFile(filepath.Join(s.dir, "mood"))
	if err != nil {
		return standHonest
	}
	return string(text)
}

// compute is called for each request to a model.
func (s *standIn) compute(ctx context.Context) {
	if s.mood() == standLate {
		_ = pause(ctx, standDelay) // the client may be gone
	}
}

// listen listens at an address that a process before it may have used until now.
func (s *standIn) listen(address string) (net.Listener, error) {
	for end := time.Now().Add(bindPatience); ; time.Sleep(5 * time.Millisecond) {
		l, err := net.Listen("tcp", address) //nolint:noctx // at once
		if err == nil {
			return standListener{l, s}, nil
		}
		if time.Now().After(end) {
			return nil, err
		}
	}
}

// serve answers HTTP at some addresses, and gRPC at others, and tells that.
func (s *standIn) serve(handler http.Handler, overHTTP []string, call grpc.StreamHandler, overGRPC []string) error {
	s.http.Handler, s.http.ReadHeaderTimeout = s.honestly(handler), time.Minute
	if call != nil {
		s.grpc = grpc.NewServer(grpc.UnknownServiceHandler(call))
	}
	failed := make(chan error, len(overHTTP)+len(overGRPC))
	for i, address := range append(slices.Clip(overHTTP), overGRPC...) {
		l, err := s.listen(address)
		if err != nil {
			return err
		}
		go func() { // the process ends with the first of them
			if i < len(overHTTP) {
				failed <- s.http.Serve(l)
			} else {
				failed <- s.grpc.Serve(l)
			}
		}()
	}
	at := fmt.Sprintf("%d %s", os.Getpid(), overHTTP[0])
	if err := atomicfile.Write(filepath.Join(s.dir, "serves"), []byte(at), 0o600); err != nil {
		return err
	}
	return <-failed
}

// honestly is a handler that lies in that mood.
func (s *standIn) honestly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.mood() != standLies {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"data": [1, 2, }`)) // the client may be gone
	})
}

// standListener makes connections that have the mood of a stand-in.
type standListener struct {
	net.Listener

	s *standIn
}

// Accept implements net.Listener.
func (l standListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return standConn{c, l.s}, nil
}

type standConn struct {
	net.Conn

	s *standIn
}

// Write implements io.Writer.
func (c standConn) Write(p []byte) (int, error) {
	switch c.s.mood() {
	case standSlow:
		time.Sleep(standPause)
	case standGarbage:
		_, err := c.Conn.Write([]byte(strings.Repeat("\x00\xffof no protocol\r\n", 1+len(p)/17)))
		return len(p), errors.Join(err, c.Conn.Close())
	}
	return c.Conn.Write(p)
}

// standFolder makes the folder of a stand-in, with this program under its name.
func standFolder(dir, name string) (program string, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	program = filepath.Join(dir, name)
	return program, errors.Join(os.MkdirAll(dir, 0o755), os.Symlink(self, program))
}

// served is where the newest process of a stand-in serves.
func served(dir string) (pid int, address string, err error) {
	text, err := os.ReadFile(filepath.Join(dir, "serves"))
	if err != nil {
		return 0, "", err
	}
	id, address, _ := strings.Cut(string(text), " ")
	pid, err = strconv.Atoi(id)
	return pid, address, err
}
