package https_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"clearmlserving/leaktest"
	"clearmlserving/storage"
	"clearmlserving/storage/https"
	"clearmlserving/storage/storagetest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// fileServer is a server of files in memory: forms and PUT, ranges, validators.
type fileServer struct {
	mu       sync.Mutex // guards the fields below
	files    map[string]stored
	puts     []string
	noRanges bool
	quiet    bool // neither ETag nor Last-Modified
}

type stored struct {
	data []byte
	at   time.Time
}

func (s *fileServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := strings.TrimPrefix(r.URL.Path, "/")
	switch r.Method {
	case http.MethodPost:
		form, err := r.MultipartReader()
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for {
			part, err := form.NextPart()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return
			}
			data, err := io.ReadAll(part)
			if err != nil {
				return
			}
			s.store(strings.TrimPrefix(part.FormName(), "/"), data, "form")
		}
	case http.MethodPut:
		data, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		s.store(name, data, "put")
		w.WriteHeader(http.StatusCreated)
	case http.MethodDelete:
		if _, ok := s.files[name]; !ok {
			http.NotFound(w, r)
		}
		delete(s.files, name)
	default:
		f, ok := s.files[name]
		if !ok {
			http.NotFound(w, r)
			return
		}
		switch {
		case s.noRanges:
			w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(f.data)))
			w.Header().Set("Content-Length", fmt.Sprint(len(f.data)))
			_, _ = w.Write(f.data)
		case s.quiet:
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.data))
		default:
			w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(f.data)))
			http.ServeContent(w, r, "", f.at, bytes.NewReader(f.data))
		}
	}
}

func (s *fileServer) store(name string, data []byte, how string) {
	if s.files == nil {
		s.files = map[string]stored{}
	}
	s.files[name] = stored{data: data, at: time.Now()}
	s.puts = append(s.puts, how)
}

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

func adapter(t *testing.T, o https.Options) *https.Adapter {
	t.Helper()
	a := https.New(o)
	return a
}

func quoted(name string) string {
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		parts = append(parts, url.PathEscape(part))
	}
	return strings.Join(parts, "/")
}

func TestAdapterKeepsTheContract(t *testing.T) {
	for how, place := range map[string]func(string) https.Options{
		"ClearML file server": func(root string) https.Options { return https.Options{FileServer: root + "/"} },
		"plain PUT":           func(string) https.Options { return https.Options{} },
	} {
		t.Run(how, func(t *testing.T) {
			storagetest.Run(t, func(t *testing.T) storagetest.Place {
				t.Helper()
				root := serve(t, &fileServer{})
				return storagetest.Place{
					Adapter: adapter(t, place(root)), Ranges: true,
					URL: func(name string) string { return root + "/" + quoted(name) },
				}
			})
		})
	}
	t.Run("no ranges", func(t *testing.T) {
		storagetest.Run(t, func(t *testing.T) storagetest.Place {
			t.Helper()
			root := serve(t, &fileServer{noRanges: true})
			return storagetest.Place{
				Adapter: adapter(t, https.Options{}),
				URL:     func(name string) string { return root + "/" + quoted(name) },
			}
		})
	})
	t.Run("no validators", func(t *testing.T) {
		storagetest.Run(t, func(t *testing.T) storagetest.Place {
			t.Helper()
			root := serve(t, &fileServer{quiet: true})
			return storagetest.Place{
				Adapter: adapter(t, https.Options{}), Ranges: true,
				URL: func(name string) string { return root + "/" + quoted(name) },
			}
		})
	})
}

func TestFilesBelowTheFileServerAreSentAsForms(t *testing.T) {
	s := &fileServer{}
	root := serve(t, s)
	a := adapter(t, https.Options{FileServer: root})
	// The name is decoded once: text that was quoted twice stays quoted once.
	if err := a.Put(t.Context(), root+"/P%20one/n%2523.id/a%22b.pkl", strings.NewReader("x"), -1, nil); err != nil {
		t.Fatal(err)
	}
	if err := a.Put(t.Context(), strings.Replace(root, "127.0.0.1", "localhost", 1)+"/other", strings.NewReader("x"), 1, nil); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(s.puts, " "); got != "form put" {
		t.Errorf("stored by %s, want form put", got)
	}
	if _, ok := s.files["P one/n%23.id/a%22b.pkl"]; !ok {
		t.Errorf("stored are %v", s.files)
	}
}

// The SDK does not always register the path that it has stored.
func TestAFileIsFoundUnderTheOtherReadingsOfItsURL(t *testing.T) {
	f := &fileServer{files: map[string]stored{}}
	var asked atomic.Int64
	root := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		f.ServeHTTP(w, r)
	}))
	for _, name := range []string{"t%C3%A4sk/m.pkl", "plain ü.pkl", "m#1.pkl", "m?1.pkl", "t%C3%A4sk %C3%B6/m.pkl", "t%C3%A4sk %C3%B6/m#1.pkl"} {
		f.files[name] = stored{data: []byte(name), at: time.Now()}
	}
	for path, want := range map[string]struct {
		name  string
		asked int64
	}{
		"/t%C3%A4sk/m.pkl":          {"t%C3%A4sk/m.pkl", 2},
		"/t%25C3%25A4sk/m.pkl":      {"t%C3%A4sk/m.pkl", 1},
		"/t%C3%A4sk %C3%B6/m.pkl":   {"t%C3%A4sk %C3%B6/m.pkl", 2},
		"/t%C3%A4sk %C3%B6/m#1.pkl": {"t%C3%A4sk %C3%B6/m#1.pkl", 3},
		"/plain%20%C3%BC.pkl":       {"plain ü.pkl", 1},
		"/m#1.pkl":                  {"m#1.pkl", 2},
		"/m?1.pkl":                  {"m?1.pkl", 2},
		"/m%231.pkl":                {"m#1.pkl", 1},
		"/gone.pkl":                 {"", 1},
		"/go%20ne.pkl":              {"", 2},
	} {
		t.Run(path, func(t *testing.T) {
			asked.Store(0)
			body, _, err := adapter(t, https.Options{FileServer: root}).Open(t.Context(), root+path, storage.Part{})
			got := ""
			if err == nil {
				text, readErr := io.ReadAll(body)
				if err := errors.Join(readErr, body.Close()); err != nil {
					t.Fatal(err)
				}
				got = string(text)
			} else if !errors.Is(err, storage.ErrNotExist) {
				t.Fatal(err)
			}
			if got != want.name || asked.Load() != want.asked {
				t.Errorf("got %q with %d requests, want %q with %d", got, asked.Load(), want.name, want.asked)
			}
		})
	}
}

func TestRedirectNeverCarriesCredentials(t *testing.T) {
	var seen []string
	record := func(r *http.Request) {
		seen = append(seen, r.Host+" "+r.Header.Get("Authorization")+r.Header.Get("X-Key"))
	}
	other := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { record(r) }))
	other = strings.Replace(other, "127.0.0.1", "localhost", 1)
	home := ""
	home = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		record(r)
		if r.URL.Path == "/a" {
			http.Redirect(w, r, home+"/b", http.StatusFound)
			return
		}
		http.Redirect(w, r, other+"/c", http.StatusTemporaryRedirect)
	}))
	a := adapter(t, https.Options{Header: func(u string) (http.Header, error) {
		if strings.HasPrefix(u, home+"/") {
			return http.Header{"Authorization": {"Bearer secret"}, "X-Key": {"key"}}, nil
		}
		return nil, nil
	}})
	if _, err := a.Stat(t.Context(), home+"/a"); err != nil {
		t.Fatal(err)
	}
	host := func(u string) string { return strings.TrimPrefix(u, "http://") }
	want := []string{host(home) + " Bearer secretkey", host(home) + " Bearer secretkey", host(other) + " "}
	if fmt.Sprint(seen) != fmt.Sprint(want) {
		t.Errorf("requests were %q, want %q", seen, want)
	}
}

func TestBadRedirectsAreNotFollowed(t *testing.T) {
	for location, want := range map[string]string{
		"":                   "without a target",
		"file:///etc/passwd": "not an http or https URL",
		"ftp://h/x":          "not an http or https URL",
		"http://[":           "not an http or https URL",
		"/again":             "more than 10 redirects",
	} {
		root := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", location)
			w.WriteHeader(http.StatusFound)
		}))
		if _, err := adapter(t, https.Options{}).Stat(t.Context(), root+"/a"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("redirect to %q: %v, want an error with %q", location, err, want)
		}
	}
}

func TestRedirectFromHTTPSToHTTPIsNotFollowed(t *testing.T) {
	srv := httptest.NewTLSServer(http.RedirectHandler("http://localhost/x", http.StatusFound))
	defer srv.Close()
	a := adapter(t, https.Options{Transport: srv.Client().Transport})
	if _, err := a.Stat(t.Context(), srv.URL+"/a"); err == nil || !strings.Contains(err.Error(), "from https to http") {
		t.Errorf("redirect to http: %v", err)
	}
}

func TestUntrustedCertificateIsFinal(t *testing.T) {
	srv := httptest.NewTLSServer(http.NotFoundHandler())
	defer srv.Close()
	srv.Config.ErrorLog = nil
	_, err := adapter(t, https.Options{}).Stat(t.Context(), srv.URL+"/a")
	if err == nil || storage.IsTransient(err) || !strings.Contains(err.Error(), "certificate is not trusted") {
		t.Errorf("stat: %v", err)
	}
}

func TestStatusDecidesWhatToDo(t *testing.T) {
	for status, want := range map[int]struct {
		transient bool
		is        error
	}{
		401: {is: storage.ErrDenied},
		403: {is: storage.ErrDenied},
		404: {is: storage.ErrNotExist},
		410: {is: storage.ErrNotExist},
		408: {transient: true},
		418: {},
		425: {transient: true},
		429: {transient: true},
		500: {transient: true},
		502: {transient: true},
		503: {transient: true},
		509: {transient: true},
	} {
		root := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(status)
		}))
		_, _, err := adapter(t, https.Options{}).Open(t.Context(), root+"/a?signature=secret", storage.Part{})
		if err == nil || storage.IsTransient(err) != want.transient || (want.is != nil && !errors.Is(err, want.is)) {
			t.Errorf("status %d: %v", status, err)
		}
		var e *storage.Error
		if want.transient && (!errors.As(err, &e) || e.After != 7*time.Second) {
			t.Errorf("status %d: the requested wait is lost in %v", status, err)
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("status %d: %v reveals the query", status, err)
		}
	}
}

func TestUnreachableServerIsTransientAndTellsNoSecret(t *testing.T) {
	const secret = "http://user:hunter2@127.0.0.1:1/a?sig=hunter2" // a reserved port
	a := adapter(t, https.Options{})
	_, statErr := a.Stat(t.Context(), secret)
	for op, err := range map[string]error{
		"stat": statErr, "delete": a.Delete(t.Context(), secret),
		"put": a.Put(t.Context(), secret, strings.NewReader("x"), 1, nil),
	} {
		if !storage.IsTransient(err) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", op, err)
		}
	}
}

func TestURLThatIsNoneIsNamed(t *testing.T) {
	for _, u := range []string{"http://", "http://h:port/x", "https:///x", "http://h/%zz"} {
		if _, err := adapter(t, https.Options{}).Stat(t.Context(), u); err == nil || storage.IsTransient(err) || !strings.Contains(err.Error(), "not a") {
			t.Errorf("stat %s: %v", u, err)
		}
	}
}

// If the source of credentials is unavailable, the cache is served.
func TestMissingCredentialsAreTransientUnlessDenied(t *testing.T) {
	for _, cause := range []error{errors.New("login: connection refused"), fmt.Errorf("login: %w", storage.ErrDenied)} {
		a := adapter(t, https.Options{Header: func(string) (http.Header, error) { return nil, cause }})
		_, err := a.Stat(t.Context(), "http://127.0.0.1:1/x")
		if !errors.Is(err, cause) || storage.IsTransient(err) == errors.Is(cause, storage.ErrDenied) {
			t.Errorf("stat with %v: %v", cause, err)
		}
	}
}

func TestEncodedAnswersAreRefusedExceptOfGzipFiles(t *testing.T) {
	root := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Accept-Encoding"); got != "identity" {
			t.Errorf("Accept-Encoding %q", got)
		}
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write([]byte("\x1f\x8bnot really"))
	}))
	a := adapter(t, https.Options{})
	if _, _, err := a.Open(t.Context(), root+"/model.pkl", storage.Part{}); err == nil || !strings.Contains(err.Error(), `"gzip"`) {
		t.Errorf("open of an encoded file: %v", err)
	}
	body, _, err := a.Open(t.Context(), root+"/data.csv.gz", storage.Part{})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); err != nil || string(got) != "\x1f\x8bnot really" {
		t.Errorf("read %q, %v", got, err)
	}
}

// URLs that are signed for GET refuse HEAD.
func TestStatWorksWithoutHEAD(t *testing.T) {
	for name, size := range map[string]int{"file": 100, "empty": 0} {
		root := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			w.Header().Set("ETag", `"1"`)
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(make([]byte, size)))
		}))
		o, err := adapter(t, https.Options{}).Stat(t.Context(), root+"/"+name)
		if err != nil || o.Size != int64(size) || o.ETag != `"1"` {
			t.Errorf("stat of the %s: %+v, %v", name, o, err)
		}
	}
}

func TestStrangeAnswersToPartsAreNotTaken(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		header string
		want   error
	}{
		"416":                {416, "", storage.ErrChanged},
		"other start":        {206, "bytes 0-9/100", storage.ErrNoRanges},
		"longer":             {206, "bytes 10-30/100", storage.ErrNoRanges},
		"shorter":            {206, "bytes 10-15/100", storage.ErrChanged},
		"no Content-Range":   {206, "", storage.ErrNoRanges},
		"unknown total":      {206, "bytes 10-19/*", storage.ErrNoRanges},
		"end before start":   {206, "bytes 10-9/100", storage.ErrNoRanges},
		"negative":           {206, "bytes -10-9/100", storage.ErrNoRanges},
		"past the total":     {206, "bytes 10-19/15", storage.ErrNoRanges},
		"whole file instead": {200, "", storage.ErrNoRanges},
	} {
		t.Run(name, func(t *testing.T) {
			root := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if c.header != "" {
					w.Header().Set("Content-Range", c.header)
				}
				w.WriteHeader(c.status)
			}))
			if _, _, err := adapter(t, https.Options{}).Open(t.Context(), root+"/a", storage.Part{Offset: 10, Length: 10}); !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
		})
	}
}

func TestWholeFileAnsweredWithAPartIsRefused(t *testing.T) {
	root := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Range", "bytes 0-9/100")
		w.WriteHeader(http.StatusPartialContent)
	}))
	if _, _, err := adapter(t, https.Options{}).Open(t.Context(), root+"/a", storage.Part{}); err == nil {
		t.Error("a part was taken for the whole")
	}
}

// A server without Content-Length ends its answer like an interrupted connection.
func TestAnswerWithoutFrameIsSaidToBeSo(t *testing.T) {
	root := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = conn.Write([]byte("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf a mod"))
		_ = conn.Close()
	}))
	body, o, err := adapter(t, https.Options{}).Open(t.Context(), root+"/a", storage.Part{})
	if err != nil || !o.Unframed || o.Size != -1 {
		t.Fatalf("object %+v, %v", o, err)
	}
	_ = body.Close()
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-9/100", "bytes 10-19/*", "", "bytes -1-0/0", "bytes 9223372036854775807-9223372036854775807/9223372036854775807"} {
		f.Add(s, int64(10), int64(10))
	}
	f.Fuzz(func(t *testing.T, s string, offset, length int64) {
		if offset < 0 || length < 0 || length > 1<<40 {
			t.Skip()
		}
		resp := &http.Response{StatusCode: http.StatusPartialContent, Header: http.Header{"Content-Range": {s}}, ProtoMajor: 1, Request: &http.Request{Method: http.MethodGet}}
		o, n, err := https.Judge(resp, "http://h/a", storage.Part{Offset: offset, Length: length})
		if err == nil && (n <= 0 || offset+n > o.Size || (length > 0 && n != length)) {
			t.Errorf("%q was taken for %d+%d: %d bytes of %d", s, offset, length, n, o.Size)
		}
	})
}
