package listener_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/listener"
)

// client2 is a client that uses only HTTP/2; config nil: without TLS.
func client2(t *testing.T, config *tls.Config) *http.Transport {
	t.Helper()
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	client := &http.Transport{Protocols: &protocols, TLSClientConfig: config, DisableCompression: true}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

// ask2 sends a request and reads the whole answer.
func ask2(t *testing.T, client *http.Transport, method, url string, body io.Reader, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := client.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.ProtoMajor != 2 {
		t.Errorf("%s %s was answered in %s", method, url, resp.Proto)
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		text = append(text, []byte("!"+err.Error())...)
	}
	return resp, string(text)
}

// unsized hides the length of a body.
func unsized(text string) io.Reader { return io.MultiReader(strings.NewReader(text)) }

func zip(text string) io.Reader {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, text)
	_ = z.Close()
	return &b
}

// answers2 is a handler with an answer of each kind.
func answers2(ctx context.Context, r *listener.Request) *listener.Response {
	text := func(status int, body string) *listener.Response {
		return &listener.Response{Response: engine.Response{Status: status, ContentType: "text/plain", Body: []byte(body)}}
	}
	switch r.Path {
	case "/big":
		return text(200, strings.Repeat("x", 3<<20))
	case "/panic":
		panic("boom")
	case "/nothing":
		return text(204, "")
	case "/wait":
		<-ctx.Done()
		return text(499, "")
	case "/stream":
		return &listener.Response{Response: engine.Response{Status: 200, ContentType: "text/plain", Stream: &counted{pieces: 3}}}
	case "/broken":
		return &listener.Response{Response: engine.Response{Status: 200, ContentType: "text/plain", Stream: &counted{pieces: 3, err: errors.New("broken")}}}
	case "/client":
		c := r.Client()
		slices.SortFunc(c.Header, func(a, b engine.Header) int { return strings.Compare(a.Name+a.Value, b.Name+b.Value) })
		return text(200, fmt.Sprintf("%s %s %s %s %s", c.Method, c.Path, c.Query, c.Address, c.Header))
	}
	return echo(ctx, r)
}

// counted is a stream of a few pieces.
type counted struct {
	pieces int
	err    error
}

func (c *counted) Next(context.Context) ([]byte, error) {
	if c.pieces == 0 {
		if c.err != nil {
			return nil, c.err
		}
		return nil, io.EOF
	}
	c.pieces--
	return []byte("piece,"), nil
}
func (*counted) Close() error { return nil }

// each2 runs a test over HTTP/2 without TLS and with it.
func each2(t *testing.T, o listener.Options, test func(t *testing.T, base string, client *http.Transport)) {
	t.Helper()
	t.Run("prior knowledge", func(t *testing.T) {
		lean(t, o, func(t *testing.T, addr string) {
			t.Helper()
			client := client2(t, nil)
			defer client.CloseIdleConnections()
			test(t, "http://"+addr, client)
		})
	})
	t.Run("TLS", func(t *testing.T) {
		serveTLSWith(t, o, []string{"h2", "http/1.1"}, func(t *testing.T, addr string, config *tls.Config) {
			t.Helper()
			client := client2(t, config)
			defer client.CloseIdleConnections()
			test(t, "https://"+addr, client)
		})
	})
}

func TestRequestsOverHTTP2(t *testing.T) {
	big := strings.Repeat("b", 900_000)
	each2(t, listener.Options{Handler: listener.AnswerFunc(answers2), MaxBody: 1 << 20}, func(t *testing.T, base string, client *http.Transport) {
		t.Helper()
		for _, tc := range []struct {
			name, method, path string
			body               io.Reader
			headers            []string
			status             int
			want               string
		}{
			{"a body", "POST", "/p?q=1", strings.NewReader("hi"), []string{"X-A", "v"}, 200, "POST /p q=1 v hi"},
			{"a body of unknown size", "POST", "/p", unsized("hi"), nil, 200, "POST /p   hi"},
			{"no body", "GET", "/p", nil, nil, 200, "GET /p   "},
			{"a decoded path", "POST", "/gr%C3%BCn%2Fx//y", nil, nil, 200, "POST /grün/x//y   "},
			{"a large body", "POST", "/p", strings.NewReader(big), nil, 200, "POST /p   " + big},
			{"a large body of unknown size", "POST", "/p", unsized(big), nil, 200, "POST /p   " + big},
			{"a large answer", "POST", "/big", nil, nil, 200, strings.Repeat("x", 3<<20)},
			{"no content", "POST", "/nothing", nil, nil, 204, ""},
			{"gzip", "POST", "/p", zip("hi"), []string{"Content-Encoding", "gzip"}, 200, "POST /p   hi"},
			{"bad gzip", "POST", "/p", strings.NewReader("hi"), []string{"Content-Encoding", "gzip"}, 400, "error parsing the body"},
			{"a bomb", "POST", "/p", zip(strings.Repeat("0", 2<<20)), []string{"Content-Encoding", "gzip"}, 413, "limit of 1048576"},
			{"another encoding", "POST", "/p", strings.NewReader("hi"), []string{"Content-Encoding", "br"}, 415, "not supported"},
			{"too large", "POST", "/p", strings.NewReader(big + big), nil, 413, "limit of 1048576"},
			{"too large, of unknown size", "POST", "/p", unsized(big + big), nil, 413, "limit of 1048576"},
			{"a panic", "POST", "/panic", nil, nil, 500, "Internal Server Error"},
			{"a stream", "POST", "/stream", nil, nil, 200, "piece,piece,piece,"},
			{"a broken stream", "POST", "/broken", nil, nil, 200, "piece,piece,piece,!stream error"},
			{"how the client asked", "POST", "/client?a=b", nil, []string{"X-A", "v", "Secret", "s", "User-Agent", "u"}, 200, "POST /client a=b 127.0.0.1 [{Content-Length 0} {Host 127.0.0.1"},
		} {
			resp, body := ask2(t, client, tc.method, base+tc.path, tc.body, tc.headers...)
			if resp.StatusCode != tc.status || !strings.Contains(body, tc.want) || (tc.status == 200 && tc.name != "a broken stream" && tc.name != "how the client asked" && body != tc.want) {
				t.Errorf("%s: %d %.200s", tc.name, resp.StatusCode, body)
			}
			if resp.Header.Get("X-Request-Id") == "" || resp.Header.Get("Date") == "" || strings.Contains(body, "Secret") {
				t.Errorf("%s: header %v, %.200s", tc.name, resp.Header, body)
			}
		}
		resp, _ := ask2(t, client, "POST", base+"/p", nil, "X-Request-Id", "mine")
		if resp.Header.Get("X-Request-Id") != "mine" || resp.Header.Get("X-Split") != "a  Injected: b" || resp.Header.Get("Injected") != "" || resp.Header.Get("Content-Type") != "text/plain" {
			t.Errorf("header %v", resp.Header)
		}
		resp, body := ask2(t, client, "POST", base+"/big", nil, "Accept-Encoding", "gzip")
		if resp.Header.Get("Content-Encoding") != "gzip" || resp.Header.Get("Vary") != "Accept-Encoding" || len(body) > 1<<20 {
			t.Errorf("header %v, %d bytes", resp.Header, len(body))
		}
		resp, body = ask2(t, client, "HEAD", base+"/p", nil)
		if resp.ContentLength != int64(len("HEAD /p   ")) || body != "" {
			t.Errorf("HEAD: %d bytes, %q", resp.ContentLength, body)
		}
	})
}

func TestManyRequestsOfOneConnectionOverHTTP2(t *testing.T) {
	each2(t, listener.Options{Handler: listener.AnswerFunc(echo)}, func(t *testing.T, base string, client *http.Transport) {
		t.Helper()
		var all sync.WaitGroup
		for i := range 200 {
			all.Go(func() {
				want := fmt.Sprintf("POST /%d   %d", i, i)
				if _, got := ask2(t, client, "POST", fmt.Sprintf("%s/%d", base, i), strings.NewReader(fmt.Sprint(i))); got != want {
					t.Errorf("%q, want %q", got, want)
				}
			})
		}
		all.Wait()
	})
}

// The upgrade of HTTP/1.1 to HTTP/2 is ignored, because clients could tunnel through a proxy that forwards it.
func TestAnUpgradeToHTTP2IsIgnored(t *testing.T) {
	lean(t, listener.Options{Handler: listener.AnswerFunc(echo)}, func(t *testing.T, addr string) {
		t.Helper()
		for _, version := range []string{"h2c", "websocket", "h2"} {
			got := talk(t, addr, "POST /p HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: "+version+"\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nContent-Length: 2\r\n\r\nhi")
			if !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.HasSuffix(got, "POST /p   hi") {
				t.Errorf("%s: %q", version, got)
			}
		}
	})
}

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

func TestOnlyTheWholePrefaceBeginsHTTP2(t *testing.T) {
	o := listener.Options{Handler: listener.AnswerFunc(echo), HeaderTimeout: time.Second}
	lean(t, o, func(t *testing.T, addr string) {
		t.Helper()
		for name, raw := range map[string]string{
			"another version":  "PRI * HTTP/3.0\r\n\r\nSM\r\n\r\n",
			"another end":      "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
			"a header field":   "PRI * HTTP/2.0\r\nHost: a\r\n\r\nSM\r\n\r\n",
			"another method":   "GET * HTTP/2.0\r\n\r\nSM\r\n\r\n",
			"a second request": "GET / HTTP/1.1\r\nHost: a\r\n\r\n" + preface,
		} {
			got := talk(t, addr, raw)
			if !strings.Contains(got, "HTTP/1.1 4") && !strings.Contains(got, "HTTP/1.1 505") {
				t.Errorf("%s: %q", name, got)
			}
		}
		if got := talk(t, addr, preface[:20]); strings.Contains(got, "200") { // cut by the time limit of the head
			t.Errorf("half of it: %q", got)
		}
		c := dial(t, addr)
		for i := range preface { // byte by byte
			if _, err := io.WriteString(c, preface[i:i+1]); err != nil {
				t.Fatal(err)
			}
		}
		f := frames(t, c)
		f.settings()
		f.request(1, "POST", "/p")
		if status := f.status(1); status != "200" {
			t.Errorf("byte by byte: %s", status)
		}
	})
}

// raw2 is a client that writes frames directly.
type raw2 struct {
	t *testing.T
	*http2.Framer
	encoded bytes.Buffer
	encoder *hpack.Encoder
	decoder *hpack.Decoder
	fields  map[string]string
}

// frames takes a connection after its preface.
func frames(t *testing.T, c net.Conn) *raw2 {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(patience))
	r := &raw2{t: t, Framer: http2.NewFramer(c, bufio.NewReader(c)), fields: map[string]string{}}
	r.encoder = hpack.NewEncoder(&r.encoded)
	r.decoder = hpack.NewDecoder(4096, func(f hpack.HeaderField) { r.fields[f.Name] = f.Value })
	return r
}

func (r *raw2) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *raw2) settings(s ...http2.Setting) {
	r.t.Helper()
	r.must(r.WriteSettings(s...))
}

// head is the encoded header of a request.
func (r *raw2) head(method, path string, fields ...string) []byte {
	r.encoded.Reset()
	for _, f := range [][2]string{{":method", method}, {":scheme", "http"}, {":authority", "a"}, {":path", path}} {
		_ = r.encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	for i := 0; i < len(fields); i += 2 {
		_ = r.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return r.encoded.Bytes()
}

// request sends a request without a body.
func (r *raw2) request(id uint32, method, path string) {
	r.t.Helper()
	r.must(r.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: r.head(method, path), EndHeaders: true, EndStream: true}))
}

// status waits for a response and returns its status, or how the stream or the connection ended.
func (r *raw2) status(id uint32) string {
	r.t.Helper()
	for {
		f, err := r.ReadFrame()
		if err != nil {
			return err.Error()
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				r.must(r.WriteSettingsAck())
			}
		case *http2.HeadersFrame:
			clear(r.fields)
			if _, err := r.decoder.Write(f.HeaderBlockFragment()); err != nil {
				r.t.Fatal(err)
			}
			if f.StreamID == id {
				return r.fields[":status"]
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == id {
				return "reset " + f.ErrCode.String()
			}
		case *http2.GoAwayFrame:
			return "goaway " + f.ErrCode.String()
		}
	}
}

func open2(t *testing.T, addr string) *raw2 {
	t.Helper()
	c := dial(t, addr)
	if _, err := io.WriteString(c, preface); err != nil {
		t.Fatal(err)
	}
	f := frames(t, c)
	f.settings()
	return f
}

func TestAHeadIsRefusedBeforeItsBodyOverHTTP2(t *testing.T) {
	d := &doorman{}
	lean(t, listener.Options{Handler: d}, func(t *testing.T, addr string) {
		t.Helper()
		f := open2(t, addr)
		f.must(f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.head("POST", "/p", "content-length", "99999999"), EndHeaders: true}))
		if status := f.status(1); status != "401" {
			t.Errorf("%s", status)
		}
		if status := f.status(1); status != "reset NO_ERROR" { // the body is not needed
			t.Errorf("then %s", status)
		}
		f.request(3, "POST", "/p")
		if status := f.status(3); status != "401" {
			t.Errorf("the next one: %s", status)
		}
		if d.lent.Load()+d.answered.Load() != 0 {
			t.Error("a refused request is more than a head")
		}
	})
}

func TestAStalledBodyEndsItsRequestOnlyOverHTTP2(t *testing.T) {
	lean(t, listener.Options{Handler: listener.AnswerFunc(echo), BodyTimeout: 200 * time.Millisecond}, func(t *testing.T, addr string) {
		t.Helper()
		f := open2(t, addr)
		f.must(f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.head("POST", "/p", "content-length", "5"), EndHeaders: true}))
		f.must(f.WriteData(1, false, []byte("hi")))
		if status := f.status(1); status != "reset INTERNAL_ERROR" {
			t.Errorf("%s", status)
		}
		f.request(3, "POST", "/p")
		if status := f.status(3); status != "200" {
			t.Errorf("the next one: %s", status)
		}
	})
}

func TestABodyThatDripsIsRefusedOverHTTP2(t *testing.T) {
	lean(t, listener.Options{Handler: listener.AnswerFunc(echo), BodyTimeout: 200 * time.Millisecond}, func(t *testing.T, addr string) {
		t.Helper()
		f := open2(t, addr)
		f.must(f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.head("POST", "/p"), EndHeaders: true}))
		stop := make(chan struct{})
		var drips sync.WaitGroup
		drips.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond):
					if f.WriteData(1, false, []byte("x")) != nil {
						return
					}
				}
			}
		})
		var status string
		for {
			fr, err := f.ReadFrame()
			if err != nil {
				t.Error(err)
				break
			}
			if h, ok := fr.(*http2.HeadersFrame); ok {
				_, _ = f.decoder.Write(h.HeaderBlockFragment())
				status = f.fields[":status"]
				break
			}
		}
		close(stop)
		drips.Wait()
		if status != "408" { // a busy machine may be too slow to drip, and the stream is reset
			t.Errorf("%s", status)
		}
	})
}

// marking is a handler that refuses bodies with a header of its own, as those that web pages need.
type marking struct{ listener.AnswerFunc }

func (marking) Refusal(_ *listener.Head, status int, _ string) *listener.Response {
	return &listener.Response{Response: engine.Response{Status: status, Header: []engine.Header{{Name: "X-Mark", Value: "1"}}}}
}

func TestAllBodiesTogetherAreBoundedOverHTTP2(t *testing.T) {
	released := make(chan struct{})
	var reading atomic.Int32
	handler := func(ctx context.Context, r *listener.Request) *listener.Response {
		if len(r.Body) > 0 && r.Path == "/hold" {
			reading.Add(1)
			<-released
		}
		return echo(ctx, r)
	}
	lean(t, listener.Options{Handler: marking{handler}, MaxBody: 100_000, MaxBodies: 150_000}, func(t *testing.T, addr string) {
		t.Helper()
		client := client2(t, nil)
		defer client.CloseIdleConnections()
		var held sync.WaitGroup
		held.Go(func() {
			if resp, _ := ask2(t, client, "POST", "http://"+addr+"/hold", strings.NewReader(strings.Repeat("x", 100_000))); resp.StatusCode != 200 {
				t.Errorf("the first: %d", resp.StatusCode)
			}
		})
		for reading.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		for _, body := range []io.Reader{strings.NewReader(strings.Repeat("x", 60_000)), unsized(strings.Repeat("x", 60_000))} {
			resp, text := ask2(t, client, "POST", "http://"+addr+"/p", body)
			if resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "1" || resp.Header.Get("X-Mark") != "1" {
				t.Errorf("%d %s", resp.StatusCode, text)
			}
		}
		close(released)
		held.Wait()
		if resp, _ := ask2(t, client, "POST", "http://"+addr+"/p", strings.NewReader(strings.Repeat("x", 60_000))); resp.StatusCode != 200 {
			t.Errorf("afterwards: %d", resp.StatusCode)
		}
	})
}

func TestLargeBodiesAreReceivedIntoWhatIsLentOverHTTP2(t *testing.T) {
	var out, lent atomic.Int32
	handler := lender2{answers: func(_ context.Context, r *listener.Request) *listener.Response {
		text := fmt.Sprintf("%d %t", len(r.Body), r.Loan != nil && &r.Body[0] == &r.Loan.Bytes()[0])
		return &listener.Response{Response: engine.Response{Status: 200, ContentType: "text/plain", Body: []byte(text)}}
	}, lend: func(size int) engine.Loan {
		out.Add(1)
		lent.Add(1)
		return &loan2{make([]byte, size), &out}
	}}
	each2(t, listener.Options{Handler: handler, MaxBody: 1 << 20}, func(t *testing.T, base string, client *http.Transport) {
		t.Helper()
		big := strings.Repeat("x", engine.LendFrom)
		if _, got := ask2(t, client, "POST", base+"/p", strings.NewReader(big)); got != fmt.Sprintf("%d true", len(big)) {
			t.Error(got)
		}
		if _, got := ask2(t, client, "POST", base+"/p", unsized(big)); got != fmt.Sprintf("%d false", len(big)) {
			t.Error(got)
		}
	})
	if out.Load() != 0 || lent.Load() != 2 {
		t.Errorf("%d were lent, %d are out", lent.Load(), out.Load())
	}
}

type lender2 struct {
	answers listener.AnswerFunc
	lend    func(size int) engine.Loan
}

func (lender2) Admit(*listener.Head) *listener.Response       { return nil }
func (lender2) Refused(*listener.Head, int)                   {}
func (lender2) Shown(_, value string) (string, bool)          { return value, true }
func (l lender2) Lend(_ *listener.Head, size int) engine.Loan { return l.lend(size) }
func (l lender2) Answer(ctx context.Context, r *listener.Request) *listener.Response {
	return l.answers(ctx, r)
}

type loan2 struct {
	memory []byte
	out    *atomic.Int32
}

func (l *loan2) Bytes() []byte { return l.memory }
func (l *loan2) Release()      { l.out.Add(-1) }

// A request is cancelled when its client resets its stream, or closes the connection.
func TestAClientThatLeavesCancelsItsRequestOverHTTP2(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan error)
	handler := func(ctx context.Context, r *listener.Request) *listener.Response {
		if r.Path == "/wait" {
			begun <- struct{}{}
			<-ctx.Done()
			ended <- ctx.Err()
		}
		return echo(ctx, r)
	}
	lean(t, listener.Options{Handler: listener.AnswerFunc(handler)}, func(t *testing.T, addr string) {
		t.Helper()
		f := open2(t, addr)
		f.request(1, "POST", "/wait")
		<-begun
		f.must(f.WriteRSTStream(1, http2.ErrCodeCancel))
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("a reset: %v", err)
		}
		f.request(3, "POST", "/p")
		if status := f.status(3); status != "200" {
			t.Errorf("the next one: %s", status)
		}
		c := dial(t, addr)
		_, _ = io.WriteString(c, preface)
		g := frames(t, c)
		g.settings()
		g.request(1, "POST", "/wait")
		<-begun
		_ = c.Close()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("a close: %v", err)
		}
	})
}

// A stop finishes requests, notifies their connections, and waits for both.
func TestAStopFinishesRequestsOverHTTP2(t *testing.T) {
	begun, release := make(chan struct{}, 1), make(chan struct{})
	handler := func(ctx context.Context, r *listener.Request) *listener.Response {
		if r.Path == "/wait" {
			begun <- struct{}{}
			<-release
		}
		return echo(ctx, r)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := listener.NewLean(listener.Options{Handler: listener.AnswerFunc(handler)})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	f, idle := open2(t, l.Addr().String()), open2(t, l.Addr().String())
	idle.request(1, "POST", "/p")
	if status := idle.status(1); status != "200" {
		t.Fatal(status)
	}
	f.request(1, "POST", "/wait")
	<-begun
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(t.Context()) }()
	if status := idle.status(3); status != "goaway NO_ERROR" {
		t.Errorf("an idle connection: %s", status)
	}
	if status := f.status(1); status != "goaway NO_ERROR" {
		t.Errorf("a busy connection: %s", status)
	}
	select {
	case err := <-stopped:
		t.Errorf("the stop did not wait: %v", err)
	default:
	}
	close(release)
	if status := f.status(1); status != "200" {
		t.Errorf("the request: %s", status)
	}
	if err := errors.Join(<-stopped, <-served); err != nil {
		t.Error(err)
	}
}

func TestAStopThatMayNotWaitCutsRequestsOverHTTP2(t *testing.T) {
	begun := make(chan struct{}, 1)
	handler := func(ctx context.Context, r *listener.Request) *listener.Response {
		begun <- struct{}{}
		<-ctx.Done()
		return echo(ctx, r)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := listener.NewLean(listener.Options{Handler: listener.AnswerFunc(handler)})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	f := open2(t, l.Addr().String())
	f.request(1, "POST", "/p")
	<-begun
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestARetiringServerEndsConnectionsOverHTTP2(t *testing.T) {
	s := listener.NewLean(listener.Options{Handler: listener.AnswerFunc(echo)})
	serve(t, s, func(t *testing.T, addr string) {
		t.Helper()
		f := open2(t, addr)
		f.request(1, "POST", "/p")
		if status := f.status(1); status != "200" {
			t.Error(status)
		}
		s.Retire()
		f.request(3, "POST", "/p")
		got := []string{f.status(3), f.status(3)} // in any order
		slices.Sort(got)
		if got[0] != "200" || got[1] != "goaway NO_ERROR" {
			t.Error(got)
		}
	})
}

func TestAnIdleConnectionOfHTTP2IsClosed(t *testing.T) {
	lean(t, listener.Options{Handler: listener.AnswerFunc(echo), IdleTimeout: 100 * time.Millisecond}, func(t *testing.T, addr string) {
		t.Helper()
		f := open2(t, addr)
		f.request(1, "POST", "/p")
		if status := f.status(1); status != "200" {
			t.Error(status)
		}
		if status := f.status(3); status != "goaway NO_ERROR" {
			t.Error(status)
		}
	})
}
