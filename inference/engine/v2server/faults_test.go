package v2server

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/grpcfront/pb"
	"clearmlserving/serving"
)

// cable is a connection between an engine and a server that can stop to carry anything, as a server that is stopped by
// a signal: its port is open, and nothing is answered.
type cable struct {
	listener net.Listener
	to       string
	mu       sync.Mutex
	stopped  chan struct{} // closed while bytes pass
	tasks    sync.WaitGroup
	conns    map[net.Conn]struct{}
}

func newCable(t *testing.T, to string) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &cable{listener: l, to: to, stopped: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	close(w.stopped)
	w.tasks.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			w.tasks.Go(func() { w.carry(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		w.resume()
		w.cut()
		w.tasks.Wait()
	})
	return w
}

func (w *cable) address() string { return w.listener.Addr().String() }

func (w *cable) passes() chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stopped
}

func (w *cable) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = make(chan struct{})
}

func (w *cable) resume() {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.stopped:
	default:
		close(w.stopped)
	}
}

// cut closes all connections.
func (w *cable) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for conn := range w.conns {
		_ = conn.Close()
	}
}

func (w *cable) carry(from net.Conn) {
	defer func() { _ = from.Close() }()
	to, err := net.Dial("tcp", w.to)
	if err != nil {
		return
	}
	defer func() { _ = to.Close() }()
	w.mu.Lock()
	w.conns[from], w.conns[to] = struct{}{}, struct{}{}
	w.mu.Unlock()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{from, to}, {to, from}} {
		both.Go(func() {
			defer func() { _ = way[1].Close() }()
			piece := make([]byte, 32<<10)
			for {
				n, err := way[0].Read(piece)
				<-w.passes()
				if err != nil {
					return
				}
				if _, err := way[1].Write(piece[:n]); err != nil {
					return
				}
			}
		})
	}
	both.Wait()
	w.mu.Lock()
	delete(w.conns, from)
	delete(w.conns, to)
	w.mu.Unlock()
}

// until waits for a condition.
func until(t *testing.T, what string, check func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !check(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func askOnce(ctx context.Context, m engine.Model) (string, error) {
	resp, err := m.Infer(ctx, &engine.Request{Body: []byte("[1, 2]")})
	if err != nil {
		return "", err
	}
	return string(resp.Body), nil
}

const answered = "[1.0,2.0]"

// fails waits until requests fail with the kind of a server that is not there.
func fails(t *testing.T, m engine.Model, words string) {
	t.Helper()
	until(t, "requests fail: "+words, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		body, err := askOnce(ctx, m)
		if err == nil && body != answered {
			t.Errorf("a wrong answer: %s", body)
		}
		return kindOf(err) == engine.KindUnavailable && strings.Contains(err.Error(), words)
	})
	until(t, "the endpoint has failed", func() bool {
		s := m.Status()
		return s.State == serving.StateFailed && s.Addresses[0].State == serving.AddressEjected && strings.Contains(s.Reason, words)
	})
}

func works(t *testing.T, m engine.Model) {
	t.Helper()
	until(t, "requests are answered again", func() bool {
		body, err := askOnce(t.Context(), m)
		return err == nil && body == answered
	})
	until(t, "the endpoint is ready", func() bool { return m.Status().State == serving.StateReady })
}

func TestAServerThatIsStoppedKilledAndRestarted(t *testing.T) {
	t.Run("grpc", func(t *testing.T) {
		f := startGRPC(t, "127.0.0.1:0", &fake{})
		w := newCable(t, f.address())
		m := loaded(t, run(t, Options{}), specOf("echo", map[string]any{"address": w.address()}))
		works(t, m)
		w.stop()
		fails(t, m, "it has not answered a probe within 1s")
		w.resume()
		works(t, m)
		address := f.address()
		f.server.Stop()
		fails(t, m, "")
		startGRPC(t, address, &fake{})
		works(t, m)
	})
	t.Run("rest", func(t *testing.T) {
		w := newCable(t, startREST(t, &fake{}))
		m := loaded(t, run(t, Options{}), specOf("echo", map[string]any{"address": w.address(), "protocol": "rest"}))
		works(t, m)
		w.stop()
		fails(t, m, "it has not answered a probe within 1s")
		w.resume()
		works(t, m)
	})
}

func TestARequestWhoseConnectionIsLostMayHaveBeenExecuted(t *testing.T) {
	f := &fake{}
	f.infer = func(ctx context.Context, _ *pb.ModelInferRequest) ([]*pb.ModelInferResponse, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	protocols(t, f, func(t *testing.T, settings map[string]any) {
		t.Helper()
		w := newCable(t, settings["address"].(string))
		other := newCable(t, settings["address"].(string))
		settings["address"] = []any{w.address(), other.address()}
		m := loaded(t, run(t, Options{}), specOf("echo", settings))
		before := f.asked.Load()
		go func() {
			for f.asked.Load() == before {
				time.Sleep(time.Millisecond)
			}
			w.cut()
			other.cut()
		}()
		if _, err := askOnce(t.Context(), m); kindOf(err) != engine.KindDied || !strings.Contains(err.Error(), "while it worked on the request") {
			t.Errorf("%v", err)
		}
		if n := f.asked.Load() - before; n != 1 {
			t.Errorf("it was executed %d times", n)
		}
	})
}

func TestAServerThatAnswersGarbageIsEjected(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			tasks.Go(func() {
				defer func() { _ = conn.Close() }()
				_, _ = io.WriteString(conn, "I am no server of this protocol\r\n\r\n")
				_, _ = conn.Read(make([]byte, 1<<16))
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		tasks.Wait()
	})
	protocols(t, &fake{}, func(t *testing.T, settings map[string]any) {
		t.Helper()
		good := settings["address"]
		settings["address"] = []any{good, l.Addr().String()}
		m := loaded(t, run(t, Options{}), specOf("echo", settings))
		until(t, "the address is ejected", func() bool { return m.Status().Addresses[1].State == serving.AddressEjected })
		for range 20 {
			if body, err := askOnce(t.Context(), m); err != nil || body != answered {
				t.Fatalf("%s, %v", body, err)
			}
		}
		if s := m.Status(); s.State != serving.StateDegraded || s.Addresses[1].Reason == "" || s.Addresses[0].State != serving.AddressHealthy {
			t.Errorf("%+v", s)
		}
	})
}

func TestAGarbageAnswerIsAnErrorOfTheEndpointAndCountsAgainstTheAddress(t *testing.T) {
	garbage := atomic.Bool{}
	f := &fake{}
	f.infer = func(_ context.Context, r *pb.ModelInferRequest) ([]*pb.ModelInferResponse, error) {
		a := echo(r)
		if garbage.Load() {
			a.RawOutputContents[0] = a.RawOutputContents[0][:3]
		}
		return []*pb.ModelInferResponse{a}, nil
	}
	startGRPC(t, "127.0.0.1:0", f)
	m := loaded(t, run(t, Options{}), specOf("echo", map[string]any{"address": f.address()}))
	garbage.Store(true)
	for range 3 {
		if _, err := askOnce(t.Context(), m); kindOf(err) != engine.KindInternal || !strings.Contains(err.Error(), "output 'y'") {
			t.Errorf("%v", err)
		}
	}
	if _, err := askOnce(t.Context(), m); kindOf(err) != engine.KindUnavailable {
		t.Errorf("%v", err)
	}
	garbage.Store(false)
	works(t, m)
}

func TestBrokenJSONOfAServerIsNoFaultOfTheClient(t *testing.T) {
	f := &fake{}
	broken := atomic.Bool{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() && strings.HasSuffix(r.URL.Path, "/infer") {
			_, _ = io.WriteString(w, `{"outputs": [1, 2, }`)
			return
		}
		f.serveREST(w, r)
	}))
	t.Cleanup(server.Close)
	m := loaded(t, run(t, Options{}), specOf("echo", map[string]any{"address": server.Listener.Addr().String(), "protocol": "rest"}))
	broken.Store(true)
	for range 3 {
		if _, err := askOnce(t.Context(), m); kindOf(err) != engine.KindInternal || !strings.Contains(err.Error(), "JSON is broken") {
			t.Errorf("%v", err)
		}
	}
	if s := m.Status(); s.Addresses[0].State == serving.AddressHealthy {
		t.Errorf("%+v", s.Addresses)
	}
	broken.Store(false)
	works(t, m)
}

func TestASlowServerIsNotEjected(t *testing.T) {
	f := startGRPC(t, "127.0.0.1:0", &fake{})
	m := loaded(t, run(t, Options{}), specOf("waits", map[string]any{"address": f.address()}))
	var clients sync.WaitGroup
	for range 10 {
		clients.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if _, err := askOnce(ctx, m); kindOf(err) != engine.KindDeadline {
				t.Errorf("%v", err)
			}
		})
	}
	clients.Wait()
	if s := m.Status(); s.State != serving.StateReady || s.Addresses[0].Failed != 0 {
		t.Errorf("%+v", s)
	}
}

func TestRequestsThatHaveNotBegunGoToAnotherServer(t *testing.T) {
	first, second := startGRPC(t, "127.0.0.1:0", &fake{}), startGRPC(t, "127.0.0.1:0", &fake{})
	m := loaded(t, run(t, Options{}), specOf("echo", map[string]any{"address": first.address() + " " + second.address()}))
	stop := make(chan struct{})
	var clients sync.WaitGroup
	var good, died atomic.Int64
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				body, err := askOnce(t.Context(), m)
				switch {
				case err == nil && body == answered:
					good.Add(1)
				case kindOf(err) == engine.KindDied: // it was at the server
					died.Add(1)
				default:
					t.Errorf("%s, %v", body, err)
					return
				}
			}
		})
	}
	until(t, "answers", func() bool { return good.Load() > 100 })
	first.server.Stop()
	now := good.Load()
	until(t, "answers of the other", func() bool { return good.Load() > now+500 })
	close(stop)
	clients.Wait()
	if died.Load() > 8 {
		t.Errorf("%d requests were lost, which had begun", died.Load())
	}
}

func TestAServerThatIsOverloadedOrLoadingSaysSo(t *testing.T) {
	f := &fake{}
	var answer error
	f.infer = func(context.Context, *pb.ModelInferRequest) ([]*pb.ModelInferResponse, error) { return nil, answer }
	startGRPC(t, "127.0.0.1:0", f)
	m := loaded(t, run(t, Options{}), specOf("echo", map[string]any{"address": f.address()}))
	for code, kind := range map[codes.Code]engine.Kind{codes.ResourceExhausted: engine.KindOverloaded, codes.Unavailable: engine.KindUnavailable} {
		answer = status.Error(code, "try later")
		_, err := askOnce(t.Context(), m)
		failed, ok := errors.AsType[*engine.Error](err)
		if !ok || failed.Kind != kind || failed.RetryAfter == 0 {
			t.Errorf("%s: %v", code, err)
		}
	}
	f.unready.Store(true)
	fails(t, m, "it answers that it is not ready")
	f.unready.Store(false)
	answer = nil
	f.infer = nil
	works(t, m)
}
