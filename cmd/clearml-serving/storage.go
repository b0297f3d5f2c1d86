package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"clearmlserving/clearml"
	"clearmlserving/listen"
	"clearmlserving/places"
	"clearmlserving/storage"
	"clearmlserving/storage/file"
)

// cloudConfig reads the access to storages as the SDK would.
func (a *app) cloudConfig() (places.Config, error) { return places.Load(a.sys.env, a.home()) }

// places are the storages of every scheme that the SDK knows, and the addresses that files
// are registered under and no longer, or not from here, reached by: those of clearml.conf,
// and the earlier ones of this data folder's own file server.
func (a *app) places(dataDir string, client *clearml.Client) (storage.Adapters, []storage.Rewrite, error) {
	conf, err := a.cloudConfig()
	if err != nil {
		return nil, nil, err
	}
	all, err := conf.All(client)
	if err != nil {
		return nil, nil, err
	}
	rules := conf.Rewrites()
	now := strings.TrimRight(client.FilesURL(), "/")
	for alias := range strings.SplitSeq(a.text("files-aliases"), ",") {
		if alias = bare(strings.TrimSpace(alias)); alias != "" && alias != now {
			rules = append(rules, storage.Rewrite{From: alias + "/", To: now + "/"})
		}
	}
	known, err := listen.ReadRegistry(filepath.Join(dataDir, filesAddresses))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("read the earlier addresses of the file server: %w", err)
	}
	if _, own := known.URLs[now]; !own { // the server in use is another one
		return all, rules, nil
	}
	for former := range known.URLs {
		if former != now {
			rules = append(rules, storage.Rewrite{From: former + "/", To: now + "/"})
		}
	}
	return all, rules, nil
}

// opener returns what opens files of all storages for reading.
func (a *app) opener(client *clearml.Client) (func(ctx context.Context, uri string) (io.ReadCloser, error), error) {
	dir, err := a.dataDir()
	if err != nil {
		return nil, err
	}
	all, rewrites, err := a.places(dir, client)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, uri string) (io.ReadCloser, error) {
		uri = storage.Rewritten(rewrites, uri)
		place, err := all.For(uri)
		if err != nil {
			return nil, err
		}
		reader, _, err := place.Open(ctx, uri, storage.Part{})
		return reader, err
	}, nil
}

// filesPlace is where the embedded file server keeps its files, nil for the data
// folder. A bucket that cannot be reached or written to is an error at the start, not
// at the first upload.
func (a *app) filesPlace(ctx context.Context) (storage.Adapter, string, error) {
	destination := strings.TrimRight(a.text("files-destination"), "/")
	if destination == "" {
		return nil, "", nil
	}
	conf, err := a.cloudConfig()
	if err != nil {
		return nil, "", err
	}
	all := conf.Clouds()
	all["file"] = file.Adapter{}
	if storage.Scheme(destination) == "file" && !strings.HasPrefix(strings.ToLower(destination), "file:") {
		full, err := filepath.Abs(destination)
		if err != nil {
			return nil, "", err
		}
		destination = "file://" + full
	}
	place, err := all.For(destination)
	if err == nil {
		err = places.Try(ctx, place, destination+"/.clearml-serving-started")
	}
	if err != nil {
		return nil, "", hint(fmt.Errorf("keep files at %s (%s): %w", storage.Redact(destination), a.setting("files-destination").source, err),
			"The credentials are those of clearml.conf or of the environment, as for the SDK")
	}
	return place, destination, nil
}

// openDestination checks a destination before anything is packed or sent to it.
func (a *app) openDestination(client *clearml.Client, url string) (places.Destination, error) {
	conf, err := a.cloudConfig()
	if err != nil {
		return places.Destination{}, err
	}
	d, err := conf.Destination(client, url)
	if relative, ok := errors.AsType[*places.RelativeError](err); ok {
		return d, hint(err, "Try: --destination %s", relative.Full)
	}
	return d, err
}
