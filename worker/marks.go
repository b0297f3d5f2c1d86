package worker

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// marks is memory shared with a worker. The worker stores in it the id of the
// last request that it has begun, and the answers that it has not sent yet, so
// that its death fails only the request that it executes. The service counts
// cancellations in it, so that the worker reads its socket during a request only if
// there is a cancellation to read. None of this costs the worker a system call.
type marks struct{ page []byte }

const (
	marksSize  = 4096 // one mark each 8 bytes; the answers come after them
	sharedSize = marksSize + 256<<10
)

// newMarks makes a page; file is for the worker and is closed by the caller.
func newMarks() (*marks, *os.File, error) {
	file, err := newMemoryFile("marks", sharedSize)
	if err != nil {
		return nil, nil, fmt.Errorf("make a shared page: %w", err)
	}
	page, err := unix.Mmap(int(file.Fd()), 0, sharedSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		_ = file.Close()
		return nil, nil, fmt.Errorf("map a shared page: %w", err)
	}
	return &marks{page: page}, file, nil
}

// begun reports whether the worker has begun the request with this id. Ids grow, and
// nested and other requests are each begun in the order of their ids.
func (m *marks) begun(id uint64, nested bool) bool {
	place := 0
	if nested {
		place = 1
	}
	return id <= m.load(place)
}

// unsent is a copy of the answers that the worker has made but not sent, nil if
// there are none or if it is sending them.
func (m *marks) unsent() []byte {
	area := m.page[marksSize:]
	sends, size := m.load(3), m.load(2)
	if size == 0 || size > uint64(len(area)) {
		return nil
	}
	answers := append([]byte(nil), area[:size]...)
	if m.load(3) != sends { // it has sent them, and may have overwritten them
		return nil
	}
	return answers
}

// cancelled counts a cancellation that is about to be sent.
func (m *marks) cancelled() {
	atomic.AddUint64((*uint64)(unsafe.Pointer(&m.page[8*4])), 1)
}

func (m *marks) load(place int) uint64 {
	return atomic.LoadUint64((*uint64)(unsafe.Pointer(&m.page[8*place])))
}

func (m *marks) close() { _ = unix.Munmap(m.page) }
