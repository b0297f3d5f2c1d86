package intake

import "bytes"

// The maximal memory of JSON values that are decoded into Go's maps, slices, and interfaces,
// as measured by the tests of this package.
const (
	costObject = 400 // a map with its first entries
	costList   = 64
	costItem   = 96 // an element of a list, or an entry of an object, with a short value
	costByte   = 4  // of texts: decoded, in the decoder, encoded for the database, and in the database
)

// Cost estimates the memory of the values of a JSON text while it arrives. The estimate is
// never too low for valid JSON or lines of JSON; other texts fail to decode.
type Cost struct {
	bytes   int64
	text    bool // within a JSON string
	escaped bool
}

// Bytes is the estimate for the text so far.
func (c *Cost) Bytes() int64 { return c.bytes }

// Add adds the next part of the text.
func (c *Cost) Add(part []byte) {
	c.bytes += costByte * int64(len(part))
	for i := 0; i < len(part); i++ {
		if c.text {
			i = c.skipText(part, i)
			continue
		}
		switch part[i] {
		case '"':
			c.text = true
		case '{':
			c.bytes += costObject
		case '[':
			c.bytes += costList
		case ',', ':':
			c.bytes += costItem
		}
	}
}

// skipText continues within a string and returns the index of its last byte in this part.
func (c *Cost) skipText(part []byte, i int) int {
	for i < len(part) {
		if c.escaped {
			c.escaped = false
			i++
			continue
		}
		next := bytes.IndexAny(part[i:], `"\`)
		if next < 0 {
			return len(part)
		}
		i += next
		if part[i] == '"' {
			c.text = false
			return i
		}
		c.escaped = true
		i++
	}
	return i
}
