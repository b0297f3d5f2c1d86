package security_test

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// client2 is a connection in HTTP/2, without TLS, whose frames a test writes itself.
type client2 struct {
	*http2.Framer
	out     *bufio.Writer
	header  bytes.Buffer
	encoder *hpack.Encoder
}

func (w *world) dial2(t *testing.T) *client2 {
	t.Helper()
	c := w.dial(t, w.serve)
	out := bufio.NewWriterSize(c, 64<<10)
	client := &client2{Framer: http2.NewFramer(out, bufio.NewReader(c)), out: out}
	client.encoder = hpack.NewEncoder(&client.header)
	if _, err := io.WriteString(out, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := client.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return client
}

// head is the encoded head of a request with the key, if there is one.
func (c *client2) head(path, key string, fields ...string) []byte {
	c.header.Reset()
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":authority", "a"}, {":path", path}} {
		_ = c.encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	if key != "" {
		_ = c.encoder.WriteField(hpack.HeaderField{Name: "authorization", Value: "Bearer " + key})
	}
	for i := 0; i < len(fields); i += 2 {
		_ = c.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return c.header.Bytes()
}

// statuses reads until the connection or count responses have ended, and returns the statuses and
// how the connection ended, if it did.
func (c *client2) statuses(count int) (list []string, end string) {
	_ = c.out.Flush()
	decoder := hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == ":status" {
			list = append(list, f.Value)
		}
	})
	for len(list) < count {
		f, err := c.ReadFrame()
		if err != nil {
			return list, err.Error()
		}
		switch f := f.(type) {
		case *http2.HeadersFrame:
			_, _ = decoder.Write(f.HeaderBlockFragment())
		case *http2.GoAwayFrame:
			return list, f.ErrCode.String()
		}
	}
	return list, ""
}

// CVE-2023-44487: a client opens streams and resets each at once. The limit of concurrent streams does
// not count those, but the requests behind them went on.
func TestCVE202344487_StreamsThatAreResetAtOnceCountAsRequests(t *testing.T) {
	w := newWorld(t)
	stubborn.most.Store(0)
	c := w.dial2(t)
	for id := uint32(1); id < 20_000; id += 2 {
		err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.head("/serve/stubborn", w.key), EndHeaders: true, EndStream: true})
		if err == nil {
			err = c.WriteRSTStream(id, http2.ErrCodeCancel)
		}
		if err != nil {
			break // refused already
		}
	}
	if _, end := c.statuses(1 << 20); end != "ENHANCE_YOUR_CALM" && !strings.Contains(end, "reset") && !strings.Contains(end, "EOF") && !strings.Contains(end, "broken pipe") {
		t.Errorf("the connection ended with %q", end)
	}
	if most := stubborn.most.Load(); most == 0 || most > 128 {
		t.Errorf("%d requests of one connection were executed at the same time", most)
	}
	w.alive(t)
}

// CVE-2023-45288: an endless header, in CONTINUATION frames.
func TestCVE202345288_AHeadWithoutEndIsCut(t *testing.T) {
	w := newWorld(t)
	var sent int
	used := heapDuring(func() {
		c := w.dial2(t)
		fragment := literals()
		err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.head("/serve/echo", "")})
		for ; err == nil && sent < 256<<20; sent += len(fragment) {
			err = c.WriteContinuation(1, false, fragment)
		}
		if err == nil {
			t.Errorf("%d MiB of a head were accepted", sent>>20)
		}
		if list, end := c.statuses(1); end == "" {
			t.Errorf("an endless head was answered %v", list)
		}
		w.alive(t)
	})
	if used > mostMemory {
		t.Errorf("%d MiB were in use", used>>20)
	}
}

// literals are 16 KiB of header fields.
func literals() []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for b.Len() < 15<<10 {
		_ = e.WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("y", 1000), Sensitive: true})
	}
	return b.Bytes()
}

// CVE-2016-6581 (HPACK bomb): a small head that decompresses to a large one.
func TestCVE20166581_AHeadIsBoundedAsDecompressed(t *testing.T) {
	w := newWorld(t)
	c := w.dial2(t)
	fields := make([]string, 0, 2000)
	for range 1000 {
		fields = append(fields, "x-a", strings.Repeat("y", 3000)) // indexed after the first
	}
	head := c.head("/serve/echo", w.key, fields...)
	if len(head) > 16<<10 {
		t.Fatalf("%d bytes are not a bomb", len(head))
	}
	if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head, EndHeaders: true, EndStream: true}); err != nil {
		t.Fatal(err)
	}
	if list, end := c.statuses(1); len(list) == 1 && list[0] != "431" || (len(list) == 0 && end == "") {
		t.Errorf("%v %s", list, end)
	}
	w.alive(t)
}

// CVE-2019-9512 and CVE-2019-9515: frames that need an answer, from a client that reads none.
func TestCVE20199512_AnswersToFramesAreBounded(t *testing.T) {
	w := newWorld(t)
	used := heapDuring(func() {
		for name, write := range map[string]func(c *client2) error{
			"ping": func(c *client2) error { return c.WritePing(false, [8]byte{1}) },
			"settings": func(c *client2) error {
				return c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
			},
		} {
			c := w.dial2(t)
			var err error
			for range 2_000_000 {
				if err = write(c); err != nil {
					break
				}
			}
			if err == nil && name == "ping" { // one answer is enough for many settings
				t.Errorf("%s: two million frames were accepted", name)
			}
			w.alive(t)
		}
	})
	if used > mostMemory {
		t.Errorf("%d MiB were in use", used>>20)
	}
}

// Requests beyond the limit of a connection are refused, and the others are answered.
func TestStreamsOfOneConnectionAreBounded(t *testing.T) {
	w := newWorld(t)
	c := w.dial2(t)
	const many = 400
	for i := range uint32(many) {
		if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: c.head("/serve/slow", w.key), EndHeaders: true, EndStream: true}); err != nil {
			t.Fatal(err)
		}
	}
	_ = c.out.Flush()
	refused, answered := 0, 0
	for refused+answered < many {
		f, err := c.ReadFrame()
		if err != nil {
			t.Fatalf("after %d answers and %d refusals: %v", answered, refused, err)
		}
		switch f := f.(type) {
		case *http2.HeadersFrame:
			answered++
		case *http2.RSTStreamFrame:
			if f.ErrCode == http2.ErrCodeRefusedStream {
				refused++
			}
		}
	}
	if answered < 128 || refused == 0 {
		t.Errorf("%d answers, %d refusals", answered, refused)
	}
	w.alive(t)
}

// A client without a key is refused by its head in HTTP/2 as well, and occupies no memory.
func TestStrangersAreRefusedByTheirHeadOverHTTP2(t *testing.T) {
	w := newWorld(t)
	c := w.dial2(t)
	for i := range uint32(100) {
		if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: c.head("/serve/echo", "", "content-length", "1000000"), EndHeaders: true}); err != nil {
			t.Fatal(err)
		}
	}
	list, end := c.statuses(100)
	for _, status := range list {
		if status != "401" {
			t.Errorf("a request without a key is answered %s", status)
		}
	}
	if len(list) != 100 {
		t.Errorf("%d answers, then %s", len(list), end)
	}
	w.alive(t)
}
