package listener

import (
	"bytes"
	"io"
)

// Limits of a chunked body besides its size: extensions and trailers are read and dropped, and tiny
// chunks cost more than their bytes.
const (
	maxChunkLine = 256
	maxTrailer   = 4 << 10
	maxChunks    = 1 << 20
)

// chunkReader is the source of a chunked body.
type chunkReader interface {
	io.Reader
	io.ByteReader
}

// readChunked reads a body of RFC 9112 7.1 into buf, at most limit bytes of it.
func readChunked(buf *bytes.Buffer, from chunkReader, limit int64) error {
	for range maxChunks {
		size, err := chunkSize(from)
		if err != nil {
			return err
		}
		if size == 0 {
			return trailer(from)
		}
		if int64(buf.Len())+size > limit {
			return tooLarge(limit)
		}
		if n, err := io.CopyN(buf, from, size); err != nil {
			if n < size && err == io.EOF { //nolint:errorlint // CopyN's own
				return io.ErrUnexpectedEOF
			}
			return err
		}
		if err := lineEnd(from); err != nil {
			return err
		}
	}
	return errChunk
}

// chunkSize reads the line before a chunk.
func chunkSize(from io.ByteReader) (int64, error) {
	var size int64
	digits := 0
	for i := 0; ; i++ {
		b, err := from.ReadByte()
		if err != nil {
			return 0, err
		}
		var digit byte
		switch {
		case '0' <= b && b <= '9':
			digit = b - '0'
		case 'a' <= b && b <= 'f':
			digit = b - 'a' + 10
		case 'A' <= b && b <= 'F':
			digit = b - 'A' + 10
		case b == '\r' && digits > 0:
			return size, expect(from, '\n')
		case b == ';' && digits > 0:
			return size, extension(from)
		default:
			return 0, errChunk
		}
		if digits++; digits > 15 {
			return 0, errChunk
		}
		size = size<<4 | int64(digit)
	}
}

// extension drops the rest of a chunk's line.
func extension(from io.ByteReader) error {
	for range maxChunkLine {
		b, err := from.ReadByte()
		switch {
		case err != nil:
			return err
		case b == '\r':
			return expect(from, '\n')
		case (b < ' ' && b != '\t') || b == 0x7f:
			return errChunk
		}
	}
	return errChunk
}

// trailer drops the fields after the last chunk. They must be valid fields.
func trailer(from io.ByteReader) error {
	var line []byte
	for range maxTrailer {
		b, err := from.ReadByte()
		switch {
		case err != nil:
			return err
		case b != '\r':
			line = append(line, b)
			continue
		}
		if err := expect(from, '\n'); err != nil {
			return err
		}
		if len(line) == 0 {
			return nil
		}
		if _, _, bad := parseField(line); bad != nil {
			return errChunk
		}
		line = line[:0]
	}
	return errChunk
}

func lineEnd(from io.ByteReader) error {
	if err := expect(from, '\r'); err != nil {
		return err
	}
	return expect(from, '\n')
}

func expect(from io.ByteReader, want byte) error {
	b, err := from.ReadByte()
	if err != nil {
		return err
	}
	if b != want {
		return errChunk
	}
	return nil
}
