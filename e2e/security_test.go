//go:build linux

package e2e_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
)

// capture finds the first group of a pattern.
func capture(t *testing.T, text, pattern string) string {
	t.Helper()
	found := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if found == nil {
		t.Fatalf("%s is not in: %s", pattern, text)
	}
	return found[1]
}

// askWithKey sends a request to an endpoint.
func (s *system) askWithKey(endpoint, body, key string) (int, string) {
	return roundTrip(http.MethodPost, s.urls["serve"]+"/serve/"+endpoint, "application/json", strings.NewReader(body), "Authorization", "Bearer "+key)
}

func TestSecurityKeysAreMadeRotatedAndRevokedWhileServing(t *testing.T) {
	s := up(t)
	s.must(t, "create", "--name", "locked")
	for _, name := range []string{"first", "second"} {
		s.must(t, "model", "add", "--engine", "custom", "--endpoint", name, "--preprocess", judgedVersion(t, s, name, `return {"y": data["x"]}`), "--wait")
	}
	if status, body := s.ask(t, "first", `{"x":1}`); status != 200 {
		t.Fatalf("before keys are required: %d %s", status, body)
	}
	old := capture(t, s.must(t, "auth", "create", "--label", "old"), `(csk_\S+)`)
	oldID := capture(t, s.must(t, "auth", "list"), `(k[0-9a-f]{10}) +old`)
	narrow := capture(t, s.must(t, "auth", "create", "--endpoint", "second"), `(csk_\S+)`)
	s.must(t, "config", "--auth", "on", "--wait")
	want := func(endpoint, key string, status int) {
		t.Helper()
		if got, body := s.askWithKey(endpoint, `{"x":1}`, key); got != status {
			t.Errorf("%s with %.8s: %d %s, want %d", endpoint, key, got, body, status)
		}
	}
	want("first", "", 401)
	want("first", old, 200)
	want("first", narrow, 403)
	want("second", narrow, 200)
	fresh := capture(t, s.must(t, "auth", "create", "--label", "new", "--wait"), `(csk_\S+)`)
	want("first", fresh, 200)
	want("first", old, 200)
	s.must(t, "auth", "revoke", oldID, "--wait")
	want("first", old, 401)
	want("first", fresh, 200)
	// A change of the endpoints still goes live, and --wait waits for it.
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "first", "--preprocess", judgedVersion(t, s, "first", `return {"y": 2}`), "--wait")
	if status, body := s.askWithKey("first", `{"x":1}`, fresh); status != 200 || body != `{"y":2}` {
		t.Errorf("the change: %d %s", status, body)
	}
	for _, secret := range []string{old, narrow, fresh} {
		err := filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil //nolint:nilerr // files may vanish while the service runs
			}
			if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), secret) {
				t.Errorf("%s contains a key", path)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestSecurityARequestCannotUnpickleOrNameFiles(t *testing.T) {
	s := up(t)
	s.must(t, "create", "--name", "hostile")
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "e", "--preprocess", judgedVersion(t, s, "e", `return {"kind": type(data).__name__}`), "--wait")
	flag := filepath.Join(s.dir, "executed")
	for _, kind := range []string{"application/octet-stream", "application/x-pickle", "application/vnd.bentoml+pickle", "application/json", ""} {
		status, body := roundTrip(http.MethodPost, s.urls["serve"]+"/serve/e", kind, strings.NewReader("cos\nsystem\n(S'touch "+flag+"'\ntR."), "Payload-Container", "pickle")
		if status >= 500 {
			t.Errorf("%s: %d %s", kind, status, body)
		}
	}
	if _, err := os.Stat(flag); err == nil {
		t.Error("a pickle was executed")
	}
	if status, body := s.ask(t, "e", `{"x":1}`); status != 200 || body != `{"kind":"dict"}` {
		t.Errorf("afterwards: %d %s", status, body)
	}
}

// certificate writes a new pair for 127.0.0.1 and returns a client configuration that trusts it.
func certificate(t *testing.T, cert, key string, serial int64) *tls.Config {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	for file, block := range map[string]*pem.Block{key: {Type: "PRIVATE KEY", Bytes: pkcs8}, cert: {Type: "CERTIFICATE", Bytes: der}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if file == cert {
			pool.AppendCertsFromPEM(pem.EncodeToMemory(block))
		}
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

func TestSecurityRequestsOverTLSWithACertificateThatChanges(t *testing.T) {
	s := install(t)
	cert, key := filepath.Join(s.dir, "cert.pem"), filepath.Join(s.dir, "key.pem")
	trust := certificate(t, cert, key, 1)
	args := []string{"up", "--tls-cert", cert, "--tls-key", key}
	for _, name := range []string{"serve", "grpc", "api", "files", "admin"} {
		args = append(args, "--"+name+"-addr", "127.0.0.1:0")
	}
	s.launch(t, role{args: args})
	t.Cleanup(func() { s.stop(t) })
	s.eventually(t, patience, "the service starts", s.readRegistry)
	serial := func(trust *tls.Config) (string, error) {
		transport := &http.Transport{TLSClientConfig: trust, DisableKeepAlives: true, ForceAttemptHTTP2: true}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.urls["serve"]+"/livez", nil)
		if err != nil {
			return "", err
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		if resp.ProtoMajor != 2 {
			t.Errorf("over TLS it speaks %s", resp.Proto)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		return resp.TLS.PeerCertificates[0].SerialNumber.String(), err
	}
	overGRPC := func(trust *tls.Config) (string, error) {
		conn, err := grpc.NewClient(strings.TrimPrefix(s.urls["grpc"], "grpcs://"), grpc.WithTransportCredentials(credentials.NewTLS(trust)))
		if err != nil {
			return "", err
		}
		defer conn.Close() //nolint:errcheck // a test
		var from peer.Peer
		if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}, grpc.Peer(&from)); err != nil {
			return "", err
		}
		info, _ := from.AuthInfo.(credentials.TLSInfo)
		return info.State.PeerCertificates[0].SerialNumber.String(), nil
	}
	s.eventually(t, patience, "requests are answered over TLS", func() error {
		for _, ask := range []func(*tls.Config) (string, error){serial, overGRPC} {
			if got, err := ask(trust); err != nil || got != "1" {
				return fmt.Errorf("certificate %s: %w", got, err)
			}
		}
		return nil
	})
	trust = certificate(t, cert, key, 2)
	for name, ask := range map[string]func(*tls.Config) (string, error){"HTTP": serial, "gRPC": overGRPC} {
		if got, err := ask(trust); err != nil || got != "2" {
			t.Errorf("%s after the change: certificate %s, %v", name, got, err)
		}
	}
}
