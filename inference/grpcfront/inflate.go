package grpcfront

import (
	"io"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/gzip" // requests and answers may be compressed
)

// bounded bounds how many large messages are decompressed at the same time: only what has been decompressed
// is counted by the codec, and a small message may become one of the largest size.
type bounded struct {
	encoding.Compressor

	slots chan struct{} // has a value for each large message
}

// inflateFrom is the size from which a message is large.
const inflateFrom = 1 << 20

func init() { //nolint:gochecknoinits // gRPC has one registry, which may be changed only here
	encoding.RegisterCompressor(bounded{encoding.GetCompressor(gzip.Name), make(chan struct{}, maxBodies)})
}

// Decompress implements encoding.Compressor. gRPC closes what it returns.
func (b bounded) Decompress(r io.Reader) (io.Reader, error) {
	inner, err := b.Compressor.Decompress(r)
	if err != nil {
		return nil, err
	}
	return &inflating{inner: inner, slots: b.slots}, nil
}

// inflating is a message that is being decompressed. The compressed one is in memory, so that others wait
// for computation only.
type inflating struct {
	inner io.Reader
	slots chan struct{}
	size  int64
	large bool // it has a slot
}

// Read implements io.Reader.
func (f *inflating) Read(p []byte) (int, error) {
	if f.size > inflateFrom && !f.large {
		f.slots <- struct{}{}
		f.large = true
	}
	n, err := f.inner.Read(p)
	f.size += int64(n)
	return n, err //nolint:wrapcheck // io.EOF as it is
}

// Close implements io.Closer.
func (f *inflating) Close() error {
	if f.large {
		<-f.slots
		f.large = false
	}
	return nil
}
