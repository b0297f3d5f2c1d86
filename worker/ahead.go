package worker

import "sync/atomic"

// Ahead bounds the bytes of streamed answers that wait in memory for their readers,
// over all pools that share it. A stream may have an eighth of it. Where nothing is
// left, a stream still gets one window of pieces.
type Ahead struct {
	limit int64
	held  atomic.Int64
}

// defaultAhead lets one stream be 32 MiB ahead of its reader.
const defaultAhead = 256 << 20

// NewAhead makes a bound of that many bytes, 0: 256 MiB.
func NewAhead(limit int64) *Ahead {
	if limit <= 0 {
		limit = defaultAhead
	}
	return &Ahead{limit: limit}
}

// Held is how many bytes wait for their readers.
func (a *Ahead) Held() int64 { return a.held.Load() }

// allows reports whether a stream that holds so many bytes may have a window more.
func (a *Ahead) allows(held int64) bool {
	const window = streamWindow * maxPiece
	return held+window <= a.limit/8 && a.held.Load()+window <= a.limit
}
