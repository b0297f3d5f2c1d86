package process

import (
	"strings"
	"sync"
)

// Tail is a writer that keeps only the last bytes written to it. All methods may
// be called from any goroutine.
type Tail struct {
	mu   sync.Mutex // guards the rest
	size int
	kept []byte
}

// NewTail creates a Tail of size bytes.
func NewTail(size int) *Tail { return &Tail{size: max(size, 1)} }

// Write keeps the end of p. It never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	end := p[max(0, len(p)-t.size):]
	drop := min(max(0, len(t.kept)+len(p)-t.size), len(t.kept))
	t.kept = append(t.kept[:copy(t.kept, t.kept[drop:])], end...)
	return len(p), nil
}

// Lines returns the kept bytes, without an incomplete first line.
func (t *Tail) Lines() []string {
	t.mu.Lock()
	text, cut := strings.ToValidUTF8(string(t.kept), "\uFFFD"), len(t.kept) == t.size
	t.mu.Unlock()
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
