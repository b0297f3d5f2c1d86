package listen

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
)

// TLSFiles are the certificate files of a listener. They are checked at each handshake and reloaded
// when they have changed; if the new files cannot be used, the previous ones stay in use.
type TLSFiles struct {
	// Cert and Key are PEM files; Cert has the chain, the server's own first.
	Cert, Key string
	// ClientCA is a PEM file of CA certificates; if set, each client must have a certificate
	// signed by one of them.
	ClientCA string
}

// config loads the files and returns a configuration that follows their changes.
func (f TLSFiles) config(name string, log *slog.Logger) (*tls.Config, error) {
	if f.Cert == "" || f.Key == "" {
		return nil, fmt.Errorf("listen for %s: TLS needs a certificate and a key file", name)
	}
	w := &watched{files: f, log: log.With("listener", name)}
	w.seen = w.stamps()
	current, err := f.load()
	if err != nil {
		return nil, fmt.Errorf("listen for %s: %w", name, err)
	}
	w.current = current
	outer := current.Clone()
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return w.latest(), nil }
	return outer, nil
}

func (f TLSFiles) load() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", f.Cert, f.Key, err)
	}
	config := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{pair},
		NextProtos:   []string{"h2", "http/1.1"},
	}
	if f.ClientCA == "" {
		return config, nil
	}
	pem, err := os.ReadFile(f.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("CA certificates of clients: %w", err)
	}
	config.ClientCAs = x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("CA certificates of clients: %s has no certificate in PEM form", f.ClientCA)
	}
	config.ClientAuth = tls.RequireAndVerifyClientCert
	return config, nil
}

// watched is the configuration of files that may change.
type watched struct {
	files TLSFiles
	log   *slog.Logger

	mu      sync.Mutex // guards the fields below
	seen    [3]string
	current *tls.Config
}

// latest checks the files for changes: three stats per handshake, which itself costs a thousand
// times more.
func (w *watched) latest() *tls.Config {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.stamps()
	if now == w.seen {
		return w.current
	}
	w.seen = now // a broken state is logged once, and tried again when it changes
	config, err := w.files.load()
	if err != nil {
		w.log.Error("certificate not reloaded, previous one stays in use", "err", err)
		return w.current
	}
	w.current = config
	w.log.Info("certificate reloaded", "file", w.files.Cert)
	return config
}

// stamps change when the files change.
func (w *watched) stamps() (s [3]string) {
	for i, file := range []string{w.files.Cert, w.files.Key, w.files.ClientCA} {
		if info, err := os.Stat(file); err == nil {
			s[i] = fmt.Sprint(info.ModTime().UnixNano(), info.Size())
		}
	}
	return s
}
