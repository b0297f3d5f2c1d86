package openai

import (
	"crypto/rand"
	"encoding/hex"
)

// newID makes an identifier with a prefix.
func newID(prefix string) string {
	var bits [16]byte
	_, _ = rand.Read(bits[:]) // never fails, by its documentation
	return prefix + hex.EncodeToString(bits[:])
}
