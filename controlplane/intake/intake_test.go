package intake_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"clearmlserving/controlplane/intake"
)

func repeated(before, item, after string, size int) string {
	return before + strings.TrimSuffix(strings.Repeat(item, size/len(item)), ",") + after
}

// The estimate is no less than what decoding takes, for texts of each shape.
func TestTheCostOfJSONIsNotEstimatedTooLow(t *testing.T) {
	const size = 1 << 20
	keys := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"%x":1,`, i)
		}
		return "{" + strings.TrimSuffix(b.String(), ",") + "}"
	}
	for name, text := range map[string]string{
		"empty lists":       repeated(`{"a":[`, `[],`, `]}`, size),
		"empty objects":     repeated(`[`, `{},`, `]`, size),
		"objects of one":    repeated(`[`, `{"a":1},`, `]`, size),
		"objects of nine":   repeated(`[`, `{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1},`, `]`, size),
		"short numbers":     repeated(`[`, `1,`, `]`, size),
		"short texts":       repeated(`[`, `"a",`, `]`, size),
		"empty texts":       repeated(`[`, `"",`, `]`, size),
		"nulls":             repeated(`[`, `null,`, `]`, size),
		"one text":          repeated(`["`, `x`, `"]`, size),
		"escaped texts":     repeated(`[`, `"\"\\",`, `]`, size),
		"characters":        repeated(`["`, `\u00e4`, `"]`, size),
		"nested lists":      strings.Repeat("[", 9000) + strings.Repeat("]", 9000),
		"nested objects":    strings.Repeat(`{"":`, 9000) + "1" + strings.Repeat("}", 9000),
		"one large object":  keys(100_000),
		"objects of lists":  repeated(`[`, `{"a":[{"b":[]}]},`, `]`, size),
		"events of scalars": repeated(`[`, `{"type":"training_stats_scalar","task":"3f","metric":"loss","variant":"train","iter":12,"timestamp":1700000000000,"value":0.25,"worker":"w"},`, `]`, size),
	} {
		var cost intake.Cost
		for part := range strings.SplitAfterSeq(text, "a") { // in parts, as a body comes
			cost.Add([]byte(part))
		}
		body := []byte(text)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		dec := json.NewDecoder(bytes.NewReader(body))
		dec.UseNumber()
		var v any
		if err := dec.Decode(&v); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		used := int64(after.HeapAlloc) - int64(before.HeapAlloc) // with the decoder's own copy
		if used > cost.Bytes() {
			t.Errorf("%s, %d bytes: takes %d, estimated %d", name, len(text), used, cost.Bytes())
		}
		runtime.KeepAlive(v)
		runtime.KeepAlive(dec)
	}
}

// at serves a reader of bodies and returns its address.
func at(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func TestABodyIsReadWhole(t *testing.T) {
	b := intake.New()
	url := at(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := b.Read(w, r, 1<<20)
		if err != nil {
			http.Error(w, err.Error(), intake.Status(err))
			return
		}
		defer body.Release()
		_, _ = w.Write(body.Text)
	})
	for _, n := range []int{0, 1, 2, 4095, 4096, 4097, 70_000, 1 << 20, 1<<20 + 1} {
		for _, chunked := range []bool{false, true} {
			text := strings.Repeat("x", n)
			var body io.Reader = strings.NewReader(text)
			if chunked {
				body = io.MultiReader(body)
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, body)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if n > 1<<20 {
				if resp.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(string(got), "1 MiB") {
					t.Errorf("%d bytes, chunked %v: %d %.100s", n, chunked, resp.StatusCode, got)
				}
			} else if err != nil || resp.StatusCode != 200 || string(got) != text {
				t.Errorf("%d bytes, chunked %v: %d, %d bytes back, %v", n, chunked, resp.StatusCode, len(got), err)
			}
		}
	}
}

// endless is a body of one text repeated, which counts what was taken of it.
type endless struct {
	item  string
	taken int
}

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e.item[(e.taken+i)%len(e.item)]
	}
	e.taken += len(p)
	return len(p), nil
}

func TestABodyOfTooManyValuesIsRefusedWhileItArrives(t *testing.T) {
	for _, item := range []string{"[],", "{},", "1,", `"",`} {
		body := &endless{item: item}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", body)
		r.ContentLength = -1
		_, err := intake.New().Read(httptest.NewRecorder(), r, 1<<30)
		if !errors.Is(err, intake.ErrTooManyIn) || body.taken > 16<<20 {
			t.Errorf("%s: %v after %d bytes", item, err, body.taken)
		}
	}
}

// However many bodies come at a time, no more than the budget is held of them, and none
// waits for ever.
func TestAllBodiesShareOneBudget(t *testing.T) {
	b := intake.New()
	var mu sync.Mutex
	held, most, ok, busy := 0, 0, 0, 0
	text := strings.Repeat("x", 20<<20)
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(text))
			body, err := b.Read(httptest.NewRecorder(), r, 64<<20)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, intake.ErrBusy):
				busy++
			case err != nil:
				t.Error(err)
			default:
				ok++
				held += len(body.Text)
				most = max(most, held)
				go func() {
					mu.Lock()
					defer mu.Unlock()
					held -= len(body.Text)
					body.Release()
					body.Release() // does nothing
				}()
			}
		})
	}
	all.Wait()
	if ok == 0 || ok+busy != 10 || most > intake.Held || 4*most > intake.Decoded {
		t.Errorf("%d read, %d refused, at most %d MiB held", ok, busy, most>>20)
	}
	// All of it was given back.
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(`"`+strings.Repeat("x", 60<<20)+`"`))
	body, err := b.Read(httptest.NewRecorder(), r, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	body.Release()
}

// A request within the process takes no second part of the budget.
func TestARequestThatHasPaidWaitsForNoBudget(t *testing.T) {
	b := intake.New()
	outer := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(`"`+strings.Repeat("x", 60<<20)+`"`))
	body, err := b.Read(httptest.NewRecorder(), outer, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Release()
	inner := httptest.NewRequestWithContext(intake.Paid(t.Context()), http.MethodPost, "/", strings.NewReader(`"`+strings.Repeat("x", 60<<20)+`"`))
	again, err := b.Read(httptest.NewRecorder(), inner, 64<<20)
	if err != nil || len(again.Text) != 60<<20+2 {
		t.Errorf("%v", err)
	}
}

func TestABodyThatDripsIsCut(t *testing.T) {
	b := intake.New()
	b.Window = 200 * time.Millisecond
	told := make(chan error, 1)
	url := at(t, func(w http.ResponseWriter, r *http.Request) {
		_, err := b.Read(w, r, 1<<20)
		told <- err
		http.Error(w, err.Error(), intake.Status(err))
	})
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
	for {
		_, _ = io.WriteString(c, "x")
		select {
		case err := <-told:
			if !errors.Is(err, intake.ErrSlow) || intake.Status(err) != http.StatusRequestTimeout {
				t.Errorf("%v", err)
			}
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}
