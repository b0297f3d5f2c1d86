package files_test

import (
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"clearmlserving/controlplane/files"
	"clearmlserving/storage"
	"clearmlserving/storage/file"
	"clearmlserving/storage/storagetest"
)

// startBucket serves the files of a storage, here a folder that is accessed like a
// bucket. make e2e-storage runs tests with real buckets.
func startBucket(t *testing.T, wrap func(storage.Adapter) storage.Adapter) (dir, url string) {
	t.Helper()
	dir = t.TempDir()
	s, err := files.New(files.Options{Auth: token("t"), Place: wrap(file.Adapter{}), PlaceURL: "file://" + dir})
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
	return dir, srv.URL
}

func plain(a storage.Adapter) storage.Adapter { return a }

func TestABucketGivesBackWhatWasStored(t *testing.T) {
	dir, url := startBucket(t, plain)
	upload(t, url, "/P one/T [a].id/models/sk %22model%22.pkl", "content")
	if status, header, got := call(t, "GET", url+"/P%20one/T%20%5Ba%5D.id/models/sk%20%22model%22.pkl", "", nil); status != 200 || got != "content" || header.Get("Etag") == "" {
		t.Errorf("download: %d %q %v", status, got, header)
	}
	path := url + "/a/b.txt"
	if status, _, answer := call(t, "PUT", path, "", strings.NewReader("0123456789")); status != 200 || answer != "[\"a/b.txt\"]\n" {
		t.Fatalf("PUT: %d %s", status, answer)
	}
	_, header, _ := call(t, "HEAD", path, "", nil)
	if header.Get("Content-Length") != "10" {
		t.Errorf("HEAD answers %v", header)
	}
	for ask, want := range map[string]string{"bytes=2-4": "206 234", "bytes=8-": "206 89", "bytes=-1": "206 9", "bytes=20-": "416 "} {
		status, _, got := call(t, "GET", path, "", nil, "Range", ask)
		if status == 416 {
			got = ""
		}
		if got := fmt.Sprint(status, " ", got); got != want {
			t.Errorf("%s: %q, want %q", ask, got, want)
		}
	}
	if status, _, _ := call(t, "GET", path, "", nil, "If-None-Match", header.Get("Etag")); status != 304 {
		t.Errorf("an unchanged file: %d", status)
	}
	if status, _, _ := call(t, "DELETE", path, "", nil); status != 200 {
		t.Errorf("DELETE: %d", status)
	}
	for _, method := range []string{"GET", "HEAD", "DELETE"} {
		if status, _, _ := call(t, method, path, "", nil); status != 404 {
			t.Errorf("%s of a deleted file: %d", method, status)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "a/b.txt")); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
}

func TestAnUploadIntoABucketThatIsCutLeavesNothing(t *testing.T) {
	dir, url := startBucket(t, plain)
	kind, body := form("a/file", strings.Repeat("x", 300))
	whole := body.String()
	for cut := range len(whole) - 4 { // the last bytes are the line break after the closing boundary
		status, _, answer := call(t, "POST", url+"/", kind, strings.NewReader(whole[:cut]))
		if status != 400 {
			t.Fatalf("cut at byte %d of %d: %d %s", cut, len(whole), status, answer)
		}
	}
	for _, name := range tree(t, dir) {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || !info.IsDir() {
			t.Errorf("left is %s", name)
		}
	}
}

func TestTraversalInABucketIsRefused(t *testing.T) {
	dir, url := startBucket(t, plain)
	outside := filepath.Join(filepath.Dir(dir), "outside")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/../outside", "/%2e%2e/outside", "/a/..%2f..%2foutside", "/..%5coutside", "/a/%252e%252e/%252e%252e/outside"} {
		for _, method := range []string{"GET", "PUT", "DELETE"} {
			if status, _, got := call(t, method, url+path, "", strings.NewReader("x")); status < 400 || strings.Contains(got, "secret") {
				t.Errorf("%s %s: %d %q", method, path, status, got)
			}
		}
	}
	if got, err := os.ReadFile(outside); err != nil || string(got) != "secret" {
		t.Errorf("the file outside: %q %v", got, err)
	}
}

func TestAnAnswerFromABucketGoesOnAfterACut(t *testing.T) {
	var faulty *storagetest.Faulty
	_, url := startBucket(t, func(a storage.Adapter) storage.Adapter {
		faulty = storagetest.NewFaulty(a)
		return faulty
	})
	content := string(storagetest.Bytes(300_000, 1))
	if status, _, _ := call(t, "PUT", url+"/f", "", strings.NewReader(content)); status != 200 {
		t.Fatal(status)
	}
	faulty.CutAfter(70_000, 3)
	if status, _, got := call(t, "GET", url+"/f", "", nil); status != 200 || got != content {
		t.Errorf("%d, %d bytes", status, len(got))
	}
	faulty.Unreachable(true)
	if status, _, got := call(t, "GET", url+"/f", "", nil); status != 500 || !strings.Contains(got, "storage behind") {
		t.Errorf("an unreachable bucket: %d %s", status, got)
	}
}
