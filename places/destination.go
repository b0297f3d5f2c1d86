package places

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"clearmlserving/clearml"
	"clearmlserving/storage"
)

// Destination is a place that files are uploaded to.
type Destination struct {
	URL    string
	Client *clearml.Client

	place storage.Adapter // nil for a ClearML file server, which the client uploads to
}

// RelativeError refuses a relative path of a folder: other processes have other working directories.
type RelativeError struct{ Path, Full string }

func (e *RelativeError) Error() string {
	return fmt.Sprintf("destination %s: a folder is named by its full path, since others read it from elsewhere", e.Path)
}

// Destination checks a destination before anything is packed or sent to it.
func (c Config) Destination(client *clearml.Client, url string) (Destination, error) {
	d := Destination{URL: url, Client: client}
	scheme := storage.Scheme(url)
	if scheme == "http" || scheme == "https" {
		return d, nil
	}
	all, err := c.All(client)
	if err != nil {
		return d, err
	}
	if d.place, err = all.For(url); err != nil {
		return d, err
	}
	if scheme == "file" && !strings.HasPrefix(strings.ToLower(url), "file:") && !filepath.IsAbs(url) {
		full, err := filepath.Abs(url)
		if err != nil {
			return d, err
		}
		return d, &RelativeError{url, full}
	}
	return d, nil
}

// Put stores a file and returns its address. After a transient error all of it is sent again.
func (d Destination) Put(ctx context.Context, object string, f *os.File, size int64, progress func(done int64)) (string, error) {
	if d.place == nil {
		return d.Client.Upload(ctx, d.URL, object, f, size, progress)
	}
	uri := URL(d.URL, object)
	return uri, storage.Backoff{}.Do(ctx, func() error {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		return d.place.Put(ctx, uri, f, size, func(done, _ int64) { progress(done) })
	})
}

// Try writes and reads a small file. The file stays, because another server that starts at the
// same time may be reading it.
func Try(ctx context.Context, place storage.Adapter, url string) error {
	const text = "The file server of clearml-serving keeps files here.\n"
	return storage.Backoff{Attempts: 3}.Do(ctx, func() error {
		if err := place.Put(ctx, url, strings.NewReader(text), int64(len(text)), nil); err != nil {
			return err
		}
		_, err := place.Stat(ctx, url)
		return err
	})
}
