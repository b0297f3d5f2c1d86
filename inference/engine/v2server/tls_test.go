package v2server

import (
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

func TestConnectionsAreEncryptedAndTheServerIsKnownByItsAuthority(t *testing.T) {
	f := &fake{}
	rest := httptest.NewTLSServer(http.HandlerFunc(f.serveREST))
	t.Cleanup(rest.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnknownServiceHandler(f.handle), grpc.Creds(credentials.NewServerTLSFromCert(&rest.TLS.Certificates[0])))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rest.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for protocol, address := range map[string]string{"grpc": l.Addr().String(), "rest": rest.Listener.Addr().String()} {
		e := run(t, Options{})
		settings := map[string]any{"address": address, "protocol": protocol, "tls": "true", "tls_ca": ca}
		m := loaded(t, e, specOf("echo", settings))
		if body, err := askOnce(t.Context(), m); err != nil || body != answered {
			t.Errorf("%s: %s, %v", protocol, body, err)
		}
		delete(settings, "tls_ca")
		if _, err := e.Load(t.Context(), specOf("echo", settings)); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%s: an unknown authority: %v", protocol, err)
		}
		if _, err := e.Load(t.Context(), specOf("echo", map[string]any{"address": address, "protocol": protocol})); err == nil {
			t.Errorf("%s: a connection that is not encrypted", protocol)
		}
	}
}
