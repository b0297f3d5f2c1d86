package listen_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"clearmlserving/leaktest"
	"clearmlserving/listen"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func open(t *testing.T, o listen.Options) *listen.Listener {
	t.Helper()
	l, err := listen.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return l
}

func TestAddressDecidesWhoCanConnect(t *testing.T) {
	for _, c := range []struct {
		addr                   string
		credentials, allowOpen bool
		refused, open          bool
		url                    string
	}{
		{addr: "127.0.0.1:0", url: "http://127.0.0.1:"},
		{addr: "localhost:0", url: "http://localhost:"},
		{addr: "127.8.9.1:0", url: "http://127.8.9.1:"},
		{addr: "[::ffff:127.0.0.1]:0", url: "http://[::ffff:127.0.0.1]:"},
		{addr: ":0", refused: true},
		{addr: "0.0.0.0:0", refused: true},
		{addr: "[::]:0", refused: true},
		{addr: "[::ffff:0.0.0.0]:0", refused: true},
		{addr: "10.1.2.3:0", refused: true},
		{addr: ":0", credentials: true, url: "http://127.0.0.1:"},
		{addr: ":0", allowOpen: true, open: true, url: "http://127.0.0.1:"},
		{addr: "0.0.0.0:0", allowOpen: true, open: true, url: "http://127.0.0.1:"},
		{addr: "0.0.0.0:0", allowOpen: true, credentials: true, url: "http://127.0.0.1:"},
	} {
		l, err := listen.Open(t.Context(), listen.Options{Name: "admin", Addr: c.addr, Flag: "--admin-addr", Credentials: c.credentials, AllowOpen: c.allowOpen})
		var refused *listen.OpenError
		if errors.As(err, &refused) != c.refused {
			t.Errorf("%+v: %v", c, err)
		}
		if c.refused && err != nil && !strings.Contains(err.Error(), "--admin-addr 127.0.0.1:0") {
			t.Errorf("%+v: %v does not say what to do", c, err)
		}
		if err != nil {
			continue
		}
		if l.Open() != c.open || l.Port() == 0 || l.URL() != fmt.Sprint(c.url, l.Port()) || !strings.HasPrefix(l.URL(), "http://"+l.HostPort()) {
			t.Errorf("%+v: open %v, URL %s", c, l.Open(), l.URL())
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestEmptyHostReachesBothFamilies(t *testing.T) {
	l := open(t, listen.Options{Name: "serve", Addr: ":0", AllowOpen: true})
	for _, host := range []string{"127.0.0.1", "::1"} {
		if !hasAddress(t, host) {
			t.Logf("this machine has no %s", host)
			continue
		}
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", net.JoinHostPort(host, fmt.Sprint(l.Port())))
		if err != nil {
			t.Error(err)
			continue
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}

func hasAddress(t *testing.T, host string) bool {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return false
	}
	return l.Close() == nil
}

func TestAddressThatIsNoneIsRefusedWithTheReason(t *testing.T) {
	for addr, want := range map[string]string{
		"":                   "not host:port",
		"8080":               "not host:port",
		"127.0.0.1":          "not host:port",
		"::1:80":             "not host:port",
		"127.0.0.1:http":     "not a number",
		"127.0.0.1:70000":    "not a number",
		"127.0.0.1:-1":       "not a number",
		"no such host.:80":   "can't be resolved",
		"198.51.100.17:8080": "not an address of this machine",
		"unix:/tmp/x":        "not a number",
	} {
		_, err := listen.Open(t.Context(), listen.Options{Name: "serve", Addr: addr, Flag: "--serve-addr", AllowOpen: true})
		var fault *listen.AddrError
		if !errors.As(err, &fault) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "--serve-addr") {
			t.Errorf("address %q: %v, want an error with %q", addr, err, want)
		}
	}
}

func TestTakenPortNamesItsHolder(t *testing.T) {
	first := open(t, listen.Options{Name: "api", Addr: "127.0.0.1:0"})
	addr := first.HostPort()
	_, err := listen.Open(t.Context(), listen.Options{Name: "api", Addr: addr, Flag: "--api-addr"})
	var taken *listen.InUseError
	if !errors.As(err, &taken) {
		t.Fatalf("error %v", err)
	}
	for _, want := range []string{addr, "--api-addr 127.0.0.1:0"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if runtime.GOOS == "linux" && (taken.PID != os.Getpid() || taken.Command == "" || !strings.Contains(err.Error(), taken.Command)) {
		t.Errorf("held by %d (%s), want %d", taken.PID, taken.Command, os.Getpid())
	}
	second := open(t, listen.Options{Name: "api", Addr: addr, FreeFallback: true})
	if second.Wanted() != addr || second.Port() == first.Port() || first.Wanted() != "" {
		t.Errorf("fell back from %q to %s", second.Wanted(), second.URL())
	}
}

func TestRefusedAddressesSayWhatToDo(t *testing.T) {
	for cause, want := range map[syscall.Errno]string{
		syscall.EACCES:        "ports from 1024 up need no privilege",
		syscall.EADDRNOTAVAIL: "it is not an address of this machine",
		syscall.EMFILE:        "listen for api on 127.0.0.1:1: ",
	} {
		refused := &net.OpError{Op: "listen", Net: "tcp4", Err: os.NewSyscallError("bind", cause)}
		err := listen.Explain(listen.Options{Name: "api", Addr: "127.0.0.1:1", Flag: "--api-addr"}, refused)
		if !errors.Is(err, cause) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v does not say %q", cause, err, want)
		}
	}
}

func FuzzHolder(f *testing.F) {
	f.Add("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n")
	f.Add("0: :1F90 x 0A a b c d e 4711")
	f.Fuzz(func(t *testing.T, table string) {
		proc := fstest.MapFS{
			"net/tcp":  {Data: []byte(table)},
			"17/fd/3":  {Data: []byte("socket:[4711]"), Mode: 0o777 | os.ModeSymlink},
			"17/comm":  {Data: []byte("nginx\n")},
			"self/x":   {},
			"123abc/x": {},
		}
		if pid, command := listen.Holder(proc, 8080); (pid == 17) != (command == "nginx") || (pid != 0 && !strings.Contains(table, "4711")) {
			t.Errorf("%q: %d %q", table, pid, command)
		}
	})
}

// authority signs certificates for a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	a := authority{}
	a.cert, a.key, a.pem = certificate(t, "test authority", authority{})
	return a
}

func certificate(t *testing.T, name string, by authority) (*x509.Certificate, *ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if by.cert == nil {
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
		by = authority{cert: template, key: key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, &key.PublicKey, by.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// write writes the files of a certificate for the server.
func (a authority) write(t *testing.T, dir, name string) listen.TLSFiles {
	t.Helper()
	_, key, cert := certificate(t, name, a)
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files := listen.TLSFiles{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	writeFile(t, files.Cert, cert)
	writeFile(t, files.Key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
	return files
}

func writeFile(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (a authority) client(t *testing.T, certs ...tls.Certificate) *http.Client {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: certs, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// get requests a page and returns the server's name and the protocol.
func get(t *testing.T, c *http.Client, url string) (name, proto string, err error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", "", err
	}
	defer resp.Body.Close()
	return resp.TLS.PeerCertificates[0].Subject.CommonName, resp.Proto, nil
}

func serve(t *testing.T, l net.Listener) {
	t.Helper()
	srv := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	var running sync.WaitGroup
	running.Go(func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
		running.Wait()
	})
}

func TestChangedCertificateIsUsedFromTheNextConnection(t *testing.T) {
	a := newAuthority(t)
	dir := t.TempDir()
	files := a.write(t, dir, "first")
	var log strings.Builder
	var mu sync.Mutex
	logged := func() string { mu.Lock(); defer mu.Unlock(); return log.String() }
	logger := slog.New(slog.NewTextHandler(lockedWriter{&mu, &log}, nil))
	l := open(t, listen.Options{Name: "api", Addr: "127.0.0.1:0", TLS: &files, Logger: logger})
	if !l.TLS() || !strings.HasPrefix(l.URL(), "https://") {
		t.Errorf("URL %s", l.URL())
	}
	serve(t, l)
	client := a.client(t)
	want := func(name string) {
		t.Helper()
		got, proto, err := get(t, client, l.URL())
		if err != nil || got != name || proto != "HTTP/2.0" {
			t.Errorf("server %q over %s, %v; want %q over HTTP/2.0", got, proto, err, name)
		}
	}
	want("first")
	a.write(t, dir, "second, with a longer name")
	want("second, with a longer name")
	writeFile(t, files.Cert, []byte("half a certif"))
	want("second, with a longer name")
	want("second, with a longer name")
	if n := strings.Count(logged(), "not reloaded"); n != 1 {
		t.Errorf("the broken file was logged %d times, want once: %s", n, logged())
	}
	if err := os.Remove(files.Key); err != nil {
		t.Fatal(err)
	}
	want("second, with a longer name")
	a.write(t, dir, "third")
	want("third")
}

type lockedWriter struct {
	mu *sync.Mutex
	w  *strings.Builder
}

func (l lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func TestClientsMustShowACertificateWhenAuthoritiesAreGiven(t *testing.T) {
	a := newAuthority(t)
	dir := t.TempDir()
	files := a.write(t, dir, "server")
	files.ClientCA = filepath.Join(dir, "ca.pem")
	writeFile(t, files.ClientCA, a.pem)
	// Such a certificate is a credential, so the address may be open.
	l := open(t, listen.Options{Name: "admin", Addr: "0.0.0.0:0", TLS: &files})
	if l.Open() {
		t.Error("the listener counts as open")
	}
	serve(t, l)
	if _, _, err := get(t, a.client(t), l.URL()); err == nil {
		t.Error("a client without a certificate was served")
	}
	pair := func(by authority) tls.Certificate {
		cert, key, _ := certificate(t, "client", by)
		return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
	}
	if _, _, err := get(t, a.client(t, pair(newAuthority(t))), l.URL()); err == nil {
		t.Error("a client of another authority was served")
	}
	if _, _, err := get(t, a.client(t, pair(a)), l.URL()); err != nil {
		t.Error(err)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	a := newAuthority(t)
	files := a.write(t, t.TempDir(), "server")
	l := open(t, listen.Options{Name: "api", Addr: "127.0.0.1:0", TLS: &files})
	serve(t, l)
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	dialer := &tls.Dialer{Config: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}} //nolint:gosec // the point of the test
	if conn, err := dialer.DialContext(t.Context(), "tcp", l.HostPort()); err == nil {
		t.Error("TLS 1.1 was accepted")
		_ = conn.Close()
	}
}

func TestCertificateThatCanNotBeUsedOpensNoSocket(t *testing.T) {
	a := newAuthority(t)
	dir := t.TempDir()
	good := a.write(t, dir, "server")
	text := filepath.Join(dir, "text")
	writeFile(t, text, []byte("no PEM"))
	for name, c := range map[string]struct {
		files listen.TLSFiles
		want  string
	}{
		"no key":         {listen.TLSFiles{Cert: good.Cert}, "needs a certificate and a key"},
		"missing":        {listen.TLSFiles{Cert: dir + "/gone", Key: good.Key}, "gone"},
		"not PEM":        {listen.TLSFiles{Cert: text, Key: good.Key}, text},
		"no authorities": {listen.TLSFiles{Cert: good.Cert, Key: good.Key, ClientCA: text}, "has no certificate"},
		"missing CA":     {listen.TLSFiles{Cert: good.Cert, Key: good.Key, ClientCA: dir + "/gone"}, "gone"},
	} {
		if _, err := listen.Open(t.Context(), listen.Options{Name: "api", Addr: "127.0.0.1:0", TLS: &c.files}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, c.want)
		}
	}
}
