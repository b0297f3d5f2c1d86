package main

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// gatedWriter blocks, as a full pipe does, until it is opened; dead, it fails.
type gatedWriter struct {
	gate chan struct{}
	dead bool

	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *gatedWriter) Write(p []byte) (int, error) {
	<-w.gate
	if w.dead {
		return 0, errors.New("broken pipe")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Write(p)
}

func TestALogThatNobodyReadsHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &gatedWriter{gate: make(chan struct{})}
		s := newSpool(w)
		line := []byte(strings.Repeat("x", 99) + "\n")
		for range 2 * spoolWrites {
			if n, err := s.Write(line); n != len(line) || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
		}
		begun := time.Now()
		s.close(time.Minute) // the writer is stuck
		if time.Since(begun) != time.Minute {
			t.Errorf("waited %v", time.Since(begun))
		}
		close(w.gate)
		<-s.done
		text := w.buf.String()
		if got := strings.Count(text, string(line)); got < spoolWrites || got > spoolWrites+1 || !strings.Contains(text, "writes to this log were dropped") {
			t.Errorf("%d lines, %q", got, text[max(0, len(text)-200):])
		}
		if n, err := s.Write(line); n != len(line) || err != nil { // after the end
			t.Errorf("%d, %v", n, err)
		}
	})
}

func TestALogWhoseReaderDiedIsNoError(t *testing.T) {
	w := &gatedWriter{gate: make(chan struct{}), dead: true}
	close(w.gate)
	s := newSpool(w)
	for range 100 {
		if n, err := s.Write([]byte("line\n")); n != 5 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	s.close(time.Minute)
	if n := s.pending.Load(); n != 0 {
		t.Errorf("%d bytes wait", n)
	}
}
