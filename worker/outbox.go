package worker

import (
	"errors"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// byReference is the size from which a body is written without being copied.
const byReference = 32 << 10

// outbox is the sending side of a worker's socket. A sender appends its frame
// and flushes; while one goroutine writes, the others leave their bytes
// to it (5-10 % faster than a goroutine for writing). Writing never blocks a
// caller: what the socket does not accept is sent by drain, in the background.
type outbox struct {
	raw   syscall.RawConn
	drain func() // starts finish in a goroutine of the group

	mu      sync.Mutex // guards all up to writeMu; taken after dispatch.mu and writeMu
	bytes   []byte     // copied parts, one after another
	parts   []part     // what to send, in order
	writing bool
	broken  bool

	// writeMu is held during each write, so that a body can be replaced between
	// two. It guards the rest; taken after dispatch.mu, before mu.
	writeMu      sync.Mutex
	sending      []part // the first sentParts of it are sent
	sentParts    int
	sendingBytes []byte // the copied parts of sending, the first sentBytes of it are sent
	sentBytes    int
	vectors      [][]byte
	blocked      bool
	failed       error
	copies       flight                // owns the copied bodies of abandoned flights
	try          func(fd uintptr) bool // bound once: no allocation for each write
	wait         func(fd uintptr) bool
}

// part is a piece to send: n copied bytes, or a body by reference.
type part struct {
	copied int
	body   []byte
	owner  *flight // whose body that is
}

func newOutbox(conn *net.UnixConn, drain func()) (*outbox, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	o := &outbox{raw: raw, drain: drain}
	o.try = func(fd uintptr) bool {
		o.write(int(fd))
		return true // a socket that is full is left to drain
	}
	o.wait = func(fd uintptr) bool {
		o.write(int(fd))
		return !o.blocked
	}
	return o, nil
}

// add appends one frame, whose header and metadata are in head. A large body is
// sent without a copy: it must not change until it is sent or released.
func (o *outbox) add(head, body []byte, owner *flight) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.append(head)
	if len(body) < byReference || owner == nil {
		o.append(body)
		return
	}
	o.parts = append(o.parts, part{body: body, owner: owner})
}

func (o *outbox) append(b []byte) {
	if len(b) == 0 || o.broken {
		return
	}
	o.bytes = append(o.bytes, b...)
	if n := len(o.parts); n > 0 && o.parts[n-1].owner == nil {
		o.parts[n-1].copied += len(b)
		return
	}
	o.parts = append(o.parts, part{copied: len(b)})
}

// flush sends what is there, or leaves it to the goroutine that is sending. It never blocks
// for the socket. Errors are for the reader of the socket, who sees its end.
func (o *outbox) flush() {
	o.mu.Lock()
	if o.writing || len(o.parts) == 0 {
		o.mu.Unlock()
		return
	}
	o.writing = true
	o.mu.Unlock()
	if !o.run(o.try) {
		o.drain()
	}
}

// finish sends what flush could not, and what has come since; it blocks.
func (o *outbox) finish() { o.run(o.wait) }

// run sends until nothing waits, and reports whether the socket accepted it all.
// The caller has the writer's role.
func (o *outbox) run(attempt func(fd uintptr) bool) bool {
	for {
		if o.next() {
			return true
		}
		err := o.raw.Write(attempt)
		o.writeMu.Lock()
		failed, blocked := o.failed, o.blocked
		o.writeMu.Unlock()
		if err != nil || failed != nil {
			o.breakOff()
			return true
		}
		if blocked {
			return false
		}
	}
}

// next moves what is waiting to sending, and gives up the writer's role when nothing
// waits.
func (o *outbox) next() (done bool) {
	o.writeMu.Lock()
	defer o.writeMu.Unlock()
	if o.sentParts < len(o.sending) {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.parts) == 0 {
		o.writing = false
		return true
	}
	o.sending, o.parts = o.parts, o.sending[:0]
	o.sendingBytes, o.bytes = o.bytes, o.sendingBytes[:0]
	o.sentParts, o.sentBytes = 0, 0
	if cap(o.bytes) > 1<<20 {
		o.bytes = nil // memory of a burst is not kept
	}
	return false
}

// breakOff drops everything: the other end is gone.
func (o *outbox) breakOff() {
	o.writeMu.Lock()
	defer o.writeMu.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sending, o.sendingBytes, o.parts, o.bytes = nil, nil, nil, nil
	o.sentParts, o.sentBytes = 0, 0
	o.broken, o.writing = true, false
}

// write sends as much of sending as the socket accepts.
func (o *outbox) write(fd int) {
	o.writeMu.Lock()
	defer o.writeMu.Unlock()
	o.blocked = false
	for o.sentParts < len(o.sending) {
		o.vectors = o.vectors[:0]
		rest := o.sendingBytes[o.sentBytes:]
		for _, p := range o.sending[o.sentParts:min(len(o.sending), o.sentParts+64)] {
			if p.owner != nil {
				o.vectors = append(o.vectors, p.body)
				continue
			}
			o.vectors = append(o.vectors, rest[:p.copied])
			rest = rest[p.copied:]
		}
		var n int
		var err error
		if len(o.vectors) == 1 {
			n, err = unix.Write(fd, o.vectors[0])
		} else {
			n, err = unix.Writev(fd, o.vectors)
		}
		clear(o.vectors)
		if n > 0 {
			o.sent(n)
		}
		switch {
		case err == nil || errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			o.blocked = true
			return
		default:
			o.failed = err
			return
		}
	}
}

// sent removes n bytes from the front of sending.
func (o *outbox) sent(n int) {
	for o.sentParts < len(o.sending) {
		p := &o.sending[o.sentParts]
		size := p.copied + len(p.body) // one of them is 0
		step := min(n, size)
		n -= step
		if p.owner == nil {
			o.sentBytes += step
			p.copied -= step
		} else {
			p.body = p.body[step:]
		}
		if step < size {
			return
		}
		*p = part{}
		o.sentParts++
	}
}

// release copies what is not sent of a flight's body. Afterwards the memory of the body may
// be reused.
func (o *outbox) release(f *flight) {
	o.writeMu.Lock()
	defer o.writeMu.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, parts := range [...][]part{o.sending[o.sentParts:], o.parts} {
		for i := range parts {
			if parts[i].owner == f {
				parts[i].body = append([]byte(nil), parts[i].body...)
				parts[i].owner = &o.copies
			}
		}
	}
}
