package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"clearmlserving/worker"
)

func TestAStreamThatNobodyReadsHoldsUpNobody(t *testing.T) {
	w := newWorld(t, nil)
	for name, g := range map[string]*worker.Group{
		"sync":  w.start(t, "sync", "echo.py", nil),
		"async": w.start(t, "async", "awaits.py", func(s *worker.Spec) { s.Engine = "custom_async" }),
	} {
		t.Run(name, func(t *testing.T) {
			const pieces, width = 500, 60_000
			r := do(t, g, fmt.Sprintf(`{"do":"stream","pieces":%d,"width":%d}`, pieces, width))
			if _, err := r.Stream.Next(t.Context()); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the worker is free", func() bool { return g.Status().Workers[0].InFlight == 0 })
			if got := ask(t, g, `1`); got != "1" {
				t.Errorf("got %s", got)
			}
			got, err := drain(t.Context(), r) // it is there, whole
			if err != nil || strings.Count(got, "\n") != pieces-1 || !strings.HasSuffix(got, fmt.Sprintf("\n%d:%s\n", pieces-1, strings.Repeat("z", width))) {
				t.Errorf("the rest has %d bytes, %d lines, %v", len(got), strings.Count(got, "\n"), err)
			}
		})
	}
}

func TestAWholeAnswerThatNobodyReadsHoldsUpNobody(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "echo", "echo.py", nil)
	large := do(t, g, `{"do":"bytes","size":30000000}`) // is not written to its client yet
	if got := ask(t, g, `1`); got != "1" || len(large.Body) != 30_000_002 {
		t.Errorf("got %s, and %d bytes", got, len(large.Body))
	}
}

func TestASlowReaderIsCutWhenOthersWaitAndNotBefore(t *testing.T) {
	ahead := worker.NewAhead(0)
	w := newWorld(t, func(o *worker.Options) { o.Ahead = ahead })
	g := w.start(t, "endless", "leaves.py", nil)
	pid := ask(t, g, `{"do":"pid"}`)
	notes := filepath.Join(t.TempDir(), "notes")
	r := do(t, g, fmt.Sprintf(`{"notes":%q,"at":"stream","gate":"","width":60000}`, notes))
	defer func() { _ = r.Stream.Close() }()
	full := int64(0)
	eventually(t, "no more is read ahead", func() bool {
		held, before := ahead.Held(), full
		full = held
		time.Sleep(100 * time.Millisecond)
		return before > 0 && before == held
	})
	for range 3 { // nobody waits: it may take its time
		if _, err := r.Stream.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := ask(t, g, `{"do":"pid"}`); got != pid {
		t.Errorf("cutting a stream cost a worker: %s, %s", pid, got)
	}
	_, err := r.Stream.Next(t.Context())
	if _, ok := errors.AsType[*worker.StreamError](err); !ok || !strings.Contains(err.Error(), "too slowly") {
		t.Errorf("err = %v", err)
	}
	if lines := read(t, notes); lines[len(lines)-1] != "closed" {
		t.Errorf("the generator was not closed: it ends with %s", lines[len(lines)-1])
	}
	if held := ahead.Held(); held != 0 {
		t.Errorf("%d bytes are still held", held)
	}
}

func TestTheEndOfAnEndpointWaitsForNoSlowReader(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "endless", "leaves.py", nil)
	notes := filepath.Join(t.TempDir(), "notes")
	r := do(t, g, fmt.Sprintf(`{"notes":%q,"at":"stream","gate":"","width":60000}`, notes))
	defer func() { _ = r.Stream.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := g.Close(ctx); err != nil { // by its own end, not by being killed
		t.Error(err)
	}
	if lines := read(t, notes); lines[len(lines)-1] != "closed" {
		t.Errorf("the generator was not closed: it ends with %s", lines[len(lines)-1])
	}
}

func TestStreamsShareWhatIsReadAhead(t *testing.T) {
	const window = 16 * (64<<10 + 64)
	for _, c := range []struct{ limit, most int64 }{
		{1, 3 * window},              // nothing is left: one window each
		{16 << 20, 3 * (2 << 20)},    // an eighth of it each
		{4 << 20, 4<<20 + 3*window},  // an eighth is less than a window
		{1 << 30, 3*(1<<27) + 1<<20}, // more than there is to read
	} {
		t.Run(fmt.Sprint(c.limit), func(t *testing.T) {
			ahead := worker.NewAhead(c.limit)
			w := newWorld(t, func(o *worker.Options) { o.Ahead = ahead })
			g := w.start(t, "async", "awaits.py", func(s *worker.Spec) { s.Engine = "custom_async" })
			var streams []*worker.Response
			for range 3 {
				streams = append(streams, do(t, g, `{"do":"stream","pieces":100,"width":65000}`))
			}
			for range 20 {
				if held := ahead.Held(); held > c.most {
					t.Fatalf("%d bytes wait, more than %d", held, c.most)
				}
				time.Sleep(5 * time.Millisecond)
			}
			for _, r := range streams[1:] {
				if got, err := drain(t.Context(), r); err != nil || strings.Count(got, "\n") != 100 {
					t.Errorf("%d lines, %v", strings.Count(got, "\n"), err)
				}
			}
			if err := streams[0].Stream.Close(); err != nil {
				t.Error(err)
			}
			eventually(t, "nothing waits", func() bool { return ahead.Held() == 0 })
		})
	}
}

func TestWhatComesDuringAStreamIsNotSentBehindIt(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "two", "leaves.py", func(s *worker.Spec) { s.Workers = 2 })
	eventually(t, "there are two", func() bool { return len(g.Status().Workers) == 2 })
	r := do(t, g, fmt.Sprintf(`{"notes":%q,"at":"stream","gate":""}`, filepath.Join(t.TempDir(), "notes")))
	g.SendAhead(4)
	notes, gate := filepath.Join(t.TempDir(), "notes"), filepath.Join(t.TempDir(), "gate")
	done := make(chan error, 1)
	go func() {
		done <- askErr(t.Context(), g, fmt.Sprintf(`{"notes":%q,"at":"process","gate":%q}`, notes, gate))
	}()
	eventually(t, "the other worker works", func() bool { return len(read(t, notes)) == 2 })
	var pids []chan error
	for range 3 {
		pid := make(chan error, 1)
		go func() { pid <- askErr(t.Context(), g, `{"do":"pid"}`) }()
		pids = append(pids, pid)
	}
	eventually(t, "they wait", func() bool { return waitingOrSent(g) == 5 })
	letGo(t, gate)
	for _, answered := range append(pids, done) { // although the stream goes on
		if err := <-answered; err != nil {
			t.Error(err)
		}
	}
	if _, err := r.Stream.Next(t.Context()); err != nil {
		t.Error(err)
	}
	_ = r.Stream.Close()
}

func TestARequestWhoseClientHasLeftEndsAtTheNextSafePoint(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "leaves", "leaves.py", nil)
	other := w.start(t, "other", "echo.py", nil)
	w.start(t, "quick", "echo.py", nil)
	pid := ask(t, g, `{"do":"pid"}`)
	for _, c := range []struct{ at, want string }{
		{"preprocess", "preprocess"},
		{"process", "preprocess process"},
		{"call", "preprocess process call finally cleaned 7"},
		{"swallowed", "preprocess process swallowed except"},
		{"thread", "preprocess process thread answers [7]"}, // it is not known to belong to the request
	} {
		t.Run(c.at, func(t *testing.T) {
			notes, gate := filepath.Join(t.TempDir(), "notes"), filepath.Join(t.TempDir(), "gate")
			question, err := json.Marshal(map[string]string{"notes": notes, "at": c.at, "gate": gate})
			if err != nil {
				t.Fatal(err)
			}
			ctx, leave := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- askErr(ctx, g, string(question)) }()
			eventually(t, "it is there", func() bool { return slices.Contains(read(t, notes), c.at) })
			if c.at == "call" || c.at == "swallowed" {
				eventually(t, "it asks", func() bool { return other.Busy() })
			}
			leave()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("err = %v", err)
			}
			if c.at == "call" || c.at == "swallowed" { // ends although the call is not answered
				if got := ask(t, g, `{"do":"pid"}`); got != pid {
					t.Errorf("it cost a worker: %s, %s", pid, got)
				}
			}
			letGo(t, gate)
			ask(t, other, `1`) // it has seen that, too
			if got := ask(t, g, `{"do":"pid"}`); got != pid {
				t.Errorf("it cost a worker: %s, %s", pid, got)
			}
			if got := strings.Join(read(t, notes), " "); got != c.want {
				t.Errorf("it went through %q, want %q", got, c.want)
			}
		})
	}
	if strings.Contains(w.log.String(), "Cancelled") {
		t.Error("the log takes the end of such a request for a failure")
	}
}

func TestAStreamWhoseReaderHasLeftEndsAtItsNextPiece(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "leaves", "leaves.py", nil)
	other := w.start(t, "other", "echo.py", nil)
	pid := ask(t, g, `{"do":"pid"}`)
	for _, at := range []string{"stream", "stream call"} {
		t.Run(at, func(t *testing.T) {
			notes, gate := filepath.Join(t.TempDir(), "notes"), filepath.Join(t.TempDir(), "gate")
			r := do(t, g, fmt.Sprintf(`{"notes":%q,"at":%q,"gate":%q}`, notes, at, gate))
			if at == "stream call" {
				eventually(t, "it asks", func() bool { return other.Busy() })
			}
			_ = r.Stream.Close()
			if got := ask(t, g, `{"do":"pid"}`); got != pid {
				t.Errorf("it cost a worker: %s, %s", pid, got)
			}
			if lines := read(t, notes); lines[len(lines)-1] != "closed" {
				t.Errorf("the generator was not closed: %q", lines)
			}
			letGo(t, gate)
			ask(t, other, `1`)
		})
	}
	if strings.Contains(w.log.String(), "Cancelled") {
		t.Error("the log takes the end of such a stream for a failure")
	}
}

// read is the lines of a file, none if it is not there.
func read(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

func letGo(t *testing.T, gate string) {
	t.Helper()
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}
