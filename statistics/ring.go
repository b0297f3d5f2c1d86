package statistics

import (
	"math"
	"unsafe"
)

const (
	maxWaiting = 4096           // unread samples of one lane
	ringWrap   = math.MaxUint32 // instead of a length: the rest of the ring is not used
)

// ringHead is the beginning of a sample in a ring. Its variables follow.
type ringHead struct {
	length uint32
	_      uint32
	meter  uint64
	weight float64
	at     int64
}

const headSize = int(unsafe.Sizeof(ringHead{}))

// lengthAt is the length that a sample begins with. The rest of a ring that is not used may have no room for
// more: what is behind the ring may not be memory.
func lengthAt(memory []byte, place int) *uint32 { return at[uint32](memory, place) }

// ring has the unread samples of a lane, and those that have been read since the last checkpoint. Positions
// count all bytes that were ever written.
type ring struct {
	memory []byte  // nil until the first sample
	head   *uint64 // position of the next sample
	offset uint64  // of head in the file, 0: the ring is in memory only
	read   uint64  // begin of the unread samples
	tail   uint64  // bytes before it may be overwritten
	unread int     // samples
}

func memoryRing() ring { return ring{memory: make([]byte, ringSize), head: new(uint64)} }

// inMemory is the ring with its unread samples in other memory.
func (r *ring) inMemory() ring {
	own := memoryRing()
	copy(own.memory, r.memory)
	*own.head = *r.head
	own.read, own.tail, own.unread = r.read, r.read, r.unread
	return own
}

// put adds a sample to a change, if there is space. half reports whether a reader should be woken.
func (l *lane) put(c *change, meter uint64, weight float64, now int64, text []byte) (ok, half bool) {
	r, head := &l.ring, *l.ring.head
	size := uint64(headSize+len(text)+7) &^ 7
	begin := head
	if left := ringSize - head%ringSize; left < size {
		begin += left
	}
	end := begin + size
	if size > ringSize/2 || r.unread >= maxWaiting || end-r.tail > ringSize {
		return false, true
	}
	if begin != head {
		*lengthAt(r.memory, int(head%ringSize)) = ringWrap
	}
	place := int(begin % ringSize)
	*at[ringHead](r.memory, place) = ringHead{length: uint32(len(text)), meter: meter, weight: weight, at: now}
	copy(r.memory[place+headSize:], text)
	c.set(r.head, r.offset, end)
	r.unread++
	return true, r.unread >= maxWaiting/2 || end-r.tail >= ringSize/2
}

// take appends the unread samples to all. broken reports whether there was something else in the ring.
func (l *lane) take(all []sample) (_ []sample, broken bool) {
	r, head := &l.ring, *l.ring.head
	for r.read < head {
		place := int(r.read % ringSize)
		left := uint64(ringSize - place)
		length := *lengthAt(r.memory, place)
		if length == ringWrap {
			r.read += left
			continue
		}
		size := uint64(headSize+int(length)+7) &^ 7
		if size > left || size > head-r.read {
			broken = true
			break
		}
		h := *at[ringHead](r.memory, place)
		text := append([]byte(nil), r.memory[place+headSize:][:length]...)
		all = append(all, sample{meter: h.meter, weight: h.weight, at: h.at, text: text})
		r.read += size
	}
	r.read, r.unread = head, 0
	return all, broken
}
