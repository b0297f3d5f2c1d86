package api_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"clearmlserving/controlplane/api"
	"clearmlserving/controlplane/intake"
	"clearmlserving/controlplane/store"
)

// counted is a body that tells how much of it was read.
type counted struct {
	from *bytes.Reader
	read int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.read += n
	return n, err
}

// Each call, asked by nobody, reads and keeps next to nothing of a large body: neither
// those that anybody may make, nor those that refuse the caller by the head.
func TestALargeBodyOfNobodyIsNotKept(t *testing.T) {
	db := newStore(t)
	s := api.New(api.Options{Store: db})
	text := []byte(`{"a":[` + strings.TrimSuffix(strings.Repeat("[],", 1<<20), ",") + `]}`)
	for _, c := range s.Calls() {
		for _, query := range []string{"", "?x=1"} {
			for _, kind := range []string{"application/json", "application/x-www-form-urlencoded", "application/json-lines"} {
				for _, announced := range []int64{int64(len(text)), -1} {
					body := &counted{from: bytes.NewReader(text)}
					r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/"+c.Name+query, body)
					r.ContentLength = announced
					r.Header.Set("Content-Type", kind)
					w := httptest.NewRecorder()
					var before, after runtime.MemStats
					runtime.ReadMemStats(&before)
					s.ServeHTTP(w, r)
					runtime.ReadMemStats(&after)
					if w.Code != 401 && w.Code != 413 {
						t.Errorf("%s%s: %d %.200s", c.Name, query, w.Code, w.Body)
					}
					if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 || body.read > 1<<20+64<<10 {
						t.Errorf("%s%s, %s, announced %d: %d bytes were allocated, %d read", c.Name, query, kind, announced, took, body.read)
					}
				}
			}
		}
	}
}

// A call that is allowed allocates in proportion to what it knows, and is refused before it
// makes more values than there is memory for.
func TestABodyOfVeryManyValuesIsRefused(t *testing.T) {
	p := newPlane(t)
	many := strings.TrimSuffix(strings.Repeat("[],", 4<<20), ",")
	for _, call := range []string{"tasks.create", "tasks.get_all", "auth.login", "events.add_batch", "tasks.create?y=1"} {
		for _, body := range []string{`{"x":[` + many + `]}`, `{"id":[` + many + `]}`} {
			if got := p.do(t, call, body, "Authorization", basic(p.creds)); got.code() != "413/0" {
				t.Errorf("%s: %s %s", call, got.code(), got.Meta.ResultMsg)
			}
		}
	}
}

func TestArgumentsAreLaidOverABodyWithoutChangingTheRest(t *testing.T) {
	p := newPlane(t)
	task := p.ok(t, "tasks.create?name=of+the+query&hyperparams.General.a.value=seven&tags=x&tags=y&system_tags[]=z",
		`{"name":"of the body","type":"training","hyperparams":{"General":{"a":{"section":"General","name":"a","value":"1"},"b":{"section":"General","name":"b","value":"2"}}}}`)["id"].(string)
	doc, _ := p.ok(t, "tasks.get_by_id", `{"task":"`+task+`"}`)["task"].(map[string]any)
	params, _ := doc["hyperparams"].(map[string]any)["General"].(map[string]any)
	a, _ := params["a"].(map[string]any)
	b, _ := params["b"].(map[string]any)
	if got := fmt.Sprint(doc["name"], doc["tags"], doc["system_tags"], a["value"], a["name"], b["value"]); got != "of the query[x y] [z]sevena2" {
		t.Errorf("%s", got)
	}
	if got := p.do(t, "tasks.get_all?"+strings.Repeat("a.", 20)+"a=1", "{}", "Authorization", basic(p.creds)); got.code() != "400/0" {
		t.Errorf("a deep argument: %s", got.code())
	}
	large := `{"x":"` + strings.Repeat("x", 2<<20) + `"}`
	if got := p.do(t, "tasks.get_all?page=0", large, "Authorization", basic(p.creds)); got.code() != "400/0" || !strings.Contains(got.Meta.ResultMsg, "into the body") {
		t.Errorf("arguments beside a large body: %s %s", got.code(), got.Meta.ResultMsg)
	}
	if got := p.do(t, "tasks.get_all", large, "Authorization", basic(p.creds)); got.code() != "200/0" {
		t.Errorf("a large body alone: %s %s", got.code(), got.Meta.ResultMsg)
	}
}

// A body that drips is cut, of a known caller too.
func TestADrippingCallIsCut(t *testing.T) {
	db := newStore(t)
	budget := intake.New()
	budget.Window = 200 * time.Millisecond
	auth := api.NewAuth(api.AuthOptions{Store: db})
	creds, _, err := auth.EnsureDefaults(t.Context(), api.Credentials{})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(api.New(api.Options{Store: db, Auth: auth, Bodies: budget}))
	defer srv.Close()
	for _, head := range []string{"Authorization: " + basic(creds) + "\r\n", ""} {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(srv.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "POST /tasks.get_all HTTP/1.1\r\nHost: a\r\n"+head+"Content-Length: 100000\r\n\r\n")
		ended := make(chan string, 1)
		go func() {
			text, _ := io.ReadAll(c)
			ended <- string(text)
		}()
		for text, over := "", false; !over; {
			_, _ = io.WriteString(c, "x")
			select {
			case text = <-ended:
				over = true
				if want := map[bool]string{true: "HTTP/1.1 408", false: "HTTP/1.1 401"}[head != ""]; !strings.HasPrefix(text, want) {
					t.Errorf("%q: %.100q, want %s", head, text, want)
				}
			case <-time.After(20 * time.Millisecond):
			}
		}
		_ = c.Close()
	}
}

// What one transaction changes, and what one call does, is bounded: the others wait for it.
func TestACallOnVeryManyDocumentsIsRefused(t *testing.T) {
	p := newPlane(t)
	list := func(n int) string { return `["` + strings.TrimSuffix(strings.Repeat(`x","`, n), `,"`) + `]` }
	for _, c := range []struct {
		call, field string
		most        int
	}{
		{"tasks.update_tags", "ids", 1000},
		{"models.update_tags", "ids", 1000},
		{"tasks.archive_many", "ids", 10_000},
		{"models.unarchive_many", "ids", 10_000},
		{"tasks.get_hyper_params", "tasks", 10_000},
		{"tasks.create", "tags", 10_000},
	} {
		body := func(n int) string {
			return fmt.Sprintf(`{"name":"a task","type":"training","project":"x",%q:%s}`, c.field, list(n))
		}
		if got := p.do(t, c.call, body(c.most+1), "Authorization", basic(p.creds)); got.code() != "400/12" || !strings.Contains(got.Meta.ResultMsg, "more than") {
			t.Errorf("%s of %d: %s %.200s", c.call, c.most+1, got.code(), got.Meta.ResultMsg)
		}
	}
}

// A batch is stored in several transactions, and answered as one.
func TestALargeBatchOfEventsIsStoredWhole(t *testing.T) {
	p := newPlane(t)
	task := p.ok(t, "tasks.create", `{"name":"a task","type":"training"}`)["id"].(string)
	var batch strings.Builder
	for i := range 12_000 {
		id := task
		if i%3 == 0 {
			id = "none"
		}
		fmt.Fprintf(&batch, `{"type":"log","task":%q,"msg":"%d"}`+"\n", id, i)
	}
	got := p.ok(t, "events.add_batch", batch.String(), "Content-Type", "application/json-lines")
	if text := fmt.Sprint(got["added"], got["errors"], got["errors_info"]); text != "80004000map[Invalid task id none:4000]" {
		t.Errorf("%s", text)
	}
	mixed := batch.String() + fmt.Sprintf(`{"type":"log","task":%q,"msg":"x","allow_locked":true}`, task)
	if a := p.do(t, "events.add_batch", mixed, "Authorization", basic(p.creds), "Content-Type", "application/json-lines"); a.code() != "400/12" {
		t.Errorf("different allow_locked far apart: %s", a.code())
	}
	if n, err := p.store.CountEvents(t.Context(), store.EventQuery{Tasks: []string{task}}); err != nil || n != 8000 {
		t.Errorf("%d events are stored, %v", n, err)
	}
}
