package security_test

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// heapDuring returns the maximum memory in use while f ran.
func heapDuring(f func()) uint64 {
	var most uint64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(5 * time.Millisecond)
		defer ticker.Stop()
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapInuse)
			select {
			case <-ticker.C:
			case <-stop:
				return
			}
		}
	}()
	f()
	close(stop)
	<-done
	return most
}

// processorTime is the CPU time of this process: unlike the time of day it does not depend on other
// programs.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

const mostMemory = 200 << 20 // of a process that receives bodies of 1 MiB

// CVE-2025-23310 (Triton): a chunked body of very many tiny chunks, or of sizes beyond the range of
// integers, overflowed the stack.
func TestCVE202523310_ChunkedBodiesAreBounded(t *testing.T) {
	w := newWorld(t)
	head := "POST /serve/echo HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + w.key + "\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
	used := heapDuring(func() {
		for name, tc := range map[string]struct {
			body   string
			status []string
		}{
			"many tiny chunks":       {strings.Repeat("1\r\nx\r\n", 200_000) + "0\r\n\r\n", []string{"200"}},
			"more than is allowed":   {strings.Repeat("1\r\nx\r\n", 1<<20+10) + "0\r\n\r\n", []string{"400", "413", "error"}},
			"a size of 2^64":         {"10000000000000000\r\nx\r\n0\r\n\r\n", []string{"400"}},
			"a negative size":        {"-1\r\nx\r\n0\r\n\r\n", []string{"400"}},
			"a size of 2^63-1":       {"7fffffffffffffff\r\nx", []string{"413", "400"}},
			"a size with a sign":     {"+1\r\nx\r\n0\r\n\r\n", []string{"400"}},
			"a size in 0x":           {"0x1\r\nx\r\n0\r\n\r\n", []string{"400"}},
			"an endless size":        {strings.Repeat("0", 1<<20), []string{"400", "413", "error"}},
			"an endless extension":   {"1;" + strings.Repeat("a", 1<<20) + "\r\nx\r\n0\r\n\r\n", []string{"400", "413", "error"}},
			"endless trailers":       {"0\r\n" + strings.Repeat("A: b\r\n", 1<<18) + "\r\n", []string{"400", "413", "431", "error"}},
			"a bare line feed":       {"1\nx\n0\n\n", []string{"400"}},
			"a chunk longer than it": {"1\r\nxyz\r\n0\r\n\r\n", []string{"400"}},
		} {
			got := send(t, w.serve, head+tc.body)
			ok := false
			for _, status := range tc.status {
				ok = ok || strings.HasPrefix(got, "HTTP/1.1 "+status) || (status == "error" && strings.HasPrefix(got, "error"))
			}
			if !ok {
				t.Errorf("%s: %.150q, want %v", name, got, tc.status)
			}
		}
	})
	if used > mostMemory {
		t.Errorf("%d MiB were in use", used>>20)
	}
	w.alive(t)
}

// A body that grows when it is decompressed is refused at the limit, not at the end.
func TestDecompressionBombsStopAtTheLimit(t *testing.T) {
	w := newWorld(t)
	zeros, size := make([]byte, 1<<20), 10
	if thorough() {
		size = 500
	}
	pack := func(make func(io.Writer) io.WriteCloser) string {
		var b bytes.Buffer
		z := make(&b)
		for range size {
			_, _ = z.Write(zeros)
		}
		_ = z.Close()
		return b.String()
	}
	bombs := map[string]string{
		"gzip":    pack(func(b io.Writer) io.WriteCloser { return gzip.NewWriter(b) }),
		"deflate": pack(func(b io.Writer) io.WriteCloser { return zlib.NewWriter(b) }),
		"zstd": pack(func(b io.Writer) io.WriteCloser {
			z, err := zstd.NewWriter(b)
			if err != nil {
				t.Fatal(err)
			}
			return z
		}),
	}
	used := heapDuring(func() {
		for encoding, bomb := range bombs {
			status, body := w.ask(t, "POST", w.serve+"/serve/echo", bomb, map[string]string{"Authorization": "Bearer " + w.key, "Content-Encoding": encoding})
			if status != http.StatusRequestEntityTooLarge {
				t.Errorf("%s, %d bytes for %d MiB: %d %.100s", encoding, len(bomb), size, status, body)
			}
			for _, server := range []string{w.api + "/server.info", w.files + "/"} {
				header := w.basic()
				header["Content-Encoding"] = encoding
				if status, body := w.ask(t, "POST", server, bomb, header); status < 400 || status >= 500 {
					t.Errorf("%s to %s: %d %.100s", encoding, server, status, body)
				}
			}
		}
		for _, list := range []string{"gzip, gzip", "gzip,gzip,gzip,gzip", "br", "compress", "identity, gzip"} {
			status, _ := w.ask(t, "POST", w.serve+"/serve/echo", "x", map[string]string{"Authorization": "Bearer " + w.key, "Content-Encoding": list})
			if status != http.StatusUnsupportedMediaType && status != http.StatusBadRequest {
				t.Errorf("%s: %d", list, status)
			}
		}
	})
	if used > mostMemory {
		t.Errorf("%d MiB were in use", used>>20)
	}
	w.alive(t)
}

// CVE-2024-9056 (BentoML): characters after a multipart boundary were processed one by one, without
// end; one request blocked the server.
func TestCVE20249056_MultipartBombsCostNobodyElse(t *testing.T) {
	w := newWorld(t)
	header := func(boundary string) map[string]string {
		h := w.basic()
		h["Content-Type"] = "multipart/form-data; boundary=" + boundary
		return h
	}
	begun := processorTime(t)
	used := heapDuring(func() {
		for name, tc := range map[string]struct{ boundary, body string }{
			"characters behind the boundary": {"b", "--b" + strings.Repeat("-", 900_000)},
			"an endless boundary":            {strings.Repeat("b", 50_000), "--"},
			"no end of the first line":       {"b", "--b\r\nContent-Disposition: form-data; name=\"" + strings.Repeat("a", 900_000)},
			"very many headers":              {"b", "--b\r\n" + strings.Repeat("A: b\r\n", 100_000) + "\r\nx\r\n--b--\r\n"},
			"one very long header":           {"b", "--b\r\nContent-Disposition: form-data; name=\"x\"; y=\"" + strings.Repeat("z", 900_000) + "\"\r\n\r\nx\r\n--b--\r\n"},
			"nested parts":                   {"b", "--b\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n" + strings.Repeat("--b\r\n\r\n", 10_000) + "--b--\r\n"},
			"no name":                        {"b", "--b\r\n\r\nx\r\n--b--\r\n"},
			"larger than allowed":            {"b", "--b\r\nContent-Disposition: form-data; name=\"big\"\r\n\r\n" + strings.Repeat("x", 2<<20) + "\r\n--b--\r\n"},
		} {
			status, body := w.ask(t, "POST", w.files+"/", tc.body, header(tc.boundary))
			if status >= 500 { // 0: the server closed the connection
				t.Errorf("%s: %d %.100s", name, status, body)
			}
		}
	})
	if took := processorTime(t) - begun; took > 60*time.Second {
		t.Errorf("took %s", took)
	}
	if used > mostMemory {
		t.Errorf("%d MiB were in use", used>>20)
	}
	w.alive(t)
}

// JSON that nests, repeats or never ends is refused by the API without harm.
func TestJSONBombsAreRefused(t *testing.T) {
	w := newWorld(t)
	for name, body := range map[string]string{
		"nested lists":    strings.Repeat("[", 200_000),
		"nested objects":  strings.Repeat(`{"a":`, 200_000),
		"nested filter":   `{"_any_":` + strings.Repeat(`{"_any_":`, 5000) + `1` + strings.Repeat(`}`, 5001),
		"a huge number":   `{"page":1e999999}`,
		"a long number":   `{"page":` + strings.Repeat("9", 500_000) + `}`,
		"many keys":       `{"x":{` + strings.TrimSuffix(strings.Repeat(`"a":1,`, 150_000), ",") + `}}`,
		"a bad pattern":   `{"name":"(((((((((((((((((((("}`,
		"a slow pattern":  `{"name":"^(a+)+$|(a|a)*(a|a)*(a|a)*b"}`,
		"not UTF-8":       "{\"name\":\"\xff\xfe\"}",
		"nothing but NUL": strings.Repeat("\x00", 100),
	} {
		begun := processorTime(t)
		status, answer := w.ask(t, "POST", w.api+"/tasks.get_all", body, w.basic())
		if status >= 500 || status == 0 {
			t.Errorf("%s: %d %.200s", name, status, answer)
		}
		if took := processorTime(t) - begun; took > 20*time.Second {
			t.Errorf("%s took %s", name, took)
		}
	}
	w.alive(t)
}

// Slowloris: clients that send very slowly, or nothing, do not affect others.
func TestSlowClientsHoldUpNobody(t *testing.T) {
	w := newWorld(t)
	for range 5 {
		slow := slowClients(t, w)
		w.alive(t)
		// All listeners close connections that are slow for 10 seconds. On a busy machine that
		// time may pass before the check.
		if !slices.ContainsFunc(slow[:4], closed) { // the first, which send nothing: one of each listener
			for range 20 {
				w.alive(t)
			}
			return
		}
	}
	t.Error("no client is answered before slow clients are closed")
}

// closed reports whether the server has closed a connection, on which it sends nothing.
func closed(c net.Conn) bool {
	_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := c.Read(make([]byte, 1))
	var ne net.Error
	return !errors.As(err, &ne) || !ne.Timeout()
}

// slowClients connects 200 clients that send little or nothing to all listeners.
func slowClients(t *testing.T, w *world) (slow []net.Conn) {
	t.Helper()
	for i := range 200 {
		base := []string{w.serve, w.api, w.files, w.admin}[i%4]
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(base, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		sent := []string{"", "P", "POST /serve/echo HTTP/1.1\r\nHost: a\r\nX-", "POST /serve/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nx"}
		_, _ = io.WriteString(c, sent[i/4%4]) // each to each listener
		slow = append(slow, c)
	}
	return slow
}
