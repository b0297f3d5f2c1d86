package listener

import (
	"bufio"
	"bytes"
	"io"
	"net/http/httputil"
	"testing"
)

// The standard library accepts every accepted chunked body with the same bytes, so no
// proxy in front can have seen another request.
func FuzzChunked(f *testing.F) {
	for _, body := range []string{
		"0\r\n\r\n", "1\r\nx\r\n0\r\n\r\n", "a;b=c\r\n0123456789\r\n0\r\nT: v\r\n\r\n", "00000001\r\nx\r\n0\r\n\r\n", "1\nx\n0\n\n",
		"1 \r\nx\r\n0\r\n\r\n", "+1\r\nx\r\n0\r\n\r\n", "0x1\r\nx\r\n0\r\n\r\n", "fffffffffffffff\r\n", "1\r\nxy\r\n0\r\n\r\n", "1;\"\r\n\"\r\nx\r\n0\r\n\r\n",
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		const limit = 1 << 16
		var ours bytes.Buffer
		left := bufio.NewReader(bytes.NewReader(body))
		if err := readChunked(&ours, left, limit); err != nil {
			return
		}
		if ours.Len() > limit {
			t.Fatalf("%d bytes of at most %d", ours.Len(), limit)
		}
		theirs, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(body)))
		if err != nil {
			return // it refuses bodies with too much framing, which this package limits in another way
		}
		if !bytes.Equal(ours.Bytes(), theirs) {
			t.Errorf("%q is %q for us and %q for others", body, ours.Bytes(), theirs)
		}
	})
}
