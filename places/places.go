// Package places configures the storages from clearml.conf and the environment, by
// the rules of the SDK.
package places

import (
	"context"
	"net/http"
	"path"
	"strings"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/hocon"
	"clearmlserving/outbound"
	"clearmlserving/storage"
	"clearmlserving/storage/azure"
	"clearmlserving/storage/file"
	"clearmlserving/storage/gs"
	"clearmlserving/storage/https"
	"clearmlserving/storage/s3"
)

// Config translates sdk.aws, sdk.google, sdk.azure and sdk.storage of clearml.conf, and the
// variables that the SDK and the clouds' own tools know, into the options of the storages. The rules
// of precedence are the SDK's: the file overrides the AWS_ variables.
type Config struct {
	TLS     clearml.TLS
	Network outbound.Network

	file *hocon.Object
	env  func(string) (string, bool)
}

// Load reads the same configuration as the SDK.
func Load(env func(string) (string, bool), home string) (Config, error) {
	file, verify, err := clearml.LoadStorage(clearml.ConfigOptions{Env: env, HomeDir: home})
	return Config{file: file, env: env, TLS: verify, Network: outbound.FromEnvironment(env)}, err
}

// Clouds are the storages that need no ClearML server.
func (c Config) Clouds() storage.Adapters {
	// Of the settings for ClearML servers only the authorities count here, in addition to those of
	// the machine: each cloud has its own switch for verification.
	transport := c.Network.Transport(c.TLS.Others(), time.Minute)
	buckets, google, accounts := c.s3(), c.gs(), c.azure()
	buckets.Network, buckets.Trust = c.Network, c.TLS.Others()
	google.Transport, accounts.Transport = transport, transport
	return storage.Adapters{"s3": s3.New(buckets), "gs": gs.New(google), "azure": azure.New(accounts)}
}

// All are the storages of every scheme of the SDK.
func (c Config) All(client *clearml.Client) (storage.Adapters, error) {
	transport, err := client.Config().NewTransport(time.Minute)
	if err != nil {
		return nil, err
	}
	web := https.New(https.Options{FileServer: client.FilesURL(), Transport: transport, Header: func(url string) (http.Header, error) {
		// A running login belongs to the client, not to one download.
		value, err := client.AuthHeader(context.Background(), url)
		if err != nil || value == "" {
			return nil, err
		}
		return http.Header{"Authorization": {value}}, nil
	}})
	all := c.Clouds()
	all["file"], all["http"], all["https"] = file.Adapter{}, web, web
	return all, nil
}

// URL is the address that a file gets below a destination. Only addresses of web servers are
// quoted: the SDK writes the others unquoted.
func URL(destination, object string) string {
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
