package storage_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"clearmlserving/storage"
	"clearmlserving/storage/file"
)

func TestUnknownSchemeIsNamedWithWhatIsSupported(t *testing.T) {
	c := newCache(t, options(t.TempDir(), file.Adapter{}))
	_, err := c.Fetch(t.Context(), storage.Item{URL: "s3://key:secret@bucket/model.pkl?sig=secret"}, nil)
	var unsupported *storage.UnsupportedError
	if !errors.As(err, &unsupported) || unsupported.Scheme != "s3" || !strings.Contains(err.Error(), "supported are file") || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v", err)
	}
	if _, err := c.Fetch(t.Context(), storage.Item{URL: " "}, nil); err == nil {
		t.Error("an empty URL was fetched")
	}
}

func TestSecretsOfURLsAreNeitherLoggedNorStored(t *testing.T) {
	p := newPlace(t)
	data := []byte("x")
	path := p.put(t, "a", data)
	var log bytes.Buffer
	dir := t.TempDir()
	o := options(dir, nil)
	o.Adapters = storage.Adapters{"https": renamed{p, path}}
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	c := newCache(t, o)
	url := "https://user:hunter2@host/a.pkl?signature=hunter2#hunter2"
	h := fetch(t, c, storage.Item{URL: url})
	if filepath.Base(h.Path) != "a.pkl" {
		t.Errorf("the file is named %s", h.Path)
	}
	p.Unreachable(true)
	if h := fetch(t, c, storage.Item{URL: url}); !h.Stale {
		t.Error("not stale")
	}
	if strings.Contains(log.String(), "hunter2") || !strings.Contains(log.String(), "https://host/a.pkl") {
		t.Errorf("logged: %s", log.String())
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if strings.Contains(string(text)+path, "hunter2") {
			t.Errorf("%s contains the secret", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// renamed is an adapter that has one file at every URL.
type renamed struct {
	storage.Adapter
	path string
}

func (r renamed) Stat(ctx context.Context, _ string) (storage.Object, error) {
	return r.Adapter.Stat(ctx, r.path)
}

func (r renamed) Open(ctx context.Context, _ string, part storage.Part) (io.ReadCloser, storage.Object, error) {
	return r.Adapter.Open(ctx, r.path, part)
}

func TestSchemeOfURL(t *testing.T) {
	for url, want := range map[string]string{
		"HTTPS://h/a": "https", "s3://b/k": "s3", "/a/b": "file", "a/b": "file", "C:/x": "file", "file:/a": "file",
		"file:///a": "file", "/a://b": "file", "://x": "file", "azure+x://c": "azure+x",
	} {
		if got := storage.Scheme(url); got != want {
			t.Errorf("Scheme(%q) = %q, want %q", url, got, want)
		}
	}
}

func TestOnlyPlainKeysNameOneFile(t *testing.T) {
	for url, want := range map[string]bool{
		"s3://b/a/k": true, "s3://b/a b/#%2e?.k": true, "s3://b/a/../k": false, "s3://b/./k": false, `s3://b/a\..\k`: false, "s3://b//k": false,
		"s3://b/": false, "gs://b/...": true,
	} {
		if got := storage.PlainKey(url); got != want {
			t.Errorf("%s: %v; want %v", url, got, want)
		}
	}
}
