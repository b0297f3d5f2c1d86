// Package outbound configures outgoing connections: proxies, and trusted server certificates. It
// creates every transport for connections that the program opens itself. The rules are those of the
// ClearML SDK's HTTP library, so that both reach the same servers with the same settings.
package outbound

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// Network has the environment's settings for connections. The zero value uses the proxies of
// net/http and the CAs of the machine.
type Network struct {
	proxies *httpproxy.Config
	bundle  Source
}

// Source is a file of certificates in PEM form, or a folder of such files, and the setting that
// names it.
type Source struct{ Path, From string }

// Trust is the set of accepted server certificates. The zero value accepts those of the machine's
// CAs (on Linux SSL_CERT_FILE and SSL_CERT_DIR name them).
type Trust struct {
	Insecure bool     // every certificate is accepted
	Only     Source   // these CAs count instead of the machine's
	Besides  []Source // these always count; those without a path are skipped
	// Explicit means that the setting is specific to this connection, so it takes precedence over
	// REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE.
	Explicit bool
}

// FromEnvironment reads the variables of proxies and certificates. env may be nil.
//
// HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY are read in upper and in lower case; lower case
// takes precedence, also if it is empty. The local machine is never reached through a proxy.
// REQUESTS_CA_BUNDLE, else CURL_CA_BUNDLE, replaces the machine's CAs.
func FromEnvironment(env func(string) (string, bool)) Network {
	if env == nil {
		return Network{}
	}
	n := Network{proxies: &httpproxy.Config{
		HTTPProxy:  cmp.Or(proxyVariable(env, "http_proxy"), proxyVariable(env, "all_proxy")),
		HTTPSProxy: cmp.Or(proxyVariable(env, "https_proxy"), proxyVariable(env, "all_proxy")),
		NoProxy:    proxyVariable(env, "no_proxy"),
	}}
	for _, name := range []string{"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"} {
		if path, _ := env(name); path != "" {
			n.bundle = Source{path, "the variable " + name}
			break
		}
	}
	return n
}

func proxyVariable(env func(string) (string, bool), lower string) string {
	if value, set := env(lower); set {
		return strings.TrimSpace(value)
	}
	value, _ := env(strings.ToUpper(lower))
	return strings.TrimSpace(value)
}

// Proxy returns the proxy for a URL, nil for none.
func (n Network) Proxy(u *url.URL) (*url.URL, error) {
	if n.proxies == nil {
		return http.ProxyFromEnvironment(&http.Request{URL: u})
	}
	return n.proxies.ProxyFunc()(u)
}

// Bundle is the value of REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE, if one is set.
func (n Network) Bundle() Source { return n.bundle }

// insecure reports whether certificates are not verified.
func (n Network) insecure(t Trust) bool {
	return t.Insecure && (t.Explicit || n.bundle.Path == "")
}

// Pool returns the CAs that count, nil for exactly those of the machine.
func (n Network) Pool(t Trust) (*x509.CertPool, error) {
	base := t.Only
	if n.bundle.Path != "" && !t.Explicit {
		base = n.bundle
	}
	var sources []Source
	for _, s := range append([]Source{base}, t.Besides...) {
		if s.Path != "" {
			sources = append(sources, s)
		}
	}
	if len(sources) == 0 {
		return nil, nil //nolint:nilnil // what crypto/tls uses as the machine's CAs
	}
	pool := x509.NewCertPool()
	if base.Path == "" {
		if machine, err := x509.SystemCertPool(); err == nil { // or a machine without any
			pool = machine
		}
	}
	for _, s := range sources {
		if err := s.addTo(pool); err != nil {
			return nil, err
		}
	}
	return pool, nil
}

// addTo reads the certificates of a file, or of all files in a folder.
func (s Source) addTo(pool *x509.CertPool) error {
	fail := func(err error) error { return fmt.Errorf("read the certificates that %s names: %w", s.From, err) }
	info, err := os.Stat(s.Path)
	if err != nil {
		return fail(err)
	}
	files := []string{s.Path}
	if info.IsDir() {
		entries, err := os.ReadDir(s.Path)
		if err != nil {
			return fail(err)
		}
		files = nil
		for _, e := range entries {
			files = append(files, filepath.Join(s.Path, e.Name()))
		}
	}
	found := false
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil && info.IsDir() {
			continue // a subfolder or a broken link, as in OpenSSL's folders
		}
		if err != nil {
			return fail(err)
		}
		found = pool.AppendCertsFromPEM(text) || found
	}
	if !found {
		return fail(errors.New(s.Path + " has none in PEM form"))
	}
	return nil
}

// The limits of every connection. Timeouts of whole requests are the caller's.
const (
	dialLimit      = 15 * time.Second
	handshakeLimit = 15 * time.Second
	idleLimit      = 90 * time.Second
	idleConns      = 16
)

// Transport creates the transport for servers with the trust t. wait bounds the time between a
// request and the first byte of its answer, 0 for no bound. If certificates cannot be read, every
// TLS connection fails with that error; others work.
func (n Network) Transport(t Trust, wait time.Duration) *http.Transport {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: n.insecure(t)} //nolint:gosec // only if the user's setting says so
	var err error
	if config.RootCAs, err = n.Pool(t); err != nil && !config.InsecureSkipVerify {
		config.InsecureSkipVerify = true
		config.VerifyConnection = func(tls.ConnectionState) error { return &tls.CertificateVerificationError{Err: err} }
	}
	return &http.Transport{
		Proxy:                 func(r *http.Request) (*url.URL, error) { return n.Proxy(r.URL) },
		DialContext:           (&net.Dialer{Timeout: dialLimit, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       config,
		TLSHandshakeTimeout:   handshakeLimit,
		ResponseHeaderTimeout: wait,
		IdleConnTimeout:       idleLimit,
		MaxIdleConnsPerHost:   idleConns,
		DisableCompression:    true, // the stored bytes are needed, not decoded ones
	}
}

// Describe describes how certificates are verified, for users.
func (n Network) Describe(t Trust) string {
	switch {
	case n.insecure(t):
		return "not verified"
	case n.bundle.Path != "" && !t.Explicit:
		return fmt.Sprintf("verified against %s (%s)", n.bundle.Path, n.bundle.From)
	case t.Only.Path != "":
		return fmt.Sprintf("verified against %s (%s)", t.Only.Path, t.Only.From)
	}
	return "verified against the authorities of this machine"
}
