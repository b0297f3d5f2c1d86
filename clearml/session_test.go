package clearml_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"clearmlserving/clearml"
)

func TestManyCallersLogInOnce(t *testing.T) {
	f := newFake(t)
	f.on("tasks.ping", "{}")
	c := f.start()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := c.PingTask(t.Context(), "x"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := count(f.seen(), "auth.login"); n != 1 {
		t.Errorf("logged in %d times, want once", n)
	}
}

func TestRefusedTokenIsExchangedOnceAndTheCallRepeated(t *testing.T) {
	f := newFake(t)
	f.on("tasks.ping", "{}")
	c := f.start()
	if err := c.PingTask(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	f.revoke()
	if err := c.PingTask(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	want := []string{"auth.login", "tasks.ping", "tasks.ping", "auth.login", "tasks.ping"}
	if got := f.seen(); !slices.Equal(got, want) {
		t.Errorf("calls = %v, want %v", got, want)
	}
}

func TestTokenRefusedTwiceIsAnError(t *testing.T) {
	f := newFake(t)
	f.obstacle = func(w http.ResponseWriter, _ *http.Request, call string) bool {
		if call == "auth.login" {
			return false
		}
		envelope(w, 401, 30, "Unauthorized (invalid token)", "{}")
		return true
	}
	c := f.start()
	err := c.PingTask(t.Context(), "x")
	if !errors.Is(err, clearml.ErrUnauthorized) {
		t.Errorf("error = %v, want ErrUnauthorized", err)
	}
	if got, want := f.seen(), []string{"auth.login", "tasks.ping", "auth.login", "tasks.ping"}; !slices.Equal(got, want) {
		t.Errorf("calls = %v, want %v", got, want)
	}
}

func TestRefusedCredentialsNameTheirSource(t *testing.T) {
	f := newFake(t)
	c := f.start(func(o *clearml.Options) {
		o.Config.AccessKey = clearml.Setting{Value: "wrong", From: "/home/ada/clearml.conf: api.credentials.access_key"}
	})
	err := c.PingTask(t.Context(), "x")
	var login *clearml.LoginError
	if !errors.As(err, &login) || !errors.Is(err, clearml.ErrUnauthorized) {
		t.Fatalf("error = %v, want a *LoginError", err)
	}
	for _, part := range []string{"/home/ada/clearml.conf", "invalid credentials", c.Config().API.Value} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not name %q", err, part)
		}
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("error %q holds the secret", err)
	}
}

func TestTokenOfTheEnvironmentIsUsedInsteadOfKeys(t *testing.T) {
	f := newFake(t)
	f.on("tasks.ping", "{}")
	c := f.start(func(o *clearml.Options) {
		o.Config.AccessKey, o.Config.SecretKey = clearml.Setting{}, clearml.Secret{}
		o.Config.Token = clearml.NewSecret("from-environment", "environment variable CLEARML_AUTH_TOKEN")
	})
	if err := c.PingTask(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	if got := f.headers[0].Get("Authorization"); got != "Bearer from-environment" {
		t.Errorf("login with %q", got)
	}
}

func TestTokenIsExchangedAheadOfItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.life = time.Hour
		f.on("tasks.ping", "{}")
		c := f.direct()
		ping := func() {
			t.Helper()
			if err := c.PingTask(t.Context(), "x"); err != nil {
				t.Fatal(err)
			}
		}
		ping()
		time.Sleep(53 * time.Minute)
		ping()
		if n := count(f.seen(), "auth.login"); n != 1 {
			t.Errorf("%d logins 7 minutes before the end, want 1", n)
		}
		time.Sleep(2 * time.Minute)
		ping()
		if got, want := f.seen(), []string{"auth.login", "tasks.ping"}; !slices.Equal(got, want) {
			t.Errorf("calls = %v 5 minutes before the end, want %v", got, want)
		}
	})
}

func TestShortLivedTokenDoesNotCauseALoginPerCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.life = time.Minute
		f.on("tasks.ping", "{}")
		c := f.direct()
		for range 4 {
			if err := c.PingTask(t.Context(), "x"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
		}
		if n := count(f.seen(), "auth.login"); n != 1 {
			t.Errorf("%d logins in 40 s of a token of 60 s, want 1", n)
		}
	})
}

func TestDueTokenServesOnWhileTheServerCannotExchangeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.life = time.Hour
		f.on("tasks.ping", "{}")
		c := f.direct(func(o *clearml.Options) { o.Retry.Attempts = 1 })
		if err := c.PingTask(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		f.obstacle = func(w http.ResponseWriter, _ *http.Request, call string) bool {
			if call == "auth.login" {
				w.WriteHeader(502)
			}
			return call == "auth.login"
		}
		time.Sleep(57 * time.Minute)
		if err := c.PingTask(t.Context(), "x"); err != nil {
			t.Errorf("3 minutes before the end: %v", err)
		}
		time.Sleep(4 * time.Minute)
		if err := c.PingTask(t.Context(), "x"); !errors.Is(err, clearml.ErrUnavailable) {
			t.Errorf("after the end: %v, want ErrUnavailable", err)
		}
	})
}

func TestBusyServerIsAskedAgainWhenItSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.on("tasks.ping", "{}")
		left := 3
		f.obstacle = func(w http.ResponseWriter, _ *http.Request, call string) bool {
			if call != "tasks.ping" || left == 0 {
				return false
			}
			left--
			w.Header().Set("Retry-After", "7")
			w.WriteHeader([]int{503, 429, 502}[left])
			return true
		}
		c := f.direct()
		start := time.Now()
		if err := c.PingTask(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 21*time.Second {
			t.Errorf("took %v, want 3 waits of 7 s", took)
		}
	})
}

func TestWaitsDoubleAndStayBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		var times []time.Time
		f.obstacle = func(w http.ResponseWriter, _ *http.Request, _ string) bool {
			times = append(times, time.Now())
			w.WriteHeader(503)
			return true
		}
		c := f.direct(func(o *clearml.Options) {
			o.Retry = clearml.Retry{Attempts: 8, First: time.Second, Longest: 10 * time.Second}
		})
		err := c.PingTask(t.Context(), "x")
		if !errors.Is(err, clearml.ErrUnavailable) || !strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), "http://fake:8008 (the test)") {
			t.Errorf("error = %v, want one that names host, source and status", err)
		}
		if len(times) != 8 {
			t.Fatalf("%d attempts, want 8", len(times))
		}
		for i := 1; i < len(times); i++ {
			wait, most := times[i].Sub(times[i-1]), min(10*time.Second, time.Second<<(i-1))
			if wait < most/2 || wait > most {
				t.Errorf("wait %d = %v, want %v to %v", i, wait, most/2, most)
			}
		}
	})
}

func TestLogicalErrorsAreFinal(t *testing.T) {
	f := newFake(t)
	f.refuse("tasks.get_by_id", 400, 101, "Invalid task id: id=nope")
	c := f.start()
	_, err := c.Task(t.Context(), "nope")
	var refusal *clearml.Error
	if !errors.As(err, &refusal) || refusal.Code != 400 || refusal.Subcode != 101 || refusal.Call != "tasks.get_by_id" {
		t.Fatalf("error = %#v", err)
	}
	if n := count(f.seen(), "tasks.get_by_id"); n != 1 {
		t.Errorf("called %d times, want once", n)
	}
}

func TestCodesStandForSentinels(t *testing.T) {
	sentinels := map[string]error{
		"not found": clearml.ErrNotFound, "unauthorized": clearml.ErrUnauthorized, "conflict": clearml.ErrConflict,
		"status": clearml.ErrStatus, "exists": clearml.ErrExists, "unsupported": clearml.ErrUnsupported,
	}
	for _, c := range []struct {
		err  clearml.Error
		want string
	}{
		{clearml.Error{Code: 400, Subcode: 101}, "not found"},
		{clearml.Error{Code: 400, Subcode: 201}, "not found"},
		{clearml.Error{Code: 400, Subcode: 401}, "not found"},
		{clearml.Error{Call: "file delete", Code: 404}, "not found"},
		{clearml.Error{Call: "server.info", Code: 404}, "unsupported"},
		{clearml.Error{Code: 401, Subcode: 30}, "unauthorized"},
		{clearml.Error{Code: 403, Subcode: 20}, "unauthorized"},
		{clearml.Error{Code: 400, Subcode: 122}, "conflict"},
		{clearml.Error{Code: 400, Subcode: 110}, "status"},
		{clearml.Error{Code: 400, Subcode: 801}, "exists"},
		{clearml.Error{Code: 400, Subcode: 12}, "none"},
		{clearml.Error{Code: 500, Subcode: 100}, "none"},
	} {
		got := "none"
		for name, sentinel := range sentinels {
			if errors.Is(&c.err, sentinel) {
				got = name
			}
		}
		if got != c.want {
			t.Errorf("%d/%d of %q is %s, want %s", c.err.Code, c.err.Subcode, c.err.Call, got, c.want)
		}
	}
}

func TestConnectionErrorsAreRepeatedOnlyWhereSafe(t *testing.T) {
	reset := &net.OpError{Op: "read", Net: "tcp", Err: errors.New("connection reset by peer")}
	dial := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	for _, c := range []struct {
		rule, call string
		err        error
		attempts   int
	}{
		{"a read may be made twice", "tasks.get_by_id", reset, 3},
		{"an upsert may be made twice", "tasks.edit_configuration", reset, 3},
		{"a create may have happened", "tasks.create", reset, 1},
		{"an event may have been stored", "events.add_batch", reset, 1},
		{"a create that never arrived has not happened", "tasks.create", dial, 3},
	} {
		t.Run(c.rule, func(t *testing.T) {
			f := newFake(t)
			attempts := 0
			client := f.direct(func(o *clearml.Options) {
				o.Retry.Attempts = 3
				below := o.HTTP.Transport
				o.HTTP = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
					if strings.HasSuffix(r.URL.Path, "auth.login") {
						return below.RoundTrip(r)
					}
					attempts++
					return nil, c.err
				})}
			})
			err := client.Call(t.Context(), c.call, nil, nil)
			if !errors.Is(err, clearml.ErrUnavailable) || !errors.Is(err, c.err) {
				t.Errorf("error = %v, want ErrUnavailable with its cause", err)
			}
			if attempts != c.attempts {
				t.Errorf("%d attempts, want %d", attempts, c.attempts)
			}
		})
	}
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.obstacle = func(w http.ResponseWriter, _ *http.Request, _ string) bool { w.WriteHeader(503); return true }
		c := f.direct(func(o *clearml.Options) {
			o.Retry = clearml.Retry{Attempts: 1000, First: time.Minute, Longest: time.Minute}
		})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(90*time.Second, cancel)
		start := time.Now()
		if err := c.PingTask(ctx, "x"); !errors.Is(err, context.Canceled) {
			t.Errorf("error = %v, want context.Canceled", err)
		}
		if took := time.Since(start); took != 90*time.Second {
			t.Errorf("ended after %v, want 90 s", took)
		}
		// A wait that cannot end in time is not begun, and the cause is returned.
		ctx, cancel = context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		start = time.Now()
		err := c.PingTask(ctx, "x")
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, clearml.ErrUnavailable) || time.Since(start) != 0 {
			t.Errorf("error = %v after %v, want both causes at once", err, time.Since(start))
		}
	})
}

func TestWhatIsNoAPIServerIsSaid(t *testing.T) {
	for _, c := range []struct {
		rule   string
		status int
		header string
		body   string
		want   string
	}{
		{"a web page", 200, "", "<!doctype html><title>ClearML</title>", "the answer is a web page"},
		{"an empty answer", 200, "", "", "the answer is empty"},
		{"JSON without meta", 200, "", `{"hello": 1}`, `{\"hello\": 1}`},
		{"a redirect", 302, "https://app.example.com/login", "", "redirects to https://app.example.com/login"},
		{"no token", 200, "", `{"meta":{"result_code":200},"data":{}}`, "returned no token"},
		{"too much", 200, "", strings.Repeat("x", 3000), "more than 2000 bytes"},
		{"a proxy's refusal", 403, "", "blocked", "blocked"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			f := newFake(t)
			f.obstacle = func(w http.ResponseWriter, _ *http.Request, _ string) bool {
				w.Header().Set("Location", c.header)
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
				return true
			}
			client := f.start(func(o *clearml.Options) { o.MaxAnswer = 2000 })
			err := client.PingTask(t.Context(), "x")
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "auth.login") {
				t.Errorf("error = %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestCallsSayWhoCallsAndInWhichVersion(t *testing.T) {
	for announced, want := range map[string]string{"2.31": "/v2.23/tasks.ping", "2.14": "/v2.14/tasks.ping", "": "/v2.23/tasks.ping", "odd": "/v2.23/tasks.ping"} {
		f := newFake(t)
		f.version = announced
		path := ""
		f.obstacle = func(_ http.ResponseWriter, r *http.Request, _ string) bool { path = r.URL.Path; return false }
		f.on("tasks.ping", "{}")
		if err := f.start().PingTask(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		if path != want {
			t.Errorf("announced %q: path = %s, want %s", announced, path, want)
		}
		h := f.headers[len(f.headers)-1]
		for _, prefix := range []string{"X-Clearml-", "X-Trains-"} {
			if h.Get(prefix+"Worker") != "worker-1" || h.Get(prefix+"Client") != "clearml-serving-1.3.5" {
				t.Errorf("headers = %v", h)
			}
		}
	}
}

func count(list []string, what string) int {
	n := 0
	for _, item := range list {
		if item == what {
			n++
		}
	}
	return n
}
