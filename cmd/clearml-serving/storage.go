package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/listen"
	"clearmlserving/outbound"
	"clearmlserving/storage"
	"clearmlserving/storage/azure"
	"clearmlserving/storage/file"
	"clearmlserving/storage/gs"
	"clearmlserving/storage/https"
	"clearmlserving/storage/s3"
)

// places are where models and code may lie, with the access that clearml.conf and
// the environment give: those of every scheme that the SDK knows.
func (a *app) places(client *clearml.Client) (storage.Adapters, error) {
	transport, err := client.Config().NewTransport(time.Minute)
	if err != nil {
		return nil, err
	}
	web := https.New(https.Options{FileServer: client.FilesURL(), Transport: transport, Header: func(url string) (http.Header, error) {
		// A login that is under way belongs to the client, not to one download.
		value, err := client.AuthHeader(context.Background(), url)
		if err != nil || value == "" {
			return nil, err
		}
		return http.Header{"Authorization": {value}}, nil
	}})
	all, err := a.clouds()
	if err != nil {
		return nil, err
	}
	all["file"], all["http"], all["https"] = file.Adapter{}, web, web
	return all, nil
}

// clouds are the places that need no ClearML server to be reached.
func (a *app) clouds() (storage.Adapters, error) {
	conf, err := a.cloudConfig()
	if err != nil {
		return nil, err
	}
	// Of the settings of ClearML's servers, only the authorities count here, as more
	// than those of the machine: each cloud has its own switch for verification.
	transport := conf.network.Transport(conf.tls.Others(), time.Minute)
	buckets, google, accounts := conf.s3(), conf.gs(), conf.azure()
	buckets.Network, buckets.Trust = conf.network, conf.tls.Others()
	google.Transport, accounts.Transport = transport, transport
	return storage.Adapters{"s3": s3.New(buckets), "gs": gs.New(google), "azure": azure.New(accounts)}, nil
}

// cloudConfig reads what the SDK would read.
func (a *app) cloudConfig() (cloudConfig, error) {
	file, verify, err := clearml.LoadStorage(clearml.ConfigOptions{Env: a.sys.env, HomeDir: a.home()})
	return cloudConfig{file: file, env: a.sys.env, tls: verify, network: outbound.FromEnvironment(a.sys.env)}, err
}

// rewrites are the addresses that files are registered under and no longer, or not
// from here, reached by: those of clearml.conf, and the earlier ones of this data
// folder's own file server.
func (a *app) rewrites(dataDir, filesURL string) ([]storage.Rewrite, error) {
	conf, err := a.cloudConfig()
	if err != nil {
		return nil, err
	}
	rules := conf.substitutions()
	now := strings.TrimRight(filesURL, "/")
	known, err := listen.ReadRegistry(filepath.Join(dataDir, filesAddresses))
	if errors.Is(err, fs.ErrNotExist) {
		return rules, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the earlier addresses of the file server: %w", err)
	}
	if _, own := known.URLs[now]; !own { // the server in use is another one
		return rules, nil
	}
	for former := range known.URLs {
		if former != now {
			rules = append(rules, storage.Rewrite{From: former + "/", To: now + "/"})
		}
	}
	return rules, nil
}

// filesPlace is where the embedded file server keeps its files, nil for the data
// folder. A bucket that cannot be reached or written to is an error at the start, not
// at the first upload.
func (a *app) filesPlace(ctx context.Context) (storage.Adapter, string, error) {
	destination := strings.TrimRight(a.text("files-destination"), "/")
	if destination == "" {
		return nil, "", nil
	}
	places, err := a.clouds()
	if err != nil {
		return nil, "", err
	}
	places["file"] = file.Adapter{}
	if storage.Scheme(destination) == "file" && !strings.HasPrefix(strings.ToLower(destination), "file:") {
		full, err := filepath.Abs(destination)
		if err != nil {
			return nil, "", err
		}
		destination = "file://" + full
	}
	place, err := places.For(destination)
	if err == nil {
		err = tryPlace(ctx, place, destination+"/.clearml-serving-started")
	}
	if err != nil {
		return nil, "", hint(fmt.Errorf("keep files at %s (%s): %w", storage.Redact(destination), a.setting("files-destination").source, err),
			"The credentials are those of clearml.conf or of the environment, as for the SDK")
	}
	return place, destination, nil
}

// tryPlace writes, reads and keeps a small file. It stays: a server on the same place
// that starts at the same time must not find it gone.
func tryPlace(ctx context.Context, place storage.Adapter, url string) error {
	const text = "The file server of clearml-serving keeps files here.\n"
	return storage.Backoff{Attempts: 3}.Do(ctx, func() error {
		if err := place.Put(ctx, url, strings.NewReader(text), int64(len(text)), nil); err != nil {
			return err
		}
		_, err := place.Stat(ctx, url)
		return err
	})
}

// fileURL is the address that a file gets below a destination. Only those of web
// servers are quoted: the SDK writes the others as they are.
func fileURL(destination, object string) string {
	destination = strings.TrimRight(destination, "/")
	switch storage.Scheme(destination) {
	case "http", "https":
		return clearml.FileURL(destination, object)
	case "file":
		if !strings.HasPrefix(strings.ToLower(destination), "file:") {
			return "file://" + path.Join(destination, object)
		}
	}
	return destination + "/" + strings.TrimLeft(object, "/")
}

// destination is a place that files are uploaded to.
type destination struct {
	url    string
	client *clearml.Client
	place  storage.Adapter // nil for a ClearML file server, which the client uploads to
}

// openDestination checks a destination before anything is packed or sent to it.
func (a *app) openDestination(client *clearml.Client, url string) (destination, error) {
	d := destination{url: url, client: client}
	scheme := storage.Scheme(url)
	if scheme == "http" || scheme == "https" {
		return d, nil
	}
	places, err := a.places(client)
	if err != nil {
		return d, err
	}
	if d.place, err = places.For(url); err != nil {
		return d, err
	}
	if scheme == "file" && !strings.HasPrefix(strings.ToLower(url), "file:") && !filepath.IsAbs(url) {
		full, err := filepath.Abs(url)
		if err != nil {
			return d, err
		}
		return d, hint(fmt.Errorf("destination %s: a folder is named by its full path, since others read it from elsewhere", url), "Try: --destination %s", full)
	}
	return d, nil
}

// put stores a file and returns its address. After a transient error all of it is sent
// again.
func (d destination) put(ctx context.Context, object string, f *os.File, size int64, progress func(done int64)) (string, error) {
	if d.place == nil {
		return d.client.Upload(ctx, d.url, object, f, size, progress)
	}
	uri := fileURL(d.url, object)
	return uri, storage.Backoff{}.Do(ctx, func() error {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		return d.place.Put(ctx, uri, f, size, func(done, _ int64) { progress(done) })
	})
}
