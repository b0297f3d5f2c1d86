package grpcfront

import (
	"bytes"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/gzip"
)

// A small message may become a large one: few do at the same time.
func TestFewLargeMessagesAreDecompressedAtOnce(t *testing.T) {
	registered, ok := encoding.GetCompressor(gzip.Name).(bounded)
	if !ok || cap(registered.slots) != maxBodies {
		t.Fatalf("%T", encoding.GetCompressor(gzip.Name))
	}
	one := bounded{registered.Compressor, make(chan struct{}, 1)}
	var zipped bytes.Buffer
	w, err := one.Compress(&zipped)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 4*inflateFrom)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	open := func() io.ReadCloser {
		r, err := one.Decompress(bytes.NewReader(zipped.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		return r.(io.ReadCloser) //nolint:forcetypeassert // gRPC closes only these
	}
	first, second := open(), open()
	if _, err := io.CopyN(io.Discard, first, 2*inflateFrom); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, second, inflateFrom); err != nil { // a small one does not wait
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		n, err := io.Copy(io.Discard, second)
		if n != 3*inflateFrom {
			t.Errorf("%d bytes", n)
		}
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatal("two at once", err)
	case <-time.After(50 * time.Millisecond):
	}
	if err := first.Close(); err != nil { // it has not been read to its end
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := second.Close(); err != nil || len(one.slots) != 0 {
		t.Error(err, len(one.slots))
	}
}
