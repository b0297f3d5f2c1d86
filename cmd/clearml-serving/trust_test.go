package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/storage"
)

// tlsServer answers everything over TLS with a certificate that it has signed itself.
type tlsServer struct {
	url, host string
	asked     atomic.Int64 // requests that got past the handshake
}

func startTLS(t *testing.T) (server *tlsServer, certificate *x509.Certificate) {
	t.Helper()
	s := &tlsServer{}
	h := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.asked.Add(1)
		_, _ = io.WriteString(w, `{"meta": {"result_code": 200}, "data": {"token": "x", "url": "y"}}`)
	}))
	h.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // handshakes fail on purpose
	h.StartTLS()
	t.Cleanup(h.Close)
	u, err := url.Parse(h.URL)
	if err != nil {
		t.Fatal(err)
	}
	s.url, s.host = h.URL, u.Host
	return s, h.Certificate()
}

// connections are all that this program opens to other machines by HTTP. Each is tried
// once; what comes back matters only to the server's count.
var connections = map[string]func(ctx context.Context, a *app, servers, other *tlsServer) error{
	"api": func(ctx context.Context, a *app, _, _ *tlsServer) error {
		client, err := a.connect()
		if err != nil {
			return err
		}
		defer client.Close()
		return client.Call(ctx, "users.get_current_user", nil, nil)
	},
	"upload to the file server": func(ctx context.Context, a *app, s, _ *tlsServer) error { return a.tryUpload(ctx, s.url) },
	"upload elsewhere":          func(ctx context.Context, a *app, _, o *tlsServer) error { return a.tryUpload(ctx, o.url) },
	"file server":               func(ctx context.Context, a *app, s, _ *tlsServer) error { return a.tryRead(ctx, s.url+"/m.pkl") },
	"https elsewhere":           func(ctx context.Context, a *app, _, o *tlsServer) error { return a.tryRead(ctx, o.url+"/m.pkl") },
	"s3": func(ctx context.Context, a *app, _, o *tlsServer) error {
		return a.tryRead(ctx, "s3://"+o.host+"/bucket/m.pkl")
	},
	"gs": func(ctx context.Context, a *app, _, _ *tlsServer) error { return a.tryRead(ctx, "gs://bucket/m.pkl") },
	"azure": func(ctx context.Context, a *app, _, _ *tlsServer) error {
		return a.tryRead(ctx, "azure://account.blob.core.windows.net/container/m.pkl")
	},
	"inference service": func(ctx context.Context, a *app, _, _ *tlsServer) error {
		_, err := a.liveState(ctx)
		return err
	},
	"web pages": func(ctx context.Context, a *app, s, _ *tlsServer) error {
		dir, err := a.dataDir()
		if err != nil {
			return err
		}
		for name, text := range map[string]string{"endpoints.json": `{"api": "` + s.url + `"}`, "credentials.json": `{"access_key": "k", "secret_key": "s"}`} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				return err
			}
		}
		return a.ui(ctx)
	},
	"playground": func(ctx context.Context, a *app, _, o *tlsServer) error {
		pool, err := a.authorities(slog.New(slog.DiscardHandler))()
		if err != nil {
			return err
		}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true}}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, o.url, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	},
}

func (a *app) tryUpload(ctx context.Context, destination string) error {
	client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = client.Upload(ctx, destination, "m.pkl", strings.NewReader("x"), 1, nil)
	return err
}

func (a *app) tryRead(ctx context.Context, address string) error {
	client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	places, _, err := a.places("", client)
	if err != nil {
		return err
	}
	place, err := places.For(address)
	if err != nil {
		return err
	}
	body, _, err := place.Open(ctx, address, storage.Part{})
	if err != nil {
		return err
	}
	return body.Close()
}

// anotherAuthority is a certificate that has signed nothing.
func anotherAuthority(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// settingOf is a way to say which certificates are trusted.
type settingOf struct {
	env  map[string]string
	conf string // of clearml.conf
	// trusted are the connections that it opens to a server with that certificate.
	trusted []string
}

// TestEveryConnectionTrustsWhatTheSettingsSay holds each setting against each
// connection. Where it says "all", none may be left out.
func TestEveryConnectionTrustsWhatTheSettingsSay(t *testing.T) {
	servers, certificate := startTLS(t)
	other, _ := startTLS(t)
	file := filepath.Join(t.TempDir(), "certs", "ca.pem")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	another := filepath.Join(t.TempDir(), "another.pem")
	if err := os.WriteFile(another, anotherAuthority(t), 0o600); err != nil {
		t.Fatal(err)
	}
	all := slices.Sorted(maps.Keys(connections))
	// As for the SDK, verification that is off is off for the ClearML servers and the
	// files that http addresses name. Clouds have their own switches.
	notVerified := []string{"api", "file server", "https elsewhere", "upload elsewhere", "upload to the file server", "web pages"}
	settings := map[string]settingOf{
		"nothing":                                                           {},
		"CLEARML_API_HOST_VERIFY_CERT=true":                                 {env: map[string]string{"CLEARML_API_HOST_VERIFY_CERT": "true"}},
		"CLEARML_API_HOST_VERIFY_CERT=false":                                {env: map[string]string{"CLEARML_API_HOST_VERIFY_CERT": "false"}, trusted: notVerified},
		"CLEARML_API_HOST_VERIFY_CERT=file":                                 {env: map[string]string{"CLEARML_API_HOST_VERIFY_CERT": file}, trusted: all},
		"CLEARML_API_HOST_VERIFY_CERT=folder":                               {env: map[string]string{"CLEARML_API_HOST_VERIFY_CERT": filepath.Dir(file)}, trusted: all},
		"api.verify_certificate: false":                                     {conf: "api.verify_certificate: false", trusted: notVerified},
		"api.verify_certificate: file":                                      {conf: "api.verify_certificate: " + confText(file), trusted: all},
		"the variable before the file":                                      {env: map[string]string{"CLEARML_API_HOST_VERIFY_CERT": "true"}, conf: "api.verify_certificate: false"},
		"REQUESTS_CA_BUNDLE":                                                {env: map[string]string{"REQUESTS_CA_BUNDLE": file}, trusted: all},
		"REQUESTS_CA_BUNDLE is a folder":                                    {env: map[string]string{"REQUESTS_CA_BUNDLE": filepath.Dir(file)}, trusted: all},
		"CURL_CA_BUNDLE":                                                    {env: map[string]string{"CURL_CA_BUNDLE": file}, trusted: all},
		"CURL_CA_BUNDLE and CLEARML_API_HOST_VERIFY_CERT":                   {env: map[string]string{"CURL_CA_BUNDLE": file, "CLEARML_API_HOST_VERIFY_CERT": "true"}, trusted: all},
		"CLEARML_API_HOST_VERIFY_CERT=false and another REQUESTS_CA_BUNDLE": {env: map[string]string{"CLEARML_API_HOST_VERIFY_CERT": "false", "REQUESTS_CA_BUNDLE": another}, trusted: notVerified},
		"CLEARML_API_HOST_VERIFY_CERT=file and another REQUESTS_CA_BUNDLE":  {env: map[string]string{"CLEARML_API_HOST_VERIFY_CERT": file, "REQUESTS_CA_BUNDLE": another}, trusted: all},
		"CLEARML_API_HOST_VERIFY_CERT=another file":                         {env: map[string]string{"CLEARML_API_HOST_VERIFY_CERT": another}},
		"another REQUESTS_CA_BUNDLE":                                        {env: map[string]string{"REQUESTS_CA_BUNDLE": another, "CURL_CA_BUNDLE": file}},
		"AWS_CA_BUNDLE":                                                     {env: map[string]string{"AWS_CA_BUNDLE": file}, trusted: []string{"s3"}},
		"sdk.aws.s3.verify: false":                                          {conf: "sdk.aws.s3.verify: false", trusted: []string{"s3"}},
	}
	// The machine's authorities are read once by each process.
	if name := os.Getenv("TRUST_TEST_SETTING"); name != "" {
		settings = map[string]settingOf{name: {trusted: all}}
	} else {
		for _, name := range []string{"SSL_CERT_FILE", "SSL_CERT_DIR"} {
			value := file
			if name == "SSL_CERT_DIR" {
				value = filepath.Dir(file)
			}
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
			cmd.Env = append(os.Environ(), name+"="+value, "TRUST_TEST_SETTING="+name)
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()+"/"+name) {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
		}
	}
	for name, setting := range settings {
		for connection, try := range connections {
			t.Run(name+"/"+connection, func(t *testing.T) {
				home := t.TempDir()
				if err := os.WriteFile(filepath.Join(home, "clearml.conf"), []byte(setting.conf), 0o600); err != nil {
					t.Fatal(err)
				}
				env := map[string]string{
					"HOME": home, "CLEARML_SERVING_HOME": home, "CLEARML_API_HOST": servers.url, "CLEARML_FILES_HOST": servers.url, "CLEARML_WEB_HOST": servers.url,
					"CLEARML_API_ACCESS_KEY": "k", "CLEARML_API_SECRET_KEY": "s", "CLEARML_SERVING_SERVE_URL": other.url,
					"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "STORAGE_EMULATOR_HOST": other.url,
					"AZURE_STORAGE_CONNECTION_STRING": fmt.Sprintf("AccountName=account;AccountKey=a2V5;BlobEndpoint=%s/account", other.url),
				}
				maps.Copy(env, setting.env)
				a := newApp(system{stdout: io.Discard, stderr: io.Discard, env: func(name string) (string, bool) { v, ok := env[name]; return v, ok }})
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				before := servers.asked.Load() + other.asked.Load()
				err := try(ctx, a, servers, other)
				trusted := servers.asked.Load()+other.asked.Load() > before
				if want := slices.Contains(setting.trusted, connection); trusted != want {
					t.Errorf("trusted: %v, want %v: %v", trusted, want, err)
				}
			})
		}
	}
}

// Programs that are started get the settings too, with paths that hold in their folders.
func TestProgramsThatAreStartedGetTheSettingsOfConnections(t *testing.T) {
	home := t.TempDir()
	t.Chdir(home)
	env := map[string]string{
		"HOME": home, "CLEARML_SERVING_HOME": home, "CLEARML_API_HOST": "https://s:8008", "CLEARML_FILES_HOST": "http://127.0.0.1:8081", "CLEARML_API_ACCESS_KEY": "k", "CLEARML_API_SECRET_KEY": "s",
		"CLEARML_API_HOST_VERIFY_CERT": "ca.pem", "REQUESTS_CA_BUNDLE": "bundle.pem", "SSL_CERT_DIR": "/a:/b", "ALL_PROXY": "http://p:1", "no_proxy": "x",
	}
	a := newApp(system{stdout: io.Discard, stderr: io.Discard, env: func(name string) (string, bool) { v, ok := env[name]; return v, ok }})
	config, err := clearml.LoadConfig(clearml.ConfigOptions{Env: a.sys.env, HomeDir: home})
	if err != nil {
		t.Fatal(err)
	}
	shared := []string{"REQUESTS_CA_BUNDLE=" + filepath.Join(home, "bundle.pem"), "SSL_CERT_DIR=/a:/b", "ALL_PROXY=http://p:1"}
	// The SDK in user code must reach a server on this machine without the proxy.
	code := []string{"CLEARML_API_HOST_VERIFY_CERT=" + filepath.Join(home, "ca.pem"), "no_proxy=x,127.0.0.1", "NO_PROXY=x,127.0.0.1"}
	for who, given := range map[string]struct{ got, want []string }{
		"user code":  {a.workerEnv(config), append(code, shared...)},
		"installers": {a.installerEnv(), append(shared, "no_proxy=x")},
	} {
		for _, want := range given.want {
			if !slices.Contains(given.got, want) {
				t.Errorf("%s: %s is missing in %q", who, want, given.got)
			}
		}
	}
}
