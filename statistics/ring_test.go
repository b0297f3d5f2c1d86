package statistics

import (
	"runtime/debug"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTheEndOfARingIsNotReadBeyond has memory behind the ring that cannot be read, as behind a file.
func TestTheEndOfARingIsNotReadBeyond(t *testing.T) {
	memory, err := unix.Mmap(-1, 0, ringSize+page*16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(memory) //nolint:errcheck // of a test
	if err := unix.Mprotect(memory[ringSize:], unix.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	l := &lane{journal: new(journal), ring: ring{memory: memory[:ringSize:ringSize], head: new(uint64)}}
	// Samples of 56 bytes leave 8 bytes at the end, less than the head of a sample.
	const text, size = 24, 56
	if ringSize%size != 8 {
		t.Fatalf("samples of %d bytes leave %d bytes at the end of the ring", size, ringSize%size)
	}
	for n := range ringSize/size + 2 {
		c := change{journal: l.journal}
		if ok, _ := l.put(&c, 1, 1, int64(n), make([]byte, text)); !ok {
			t.Fatalf("sample %d has no room", n)
		}
		c.commit()
		got, broken := l.take(nil)
		if len(got) != 1 || broken || got[0].at != int64(n) || len(got[0].text) != text {
			t.Fatalf("sample %d is read as %v, broken: %v", n, got, broken)
		}
		l.ring.tail = l.ring.read
	}
	if *l.ring.head <= ringSize {
		t.Errorf("the ring has not come to its end: %d bytes", *l.ring.head)
	}
}
