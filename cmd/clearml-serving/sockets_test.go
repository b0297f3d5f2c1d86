package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"clearmlserving/listen"
)

// The lists of earlier addresses are not needed to start: a damaged one is set aside.
func TestDamagedListsOfAddressesStopNoStart(t *testing.T) {
	for _, damage := range []string{`{"a`, "", "[]", `{"api":1}`, "\x00\x00"} {
		dir := t.TempDir()
		for _, name := range []string{lastAddresses, filesAddresses} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(damage), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var log bytes.Buffer
		s := newApp(system{env: func(string) (string, bool) { return "", false }}).newSockets(dir, slog.New(slog.NewTextHandler(&log, nil)))
		s.urls[filesSocket.name] = "http://127.0.0.1:8081"
		if err := s.keepFilesAddress(); err != nil {
			t.Errorf("%q: %v", damage, err)
		}
		if err := s.announce(); err != nil {
			t.Errorf("%q: %v", damage, err)
		}
		for _, name := range []string{lastAddresses, filesAddresses} {
			if _, err := listen.ReadRegistry(filepath.Join(dir, name)); err != nil {
				t.Errorf("%q: %v", damage, err)
			}
			if kept, err := os.ReadFile(filepath.Join(dir, name+asideSuffix)); err != nil || string(kept) != damage {
				t.Errorf("%q: %s is kept as %q, %v", damage, name, kept, err)
			}
			if !strings.Contains(log.String(), "file="+name) {
				t.Errorf("%q: nothing is said of %s:\n%s", damage, name, log.String())
			}
		}
		s.close()
	}
}

// Containers of the original are told a port alone, and answer on every interface.
func TestThePortOfAContainerIsServedOnEveryInterface(t *testing.T) {
	for _, tc := range []struct {
		name  string
		conf  string
		env   map[string]string
		flags []string
		want  string // an address, or what is wrong
	}{
		{"no port", "", nil, nil, "127.0.0.1:8080"},
		{"a port", "", map[string]string{"CLEARML_SERVING_PORT": "9090"}, nil, "0.0.0.0:9090"},
		{"a port in the file", "serving_port = 9090", nil, nil, "0.0.0.0:9090"},
		{"the flag wins", "", map[string]string{"CLEARML_SERVING_PORT": "9090"}, []string{"--serve-addr=127.0.0.1:1"}, "127.0.0.1:1"},
		{"the address wins", "", map[string]string{"CLEARML_SERVING_PORT": "9090", "CLEARML_SERVING_SERVE_ADDR": "[::1]:2"}, nil, "[::1]:2"},
		{"the address in the file wins", `serve_addr = "127.0.0.1:3"`, map[string]string{"CLEARML_SERVING_PORT": "9090"}, nil, "127.0.0.1:3"},
		{"a variable of Kubernetes", "", map[string]string{"CLEARML_SERVING_PORT": "tcp://10.96.0.7:8080"}, nil, "127.0.0.1:8080"},
		{"no number", "", map[string]string{"CLEARML_SERVING_PORT": "http"}, nil, "CLEARML_SERVING_PORT: 'http'"},
		{"no port number", "", map[string]string{"CLEARML_SERVING_PORT": "65536"}, nil, "CLEARML_SERVING_PORT: '65536'"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := optionsApp(t, tc.conf, tc.env, tc.flags...).address("serve-addr")
			if err != nil {
				got = err.Error()
			}
			if !strings.HasPrefix(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
	a := optionsApp(t, "", map[string]string{"CLEARML_SERVING_PORT": "9090"})
	if got, err := a.address("admin-addr"); err != nil || got != "127.0.0.1:8083" {
		t.Errorf("the admin listener is at %q, %v", got, err)
	}
}
