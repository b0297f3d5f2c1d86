package security_test

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"clearmlserving/storage"
)

// climbs are names that left their folder in many servers.
func climbs(target string) []string {
	plain := "../../../../../../../../" + target
	double := func(s string) string { return strings.ReplaceAll(s, "%", "%25") }
	dots := strings.ReplaceAll(plain, "..", "%2e%2e")
	all := strings.ReplaceAll(dots, "/", "%2f")
	return []string{
		plain, dots, all, double(all), double(double(all)),
		strings.ReplaceAll(plain, "/", `\`), strings.ReplaceAll(plain, "/", "%5c"), strings.ReplaceAll(plain, "/", "%255c"),
		strings.ReplaceAll(plain, "..", "..;"), strings.ReplaceAll(plain, "..", "..%00"), strings.ReplaceAll(plain, "../", "....//"),
		strings.ReplaceAll(plain, "..", "%c0%ae%c0%ae"), strings.ReplaceAll(plain, "..", ".%2e"), strings.ReplaceAll(plain, "..", ". ."),
		"a/" + plain, "a/..%2f" + plain, "/" + target, "//" + target, "%2f" + target, "file:///" + target, "file:%2f%2f%2f" + target,
		"./" + plain, "a/./" + plain, "%2e/%2e%2e/" + plain, "?/" + plain, "#/" + plain, "..", ".", "%2e", "...//", "~/" + target,
		".incoming/x", "%2eincoming/x", "\u2024\u2024/\u2024\u2024/" + target, "\uff0e\uff0e\uff0f" + target, "C:\\" + target,
	}
}

// CVE-2023-1177, CVE-2023-2780, CVE-2023-6909, CVE-2023-6015, CVE-2023-6976, CVE-2024-1558,
// CVE-2024-1560, CVE-2024-1593 (MLflow): artifact paths left the folder of artifacts, in encodings
// that a filter did not cover, for reading, writing and deleting.
func TestCVE20231177_ArtifactPathsStayInTheirFolder(t *testing.T) {
	w := newWorld(t)
	outside := filepath.Join(filepath.Dir(w.dir), "outside")
	if err := os.WriteFile(outside, []byte("marker-outside"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(outside) })
	targets := []string{strings.TrimPrefix(outside, "/"), "outside", "clearml.db", "credentials.json", "etc/passwd"}
	if !thorough() {
		targets = targets[1:3]
	}
	before := names(t, w.dir)
	auth := "Authorization: " + w.basic()["Authorization"] + "\r\n"
	tried := 0
	for _, target := range targets {
		for _, climb := range climbs(target) {
			escaped := (&url.URL{Path: "/" + climb}).EscapedPath()
			for _, path := range []string{"/" + climb, escaped} {
				if strings.ContainsAny(path, " \t#") || strings.ContainsFunc(path, func(r rune) bool { return r > '~' }) {
					continue // not valid in a request line; its escaped form is in the list too
				}
				for _, server := range []string{w.files, w.api + "/files"} {
					base, prefix, _ := strings.Cut(strings.TrimPrefix(server, "http://"), "/")
					if prefix != "" {
						prefix = "/" + prefix
					}
					for _, method := range []string{"GET", "HEAD", "DELETE", "PUT"} {
						body := ""
						if method == "PUT" {
							body = "marker-written"
						}
						got := send(t, "http://"+base, fmt.Sprintf("%s %s%s HTTP/1.1\r\nHost: a\r\n%sContent-Length: %d\r\nConnection: close\r\n\r\n%s", method, prefix, path, auth, len(body), body))
						tried++
						if strings.Contains(got, "marker-outside") || strings.Contains(got, "root:x:") || strings.Contains(got, "secret_key") || strings.Contains(got, "SQLite format") {
							t.Errorf("%s %s read something outside: %.200q", method, path, got)
						}
						if strings.HasPrefix(got, "HTTP/1.1 5") {
							t.Errorf("%s %s: %.100q", method, path, got)
						}
					}
				}
			}
			form := fmt.Sprintf("--b\r\nContent-Disposition: form-data; name=\"%s\"; filename=\"%s\"\r\n\r\nmarker-written\r\n--b--\r\n", climb, climb)
			header := w.basic()
			header["Content-Type"] = "multipart/form-data; boundary=b"
			status, body := w.ask(t, "POST", w.files+"/", form, header)
			if status >= 500 || status == 0 {
				t.Errorf("upload to %q: %d %s", climb, status, body)
			}
			status, body = w.ask(t, "POST", w.files+"/delete_many", fmt.Sprintf(`{"files":[%q]}`, climb), w.basic())
			if status >= 500 || status == 0 || strings.Contains(body, "marker") {
				t.Errorf("delete_many of %q: %d %s", climb, status, body)
			}
		}
	}
	if text, err := os.ReadFile(outside); err != nil || string(text) != "marker-outside" {
		t.Errorf("the file outside: %q, %v", text, err)
	}
	for name := range names(t, w.dir) {
		if !before[name] && !strings.HasPrefix(name, "files/") && !strings.HasPrefix(name, "clearml.db") {
			t.Errorf("%s appeared in the data folder", name)
		}
	}
	if found, err := filepath.Glob(filepath.Join(filepath.Dir(w.dir), "*marker*")); err != nil || len(found) > 0 {
		t.Errorf("written outside: %v, %v", found, err)
	}
	t.Logf("%d requests", tried)
	w.alive(t)
}

// names lists the files below a folder.
func names(t *testing.T, dir string) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		rel, relErr := filepath.Rel(dir, path)
		all[filepath.ToSlash(rel)] = true
		if os.IsNotExist(err) { // running uploads appear and disappear
			return nil
		}
		if err == nil {
			err = relErr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Names of endpoints are keys of a table, never paths: ".." leads nowhere.
func TestModelNamesThatClimbAreUnknownEndpoints(t *testing.T) {
	w := newWorld(t)
	for _, climb := range climbs("etc/passwd") {
		path := (&url.URL{Path: "/serve/" + climb}).EscapedPath()
		got := send(t, w.serve, fmt.Sprintf("POST %s HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", path, w.key))
		if !strings.HasPrefix(got, "HTTP/1.1 404") && !strings.HasPrefix(got, "HTTP/1.1 400") {
			t.Errorf("%s: %.100q", path, got)
		}
	}
	w.alive(t)
}

// CVE-2024-37032 (Ollama): the digest of a file, taken from a manifest, was used as a path without
// a check.
func TestCVE202437032_DigestsAreNotPaths(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	cache, err := storage.NewCache(storage.CacheOptions{Dir: filepath.Join(dir, "cache"), Adapters: storage.Adapters{}})
	if err != nil {
		t.Fatal(err)
	}
	for _, digest := range append(climbs("victim"), "../victim", "sha256:"+strings.Repeat("a", 64), strings.Repeat("a", 63)+"/", strings.ToUpper(strings.Repeat("a", 63))+"\x00", strings.Repeat("g", 64)) {
		if file, err := cache.Fetch(t.Context(), storage.Item{URL: "https://models.example/m", SHA256: digest}, nil); err == nil {
			t.Errorf("digest %q was taken: %v", digest, file)
		}
	}
	if text, err := os.ReadFile(victim); err != nil || string(text) != "untouched" {
		t.Errorf("the file beside the cache: %q, %v", text, err)
	}
}
