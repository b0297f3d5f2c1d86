package listener

import (
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
)

// bodyError is a request whose body cannot be used, with the status to answer.
type bodyError struct {
	status int
	text   string
}

func (e *bodyError) Error() string { return e.text }

func (e *bodyError) response() *Response {
	return &Response{Response: engine.Response{Status: e.status, ContentType: "application/json", Body: serving.Detail(e.text)}}
}

func tooLarge(limit int64) *bodyError {
	return &bodyError{http.StatusRequestEntityTooLarge, fmt.Sprintf("Request body is larger than the limit of %d bytes; the operator raises it with --max-body", limit)}
}

// readBody reads at most limit bytes into buf. size is the announced length, -1 if unknown.
func readBody(buf *bytes.Buffer, from io.Reader, size, limit int64) error {
	if size > limit {
		return tooLarge(limit)
	}
	if size > 0 {
		buf.Grow(int(min(size, 1<<20)) + bytes.MinRead) // a false length costs at most this much
	}
	n, err := buf.ReadFrom(io.LimitReader(from, limit+1))
	if n > limit {
		return tooLarge(limit)
	}
	return err
}

// decompress replaces the body by its decoded form. Encodings are those of
// RFC 9110: names in any case, several separated by commas, last applied first.
func decompress(body []byte, encoding string, limit int64) ([]byte, error) {
	if err := checkEncodings(encoding); err != nil {
		return nil, err
	}
	for _, name := range slices.Backward(strings.Split(encoding, ",")) {
		name = strings.ToLower(strings.TrimSpace(name))
		if name == "" || name == "identity" {
			continue
		}
		decoded, err := decode(body, name, limit)
		if err != nil {
			return nil, err
		}
		body = decoded
	}
	return body, nil
}

// checkEncodings refuses encodings that decompress does not support, before the body is received.
func checkEncodings(encoding string) error {
	names := strings.Split(encoding, ",")
	for _, name := range names {
		switch name = strings.ToLower(strings.TrimSpace(name)); name {
		case "", "identity":
			continue
		case "gzip", "x-gzip", "deflate", "zstd":
		default:
			return unsupported(name)
		}
		if len(names) > maxEncodings {
			return errManyEncodings
		}
	}
	return nil
}

const maxEncodings = 3

var errManyEncodings = &bodyError{http.StatusUnsupportedMediaType, "Too many content encodings; send the body with one"}

func unsupported(name string) *bodyError {
	return &bodyError{http.StatusUnsupportedMediaType, fmt.Sprintf("Content encoding %q is not supported; use gzip, deflate, zstd or none", name)}
}

func decode(body []byte, name string, limit int64) ([]byte, error) {
	var from io.Reader
	var err error
	switch name {
	case "gzip", "x-gzip":
		from, err = gzip.NewReader(bytes.NewReader(body))
	case "deflate": // zlib by the RFC, raw deflate by some clients
		if from, err = zlib.NewReader(bytes.NewReader(body)); err != nil {
			from, err = flate.NewReader(bytes.NewReader(body)), nil
		}
	case "zstd":
		var dec *zstd.Decoder
		dec, err = zstd.NewReader(bytes.NewReader(body), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(limit)+1))
		if err == nil {
			defer dec.Close()
			from = dec
		}
	default:
		return nil, unsupported(name)
	}
	var out []byte
	if err == nil {
		out, err = readPieces(from, limit)
	}
	var large *bodyError
	switch {
	case errors.As(err, &large):
		return nil, large
	case errors.Is(err, zstd.ErrDecoderSizeExceeded), errors.Is(err, zstd.ErrWindowSizeExceeded):
		return nil, tooLarge(limit)
	case err != nil: // the original's words
		return nil, &bodyError{http.StatusBadRequest, "There was an error parsing the body"}
	}
	return out, nil
}

// readPieces reads a body of unknown size, at most limit bytes, in pieces that are joined once: a
// decompression bomb costs the limit, not a multiple of it by a growing buffer.
func readPieces(from io.Reader, limit int64) ([]byte, error) {
	const size = 256 << 10
	var whole [][]byte
	piece := make([]byte, 0, size)
	total := int64(0)
	for {
		if len(piece) == cap(piece) {
			whole, piece = append(whole, piece), make([]byte, 0, size)
		}
		n, err := from.Read(piece[len(piece):cap(piece)])
		piece = piece[:len(piece)+n]
		if total += int64(n); total > limit {
			return nil, tooLarge(limit)
		}
		switch {
		case errors.Is(err, io.EOF):
			if whole == nil {
				return piece, nil
			}
			return slices.Concat(append(whole, piece)...), nil
		case err != nil:
			return nil, err
		}
	}
}

var gzipWriters = sync.Pool{New: func() any { //nolint:gochecknoglobals // a pool is shared by design
	w, err := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
	if err != nil { // the level is a constant that the library accepts
		return gzip.NewWriter(io.Discard)
	}
	return w
}}

// compressible reports whether compression reduces an answer: it does for text and JSON, not for
// images and archives.
func compressible(contentType string) bool {
	mediaType, _, _ := strings.Cut(contentType, ";")
	mediaType = strings.ToLower(strings.TrimSpace(mediaType))
	return strings.HasPrefix(mediaType, "text/") || strings.HasSuffix(mediaType, "json") || strings.HasSuffix(mediaType, "xml") ||
		mediaType == "application/javascript" || mediaType == "application/octet-stream"
}

// acceptsGzip reads Accept-Encoding: gzip or * is listed, and not refused by q=0.
func acceptsGzip(header string) bool {
	for part := range strings.SplitSeq(header, ",") {
		name, params, _ := strings.Cut(part, ";")
		name = strings.ToLower(strings.TrimSpace(name))
		if name != "gzip" && name != "*" {
			continue
		}
		q := strings.ReplaceAll(strings.TrimSpace(params), " ", "")
		return q != "q=0" && q != "q=0.0" && q != "q=0.00" && q != "q=0.000"
	}
	return false
}
