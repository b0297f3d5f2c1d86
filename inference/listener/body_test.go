package listener

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func TestAcceptsGzip(t *testing.T) {
	for header, want := range map[string]bool{
		"": false, "gzip": true, "GZIP": true, "br, gzip;q=0.5": true, "*": true, "gzip;q=0": false, "gzip; q=0.0": false, "identity": false, "gzipped": false,
	} {
		if got := acceptsGzip(header); got != want {
			t.Errorf("%q: %v", header, got)
		}
	}
}

func TestZstdBombIsRefused(t *testing.T) {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	bomb := w.EncodeAll(bytes.Repeat([]byte{0}, 64<<20), nil)
	var bad *bodyError
	if _, err := decompress(bomb, "zstd", 1<<20); !errors.As(err, &bad) || bad.status != 413 {
		t.Fatalf("%d bytes: %v", len(bomb), err)
	}
	if got, err := decompress(w.EncodeAll([]byte("hello"), nil), "zstd", 1<<20); err != nil || string(got) != "hello" {
		t.Fatalf("%q %v", got, err)
	}
}

func TestUnprintableRequestIDsAreReplaced(t *testing.T) {
	for _, id := range []string{"", "a b", "a\nb", "ü", strings.Repeat("x", 129)} {
		if got := requestID(id); got == id || len(got) != 16 {
			t.Errorf("%q became %q", id, got)
		}
	}
}

func FuzzDecompress(f *testing.F) {
	f.Add([]byte("\x1f\x8b\x08"), "gzip")
	f.Add([]byte("\x78\x9c"), "deflate")
	f.Add([]byte("\x28\xb5\x2f\xfd"), "zstd, identity,,GZIP")
	f.Fuzz(func(t *testing.T, body []byte, encoding string) {
		const limit = 1 << 16
		got, err := decompress(body, encoding, limit)
		var bad *bodyError
		if err != nil && !errors.As(err, &bad) {
			t.Fatalf("an error without a status: %v", err)
		}
		if err == nil && len(got) > limit && len(got) > len(body) {
			t.Fatalf("%d bytes got past the limit", len(got))
		}
	})
}
