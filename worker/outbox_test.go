package worker

import (
	"bytes"
	"io"
	"os"
	"sync"
	"testing"
)

// pair is an outbox and the file that its bytes arrive at.
func pair(t *testing.T) (*outbox, *os.File, *sync.WaitGroup) {
	t.Helper()
	conn, theirs, err := socketPair(stream, "test")
	if err != nil {
		t.Fatal(err)
	}
	var drains sync.WaitGroup
	var o *outbox
	if o, err = newOutbox(conn, func() { drains.Go(o.finish) }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		_ = theirs.Close()
		drains.Wait()
	})
	return o, theirs, &drains
}

func TestOutboxKeepsOrderUnderManyWriters(t *testing.T) {
	o, theirs, drains := pair(t)
	large := bytes.Repeat([]byte("L"), byReference)
	const writers, each = 8, 100
	total := writers * each * (2 + len(large)/2)
	var got bytes.Buffer
	var reader sync.WaitGroup
	reader.Go(func() { _, _ = io.CopyN(&got, theirs, int64(total)) })
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			for j := range each {
				if j%2 == 0 {
					o.add([]byte{'<', byte('a' + i)}, large, &flight{})
				} else {
					o.add([]byte{'<', byte('a' + i)}, nil, nil)
				}
				o.flush()
			}
		})
	}
	all.Wait()
	reader.Wait()
	drains.Wait()
	b, frames := got.Bytes(), 0
	for len(b) > 0 {
		if b[0] != '<' {
			t.Fatalf("frame %d begins with %q: parts were mixed", frames, b[0])
		}
		frames++
		b = b[2:]
		if len(b) > 0 && b[0] == 'L' {
			if !bytes.HasPrefix(b, large) {
				t.Fatal("a body was cut")
			}
			b = b[len(large):]
		}
	}
	if frames != writers*each {
		t.Errorf("%d frames, want %d", frames, writers*each)
	}
}

func TestOutboxLetsGoOfABodyThatIsNotSent(t *testing.T) {
	o, theirs, _ := pair(t)
	body := bytes.Repeat([]byte("good"), 1<<20)
	f := &flight{}
	o.add([]byte("head"), body, f)
	o.flush() // returns, although nobody reads and the socket is full
	o.release(f)
	copy(body, bytes.Repeat([]byte("evil"), 1<<20))
	got := make([]byte, 4+4<<20)
	if _, err := io.ReadFull(theirs, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got[4:], bytes.Repeat([]byte("good"), 1<<20)) {
		t.Error("bytes that were written after the release have been sent")
	}
}

func TestOutboxOfADeadWorkerTakesNothing(t *testing.T) {
	o, theirs, _ := pair(t)
	_ = theirs.Close()
	for range 3 {
		o.add([]byte("head"), bytes.Repeat([]byte("x"), byReference), &flight{})
		o.flush()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.broken || len(o.parts) != 0 || o.writing {
		t.Errorf("broken %v, %d parts, writing %v", o.broken, len(o.parts), o.writing)
	}
}
