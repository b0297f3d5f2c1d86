package files_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"clearmlserving/controlplane/files"
)

type token string

func (want token) Authenticate(r *http.Request) error {
	if r.Header.Get("Authorization") != "Bearer "+string(want) {
		return files.ErrUnknown
	}
	return nil
}

// start starts a new file server and returns its folder and address.
func start(t *testing.T, opts files.Options) (dir, url string) {
	t.Helper()
	if opts.Dir == "" {
		opts.Dir = t.TempDir()
	}
	if opts.Auth == nil {
		opts.Auth = token("t")
	}
	s, err := files.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s)
	t.Cleanup(func() {
		srv.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return opts.Dir, srv.URL
}

// call sends a request with the token and returns status, header, and body.
func call(t *testing.T, method, url, kind string, body io.Reader, headers ...string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer t")
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(got)
}

// form is an upload as the SDK sends it: the path is the form name, unquoted.
func form(parts ...string) (kind string, body *bytes.Buffer) {
	body = &bytes.Buffer{}
	const boundary = "0123456789abcdef0123456789abcdef"
	for i := 0; i < len(parts); i += 2 {
		fmt.Fprintf(body, "--%s\r\nContent-Disposition: form-data; name=\"%s\"; filename=\"%s\"\r\nContent-Type: binary/octet-stream\r\n\r\n%s\r\n",
			boundary, parts[i], parts[i], parts[i+1])
	}
	fmt.Fprintf(body, "--%s--\r\n", boundary)
	return "multipart/form-data; boundary=" + boundary, body
}

func upload(t *testing.T, url string, parts ...string) {
	t.Helper()
	kind, body := form(parts...)
	if status, _, answer := call(t, "POST", url+"/", kind, body); status != 200 {
		t.Fatalf("upload of %q: %d %s", parts[0], status, answer)
	}
}

// tree lists the content of the folder, including unfinished uploads.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	found := []string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && path != dir && path != filepath.Join(dir, ".incoming") {
			rel, _ := filepath.Rel(dir, path)
			found = append(found, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestUploadedFileComesBackByteForByte(t *testing.T) {
	// Form name as sent, and URL as the SDK registers it (clearml-api, 4.2 and 4.4).
	for name, url := range map[string]string{
		"/P one/T [a].1/models/sk model.pkl":       "/P%20one/T%20%5Ba%5D.1/models/sk%20model.pkl",
		"/P%C3%A9 %231/sub/n%3F%23%25.x/w x.txt":   "/P%25C3%25A9%20%25231/sub/n%253F%2523%2525.x/w%20x.txt",
		"/a0x23b.slash.c é/w.json":                 "/a0x23b.slash.c%20%C3%A9/w.json",
		"/double//slash/x.bin":                     "/double//slash/x.bin",
		"/quote%22d/x":                             "/quote%22d/x", // name quote"d
		"/plus+minus-and~tilde!*'()/x":             "/plus+minus-and~tilde!*'()/x",
		"/" + strings.Repeat("é", 120) + "/x":      "/" + strings.Repeat("%C3%A9", 120) + "/x",
		"/percent 100%/x":                          "/percent%20100%25/x",
		"no leading slash":                         "/no%20leading%20slash",
		"/deep/1/2/3/4/5/6/7/8/9/10/11/12/13/14/x": "/deep/1/2/3/4/5/6/7/8/9/10/11/12/13/14/x",
	} {
		_, addr := start(t, files.Options{})
		content := "\x00\xff\r\n--\r\nbytes of " + name
		kind, body := form(name, content)
		status, _, answer := call(t, "POST", addr+"/", kind, body)
		var stored []string
		if err := json.Unmarshal([]byte(answer), &stored); status != 200 || err != nil || len(stored) != 1 {
			t.Errorf("upload of %q: %d %s", name, status, answer)
			continue
		}
		if status, h, got := call(t, "GET", addr+url, "", nil); status != 200 || got != content || h.Get("Content-Encoding") != "" {
			t.Errorf("GET %s: %d %q; want the content", url, status, got)
		}
		if status, h, _ := call(t, "HEAD", addr+url, "", nil); status != 200 || h.Get("Content-Length") != fmt.Sprint(len(content)) {
			t.Errorf("HEAD %s: %d, length %s; want 200, %d", url, status, h.Get("Content-Length"), len(content))
		}
		if status, _, got := call(t, "DELETE", addr+url, "", nil); status != 200 || !strings.HasPrefix(got, `"`) {
			t.Errorf("DELETE %s: %d %s", url, status, got)
		}
		if status, _, _ := call(t, "GET", addr+url, "", nil); status != 404 {
			t.Errorf("GET %s after DELETE: %d", url, status)
		}
	}
}

func TestSeveralPartsAreStoredTogether(t *testing.T) {
	dir, url := start(t, files.Options{})
	kind, body := form("/p/a", "1", "/p/b", "2")
	status, _, answer := call(t, "POST", url+"/", kind, body)
	if status != 200 || strings.TrimSpace(answer) != `["p/a","p/b"]` {
		t.Errorf("answer %d %s", status, answer)
	}
	if got := tree(t, dir); fmt.Sprint(got) != "[p p/a p/b]" {
		t.Errorf("stored: %v", got)
	}
}

func TestUploadCutAtAnyByteLeavesNothing(t *testing.T) {
	kind, whole := form("/p/a", "first file", "/p/b", "second file")
	cutAt := whole.Len() - len("--\r\n") // a shorter one has an incomplete boundary
	for n := range cutAt {
		dir, url := start(t, files.Options{})
		status, _, answer := call(t, "POST", url+"/", kind, bytes.NewReader(whole.Bytes()[:n]))
		if status != 400 {
			t.Errorf("cut at %d: %d %s", n, status, answer)
		}
		if got := tree(t, dir); len(got) != 0 {
			t.Fatalf("cut at byte %d leaves %v", n, got)
		}
	}
}

func TestConnectionLostInTheMiddleLeavesNothing(t *testing.T) {
	dir, url := start(t, files.Options{})
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	kind, body := form("/p/a", strings.Repeat("x", 1<<20))
	_, err = fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
		kind, body.Len(), body.Bytes()[:600<<10])
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
		_ = resp.Body.Close()
		if resp.StatusCode != 400 {
			t.Errorf("status %d", resp.StatusCode)
		}
	}
	_ = conn.Close()
	if got := tree(t, dir); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
}

func TestUploadThatStandsStillIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s, err := files.New(files.Options{Dir: dir, Auth: token("t")})
		if err != nil {
			t.Fatal(err)
		}
		conn, theirs := net.Pipe()
		only := make(piped, 1)
		only <- theirs
		srv := &http.Server{Handler: s} //nolint:gosec // the test has no slow heads
		var serving sync.WaitGroup
		serving.Go(func() { _ = srv.Serve(only) }) // ends with Close
		defer func() {
			_ = conn.Close()
			if err := errors.Join(srv.Close(), s.Close()); err != nil {
				t.Error(err)
			}
			serving.Wait()
		}()
		kind, body := form("/p/a", "never ends")
		_, err = fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
			kind, body.Len(), body.Bytes()[:body.Len()-20])
		if err != nil {
			t.Fatal(err)
		}
		stands := time.Now()
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil) // comes although the client neither sends nor closes
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != 408 {
			t.Errorf("status %d; want 408", resp.StatusCode)
		}
		if took := time.Since(stands); took != 5*time.Minute {
			t.Errorf("given up after %v; want 5 minutes", took)
		}
		if got := tree(t, dir); len(got) != 0 {
			t.Errorf("left behind: %v", got)
		}
	})
}

// piped is a listener for connections in memory, which use only the bubble's time.
type piped chan net.Conn

func (p piped) Accept() (net.Conn, error) {
	if conn, open := <-p; open {
		return conn, nil
	}
	return nil, net.ErrClosed
}

func (p piped) Close() error   { close(p); return nil }
func (p piped) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "pipe"} }

func TestTraversalReadsWritesAndDeletesNothing(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "files")
	if err := os.WriteFile(filepath.Join(parent, "secret"), []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, url := start(t, files.Options{Dir: dir})
	addr := strings.TrimPrefix(url, "http://")
	for _, path := range []string{
		"/../secret", "/a/../../secret", "/%2e%2e/secret", "/%2e%2e%2fsecret", "/..%2fsecret", "/..%5csecret",
		"/%252e%252e/secret", "/%252e%252e%252fsecret", "/.%2e/secret", "/..;/secret", "/%00/secret", "//../secret",
		`/..\secret`, "/a/%2e%2e/%2e%2e/secret", "/./secret", "/.incoming/", "/secret%00.png", "/" + dir + "/../secret",
	} {
		for _, method := range []string{"GET", "HEAD", "DELETE", "PUT"} {
			// By hand: a client would clean the path.
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", method, path)
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatalf("%s %s: %v", method, path, err)
			}
			_ = resp.Body.Close()
			_ = conn.Close()
			want := 404
			if method == "PUT" {
				want = 400
			}
			if resp.StatusCode != want && resp.StatusCode != 400 {
				t.Errorf("%s %s: %d; want %d", method, path, resp.StatusCode, want)
			}
		}
		name := strings.TrimPrefix(path, "/")
		kind, body := form(name, "evil")
		if status, _, _ := call(t, "POST", url+"/", kind, body); status != 400 && strings.Contains(name, "..") {
			t.Errorf("upload as %q: %d; want 400", name, status)
		}
		list, _ := json.Marshal(map[string][]string{"files": {path}})
		if status, _, answer := call(t, "POST", url+"/delete_many", "application/json", bytes.NewReader(list)); status != 200 || !strings.Contains(answer, `"deleted":{}`) {
			t.Errorf("delete_many %q: %d %s", path, status, answer)
		}
	}
	if got, err := os.ReadFile(filepath.Join(parent, "secret")); err != nil || string(got) != "s" {
		t.Errorf("the secret is now %q, %v", got, err)
	}
	if entries, err := os.ReadDir(parent); err != nil || len(entries) != 2 {
		t.Errorf("beside the folder: %v, %v", entries, err)
	}
}

func TestWithoutCredentialsNothingButThePingIsAnswered(t *testing.T) {
	dir, url := start(t, files.Options{})
	upload(t, url, "/p/a", "1")
	kind, body := form("/p/b", "2")
	for _, c := range []struct {
		method, path, kind, body string
		want                     int
	}{
		{"GET", "/", "", "", 200},
		{"HEAD", "/", "", "", 200},
		{"OPTIONS", "/p/a", "", "", 200},
		{"GET", "/p/a", "", "", 401},
		{"HEAD", "/p/a", "", "", 401},
		{"GET", "/p/missing", "", "", 401},
		{"GET", "/../x", "", "", 401},
		{"DELETE", "/p/a", "", "", 401},
		{"PUT", "/p/a", "", "x", 401},
		{"POST", "/", kind, body.String(), 401},
		{"POST", "/delete_many", "application/json", `{"files":["p/a"]}`, 401},
		{"PATCH", "/p/a", "", "", 401},
	} {
		status, h, answer := call(t, c.method, url+c.path, c.kind, strings.NewReader(c.body), "Authorization", "Bearer wrong")
		if status != c.want {
			t.Errorf("%s %s: %d %s; want %d", c.method, c.path, status, answer, c.want)
		}
		if h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s %s: CORS %v", c.method, c.path, h)
		}
	}
	if got := tree(t, dir); fmt.Sprint(got) != "[p p/a]" {
		t.Errorf("stored: %v", got)
	}
}

func TestRangesAndConditions(t *testing.T) {
	_, url := start(t, files.Options{})
	upload(t, url, "/p/model.pkl", "0123456789")
	status, h, got := call(t, "GET", url+"/p/model.pkl", "", nil, "Range", "bytes=2-4")
	if status != 206 || got != "234" || h.Get("Content-Range") != "bytes 2-4/10" {
		t.Errorf("range: %d %q %s", status, got, h.Get("Content-Range"))
	}
	if status, _, _ := call(t, "GET", url+"/p/model.pkl", "", nil, "Range", "bytes=20-"); status != 416 {
		t.Errorf("range behind the end: %d", status)
	}
	etag := h.Get("Etag")
	if status, _, _ := call(t, "GET", url+"/p/model.pkl", "", nil, "If-None-Match", etag); status != 304 {
		t.Errorf("unchanged file with its ETag: %d", status)
	}
	upload(t, url, "/p/model.pkl", "abcdefghij")
	if status, _, got := call(t, "GET", url+"/p/model.pkl", "", nil, "If-None-Match", etag); status != 200 || got != "abcdefghij" {
		t.Errorf("changed file with its old ETag: %d %q", status, got)
	}
	if status, _, got := call(t, "GET", url+"/p/model.pkl", "", nil, "Range", "bytes=2-4", "If-Range", etag); status != 200 || got != "abcdefghij" {
		t.Errorf("resume of a changed file: %d %q; want all of it", status, got)
	}
}

func TestStoredPagesCannotRunInTheOriginOfTheServer(t *testing.T) {
	_, url := start(t, files.Options{})
	for name, want := range map[string]string{
		"x.html": "attachment", "x.HTM": "attachment", "x.svg": "attachment", "x.xml": "attachment", "x": "attachment",
		"x.js": "attachment", "x.pkl": "attachment", "a.csv.gz": "attachment", "x.xhtml": "attachment",
		"x.txt": "inline", "x.png": "inline", "x.json": "inline",
	} {
		upload(t, url, "/p/"+name, "<script>alert(1)</script>")
		_, h, _ := call(t, "GET", url+"/p/"+name, "", nil)
		if !strings.HasPrefix(h.Get("Content-Disposition"), want) {
			t.Errorf("%s: disposition %q; want %s", name, h.Get("Content-Disposition"), want)
		}
		csp := h.Get("Content-Security-Policy")
		if h.Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(csp, "sandbox;") || strings.Contains(csp, "allow-") {
			t.Errorf("%s: headers %v", name, h)
		}
	}
	if _, h, _ := call(t, "GET", url+"/p/x.txt?download", "", nil); !strings.HasPrefix(h.Get("Content-Disposition"), "attachment") {
		t.Errorf("?download: %q", h.Get("Content-Disposition"))
	}
	if _, h, _ := call(t, "GET", url+"/p/a.csv.gz", "", nil); h.Get("Content-Type") != "application/octet-stream" || h.Get("Content-Encoding") != "" {
		t.Errorf("compressed file: %v", h)
	}
}

func TestDeletePrunesEmptyFoldersAndKeepsOthers(t *testing.T) {
	dir, url := start(t, files.Options{})
	upload(t, url, "/p/t1/models/a", "1", "/p/t2/b", "2", "/p/t1/c", "3")
	if status, _, got := call(t, "DELETE", url+"/p/t1/models/a", "", nil); status != 200 || strings.TrimSpace(got) != `"p/t1/models/a"` {
		t.Errorf("DELETE: %d %s", status, got)
	}
	if got := tree(t, dir); fmt.Sprint(got) != "[p p/t1 p/t1/c p/t2 p/t2/b]" {
		t.Errorf("after a file: %v", got)
	}
	for _, path := range []string{"/p/t1", "/p", "/p/t1/models/a", "/p/t2/b/x"} {
		if status, _, _ := call(t, "DELETE", url+path, "", nil); status != 404 {
			t.Errorf("DELETE %s: %d; want 404", path, status)
		}
	}
	_, _, answer := call(t, "POST", url+"/delete_many", "application/json",
		strings.NewReader(`{"files":["p/t1","p%2Ft2/b","p/gone","","a+b"]}`))
	var got struct {
		Deleted map[string]string
		Errors  map[string][]string
	}
	if err := json.Unmarshal([]byte(answer), &got); err != nil {
		t.Fatalf("%s: %v", answer, err)
	}
	if fmt.Sprint(got.Deleted) != "map[p%2Ft2/b:p/t2/b p/t1:p/t1]" || len(got.Errors["the path is empty"]) != 1 || len(got.Errors["no such file"]) != 2 {
		t.Errorf("delete_many: %+v", got)
	}
	if left := tree(t, dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestBadUploadsAreRefusedWithAReason(t *testing.T) {
	dir, url := start(t, files.Options{})
	upload(t, url, "/p/file", "1")
	kind, noName := form("", "x")
	_, long := form("/p/"+strings.Repeat("n", 256), "x")
	_, overFolder := form("/p", "x")
	_, underFile := form("/p/file/x", "x")
	_, empty := form()
	for name, c := range map[string]struct {
		method, path, kind string
		body               io.Reader
		status             int
		says               string
	}{
		"no name":          {"POST", "/", kind, noName, 400, "empty"},
		"long name":        {"POST", "/", kind, long, 400, "255"},
		"over a folder":    {"POST", "/", kind, overFolder, 400, "folder"},
		"under a file":     {"POST", "/", kind, underFile, 400, "stored as a file"},
		"no parts":         {"POST", "/", kind, empty, 400, "no file"},
		"not a form":       {"POST", "/", "application/json", strings.NewReader("{}"), 400, "multipart"},
		"no boundary":      {"POST", "/", "multipart/form-data", strings.NewReader("x"), 400, "boundary"},
		"endless boundary": {"POST", "/", "multipart/form-data; boundary=" + strings.Repeat("b", 71), strings.NewReader("x"), 400, "boundary"},
		"post to a path":   {"POST", "/p/x", kind, strings.NewReader("x"), 405, "PUT"},
		"put of nothing":   {"PUT", "/", "", strings.NewReader("x"), 400, "empty"},
		"other verb":       {"PATCH", "/p/x", "", strings.NewReader("x"), 405, "PATCH"},
		"bad delete list":  {"POST", "/delete_many", "application/json", strings.NewReader("[1"), 400, "files"},
	} {
		t.Run(name, func(t *testing.T) {
			status, h, answer := call(t, c.method, url+c.path, c.kind, c.body)
			var told struct{ Error string }
			if err := json.Unmarshal([]byte(answer), &told); err != nil || status != c.status || !strings.Contains(told.Error, c.says) {
				t.Errorf("%d %s %s; want %d and %q", status, h.Get("Content-Type"), answer, c.status, c.says)
			}
		})
	}
	if status, _, _ := call(t, "POST", url+"/", kind, strings.NewReader("x"), "Content-Encoding", "gzip"); status != 415 {
		t.Errorf("encoded upload: %d; want 415", status)
	}
	if got := tree(t, dir); fmt.Sprint(got) != "[p p/file]" {
		t.Errorf("stored: %v", got)
	}
}

func TestPutStoresAtThePath(t *testing.T) {
	_, url := start(t, files.Options{})
	if status, _, got := call(t, "PUT", url+"/p%20x/a", "", strings.NewReader("content")); status != 200 || strings.TrimSpace(got) != `["p x/a"]` {
		t.Errorf("PUT: %d %s", status, got)
	}
	if _, _, got := call(t, "GET", url+"/p%20x/a", "", nil); got != "content" {
		t.Errorf("GET: %q", got)
	}
}

func TestRestartForgetsUnfinishedUploads(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{".incoming/x", ".incoming/folder/y", "p/kept"} {
		full := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	start(t, files.Options{Dir: dir})
	if got := tree(t, dir); fmt.Sprint(got) != "[p p/kept]" {
		t.Errorf("after the start: %v", got)
	}
}

// Readers see one version or the other, never a mixture. Deletes in between never
// make an upload fail by removing its folder.
func TestReadersNeverSeeHalfAFile(t *testing.T) {
	_, url := start(t, files.Options{})
	versions := []string{strings.Repeat("a", 300_000), strings.Repeat("b", 300_001)}
	upload(t, url, "/p/q/x", versions[0])
	var all sync.WaitGroup
	for i := range 2 {
		all.Go(func() {
			for range 20 {
				kind, body := form("/p/q/x", versions[i])
				if status, _, answer := call(t, "POST", url+"/", kind, body); status != 200 {
					t.Errorf("upload: %d %s", status, answer)
				}
			}
		})
	}
	all.Go(func() {
		for range 20 {
			call(t, "DELETE", url+"/p/q/x", "", nil)
		}
	})
	all.Go(func() {
		for range 40 {
			status, _, got := call(t, "GET", url+"/p/q/x", "", nil)
			if status == 200 && got != versions[0] && got != versions[1] {
				t.Errorf("read %d bytes that match no upload", len(got))
			}
		}
	})
	all.Wait()
}

func TestLargeFileKeepsItsHash(t *testing.T) {
	_, url := start(t, files.Options{})
	const size = 24<<20 + 17
	sent := sha256.New()
	body, write := io.Pipe()
	mw := multipart.NewWriter(write)
	var all sync.WaitGroup
	all.Go(func() {
		part, err := mw.CreateFormField("/p/large.bin")
		if err == nil {
			_, err = io.Copy(io.MultiWriter(part, sent), io.LimitReader(&counting{}, size))
		}
		_ = write.CloseWithError(errors.Join(err, mw.Close()))
	})
	status, _, answer := call(t, "POST", url+"/", mw.FormDataContentType(), body)
	all.Wait()
	if status != 200 {
		t.Fatalf("upload: %d %s", status, answer)
	}
	req, err := http.NewRequestWithContext(t.Context(), "GET", url+"/p/large.bin", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer t")
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	got := sha256.New()
	if n, err := io.Copy(got, resp.Body); err != nil || n != size || resp.ContentLength != size {
		t.Fatalf("read %d of %d bytes (announced %d): %v", n, size, resp.ContentLength, err)
	}
	if want := hex.EncodeToString(sent.Sum(nil)); hex.EncodeToString(got.Sum(nil)) != want {
		t.Errorf("hash differs from %s", want)
	}
}

// counting is an endless file whose bytes depend on the offset.
type counting struct{ at uint32 }

func (c *counting) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(c.at * 2654435761 >> 24)
		c.at++
	}
	return len(p), nil
}

// The SDK requests each file twice, and drops the first answer after it has read the
// length. It decompresses a file itself, unless the server reports an encoding.
func TestADownloadIsAskedForTwiceAndItsFirstAnswerDropped(t *testing.T) {
	_, url := start(t, files.Options{})
	content := strings.Repeat("large ", 1<<20)
	upload(t, url, "/p/table.csv.gz", content)
	for range 3 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/p/table.csv.gz", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer t")
		req.Header.Set("Accept-Encoding", "gzip, deflate")
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close() // unread
		if resp.StatusCode != 200 || resp.ContentLength != int64(len(content)) || resp.Header.Get("Content-Encoding") != "" {
			t.Errorf("%s, length %d, encoding %q", resp.Status, resp.ContentLength, resp.Header.Get("Content-Encoding"))
		}
	}
	if status, _, got := call(t, "GET", url+"/p/table.csv.gz", "", nil); status != 200 || got != content {
		t.Errorf("the whole file: %d, %d bytes", status, len(got))
	}
}

type authError struct{ err error }

func (a authError) Authenticate(*http.Request) error { return a.err }

func TestARefusalSaysWhetherCredentialsAreMissingOrNotEnough(t *testing.T) {
	for want, err := range map[int]error{
		401: fmt.Errorf("%w (expired)", files.ErrUnknown), 403: files.ErrForbidden, 500: errors.New("the database is not reached"),
	} {
		_, url := start(t, files.Options{Auth: authError{err}})
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, url+"/p/a", strings.NewReader("x"))
		resp, doErr := http.DefaultClient.Do(req)
		if doErr != nil {
			t.Fatal(doErr)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%v: %d, want %d", err, resp.StatusCode, want)
		}
	}
}

// Each folder of a path takes time while other requests wait for the tree.
func TestADeepPathIsRefusedBeforeItCostsAnything(t *testing.T) {
	dir, url := start(t, files.Options{})
	ask := func(method, path, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer t")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	deepest, deeper := strings.Repeat("/d", 64)+"/file", strings.Repeat("/d", 65)+"/file"
	for _, path := range []string{deeper, strings.Repeat("/a", 2000) + "/b"} {
		for _, method := range []string{"PUT", "DELETE", "GET"} {
			if status, text := ask(method, path, "x"); status != 400 || !strings.Contains(text, "64 folders") {
				t.Errorf("%s %.20s: %d %s", method, path, status, text)
			}
		}
		if _, text := ask("POST", "/delete_many", `{"files":["`+path+`"]}`); !strings.Contains(text, "64 folders") {
			t.Errorf("delete_many: %s", text)
		}
	}
	if got := tree(t, dir); len(got) != 0 {
		t.Errorf("created: %v", got)
	}
	for _, method := range []string{"PUT", "GET", "DELETE"} {
		if status, text := ask(method, deepest, "x"); status != 200 {
			t.Errorf("%s of 64 folders: %d %s", method, status, text)
		}
	}
	if got := tree(t, dir); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
}

func TestDeleteManyTakesSoManyPathsAndNoMore(t *testing.T) {
	_, url := start(t, files.Options{})
	for n, want := range map[int]int{10_000: 200, 10_001: 400, 2_000_000: 413} {
		body := `{"files":[` + strings.TrimSuffix(strings.Repeat(`"",`, n), ",") + `]}`
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/delete_many", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer t")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%d paths: %d, want %d", n, resp.StatusCode, want)
		}
	}
}
