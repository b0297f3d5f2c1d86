// Package enginetest is the suite that every engine must pass: the contract of
// engine.Loader and engine.Model as tests.
package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"clearmlserving/inference/engine"
)

// Endpoint is an endpoint that the suite loads, with its requests.
type Endpoint struct {
	Spec engine.Spec
	// Request returns the i-th request; Want is the body of its answer.
	Request func(i int) *engine.Request
	Want    func(i int) string
}

// Engine is an engine under test. Unsupported endpoints are nil: their tests are
// skipped.
type Engine struct {
	// Loader is ready to load; a Runner is running.
	Loader engine.Loader
	// Answers answers immediately, each request with a separate body.
	Answers Endpoint
	// Waits answers no request before its context ends.
	Waits *Endpoint
	// Refuses answers each request with an error of user code.
	Refuses *Endpoint
	// Streams answers with several pieces, whose concatenation is Want.
	Streams *Endpoint
	// Tensors answers tensors with tensors. nil: the engine's models refuse
	// tensors.
	Tensors *Endpoint
	// Broken cannot be loaded, and user code is to blame when that is true.
	Broken       *Endpoint
	BrokenByUser bool
}

// patience bounds the wait for events that must happen, on a slow machine.
const patience = 2 * time.Minute

// Run tests an engine against the contract.
func Run(t *testing.T, e Engine) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, Engine){
		"many requests at once get their own answers":         manyAtOnce,
		"a body may be used again after its answer":           bodyReused,
		"a request ends at its deadline":                      deadline,
		"a request ends when it is cancelled":                 cancelled,
		"a user's error is an answer":                         userError,
		"a stream is read to its end or closed early":         streams,
		"tensors are answered or refused":                     tensors,
		"a signature names its tensors":                       signature,
		"a load that fails says why":                          broken,
		"a load whose context has ended gives up":             givenUp,
		"the status may be read at any time, and after Close": status,
	} {
		t.Run(name, func(t *testing.T) { test(t, e) })
	}
}

// load creates a model. closeModel closes it, at the latest at the end of the test.
func load(t *testing.T, e Engine, of *Endpoint) (m engine.Model, closeModel func()) {
	t.Helper()
	if of == nil {
		t.Skip("the engine has no such endpoint")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	m, err := e.Loader.Load(ctx, of.Spec)
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	closeModel = sync.OnceFunc(func() { // it is called once, after the last Infer
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		if err := m.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	t.Cleanup(closeModel)
	return m, closeModel
}

// ask checks one answer.
func ask(ctx context.Context, m engine.Model, of *Endpoint, i int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	resp, err := m.Infer(ctx, of.Request(i))
	switch {
	case err != nil:
		return fmt.Errorf("request %d: %w", i, err)
	case resp.Stream != nil || resp.Status != 200 || string(resp.Body) != of.Want(i):
		return fmt.Errorf("request %d is answered %d %q, want 200 %q", i, resp.Status, resp.Body, of.Want(i))
	}
	return nil
}

func manyAtOnce(t *testing.T, e Engine) {
	t.Helper()
	m, _ := load(t, e, &e.Answers)
	var clients sync.WaitGroup
	for client := range 8 {
		clients.Go(func() {
			for i := range 20 {
				if err := ask(t.Context(), m, &e.Answers, 100*client+i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
}

func bodyReused(t *testing.T, e Engine) {
	t.Helper()
	m, _ := load(t, e, &e.Answers)
	req := e.Answers.Request(1)
	resp, err := m.Infer(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for i := range req.Body {
		req.Body[i] = 'x'
	}
	if err := ask(t.Context(), m, &e.Answers, 2); err != nil {
		t.Error(err)
	}
	if string(resp.Body) != e.Answers.Want(1) {
		t.Errorf("the answer changed with the memory of its request, or of a later one: %q", resp.Body)
	}
}

// kindOf is the kind of an engine's error; errors of the context count as a deadline.
func kindOf(err error) engine.Kind {
	if failed, ok := errors.AsType[*engine.Error](err); ok {
		return failed.Kind
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return engine.KindDeadline
	}
	return engine.KindInternal
}

func deadline(t *testing.T, e Engine) {
	t.Helper()
	m, _ := load(t, e, e.Waits)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	resp, err := m.Infer(ctx, e.Waits.Request(0))
	if err == nil || kindOf(err) != engine.KindDeadline {
		t.Errorf("answered %+v, %v; want an error of KindDeadline", resp, err)
	}
}

func cancelled(t *testing.T, e Engine) {
	t.Helper()
	m, _ := load(t, e, e.Waits)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := m.Infer(ctx, e.Waits.Request(0))
		done <- err
	}()
	cancel() // before or during the execution
	select {
	case err := <-done:
		if err == nil {
			t.Error("a cancelled request was answered")
		}
	case <-time.After(patience):
		t.Fatal("a cancelled request goes on")
	}
}

func userError(t *testing.T, e Engine) {
	t.Helper()
	m, _ := load(t, e, e.Refuses)
	resp, err := m.Infer(t.Context(), e.Refuses.Request(0))
	if err != nil || resp.Status < 400 || len(resp.Body) == 0 {
		t.Errorf("answered %+v, %v; want a response with an error status and a text", resp, err)
	}
}

func streams(t *testing.T, e Engine) {
	t.Helper()
	m, _ := load(t, e, e.Streams)
	open := func(i int) engine.Stream {
		t.Helper()
		resp, err := m.Infer(t.Context(), e.Streams.Request(i))
		if err != nil || resp.Stream == nil || resp.Body != nil {
			t.Fatalf("answered %+v, %v; want a stream", resp, err)
		}
		return resp.Stream
	}
	whole := open(0)
	var got bytes.Buffer
	for {
		piece, err := whole.Next(t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got.Write(piece)
	}
	if got.String() != e.Streams.Want(0) {
		t.Errorf("streamed %q, want %q", got.String(), e.Streams.Want(0))
	}
	early := open(1)
	if _, err := early.Next(t.Context()); err != nil {
		t.Error(err)
	}
	for _, s := range []engine.Stream{whole, early, early} { // it may be called more than once
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	_ = open(2).Close() // after an early end the model still works
}

func tensors(t *testing.T, e Engine) {
	t.Helper()
	if e.Tensors == nil {
		m, _ := load(t, e, &e.Answers)
		_, err := m.Infer(t.Context(), &engine.Request{Tensors: []engine.Tensor{{Name: "x", Datatype: engine.Int8, Shape: []int64{1}, Data: []byte{1}}}})
		if err == nil || kindOf(err) != engine.KindBadRequest {
			t.Errorf("err = %v, want one of KindBadRequest", err)
		}
		return
	}
	m, _ := load(t, e, e.Tensors)
	resp, err := m.Infer(t.Context(), e.Tensors.Request(0))
	if err != nil || resp.Status != 200 || len(resp.Tensors) == 0 || resp.Body != nil {
		t.Errorf("answered %+v, %v; want tensors", resp, err)
	}
	wrong := e.Tensors.Request(0)
	wrong.Tensors = append(wrong.Tensors, engine.Tensor{Name: "nobody asked for this", Datatype: "QUANTUM"})
	if _, err := m.Infer(t.Context(), wrong); err == nil || kindOf(err) != engine.KindBadRequest {
		t.Errorf("an unknown tensor: err = %v, want one of KindBadRequest", err)
	}
}

func signature(t *testing.T, e Engine) {
	t.Helper()
	of := &e.Answers
	if e.Tensors != nil {
		of = e.Tensors
	}
	m, _ := load(t, e, of)
	signed, ok := m.(engine.Signed)
	if !ok {
		t.Skip("the engine's models have no signature")
	}
	s := signed.Signature()
	if s.Source == "" {
		t.Error("the signature has no source")
	}
	for _, side := range [][]engine.TensorSpec{s.Inputs, s.Outputs} {
		seen := map[string]bool{}
		for _, tensor := range side {
			if tensor.Name == "" || seen[tensor.Name] {
				t.Errorf("name %q is empty or duplicate", tensor.Name)
			}
			seen[tensor.Name] = true
		}
	}
}

func broken(t *testing.T, e Engine) {
	t.Helper()
	if e.Broken == nil {
		t.Skip("the engine has no such endpoint")
	}
	m, err := e.Loader.Load(t.Context(), e.Broken.Spec)
	failed, ok := errors.AsType[*engine.LoadError](err)
	if m != nil || !ok || failed.Text == "" || failed.UserCode != e.BrokenByUser {
		t.Errorf("loaded %v, %#v; want a *LoadError with UserCode=%t", m, err, e.BrokenByUser)
	}
}

func givenUp(t *testing.T, e Engine) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if m, err := e.Loader.Load(ctx, e.Answers.Spec); err == nil {
		t.Error("the load succeeded")
		_ = m.Close(context.WithoutCancel(ctx))
	}
}

func status(t *testing.T, e Engine) {
	t.Helper()
	m, closeModel := load(t, e, &e.Answers)
	if s := m.Status(); s.State != "ready" {
		t.Errorf("after its load the state is %q (%s), want ready", s.State, s.Reason)
	}
	stop := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = m.Status()
			}
		}
	})
	for i := range 20 {
		if err := ask(t.Context(), m, &e.Answers, i); err != nil {
			t.Error(err)
		}
	}
	closeModel()
	close(stop)
	reader.Wait()
	_ = m.Status()
}
