package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"clearmlserving/listen"
)

// The images ask this for their health: each role that announces itself must be found.
func TestEveryRoleThatAnnouncesItselfIsProbed(t *testing.T) {
	for _, role := range []socket{serveSocket, apiSocket, statisticsSocket, tritonSocket} {
		t.Run(role.name, func(t *testing.T) {
			well := true
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/livez" || !well {
					w.WriteHeader(http.StatusInternalServerError)
				}
			}))
			defer server.Close()
			dir := t.TempDir()
			a := newApp(system{stdout: io.Discard, stderr: io.Discard, env: func(name string) (string, bool) { return dir, name == "CLEARML_SERVING_HOME" }})
			if err := a.probe(t.Context(), false); err == nil {
				t.Error("a probe of an empty data folder succeeds")
			}
			if err := listen.NewRegistry(filepath.Join(dir, "endpoints.json")).Set(role.name, server.URL); err != nil {
				t.Fatal(err)
			}
			if err := a.probe(t.Context(), false); err != nil {
				t.Error(err)
			}
			well = false
			if err := a.probe(t.Context(), false); err == nil {
				t.Error("a role that answers 500 is well")
			}
		})
	}
}
