package openai

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"clearmlserving/inference/engine/remote"
)

// A request that another server answers does not end with the server that could not be reached.
func TestARequestEndsOnlyWithTheServerThatHasIt(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer up.Close()
	down := httptest.NewServer(nil)
	down.Close()
	transport := remote.Transport(nil)
	defer transport.CloseIdleConnections()
	m := &model{e: &Engine{transport: transport}, flights: []*flights{{address: down.URL}, {address: up.URL}}}
	life, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	h := &holder{m, life, cancel}
	for _, f := range m.flights {
		request, err := http.NewRequestWithContext(life, http.MethodGet, f.address+"/v1/models", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := h.RoundTrip(request)
		if (err == nil) != (f.address == up.URL) {
			t.Fatalf("%s: %v", f.address, err)
		}
		if err == nil {
			defer response.Body.Close()
		}
	}
	failed, now := errors.New("no answer"), time.Now()
	for i, f := range m.flights {
		f.probed(failed, now)
		f.probed(failed, now.Add(goneAfter))
		if ended := errors.Is(context.Cause(life), errGone); ended != (i == 1) {
			t.Errorf("server %d is gone: the request has ended: %t", i, ended)
		}
	}
}
