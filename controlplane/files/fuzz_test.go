package files_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"clearmlserving/controlplane/files"
)

// Every upload is stored below the folder, or refused without harm.
func FuzzUpload(f *testing.F) {
	above := f.TempDir()
	server, err := files.New(files.Options{Dir: filepath.Join(above, "files"), Auth: token("t")})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = server.Close() })
	for _, seed := range []struct{ kind, body string }{
		{"multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"a/b\"; filename=\"c\"\r\n\r\nx\r\n--b--\r\n"},
		{"multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"../b\"\r\n\r\nx\r\n--b--\r\n"},
		{"multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name*=UTF-8''%2e%2e%2fx\r\n\r\nx\r\n--b--"},
		{"multipart/form-data; boundary=\"b b\"", "--b b\r\n\r\n"},
		{"multipart/form-data", ""},
		{"multipart/mixed; boundary=b", "--b--"},
		{"", "x"},
	} {
		f.Add(seed.kind, []byte(seed.body))
	}
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", io.NopCloser(bytes.NewReader(body)))
		req.Header["Content-Type"] = []string{kind}
		req.Header.Set("Authorization", "Bearer t")
		w := httptest.NewRecorder()
		server.ServeHTTP(w, req)
		if w.Code >= 500 && w.Code != http.StatusInsufficientStorage {
			t.Errorf("%q %q: %d %s", kind, body, w.Code, w.Body)
		}
		if beside, err := os.ReadDir(above); err != nil || len(beside) != 1 {
			t.Fatalf("written beside the folder: %v, %v", beside, err)
		}
	})
}
