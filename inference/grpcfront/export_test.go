package grpcfront

import (
	"encoding/binary"
	"time"
)

// SetPatience sets how long a client may read nothing. Call it before Run.
func (f *Front) SetPatience(d time.Duration) { f.patience = d }

// Arriving is how many bytes of unfinished messages a client has sent, without what their frames cost.
func Arriving(pieces ...[]byte) int64 {
	a := newArrival(new(arrivals))
	for _, b := range pieces {
		a.received(b)
	}
	var n int64
	for _, m := range a.streams {
		n += int64(m.have)
		if m.have == messageHead {
			n += int64(binary.BigEndian.Uint32(m.head[1:])) - int64(m.left)
		}
	}
	return n
}
