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
		s := newApp(system{}).newSockets(dir, slog.New(slog.NewTextHandler(&log, nil)))
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
