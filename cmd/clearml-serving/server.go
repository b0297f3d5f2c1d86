package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"clearmlserving/clearml"
	"clearmlserving/controlplane"
	"clearmlserving/inference"
	"clearmlserving/listen"
	"clearmlserving/serving"
	"clearmlserving/storage"
)

func serverCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run the embedded ClearML server",
		Long: `Run the embedded ClearML server: the API that the ClearML SDK and this program
speak, and the file server for models and artifacts, on one data folder.

Credentials are made at the first start and kept in the data folder, readable by
you alone. A shell gets everything that the SDK needs by:
  eval "$(clearml-serving env)"`,
		Example: `  clearml-serving server
  clearml-serving server --data-dir ./data --api-addr 127.0.0.1:9008 --files-addr 127.0.0.1:9081`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runServer(cmd.Context()) },
	}
	a.declare(cmd.Flags(), "api-addr", "files-addr", "files-destination", "addr-fallback", "api-tls-cert", "api-tls-key", "instance-tls-ca", "database-url", "events-retention", "drain-delay")
	a.declare(cmd.Flags(), "timeseries-retention", "timeseries-size", "prometheus-url", "remote-write-url")
	cmd.AddCommand(backupCommand(a), restoreCommand(a))
	return cmd
}

func (a *app) runServer(ctx context.Context) error {
	return a.runRole(ctx, slog.LevelInfo, func(sockets *sockets) ([]part, error) {
		series, err := a.newKeeper(sockets.dir, sockets.log)
		if err != nil {
			return nil, err
		}
		drain, err := a.seconds("drain-delay")
		if err != nil {
			return nil, err
		}
		server, err := a.newControlPlane(ctx, sockets, series, drain)
		if err != nil {
			return nil, err
		}
		name := instanceName(server.api.Port())
		drift, _, driftMetrics, err := driftWatch(sockets.dir, name, "", server.config("server"), series.querier, sockets.log)
		if err != nil {
			return nil, errors.Join(err, server.Close())
		}
		return []part{series.part(), a.controlPlanePart(server, sockets, func() error {
			a.greet(sockets)
			return a.greetBrowser(ctx, server)
		}), drift, series.keep(name, true, driftMetrics)}, nil
	})
}

// controlPlane is the embedded server with its sockets.
type controlPlane struct {
	*controlplane.Server
	api, files *listen.Listener
	answers    chan struct{} // closed by Run when requests are accepted
}

// config is how this process itself uses the control plane.
func (c *controlPlane) config(worker string) clearml.Config {
	own := func(value string) clearml.Setting { return clearml.Setting{Value: value, From: "this process"} }
	access, secret := c.Credentials()
	return clearml.Config{
		API: own(c.api.URL()), Files: own(c.files.URL()), Web: own(c.api.URL()),
		AccessKey: own(access), SecretKey: clearml.NewSecret(secret, "this process"), WorkerName: clearml.Setting{Value: worker},
	}
}

func (a *app) newControlPlane(ctx context.Context, sockets *sockets, series *keeper, drain time.Duration) (*controlPlane, error) {
	dir, log := sockets.dir, sockets.log
	api, err := sockets.open(ctx, apiSocket)
	if err != nil {
		return nil, err
	}
	files, err := sockets.open(ctx, filesSocket)
	if err != nil {
		return nil, err
	}
	place, root, err := a.filesPlace(ctx)
	if err != nil {
		return nil, err
	}
	c := &controlPlane{api: api, files: files, answers: make(chan struct{})}
	retention, err := a.eventsRetention()
	if err != nil {
		return nil, err
	}
	// They are needed only to delete files in buckets, so a broken clearml.conf is logged
	// and does not prevent the start.
	var clouds storage.Adapters
	if conf, err := a.cloudConfig(); err == nil {
		clouds = conf.Clouds()
	} else {
		log.Warn("cannot read clearml.conf", "effect", "files in buckets are kept when their models are deleted", "err", err)
	}
	access, secret, err := a.givenCredentials()
	if err != nil {
		return nil, err
	}
	c.Server, err = controlplane.New(controlplane.Options{
		AccessKey: access, SecretKey: secret,
		DatabaseURL: a.text("database-url"), EventsRetention: retention,
		DataDir: dir, FilesPlace: place, FilesRoot: root, Places: clouds, API: api, Files: files, APIURL: firstOf(bare(a.text("api-url")), api.URL()), FilesURL: firstOf(bare(a.text("files-url")), files.URL()), Version: version,
		InstanceCA: a.text("instance-tls-ca"), Authorities: a.authorities(log),
		TimeSeries: series.store, TimeSeriesElsewhere: series.where, Series: series.querier, ServiceLabel: series.serviceLabel(),
		Recorded: func(url serving.EndpointURL, most int) []serving.Exchange {
			return inference.LastRecorded(recordingsDir(dir), url, most)
		},
		DrainDelay: drain,
		Ready:      func() { close(c.answers) }, Logger: log.With("part", "server"),
	})
	if err != nil {
		return nil, err
	}
	// Before the data plane of this process looks for files under earlier addresses.
	if err := sockets.keepFilesAddress(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// bare is an address without a slash at its end.
func bare(address string) string { return strings.TrimRight(address, "/") }

// leastSecret is how long a secret that people choose must be: it is stored as a plain hash.
const leastSecret = 16

// givenCredentials are those that the embedded server accepts from its start, "" for none.
func (a *app) givenCredentials() (access, secret string, err error) {
	access, secret = a.text("access-key"), a.text("secret-key")
	if access == "" && secret == "" {
		return "", "", nil
	}
	if access == "" || len(secret) < leastSecret {
		return "", "", fmt.Errorf("CLEARML_SERVING_ACCESS_KEY and CLEARML_SERVING_SECRET_KEY: give both, and a secret of %d characters or more", leastSecret)
	}
	return access, secret, nil
}

// eventsRetention is for how long reports are kept, 0 for ever.
func (a *app) eventsRetention() (time.Duration, error) {
	if a.text("events-retention") == "" {
		return 0, nil
	}
	return a.duration("events-retention", 24*time.Hour)
}

// authorities returns the certificate authorities that the environment and clearml.conf
// name, and those of the machine when these cannot be read: a setting that the embedded
// server does not need must not prevent its start.
func (a *app) authorities(log *slog.Logger) func() (*x509.CertPool, error) {
	conf, err := a.cloudConfig()
	if err != nil {
		return nil // newControlPlane logs why
	}
	return func() (*x509.CertPool, error) {
		pool, err := conf.Network.Pool(conf.TLS.Others())
		if err != nil {
			log.Warn("cannot read certificate authorities", "effect", "the machine's authorities are used", "err", err)
			return nil, nil //nolint:nilnil // the machine's
		}
		return pool, nil
	}
}

// controlPlanePart serves the control plane; then is called once it answers.
func (a *app) controlPlanePart(server *controlPlane, sockets *sockets, then func() error) part {
	return part{"server", func(ctx context.Context, ready func()) error {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		ended := make(chan error, 1)
		go func() { ended <- server.Run(ctx) }() // ended by ctx, waited for below
		select {
		case err := <-ended:
			return err
		case <-server.answers:
		}
		err := sockets.announce()
		if err == nil {
			err = then()
		}
		if err != nil {
			stop()
			return errors.Join(err, <-ended)
		}
		ready()
		return <-ended
	}}
}
