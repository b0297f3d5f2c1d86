package controlplane_test

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"clearmlserving/controlplane"
	"clearmlserving/serving"
)

// place is an address that an instance's record may name, with what reached it.
type place struct {
	*httptest.Server
	mu    sync.Mutex // guards asked
	asked []string   // method, path, and body
}

func newPlace(t *testing.T, answer http.HandlerFunc) *place {
	t.Helper()
	p := &place{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // a cut body is seen as it is
		p.mu.Lock()
		p.asked = append(p.asked, r.Method+" "+r.URL.Path+" "+string(body))
		p.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *place) saw() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string{}, p.asked...)
}

// proving answers the challenge by an identity, and requests with their body.
func proving(t *testing.T, who serving.Identity) http.HandlerFunc {
	t.Helper()
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != serving.IdentityPath {
			w.Header().Set("X-Clearml-Endpoint", "m/1")
			_, _ = io.WriteString(w, `{"answer":"`+r.Header.Get("Authorization")+`"}`)
			return
		}
		proof, _ := who.Prove(r.URL.Query().Get("challenge"))
		_ = json.NewEncoder(w).Encode(proof)
	}
}

// record makes an instance of a service with a report of that address and key.
func (r *running) record(t *testing.T, service, address, key string) {
	t.Helper()
	report, err := json.Marshal(map[string]any{"instance": "host:1", "serve_url": address, "key": key})
	if err != nil {
		t.Fatal(err)
	}
	var id struct{ ID string }
	r.call(t, "tasks.create", map[string]any{
		"name": "instance", "type": "inference", "parent": service, "system_tags": []string{"service"},
		"configuration": map[string]any{"serving_instance": map[string]any{"name": "serving_instance", "value": string(report)}},
	}, &id)
	r.call(t, "tasks.started", map[string]any{"task": id.ID}, nil)
}

func TestThePlaygroundSendsOnlyToAnInstanceThatProvesItself(t *testing.T) {
	own, err := serving.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	other, err := serving.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	victim := newPlace(t, func(http.ResponseWriter, *http.Request) {})
	for name, tc := range map[string]struct {
		answer http.HandlerFunc
		key    string
		sent   bool
	}{
		"the instance":         {proving(t, own), own.Public(), true},
		"another instance":     {proving(t, other), own.Public(), false},
		"a record without key": {proving(t, own), "", false},
		"some other program":   {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"signature":""}`) }, own.Public(), false},
		"one that echoes": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"signature":"`+r.URL.Query().Get("challenge")+`"}`)
		}, own.Public(), false},
		"one that leads on": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, victim.URL+r.URL.Path, http.StatusTemporaryRedirect)
		}, own.Public(), false},
		// As a name that leads elsewhere the second time: there is no second time.
		"one that ends the connection": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "close")
			proving(t, own)(w, r)
		}, own.Public(), false},
		"one that leads the request on": {func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != serving.IdentityPath {
				http.Redirect(w, r, victim.URL+"/inner", http.StatusTemporaryRedirect)
				return
			}
			proving(t, own)(w, r)
		}, own.Public(), true},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, controlplane.Options{})
			at := newPlace(t, tc.answer)
			var service struct{ ID string }
			r.call(t, "tasks.create", map[string]any{
				"name": "prices", "type": "service", "system_tags": []string{"serving-control-plane"},
				"configuration": map[string]any{
					"endpoints":   map[string]any{"name": "endpoints", "value": `{"m/1":{"engine_type":"custom","serving_url":"m","version":"1"}}`},
					"access_keys": map[string]any{"name": "access_keys", "value": `{"service":{"required":true}}`},
				},
			}, &service)
			r.record(t, service.ID, at.URL+"/admin?x=", tc.key)
			v := r.visit(t)
			v.shows("/services/"+service.ID+"/playground", `name="key"`)
			status, page := v.post("/services/"+service.ID+"/playground", "endpoint", "m/1", "body", `{"secret":1}`, "key", "csk_x")
			asked := at.saw()
			sent := len(asked) == 2 && asked[1] == `POST /serve/m/1 {"secret":1}`
			switch {
			case asked[0] != "GET "+serving.IdentityPath+" ":
				t.Errorf("asked first: %q", asked)
			case sent != tc.sent || (!sent && len(asked) != 1):
				t.Errorf("asked %q; sent: want %v", asked, tc.sent)
			case sent && status != http.StatusOK, !sent && status != http.StatusBadGateway:
				t.Errorf("status %d: %s", status, page)
			case name == "the instance" && !strings.Contains(page, "Bearer csk_x"):
				t.Errorf("the key is not passed on: %s", page)
			case !sent && !strings.Contains(page, "did not prove who it is") && !strings.Contains(page, "ended the connection"):
				t.Errorf("the page does not say why: %s", page)
			}
			if len(victim.saw()) > 0 {
				t.Errorf("led on to %q", victim.saw())
			}
		})
	}
}

// Certificates of an authority that only the file names count from the next request on.
func TestThePlaygroundAsksInstancesWithCertificatesOfANamedAuthority(t *testing.T) {
	own, err := serving.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	at := httptest.NewUnstartedServer(proving(t, own))
	at.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // handshakes are refused on purpose
	at.StartTLS()
	t.Cleanup(at.Close)
	right := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: at.Certificate().Raw})
	file := filepath.Join(t.TempDir(), "ca.pem")
	write := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(right)
	trusted := func() (*x509.CertPool, error) {
		pool := x509.NewCertPool()
		pool.AddCert(at.Certificate())
		return pool, nil
	}
	for name, tc := range map[string]struct {
		ca      string
		given   func() (*x509.CertPool, error)
		changed []byte // what the file holds after the start
		want    int
	}{
		"named":                       {file, nil, nil, http.StatusOK},
		"not named":                   {"", nil, nil, http.StatusBadGateway},
		"no longer in the file":       {file, nil, []byte("none"), http.StatusBadGateway},
		"of the program's settings":   {"", trusted, nil, http.StatusOK},
		"besides those of the others": {file, func() (*x509.CertPool, error) { return x509.NewCertPool(), nil }, nil, http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			write(right)
			r := start(t, controlplane.Options{InstanceCA: tc.ca, Authorities: tc.given})
			var service struct{ ID string }
			r.call(t, "tasks.create", map[string]any{
				"name": "prices", "type": "service", "system_tags": []string{"serving-control-plane"},
				"configuration": map[string]any{"endpoints": map[string]any{"name": "endpoints", "value": `{"m/1":{"engine_type":"custom","serving_url":"m","version":"1"}}`}},
			}, &service)
			r.record(t, service.ID, at.URL, own.Public())
			if tc.changed != nil {
				write(tc.changed)
			}
			v := r.visit(t)
			v.shows("/services/"+service.ID+"/playground", "m/1")
			status, page := v.post("/services/"+service.ID+"/playground", "endpoint", "m/1", "body", `{}`)
			if answered := strings.Contains(page, "&#34;answer&#34;"); status != tc.want || answered != (tc.want == http.StatusOK) {
				t.Errorf("status %d, want %d: %s", status, tc.want, page)
			}
		})
	}
	write([]byte("none"))
	for _, ca := range []string{file, file + ".missing"} {
		_, err := controlplane.New(controlplane.Options{DataDir: t.TempDir(), API: socket(t), InstanceCA: ca})
		if err == nil || !strings.Contains(err.Error(), "authorities of instances") || !strings.Contains(err.Error(), ca) {
			t.Errorf("started with %s: %v", ca, err)
		}
	}
}
