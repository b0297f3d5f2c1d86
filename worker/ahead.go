package worker

import (
	"cmp"
	"sync/atomic"
)

// Ahead bounds the bytes of streamed answers that are buffered for their readers,
// over all pools that share it. A stream may use an eighth of it. When it is used up, a
// stream still gets one window of pieces.
type Ahead struct {
	limit int64
	held  atomic.Int64
}

// defaultAhead allows 32 MiB per stream.
const defaultAhead = 256 << 20

// NewAhead makes a bound of that many bytes, 0: 256 MiB.
func NewAhead(limit int64) *Ahead {
	limit = cmp.Or(limit, defaultAhead)
	return &Ahead{limit: limit}
}

// allows reports whether a stream that holds so many bytes may have another window.
func (a *Ahead) allows(held int64) bool {
	const window = streamWindow * maxPiece
	return held+window <= a.limit/8 && a.held.Load()+window <= a.limit
}
