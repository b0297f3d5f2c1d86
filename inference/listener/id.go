package listener

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
)

// maxRequestID bounds the length of clients' ids that are kept.
const maxRequestID = 128

// makeRequestID fills id with random hex digits: unique, not secret.
func makeRequestID(id *[16]byte) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], rand.Uint64()) //nolint:gosec // see above
	hex.Encode(id[:], b[:])
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
