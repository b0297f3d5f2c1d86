package security_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"clearmlserving/controlplane"
	"clearmlserving/controlplane/intake"
)

// heap is the memory in use after a complete garbage collection.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// manyValues is JSON that takes far more memory than its number of bytes.
func manyValues(size int) []byte {
	return []byte(`{"id":["x"],"a":[` + strings.TrimSuffix(strings.Repeat("[],", size/3), ",") + `]}`)
}

// post sends a body, as far as the server accepts it, and returns the beginning of the answer.
func post(t *testing.T, base, path, header string, body []byte) string {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Error(err)
		return ""
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(patience))
	_, _ = fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: a\r\n%sConnection: close\r\nContent-Length: %d\r\n\r\n", path, header, len(body))
	_, _ = c.Write(body) // the server may have refused it already
	answer := make([]byte, 4096)
	n, err := io.ReadAtLeast(c, answer, 12)
	if err != nil {
		return "error: " + err.Error()
	}
	return string(answer[:n])
}

// A body without credentials costs almost nothing on every route, in every encoding: the head
// is enough to refuse it, and calls without credentials read a few KiB.
func TestAStrangersBodyCostsNothingOnEveryRoute(t *testing.T) {
	w := newWorld(t)
	size := 2 << 20
	if thorough() {
		size = 25 << 20
	}
	body := manyValues(size)
	bases := map[string]string{"api": w.api, "files": w.files, "serve": w.serve}
	before, asked := heap(), 0
	used := heapDuring(func() {
		for _, r := range w.rows() {
			base := bases[r.listener]
			if base == "" || (thorough() && asked%4 != 0 && callName.MatchString(r.path) && !strings.HasPrefix(r.caller, "anybody")) {
				asked++
				continue // a quarter of the calls with the largest bodies
			}
			asked++
			for _, header := range []string{"Content-Type: application/json\r\n", "Content-Type: application/x-www-form-urlencoded\r\n"} {
				answer := post(t, base, r.example()+"?x=1", header, body)
				if strings.HasPrefix(answer, "HTTP/1.1 2") || strings.HasPrefix(answer, "HTTP/1.1 5") {
					t.Errorf("%s %s answers a body without credentials with %.100q", r.listener, r.path, answer)
				}
			}
		}
	})
	const most = 48 << 20 // of buffers and of uncollected memory
	if used > before+most {
		t.Errorf("%d MiB more were in use", (used-before)>>20)
	}
	if asked < 100 {
		t.Errorf("only %d routes were found", asked)
	}
	w.alive(t)
}

// Bodies of authenticated callers share one budget, for any content and number.
func TestBodiesOfKnownCallersShareABudget(t *testing.T) {
	w := newWorld(t)
	size, clients := 4<<20, 4
	if thorough() {
		size, clients = 40<<20, 12
	}
	auth := "Authorization: " + w.basic()["Authorization"] + "\r\n"
	bodies := [][]byte{
		manyValues(size),
		[]byte(`{"id":[` + strings.TrimSuffix(strings.Repeat(`"a",`, size/4), ",") + `]}`),
		[]byte(`{"name":"task","type":"training","comment":"` + strings.Repeat("x", size) + `"}`),
		bytes.Repeat([]byte(`{"type":"log","task":"none","msg":"x"}`+"\n"), size/40),
	}
	before := heap()
	var busy, answered sync.Map
	used := heapDuring(func() {
		var all sync.WaitGroup
		for i := range clients {
			all.Go(func() {
				for j, path := range []string{"/tasks.create", "/tasks.get_all?x=1", "/tasks.create?y=1", "/events.add_batch"} {
					answer := post(t, w.api, path, auth, bodies[(i+j)%len(bodies)])
					switch {
					case strings.HasPrefix(answer, "HTTP/1.1 503"):
						busy.Store(path, true)
					case !strings.HasPrefix(answer, "HTTP/1.1 "), strings.HasPrefix(answer, "HTTP/1.1 500"):
						t.Errorf("%s: %.200q", path, answer)
					default:
						answered.Store(path, true)
					}
				}
			})
		}
		all.Wait()
	})
	// Twice: the collector runs when the heap has doubled.
	if most := uint64(2 * (intake.Held + intake.Decoded)); used > before+most {
		t.Errorf("%d MiB more were in use, the budget is %d MiB", (used-before)>>20, (intake.Held+intake.Decoded)>>20)
	}
	if _, ok := answered.Load("/tasks.create"); !ok {
		t.Error("no call was answered")
	}
	w.alive(t)
}

// A slow body is cut on every route that reads one, with and without credentials.
func TestBodiesThatDripAreCutOnEveryRoute(t *testing.T) {
	w := newWorld(t, func(o *controlplane.Options) { o.BodyWindow = time.Second })
	_, text := w.ask(t, http.MethodPost, w.api+"/auth.login", "", w.basic())
	_, token, _ := strings.Cut(text, `"token":"`)
	token, _, _ = strings.Cut(token, `"`)
	known := "Authorization: Bearer " + token + "\r\nCookie: clearml_token_basic=" + token + "\r\n"
	var all sync.WaitGroup
	asked := 0
	for _, r := range w.rows() {
		if r.listener != "api" && r.listener != "files" {
			continue
		}
		base := map[string]string{"api": w.api, "files": w.files}[r.listener]
		for _, header := range []string{"", known} {
			for method := range strings.SplitSeq(r.methods, ", ") {
				file := strings.Contains(r.path, "<path>") || strings.HasSuffix(r.path, "files/") || (r.listener == "files" && r.path == "/") || r.path == "/models/upload"
				if header != "" && file && (method == "PUT" || method == "POST") {
					continue // an upload has five minutes: see the tests of its package
				}
				asked++
				all.Go(func() { drip(t, base, method, r.example(), header) })
			}
		}
	}
	all.Wait()
	if asked < 200 {
		t.Errorf("only %d requests were made", asked)
	}
	w.alive(t)
}

// drip sends single bytes until the server closes the connection.
func drip(t *testing.T, base, method, path, header string) {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = c.Close() }()
	_, _ = fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: a\r\n%sContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100000\r\n\r\n", method, path, header)
	begun := time.Now()
	for buffer := make([]byte, 4096); ; {
		if time.Since(begun) > patience {
			t.Errorf("%s %s, known %v: a body that drips is still read after %s", method, path, header != "", patience)
			return
		}
		_ = c.SetDeadline(time.Now().Add(100 * time.Millisecond))
		_, _ = io.WriteString(c, "x")
		if _, err := c.Read(buffer); err != nil && !isTimeout(err) {
			return // closed
		}
	}
}

func isTimeout(err error) bool {
	ne, ok := err.(net.Error) //nolint:errorlint // returned unwrapped by the connection
	return ok && ne.Timeout()
}

// A path of very many folders is refused on every route with file names.
func TestDeepPathsAreRefusedOnEveryRoute(t *testing.T) {
	w := newWorld(t)
	deep := strings.Repeat("a/", 2000) + "b"
	for _, base := range []string{w.files, w.api + "/files"} {
		for _, c := range []struct{ method, path, kind, body string }{
			{"PUT", "/" + deep, "", "x"},
			{"GET", "/" + deep, "", ""},
			{"HEAD", "/" + deep, "", ""},
			{"DELETE", "/" + deep, "", ""},
			{"POST", "/", "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"" + deep + "\"; filename=\"b\"\r\n\r\nx\r\n--b--\r\n"},
		} {
			if status, text := w.ask(t, c.method, base+c.path, c.body, merge(w.basic(), "Content-Type", c.kind)); status != http.StatusBadRequest {
				t.Errorf("%s: %d %.200s", c.method, status, text)
			}
		}
		if status, text := w.ask(t, "POST", base+"/delete_many", `{"files":["`+deep+`"]}`, w.basic()); status != http.StatusOK || !strings.Contains(text, "folders") || strings.Contains(text, `"deleted":{"`) {
			t.Errorf("delete_many: %d %.200s", status, text)
		}
	}
	w.alive(t)
}

// A client that waits for "100 Continue" is refused after the head, and not asked for the body.
func TestAStrangerIsNotAskedForABody(t *testing.T) {
	w := newWorld(t)
	asked := 0
	for _, r := range w.rows() {
		base := map[string]string{"api": w.api, "files": w.files}[r.listener]
		if base == "" || strings.HasPrefix(r.caller, "anybody") || r.path == "/login" {
			continue
		}
		for method := range strings.SplitSeq(r.methods, ", ") {
			c, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(base, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			_ = c.SetDeadline(time.Now().Add(patience))
			_, _ = fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n", method, r.example())
			answer := make([]byte, 1024)
			n, err := io.ReadAtLeast(c, answer, 12)
			_ = c.Close()
			asked++
			text := string(answer[:n])
			if err != nil || (!strings.HasPrefix(text, "HTTP/1.1 401") && !strings.HasPrefix(text, "HTTP/1.1 403") && !strings.HasPrefix(text, "HTTP/1.1 303")) {
				t.Errorf("%s %s on %s: %.100q, %v", method, r.path, r.listener, text, err)
			}
		}
	}
	if asked < 100 {
		t.Errorf("only %d requests were made", asked)
	}
}
