package load_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"clearmlserving/bench/load"
)

// serveGRPC answers unary calls with their own message, again and again up to size bytes.
func serveGRPC(t *testing.T, size int, status string, asked func()) string {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked()
		body, err := io.ReadAll(r.Body)
		if err != nil { // the end of the run
			return
		}
		if len(body) < 5 || r.Header.Get("Content-Type") != "application/grpc" || r.URL.Path != "/a.B/C" {
			t.Errorf("%s %s: %d bytes", r.URL.Path, r.Header, len(body))
			return
		}
		w.Header().Set("Trailer", "Grpc-Status")
		answer := strings.Repeat(string(body[5:]), max(1, size/len(body[5:])))
		head := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(answer)))
		fmt.Fprintf(w, "%s%s", head, answer)
		w.Header().Set("Grpc-Status", status)
	}))
	server.Config.Protocols = &http.Protocols{}
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	return "grpc" + strings.TrimPrefix(server.URL, "http") + "/a.B/C"
}

func TestCallsOfGRPCAreAnsweredWhole(t *testing.T) {
	for name, size := range map[string]int{"small": 1, "larger than a frame": 100_000, "larger than the window": 20 << 20} {
		t.Run(name, func(t *testing.T) {
			ctx, end := context.WithCancel(t.Context())
			defer end()
			var asked atomic.Int64
			message := strings.Repeat("m", max(1, min(size, 300_000)))
			result, err := load.Run(ctx, load.Options{
				URL: serveGRPC(t, size, "0", func() {
					if asked.Add(1) == 9 {
						end()
					}
				}), Body: []byte(message), Connections: 2, Duration: time.Hour,
				Expect: []byte(strings.Repeat(message, max(1, size/len(message)))),
			}, nil)
			if err != nil || result.Requests == 0 || result.Failed != 0 {
				t.Errorf("%+v, %v", result.FirstFailure, err)
			}
		})
	}
	result, err := load.Run(t.Context(), load.Options{URL: serveGRPC(t, 1, "14", func() {}), Body: []byte("m"), Duration: 100 * time.Millisecond}, nil)
	if err != nil || result.Requests != 0 || result.FirstFailure == nil || !strings.Contains(result.FirstFailure.Error(), `status "14"`) {
		t.Errorf("a failed call counts: %+v, %v", result.FirstFailure, err)
	}
}
