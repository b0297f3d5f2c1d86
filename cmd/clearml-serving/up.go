package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"clearmlserving/clearml"
)

func upCommand(a *app) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run everything on this machine: ClearML server and inference",
		Long: `Run everything on this machine, in one process: the embedded ClearML server and the
inference service, on one data folder. This is the first thing to run.

It serves one serving service: that of --id or --name, else the one that exists,
else the first that "clearml-serving create" makes. Other commands on this machine
find the server and its credentials by themselves when nothing else is configured.`,
		Example: `  clearml-serving up
  clearml-serving up --data-dir ./data --addr-fallback
  clearml-serving up --serve-addr 0.0.0.0:8080 --name "serving example"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runUp(cmd.Context(), name) },
	}
	cmd.Flags().StringVar(&name, "name", "", "name of the serving service (default: the first active one)")
	mark(cmd.Flags(), "name", markOurs)
	a.declare(cmd.Flags(), "api-addr", "files-addr", "files-destination", "api-tls-cert", "api-tls-key", "instance-tls-ca", "database-url", "events-retention")
	a.declareInference(cmd.Flags())
	return cmd
}

func (a *app) runUp(ctx context.Context, name string) error {
	defer a.outlive()()
	dir, err := a.dataDir()
	if err != nil {
		return err
	}
	log := a.logger(slog.LevelInfo)
	sockets := a.newSockets(dir, log)
	defer sockets.close()
	defer context.AfterFunc(ctx, sockets.hide)()
	server, err := a.newControlPlane(ctx, dir, sockets, log)
	if err != nil {
		return err
	}
	access, secret := server.Credentials()
	config := clearml.Config{
		API: clearml.Setting{Value: server.api.URL(), From: "this process"}, Files: clearml.Setting{Value: server.files.URL(), From: "this process"},
		Web: clearml.Setting{Value: server.api.URL(), From: "this process"}, AccessKey: clearml.Setting{Value: access, From: "this process"},
		SecretKey: clearml.NewSecret(secret, "this process"), WorkerName: clearml.Setting{Value: "up"},
	}
	inference, err := a.newInference(ctx, inferenceSetup{
		dataDir: dir, sockets: sockets, config: config, name: name,
		changes: server.Feed().Subscribe("task", "model", "project"), poll: time.Minute, log: log,
	})
	if err != nil {
		return closeOnError(server, err)
	}
	return runParts(ctx, log,
		a.controlPlanePart(server, sockets, nil),
		inferencePart(inference, func() error {
			a.greet(dir, sockets.urls)
			return a.greetBrowser(ctx, server)
		}))
}
