package clearml

import (
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"clearmlserving/outbound"
)

// TLS is the setting api.verify_certificate, or CLEARML_API_HOST_VERIFY_CERT.
type TLS struct {
	Insecure bool   // certificates are not verified
	CAFile   string // CA certificates in PEM form, a file or a folder; "": the machine's
	From     string
}

// tls reads true, false, or the path of certificates.
func (l *configLoader) tls() TLS {
	s := l.setting("true", []string{"api.verify_certificate"}, "CLEARML_API_HOST_VERIFY_CERT", "TRAINS_API_HOST_VERIFY_CERT")
	switch strings.ToLower(s.Value) {
	case "true", "yes", "y", "t", "on", "1":
		return TLS{From: s.From}
	case "false", "no", "n", "f", "off", "0":
		return TLS{Insecure: true, From: s.From}
	}
	path := l.expand(s.Value)
	if full, err := filepath.Abs(path); err == nil { // user code runs in another folder
		path = full
	}
	return TLS{CAFile: path, From: s.From}
}

// Servers is the trust in the ClearML servers. The setting is specific to them, so it takes
// precedence over REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE, unless it only enables verification. In
// the SDK these variables always take precedence, even over disabled verification.
func (t TLS) Servers() outbound.Trust {
	return outbound.Trust{
		Insecure: t.Insecure, Only: outbound.Source{Path: t.CAFile, From: t.From}, Explicit: t.Insecure || t.CAFile != "",
	}
}

// Others is the trust in every other server: the configured CAs count in addition to the machine's.
// Verification stays enabled.
func (t TLS) Others() outbound.Trust {
	return outbound.Trust{Besides: []outbound.Source{{Path: t.CAFile, From: t.From}}}
}

// NewTransport creates the transport for HTTP connections by the configuration: to the ClearML
// servers, and to the servers of files with http and https addresses. As in the SDK, disabled
// verification applies to both. Configured CAs are the only ones for the ClearML servers. wait
// bounds the time until an answer begins.
func (c Config) NewTransport(wait time.Duration) (http.RoundTripper, error) {
	if strings.HasPrefix(c.API.Value, "https:") { // an unusable setting is reported at once
		if _, err := c.Network.Pool(c.TLS.Servers()); err != nil {
			return nil, err
		}
	}
	servers := c.transport(c.TLS.Servers(), wait)
	if c.TLS.CAFile == "" {
		return servers, nil
	}
	t := &transport{servers: servers, others: c.transport(c.TLS.Others(), wait), hosts: map[string]bool{}}
	for _, s := range []Setting{c.API, c.Web, c.Files} {
		if u, err := url.Parse(s.Value); err == nil && u.Host != "" {
			t.hosts[strings.ToLower(u.Host)] = true
		}
	}
	return t, nil
}

func (c Config) transport(trust outbound.Trust, wait time.Duration) *http.Transport {
	t := c.Network.Transport(trust, wait)
	t.ForceAttemptHTTP2, t.DisableCompression = true, false
	return t
}

// transport has a different trust for the ClearML servers than for all others.
type transport struct {
	servers, others *http.Transport
	hosts           map[string]bool // of the ClearML servers
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.hosts[strings.ToLower(r.URL.Host)] {
		return t.servers.RoundTrip(r)
	}
	return t.others.RoundTrip(r)
}

// CloseIdleConnections is called by http.Client's method of that name.
func (t *transport) CloseIdleConnections() {
	t.servers.CloseIdleConnections()
	t.others.CloseIdleConnections()
}
