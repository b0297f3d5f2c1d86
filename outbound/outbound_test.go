package outbound_test

import (
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"clearmlserving/outbound"
)

func lookUp(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := env[name]; return v, ok }
}

// selfSigned starts a TLS server with a certificate that the machine does not trust, and
// returns its URL and a file with its certificate.
func selfSigned(t *testing.T) (address, certificate string) {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ErrorLog = nil
	server.StartTLS()
	t.Cleanup(server.Close)
	certificate = filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(certificate, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return server.URL, certificate
}

func TestTrustFollowsTheSettingsInTheirOrder(t *testing.T) {
	address, right := selfSigned(t)
	_, wrong := selfSigned(t)
	// All servers of httptest have the same certificate; this one is another.
	if err := os.WriteFile(wrong, []byte(otherAuthority), 0o600); err != nil {
		t.Fatal(err)
	}
	source := func(path string) outbound.Source { return outbound.Source{Path: path, From: "the test"} }
	for name, tc := range map[string]struct {
		env   map[string]string
		trust outbound.Trust
		works bool
	}{
		"nothing":                                {nil, outbound.Trust{}, false},
		"insecure":                               {nil, outbound.Trust{Insecure: true}, true},
		"only":                                   {nil, outbound.Trust{Only: source(right)}, true},
		"only another":                           {nil, outbound.Trust{Only: source(wrong)}, false},
		"besides":                                {nil, outbound.Trust{Besides: []outbound.Source{{}, source(right)}}, true},
		"folder":                                 {nil, outbound.Trust{Only: source(filepath.Dir(right))}, true},
		"REQUESTS_CA_BUNDLE":                     {map[string]string{"REQUESTS_CA_BUNDLE": right}, outbound.Trust{}, true},
		"CURL_CA_BUNDLE":                         {map[string]string{"CURL_CA_BUNDLE": right}, outbound.Trust{}, true},
		"REQUESTS_CA_BUNDLE before CURL":         {map[string]string{"REQUESTS_CA_BUNDLE": wrong, "CURL_CA_BUNDLE": right}, outbound.Trust{}, false},
		"empty REQUESTS_CA_BUNDLE":               {map[string]string{"REQUESTS_CA_BUNDLE": "", "CURL_CA_BUNDLE": right}, outbound.Trust{}, true},
		"bundle instead of the setting":          {map[string]string{"REQUESTS_CA_BUNDLE": wrong}, outbound.Trust{Only: source(right)}, false},
		"bundle instead of insecure":             {map[string]string{"REQUESTS_CA_BUNDLE": wrong}, outbound.Trust{Insecure: true}, false},
		"explicit insecure instead of a bundle":  {map[string]string{"REQUESTS_CA_BUNDLE": wrong}, outbound.Trust{Insecure: true, Explicit: true}, true},
		"explicit authority instead of a bundle": {map[string]string{"REQUESTS_CA_BUNDLE": wrong}, outbound.Trust{Only: source(right), Explicit: true}, true},
		"besides a bundle":                       {map[string]string{"REQUESTS_CA_BUNDLE": wrong}, outbound.Trust{Besides: []outbound.Source{source(right)}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			transport := outbound.FromEnvironment(lookUp(tc.env)).Transport(tc.trust, time.Minute)
			defer transport.CloseIdleConnections()
			resp, err := (&http.Client{Transport: transport}).Get(address)
			if err == nil {
				_ = resp.Body.Close()
			}
			if works := err == nil; works != tc.works {
				t.Errorf("works: %v, want %v: %v", works, tc.works, err)
			}
		})
	}
}

func TestAFileOfCertificatesThatCannotBeUsedNamesItsSetting(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	address, _ := selfSigned(t)
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer plain.Close()
	for _, path := range []string{empty, empty + ".missing"} {
		transport := outbound.FromEnvironment(lookUp(map[string]string{"CURL_CA_BUNDLE": path})).Transport(outbound.Trust{}, time.Minute)
		client := &http.Client{Transport: transport}
		resp, err := client.Get(plain.URL)
		if err != nil {
			t.Errorf("%s: a connection without TLS: %v", path, err)
		} else {
			_ = resp.Body.Close()
		}
		if resp, err = client.Get(address); err == nil {
			_ = resp.Body.Close()
		}
		transport.CloseIdleConnections()
		if err == nil || !strings.Contains(err.Error(), "CURL_CA_BUNDLE") || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestProxiesFollowTheVariablesInEitherCase(t *testing.T) {
	for name, tc := range map[string]struct {
		env  map[string]string
		url  string
		want string
	}{
		"none":                  {nil, "http://a.example", ""},
		"upper case":            {map[string]string{"HTTP_PROXY": "http://p:1"}, "http://a.example", "http://p:1"},
		"lower case first":      {map[string]string{"HTTP_PROXY": "http://p:1", "http_proxy": "http://q:1"}, "http://a.example", "http://q:1"},
		"empty lower case":      {map[string]string{"HTTP_PROXY": "http://p:1", "http_proxy": ""}, "http://a.example", ""},
		"other scheme":          {map[string]string{"HTTP_PROXY": "http://p:1"}, "https://a.example", ""},
		"https":                 {map[string]string{"HTTPS_PROXY": "http://p:1"}, "https://a.example", "http://p:1"},
		"all":                   {map[string]string{"ALL_PROXY": "socks5://p:1"}, "https://a.example", "socks5://p:1"},
		"its own before all":    {map[string]string{"all_proxy": "http://p:1", "http_proxy": "http://q:1"}, "http://a.example", "http://q:1"},
		"excepted":              {map[string]string{"HTTP_PROXY": "http://p:1", "NO_PROXY": "example"}, "http://a.example", ""},
		"all excepted":          {map[string]string{"ALL_PROXY": "http://p:1", "no_proxy": "*"}, "http://a.example", ""},
		"the machine itself":    {map[string]string{"HTTP_PROXY": "http://p:1"}, "http://127.0.0.1:8008", ""},
		"the machine by a name": {map[string]string{"ALL_PROXY": "http://p:1"}, "https://localhost:8008", ""},
	} {
		t.Run(name, func(t *testing.T) {
			u, err := url.Parse(tc.url)
			if err != nil {
				t.Fatal(err)
			}
			env := tc.env
			if env == nil {
				env = map[string]string{}
			}
			proxy, err := outbound.FromEnvironment(lookUp(env)).Proxy(u)
			got := ""
			if proxy != nil {
				got = proxy.String()
			}
			if err != nil || got != tc.want {
				t.Errorf("got %q, %v, want %q", got, err, tc.want)
			}
		})
	}
}

// pythonCases are also compared with the library itself, if it is installed.
var pythonCases = []struct {
	Env  map[string]string `json:"env"`
	URL  string            `json:"url"`
	want string
}{
	{map[string]string{}, "http://127.0.0.1:8008", ""},
	{map[string]string{"HTTP_PROXY": "http://p:1"}, "http://127.0.0.1:8008", "http://p:1"},
	{map[string]string{"HTTP_PROXY": "http://p:1"}, "http://localhost:8008", "http://p:1"},
	{map[string]string{"HTTP_PROXY": "http://p:1", "http_proxy": ""}, "http://localhost:8008", ""},
	{map[string]string{"HTTPS_PROXY": "http://p:1"}, "http://localhost:8008", ""},
	{map[string]string{"ALL_PROXY": "http://p:1"}, "http://localhost:8008", "http://p:1"},
	{map[string]string{"HTTP_PROXY": "http://p:1", "NO_PROXY": "localhost,127.0.0.1"}, "http://127.0.0.1:8008", ""},
	{map[string]string{"HTTP_PROXY": "http://p:1", "NO_PROXY": "localhost, 127.0.0.0/8"}, "http://127.0.0.1:8008", ""},
	{map[string]string{"HTTP_PROXY": "http://p:1", "NO_PROXY": "localhost:8008"}, "http://localhost:8008", ""},
	{map[string]string{"HTTP_PROXY": "http://p:1", "NO_PROXY": "127.0.0.1", "no_proxy": "other"}, "http://127.0.0.1:8008", "http://p:1"},
	{map[string]string{"HTTP_PROXY": "http://p:1", "NO_PROXY": "127.0.0.1", "no_proxy": ""}, "http://127.0.0.1:8008", ""},
	{map[string]string{"HTTP_PROXY": "http://p:1", "NO_PROXY": "*"}, "http://a.example", ""},
	{map[string]string{"HTTP_PROXY": "http://p:1", "NO_PROXY": ".example"}, "http://a.example", ""},
	{map[string]string{"HTTP_PROXY": "http://p:1", "NO_PROXY": "xample"}, "http://a.example", "http://p:1"},
}

func TestPythonProxyIsWhatTheSDKUses(t *testing.T) {
	for _, tc := range pythonCases {
		u, err := url.Parse(tc.URL)
		if err != nil {
			t.Fatal(err)
		}
		if got := outbound.PythonProxy(lookUp(tc.Env), u); got != tc.want {
			t.Errorf("%s with %v: %q, want %q", tc.URL, tc.Env, got, tc.want)
		}
	}
	python := os.Getenv("CLEARML_SERVING_TEST_PYTHON")
	if python == "" {
		t.Skip("CLEARML_SERVING_TEST_PYTHON names no Python: the library itself is not asked")
	}
	const ask = `
import json, os, sys
from requests.utils import get_environ_proxies, select_proxy
answers = []
for case in json.load(sys.stdin):
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ.update(case["env"])
    answers.append(select_proxy(case["url"], get_environ_proxies(case["url"])) or "")
print(json.dumps(answers))`
	text, err := json.Marshal(pythonCases)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, "-c", ask)
	cmd.Stdin = strings.NewReader(string(text))
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("ask python-requests: %v", err)
	}
	var answers []string
	if err := json.Unmarshal(out, &answers); err != nil {
		t.Fatal(err)
	}
	for i, tc := range pythonCases {
		if answers[i] != tc.want {
			t.Errorf("%s with %v: the library says %q, the table %q", tc.URL, tc.Env, answers[i], tc.want)
		}
	}
}

func TestNoProxyIsExtendedByTheAddressesOfThisMachine(t *testing.T) {
	for name, tc := range map[string]struct {
		env   map[string]string
		names []string
		value string
	}{
		"no proxy":            {map[string]string{}, nil, ""},
		"a proxy":             {map[string]string{"HTTP_PROXY": "http://p:1"}, []string{"NO_PROXY"}, "127.0.0.1"},
		"more exceptions":     {map[string]string{"http_proxy": "http://p:1", "NO_PROXY": "a.example,"}, []string{"NO_PROXY"}, "a.example,127.0.0.1"},
		"lower case":          {map[string]string{"http_proxy": "http://p:1", "no_proxy": "b"}, []string{"NO_PROXY", "no_proxy"}, "b,127.0.0.1"},
		"both, lower counts":  {map[string]string{"http_proxy": "http://p:1", "no_proxy": "b", "NO_PROXY": "127.0.0.1"}, []string{"NO_PROXY", "no_proxy"}, "b,127.0.0.1"},
		"excepted already":    {map[string]string{"HTTP_PROXY": "http://p:1", "NO_PROXY": "127.0.0.1"}, nil, ""},
		"of the other scheme": {map[string]string{"HTTPS_PROXY": "http://p:1"}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			names, value := outbound.Unproxied(lookUp(tc.env), "http://127.0.0.1:8008", "http://127.0.0.1:8081", "http://elsewhere.example")
			if !slices.Equal(names, tc.names) || value != tc.value {
				t.Errorf("got %v %q, want %v %q", names, value, tc.names, tc.value)
			}
		})
	}
}

// otherAuthority has signed nothing.
const otherAuthority = `-----BEGIN CERTIFICATE-----
MIIBjjCCATWgAwIBAgIUfuJmlbgB0P7v8rmJ7MtBN+kkFLYwCgYIKoZIzj0EAwIw
HDEaMBgGA1UEAwwRYW5vdGhlciBhdXRob3JpdHkwIBcNMjYxMTMwMDU0MDA0WhgP
MjEyNjExMDYwNTQwMDRaMBwxGjAYBgNVBAMMEWFub3RoZXIgYXV0aG9yaXR5MFkw
EwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEVK83u2X4lW/QCScFPmUldFi/AR3QKSbo
Ejpzfj4SonGMHM10KER064ZaPeRAto+cn1BiwFtUXFMc3jxg0I5ATaNTMFEwHQYD
VR0OBBYEFC7LAgoR0X4TtkPjBxi1RJT3+9pCMB8GA1UdIwQYMBaAFC7LAgoR0X4T
tkPjBxi1RJT3+9pCMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDRwAwRAIg
Y/cY0ak/j5NS0olEPWNSI11yT31U9k0F6MflcTRqD/0CIEz0uE4PEB3bLLziFWeh
23XQ1iBEZ42aIMbBgGb4VCsZ
-----END CERTIFICATE-----
`
