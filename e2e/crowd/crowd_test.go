package crowd

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestEveryRequestIsCountedOnceByWhatBecameOfIt asks a server that fails, lies, breaks off and recovers by the number of the request.
func TestEveryRequestIsCountedOnceByWhatBecameOfIt(t *testing.T) {
	var broken, away atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		switch n, _ := strconv.Atoi(string(text)); n {
		case 2:
			http.Error(w, "no", http.StatusInternalServerError)
		case 3:
			_, _ = w.Write([]byte("another answer"))
		case 4: // nothing is answered at the first time
			if broken.Add(1) == 1 {
				panic(http.ErrAbortHandler)
			}
			_, _ = w.Write(text)
		case 5: // away at the first two times
			if away.Add(1) <= 2 {
				http.Error(w, "soon", http.StatusServiceUnavailable)
				return
			}
			_, _ = w.Write(text)
		case 6: // breaks off in the middle of the answer
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write(text)
		default:
			_, _ = w.Write(text)
		}
	}))
	defer server.Close()
	const last = 10
	reached := make(chan struct{})
	c := Start(Options{
		Ask: func(n int64) Question {
			if n == last {
				close(reached)
			}
			want := strconv.FormatInt(n, 10)
			return Question{URL: server.URL, Body: []byte(want), Check: func(answer string) error {
				if answer != want {
					return errors.New(answer)
				}
				return nil
			}}
		},
		Clients: 1, Repeats: time.Minute, Again: func(status int) bool { return status == http.StatusServiceUnavailable },
	})
	<-reached
	got := c.End()
	if got.Sent < last || got.Failed != 2 || got.Wrong != 1 || got.Again != 3 {
		t.Errorf("%+v; want 2 failed, 1 wrong, 3 sent again of %d or more", got, last)
	}
	for _, want := range []string{"500 no", "another answer", "again: 503 soon", "unexpected EOF"} {
		if !strings.Contains(strings.Join(got.Faults, "\n"), want) {
			t.Errorf("the faults lack %q: %q", want, got.Faults)
		}
	}
}
