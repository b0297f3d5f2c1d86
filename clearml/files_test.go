package clearml_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"clearmlserving/clearml"
)

// fileServer takes uploads as ClearML's file server does, and has a say first.
type fileServer struct {
	t       *testing.T
	mu      sync.Mutex // guards everything below
	say     func(w http.ResponseWriter, r *http.Request, n int) bool
	n       int
	stored  map[string]string // form name -> content
	bearers []string
	deleted []string
}

func (s *fileServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	s.bearers = append(s.bearers, r.Header.Get("Authorization"))
	if s.say != nil && s.say(w, r, s.n) {
		return
	}
	if r.Method == http.MethodDelete {
		s.deleted = append(s.deleted, r.URL.Path)
		return
	}
	if r.Method != http.MethodPost || r.URL.Path != "/" || r.ContentLength <= 0 {
		s.t.Errorf("%s %s of %d bytes, want POST / with a length", r.Method, r.URL.Path, r.ContentLength)
	}
	_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		s.t.Errorf("content type: %v", err)
	}
	form := multipart.NewReader(r.Body, params["boundary"])
	part, err := form.NextPart()
	if err != nil {
		s.t.Errorf("form: %v", err)
		return
	}
	content, err := io.ReadAll(part)
	if err != nil {
		s.t.Errorf("part: %v", err)
	}
	if _, err := form.NextPart(); !errors.Is(err, io.EOF) {
		s.t.Errorf("after the part: %v, want the end", err)
	}
	s.stored[part.FormName()] = string(content)
}

// clientOfFiles is a client whose file server is a real one.
func clientOfFiles(t *testing.T) (*clearml.Client, *fileServer) {
	t.Helper()
	files := &fileServer{t: t, stored: map[string]string{}}
	server := httptest.NewServer(files)
	t.Cleanup(server.Close)
	c := newFake(t).start(func(o *clearml.Options) { o.Config.Files = clearml.Setting{Value: server.URL, From: "the test"} })
	return c, files
}

func TestUploadIsStoredByteForByteUnderItsName(t *testing.T) {
	c, files := clientOfFiles(t)
	content := strings.Repeat("0123456789", 100_000)
	var progress []int64
	path := `P é/#1 [a]%.id/models/a "b" \c.pkl`
	uri, err := c.Upload(t.Context(), c.FilesURL()+"/", path, strings.NewReader(content), int64(len(content)), func(n int64) { progress = append(progress, n) })
	if err != nil {
		t.Fatal(err)
	}
	if want := c.FilesURL() + "/P%20%C3%A9/%231%20%5Ba%5D%25.id/models/a%20%22b%22%20%5Cc.pkl"; uri != want {
		t.Errorf("uri = %s, want %s", uri, want)
	}
	// A quote travels as %22, as the SDK's HTTP library sends it.
	if files.stored[`/P é/#1 [a]%.id/models/a %22b%22 \c.pkl`] != content {
		t.Errorf("stored %d files under other names or with other content", len(files.stored))
	}
	if len(progress) < 2 || !slices.IsSorted(progress) || progress[len(progress)-1] != int64(len(content)) {
		t.Errorf("progress = %v", progress)
	}
	if !strings.HasPrefix(files.bearers[0], "Bearer t") {
		t.Errorf("authorization = %q", files.bearers[0])
	}
}

func TestUploadBelowAFolderOfTheFileServer(t *testing.T) {
	c, files := clientOfFiles(t)
	uri, err := c.Upload(t.Context(), c.FilesURL()+"/team%20a/x", "m.pkl", strings.NewReader("abc"), 3, nil)
	if err != nil || uri != c.FilesURL()+"/team%20a/x/m.pkl" || files.stored["/team a/x/m.pkl"] != "abc" {
		t.Errorf("uri = %s, stored %v, error %v", uri, files.stored, err)
	}
}

func TestUploadIsRepeatedWhenTheServerIsBusy(t *testing.T) {
	c, files := clientOfFiles(t)
	files.say = func(w http.ResponseWriter, _ *http.Request, n int) bool {
		if n < 3 {
			w.WriteHeader(503) // without reading the body
		}
		return n < 3
	}
	content := bytes.Repeat([]byte("x"), 3<<20)
	if _, err := c.Upload(t.Context(), c.FilesURL(), "a/b", bytes.NewReader(content), int64(len(content)), nil); err != nil {
		t.Fatal(err)
	}
	if files.stored["/a/b"] != string(content) {
		t.Error("other bytes arrived")
	}
	// What cannot be read again is sent once.
	files.n = 0
	_, err := c.Upload(t.Context(), c.FilesURL(), "a/b", io.MultiReader(strings.NewReader("abc")), 3, nil)
	if !errors.Is(err, clearml.ErrUnavailable) || files.n != 1 {
		t.Errorf("error %v after %d requests, want ErrUnavailable after one", err, files.n)
	}
}

func TestUploadExchangesARefusedTokenOnce(t *testing.T) {
	c, files := clientOfFiles(t)
	files.say = func(w http.ResponseWriter, _ *http.Request, n int) bool {
		if n == 1 {
			w.WriteHeader(401)
		}
		return n == 1
	}
	if _, err := c.Upload(t.Context(), c.FilesURL(), "a/b", strings.NewReader("abc"), 3, nil); err != nil {
		t.Fatal(err)
	}
	if len(files.bearers) != 2 || files.bearers[0] == files.bearers[1] {
		t.Errorf("authorizations = %q, want two different ones", files.bearers)
	}
	files.say = func(w http.ResponseWriter, _ *http.Request, _ int) bool { w.WriteHeader(401); return true }
	if _, err := c.Upload(t.Context(), c.FilesURL(), "a/b", strings.NewReader("abc"), 3, nil); !errors.Is(err, clearml.ErrUnauthorized) {
		t.Errorf("error = %v, want ErrUnauthorized", err)
	}
}

func TestNoStrangerSeesTheToken(t *testing.T) {
	c, _ := clientOfFiles(t)
	stranger := &fileServer{t: t, stored: map[string]string{}}
	server := httptest.NewServer(stranger)
	defer server.Close()
	if _, err := c.Upload(t.Context(), server.URL+"/bucket", "m.pkl", strings.NewReader("abc"), 3, nil); err != nil {
		t.Fatal(err)
	}
	if stranger.bearers[0] != "" || stranger.stored["/bucket/m.pkl"] != "abc" {
		t.Errorf("authorization %q, stored %v", stranger.bearers, stranger.stored)
	}
	for url, want := range map[string]bool{
		c.FilesURL() + "/x": true, c.FilesURL(): true, c.FilesURL() + ".evil.com/x": false, c.FilesURL() + "@evil.com/x": false,
		"http://other/x": false, "": false, "s3://bucket/x": false,
	} {
		header, err := c.AuthHeader(t.Context(), url)
		if err != nil || (header != "") != want {
			t.Errorf("AuthHeader(%s) = %q, %v; want a token: %v", url, header, err, want)
		}
	}
}

func TestBadUploadsAreRefusedBeforeAnythingIsSent(t *testing.T) {
	c, files := clientOfFiles(t)
	for _, u := range []struct {
		destination, path, body, want string
		size                          int64
	}{
		{"s3://bucket", "a", "abc", "no http or https address", 3},
		{"", "a", "abc", "CLEARML_FILES_HOST", 3},
		{c.FilesURL(), "a/../b", "abc", "no path of a file", 3},
		{c.FilesURL(), "a//b", "abc", "no path of a file", 3},
		{c.FilesURL(), "", "abc", "no path of a file", 3},
		{c.FilesURL(), "a", "", "is empty", 0},
	} {
		if _, err := c.Upload(t.Context(), u.destination, u.path, strings.NewReader(u.body), u.size, nil); err == nil || !strings.Contains(err.Error(), u.want) {
			t.Errorf("%s to %q: error = %v, want one with %q", u.path, u.destination, err, u.want)
		}
	}
	if files.n != 0 {
		t.Errorf("%d requests were made", files.n)
	}
	// A file that shrinks while it is sent is reported as such, not as a network error.
	files.say = func(_ http.ResponseWriter, r *http.Request, _ int) bool {
		_, _ = io.Copy(io.Discard, r.Body)
		return true
	}
	if _, err := c.Upload(t.Context(), c.FilesURL(), "a", strings.NewReader("abc"), 10, nil); err == nil || !strings.Contains(err.Error(), "7 bytes shorter") {
		t.Errorf("a shrunk file: %v", err)
	}
}

func TestUploadEndsWithTheContext(t *testing.T) {
	c, files := clientOfFiles(t)
	ctx, cancel := context.WithCancel(t.Context())
	files.say = func(_ http.ResponseWriter, r *http.Request, _ int) bool {
		cancel()
		_, _ = io.Copy(io.Discard, r.Body)
		return true
	}
	body := &endless{}
	_, err := c.Upload(ctx, c.FilesURL(), "a", body, 1<<40, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want context.Canceled", err)
	}
}

type endless struct{}

func (*endless) Read(p []byte) (int, error) { return len(p), nil }

func TestFilesAreDeletedOnOurServerOnly(t *testing.T) {
	c, files := clientOfFiles(t)
	if err := c.DeleteFile(t.Context(), c.FilesURL()+"/a%20b"); err != nil || !slices.Equal(files.deleted, []string{"/a b"}) {
		t.Errorf("deleted %q, %v", files.deleted, err)
	}
	if err := c.DeleteFile(t.Context(), "http://other/x"); err == nil {
		t.Error("a stranger's file was deleted")
	}
	files.say = func(w http.ResponseWriter, _ *http.Request, _ int) bool { w.WriteHeader(404); return true }
	if err := c.DeleteFile(t.Context(), c.FilesURL()+"/gone"); !errors.Is(err, clearml.ErrNotFound) {
		t.Errorf("error = %v, want ErrNotFound", err)
	}
}

func TestPathsAreThoseOfTheSDK(t *testing.T) {
	id := strings.Repeat("0", 32)
	for _, c := range []struct{ project, name, want string }{
		{"P one", "T [a]", "P one/T [a]." + id},
		{"Pé #1/sub", "n?#%&:é x", "P%C3%A9 %231/sub/n%3F%23%25%26%3A%C3%A9 x." + id},
		{"", "name", "name." + id},
		{"DevOps", strings.Repeat("n", 200), "DevOps/" + strings.Repeat("n", 95) + "." + id},
		{strings.Repeat("p", 300), "name", strings.Repeat("p", 249) + ".projid/name." + id},
	} {
		if got := clearml.TaskPath(c.project, "projid", c.name, id); got != c.want {
			t.Errorf("%.20s, %.20s:\ngot  %s\nwant %s", c.project, c.name, got, c.want)
		}
	}
	// Traced with the SDK (clearml-api, "URL shapes").
	path := "P%C3%A9 %231/sub/n%3F%23%25%26%3A%C3%A9 x.id/artifacts/a0x23b.slash.c é/w x.txt"
	want := "http://f/P%25C3%25A9%20%25231/sub/n%253F%2523%2525%2526%253A%25C3%25A9%20x.id/artifacts/a0x23b.slash.c%20%C3%A9/w%20x.txt"
	if got := clearml.FileURL("http://f/", path); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := clearml.ArtifactFolder("a#b/c é"); got != "a0x23b.slash.c é" {
		t.Errorf("ArtifactFolder = %s", got)
	}
}
