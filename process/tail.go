package process

import (
	"strings"
	"sync"
)

// Tail is a writer that keeps only the last bytes written to it. All methods may
// be called from any goroutine.
type Tail struct {
	mu   sync.Mutex // guards the rest
	ring []byte
	next int
	full bool
}

// NewTail creates a Tail of size bytes.
func NewTail(size int) *Tail { return &Tail{ring: make([]byte, max(size, 1))} }

// Write keeps the end of p. It never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	if n > len(t.ring) {
		p = p[n-len(t.ring):]
		t.full = true
	}
	for len(p) > 0 {
		c := copy(t.ring[t.next:], p)
		p = p[c:]
		t.next += c
		if t.next == len(t.ring) {
			t.next, t.full = 0, true
		}
	}
	return n, nil
}

// Lines returns the kept bytes, without an incomplete first line.
func (t *Tail) Lines() []string {
	t.mu.Lock()
	var text string
	if t.full {
		text = string(t.ring[t.next:]) + string(t.ring[:t.next])
	} else {
		text = string(t.ring[:t.next])
	}
	cut := t.full
	t.mu.Unlock()
	text = strings.ToValidUTF8(text, "\uFFFD")
	text = strings.TrimRight(text, "\n")
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	if cut && len(lines) > 1 {
		lines = lines[1:]
	}
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], "\r")
	}
	return lines
}
