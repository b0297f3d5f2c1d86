package recurring_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"clearmlserving/recurring"
)

// journal returns a log, its lines without their time, and the handler.
func journal() (*slog.Logger, func() []string, *recurring.Handler) {
	var out bytes.Buffer
	var mu sync.Mutex
	text := slog.NewTextHandler(locked{&mu, &out}, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
			return slog.Attr{}
		}
		return a
	}})
	h := recurring.NewHandler(text)
	return slog.New(h), func() []string {
		mu.Lock()
		defer mu.Unlock()
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		out.Reset()
		if lines[0] == "" {
			return nil
		}
		return lines
	}, h
}

type locked struct {
	mu  *sync.Mutex
	out *bytes.Buffer
}

func (l locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.Write(p)
}

func want(t *testing.T, got []string, lines ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(lines, "\n") {
		t.Errorf("the log says\n%s\nnot\n%s", strings.Join(got, "\n"), strings.Join(lines, "\n"))
	}
}

func TestOfRecurringRecordsTheFirstIsShownThenTheirNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, lines, _ := journal()
		log = log.With("endpoint", "m")
		fail := func(id int) {
			log.Warn("refused", "id", id, "trace", "t", "mark", recurring.Mark("m value", slog.Int("id", id)))
		}
		fail(1)
		want(t, lines(), "msg=refused endpoint=m id=1 trace=t")
		for id := range 5 {
			fail(id + 2)
		}
		log.Warn("refused", "mark", recurring.Mark("m other"))
		log.Warn("refused")
		want(t, lines(), "msg=refused endpoint=m", "msg=refused endpoint=m")
		time.Sleep(11 * time.Second)
		synctest.Wait()
		want(t, lines(), "msg=refused endpoint=m id=6 times=5")
		fail(7) // within the second interval, of 20 s
		time.Sleep(11 * time.Second)
		synctest.Wait()
		want(t, lines())
		time.Sleep(10 * time.Second)
		synctest.Wait()
		want(t, lines(), "msg=refused endpoint=m id=7 times=1")
		time.Sleep(41 * time.Second) // a whole interval without any
		fail(8)
		want(t, lines(), "msg=refused endpoint=m id=8 trace=t")
		time.Sleep(time.Hour) // the timers end
	})
}

func TestWhatIsLeftIsShownAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, lines, h := journal()
		for range 3 {
			log.Info("e", "mark", recurring.Mark("k"))
		}
		h.Flush()
		h.Flush()
		want(t, lines(), "msg=e", "msg=e times=2")
		time.Sleep(time.Hour)
		synctest.Wait()
		want(t, lines())
	})
}

func TestKeysWithoutEndTakeBoundedMemoryAndLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, lines, _ := journal()
		for i := range 5000 {
			log.Info("e", "mark", recurring.Mark(fmt.Sprint(i)))
		}
		if n := len(lines()); n != 1001 {
			t.Errorf("%d lines", n)
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		want(t, lines(), "msg=e times=3999")
		time.Sleep(time.Hour)
	})
}

func TestWithoutAHandlerTheMarkIsInvisible(t *testing.T) {
	var out bytes.Buffer
	slog.New(slog.NewJSONHandler(&out, nil)).Info("e", "a", 1, "mark", recurring.Mark("k", slog.String("b", "c")))
	if text := out.String(); !strings.HasSuffix(text, `"msg":"e","a":1}`+"\n") {
		t.Error(text)
	}
}
