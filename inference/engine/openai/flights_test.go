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

func TestAServerThatSendsIsAliveAndOneThatHasAnsweredIsOver(t *testing.T) {
	more := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.URL.Path == "/stream" {
			_, _ = w.Write([]byte("."))
			_ = http.NewResponseController(w).Flush()
			if _, ok := <-more; !ok {
				return
			}
		}
	}))
	defer s.Close()
	defer close(more)
	transport := remote.Transport(nil)
	defer transport.CloseIdleConnections()
	f := &flights{address: s.URL}
	m := &model{e: &Engine{transport: transport}, flights: []*flights{f}}
	ask := func(path string) (context.Context, *http.Response) {
		life, cancel := context.WithCancelCause(t.Context())
		t.Cleanup(func() { cancel(nil) })
		request, err := http.NewRequestWithContext(life, http.MethodGet, s.URL+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := (&holder{m, life, cancel}).RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		return life, response
	}
	streams, stream := ask("/stream")
	defer stream.Body.Close()
	over, answer := ask("/whole")
	if err := answer.Body.Close(); err != nil {
		t.Fatal(err)
	}
	failed, now := errors.New("no answer"), time.Now()
	piece := make([]byte, 1)
	for range 5 {
		if _, err := stream.Body.Read(piece); err != nil {
			t.Fatal(err)
		}
		f.probed(failed, now)
		now = now.Add(goneAfter)
		more <- struct{}{}
	}
	if err := context.Cause(streams); err != nil {
		t.Errorf("it has ended while it was sent: %v", err)
	}
	f.probed(failed, now)
	if err := context.Cause(streams); !errors.Is(err, errGone) {
		t.Errorf("the server sends nothing any more: %v", err)
	}
	if err := context.Cause(over); err != nil {
		t.Errorf("the end of a server that has answered has ended the rest of the request: %v", err)
	}
}
