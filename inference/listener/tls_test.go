package listener_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/listener"
)

// serveTLS runs a server of HTTP/1.1 behind TLS; the client trusts it.
func serveTLS(t *testing.T, o listener.Options, test func(t *testing.T, addr string, client *tls.Config)) {
	t.Helper()
	serveTLSWith(t, o, []string{"http/1.1"}, test)
}

// serveTLSWith is serveTLS for some protocols.
func serveTLSWith(t *testing.T, o listener.Options, protocols []string, test func(t *testing.T, addr string, client *tls.Config)) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: protocols, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	s := listener.NewLean(o)
	done := make(chan error, 1)
	go func() { done <- s.Serve(tls.NewListener(l, config)) }()
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	test(t, l.Addr().String(), &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12})
}

func dialTLS(t *testing.T, addr string, config *tls.Config) net.Conn {
	t.Helper()
	c, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestRequestsOverTLS(t *testing.T) {
	big := strings.Repeat("x", 700_000)
	handler := func(ctx context.Context, r *listener.Request) *listener.Response {
		if r.Path == "/big" {
			return &listener.Response{Response: engine.Response{Status: 200, ContentType: "text/plain", Body: []byte(big)}}
		}
		return echo(ctx, r)
	}
	serveTLS(t, listener.Options{Handler: listener.AnswerFunc(handler), CompressFrom: -1}, func(t *testing.T, addr string, config *tls.Config) {
		t.Helper()
		transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
		defer transport.CloseIdleConnections()
		for range 3 { // one connection
			for path, want := range map[string]string{"/p": "POST /p   body", "/big": big} {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+addr+path, strings.NewReader("body"))
				if err != nil {
					t.Fatal(err)
				}
				resp, err := transport.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if err != nil || string(body) != want || resp.Proto != "HTTP/1.1" {
					t.Errorf("%s: %s, %d bytes, %v", path, resp.Proto, len(body), err)
				}
			}
		}
		// Two records for one head, and two requests in one record.
		c := dialTLS(t, addr, config)
		for _, piece := range []string{"GET /1 HTTP/1.1\r\nHo", "st: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"} {
			if _, err := io.WriteString(c, piece); err != nil {
				t.Fatal(err)
			}
		}
		if all, err := io.ReadAll(c); err != nil || strings.Count(string(all), "200 OK") != 2 {
			t.Errorf("pipelined: %q, %v", all, err)
		}
	})
}

func TestPlainRequestsToTLSAreToldSo(t *testing.T) {
	serveTLS(t, listener.Options{Handler: listener.AnswerFunc(echo)}, func(t *testing.T, addr string, _ *tls.Config) {
		t.Helper()
		if got := talk(t, addr, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); !strings.Contains(got, "400 Bad Request") || !strings.Contains(got, "https://") || !strings.HasSuffix(got, "}") {
			t.Errorf("got %q", got)
		}
		if got := talk(t, addr, "\x00\x01garbage"); strings.Contains(got, "HTTP") {
			t.Errorf("garbage got %q", got)
		}
	})
}

// beginHandshakes connects clients that do not continue.
func beginHandshakes(t *testing.T, addr string) (slow []net.Conn) {
	t.Helper()
	for range 20 {
		c := dial(t, addr)
		_, _ = c.Write([]byte{0x16, 0x03, 0x01})
		slow = append(slow, c)
	}
	return slow
}

func TestASlowHandshakeHoldsUpNobody(t *testing.T) {
	o := listener.Options{Handler: listener.AnswerFunc(echo), HeaderTimeout: time.Hour} // slow connections are not closed
	serveTLS(t, o, func(t *testing.T, addr string, config *tls.Config) {
		t.Helper()
		slow := beginHandshakes(t, addr)
		c := dialTLS(t, addr, config)
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if all, err := io.ReadAll(c); err != nil || !strings.Contains(string(all), "200 OK") {
			t.Errorf("beside slow ones: %q, %v", all, err)
		}
		for _, c := range slow { // before the server ends, which waits for them
			_ = c.Close()
		}
	})
}

func TestASlowHandshakeEnds(t *testing.T) {
	o := listener.Options{Handler: listener.AnswerFunc(echo), HeaderTimeout: 300 * time.Millisecond}
	serveTLS(t, o, func(t *testing.T, addr string, _ *tls.Config) {
		t.Helper()
		for _, c := range beginHandshakes(t, addr) {
			_ = c.SetReadDeadline(time.Now().Add(patience))
			if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
				t.Errorf("a slow handshake was not ended: %v", err)
			}
		}
	})
}

func isTimeout(err error) bool {
	ne, ok := err.(net.Error) //nolint:errorlint // net.Conn returns it unwrapped
	return ok && ne.Timeout()
}

func TestARequestOverTLSWhoseClientLeavesIsCancelled(t *testing.T) {
	begun, ended := make(chan struct{}, 1), make(chan error, 1)
	o := listener.Options{Handler: listener.AnswerFunc(func(ctx context.Context, r *listener.Request) *listener.Response {
		begun <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return echo(ctx, r)
	})}
	serveTLS(t, o, func(t *testing.T, addr string, config *tls.Config) {
		t.Helper()
		c := dialTLS(t, addr, config)
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		<-begun
		_ = c.Close() // with a TLS close notification before the end
		select {
		case err := <-ended:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("it ended with %v", err)
			}
		case <-time.After(patience):
			t.Error("the request continues without a client")
		}
	})
}

func TestClientsBeyondTheLimitAreTurnedAwayWithoutWaiting(t *testing.T) {
	lean(t, listener.Options{Handler: listener.AnswerFunc(echo), MaxConns: 1}, func(t *testing.T, addr string) {
		t.Helper()
		first := dial(t, addr)
		answers := bufio.NewReader(first)
		ask := func() {
			t.Helper()
			if _, err := io.WriteString(first, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
		ask()
		// None of these reads or closes. Each of them once blocked accepting for a
		// second, all of them for two minutes.
		var silent []net.Conn
		for range 120 {
			silent = append(silent, dial(t, addr))
		}
		begun := time.Now()
		for i, c := range silent {
			_ = c.SetReadDeadline(time.Now().Add(patience))
			// The first get an answer; while many are being refused, others are closed at once.
			if line, err := bufio.NewReader(c).ReadString('\n'); isTimeout(err) || i < 10 && !strings.Contains(line, "503") {
				t.Errorf("client %d: %q, %v", i, line, err)
			}
		}
		if took := time.Since(begun); took > patience {
			t.Errorf("turning away %d clients took %s", len(silent), took)
		}
		ask()
	})
}

func TestAHalfClosedClientGetsItsAnswerOverTLS(t *testing.T) {
	s := newStall()
	serveTLS(t, listener.Options{Handler: listener.AnswerFunc(s.answer)}, func(t *testing.T, addr string, config *tls.Config) {
		t.Helper()
		c := dialTLS(t, addr, config)
		if _, err := io.WriteString(c, "POST /stall HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"); err != nil {
			t.Fatal(err)
		}
		session, ok := c.(*tls.Conn)
		if !ok || session.CloseWrite() != nil {
			t.Fatal("the session cannot be half-closed")
		}
		if tcp, ok := session.NetConn().(*net.TCPConn); !ok || tcp.CloseWrite() != nil {
			t.Fatal("it cannot be half-closed")
		}
		s.expectAnswer(t, c, "HTTP/1.1 ", "200 OK\r\n")
	})
}
