package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"clearmlserving/clearml"
	"clearmlserving/operations"
	"clearmlserving/serving"
)

// compatVersion is the version of the original that our services are made like.
// Its CLI asks before it edits a service of another version.
const compatVersion = clearml.ServiceVersion

// noIDNotice is the original's line when --id is missing.
const noIDNotice = "Notice! serving service ID not provided, selecting the first active service"

// clearmlConfig reads the configuration of the ClearML server as the SDK does, else that
// of the data folder's own server.
func (a *app) clearmlConfig() (clearml.Config, error) {
	dir, err := a.dataDir()
	if err != nil {
		return clearml.Config{}, err
	}
	return clearml.LoadConfig(clearml.ConfigOptions{Env: a.sys.env, HomeDir: a.home(), DataDir: dir, DataDirFirst: a.setting("data-dir").source == "--data-dir"})
}

// sayContradiction tells when --data-dir and the environment name different servers.
func (a *app) sayContradiction(config clearml.Config) {
	dir := a.setting("data-dir")
	host, _ := a.sys.env("CLEARML_API_HOST")
	host = strings.TrimRight(strings.TrimSpace(host), "/")
	if dir.source != "--data-dir" || host == "" {
		return
	}
	switch {
	case config.API.Value != host:
		put(a.sys.stderr, "Notice: --data-dir %s: its server %s is used, not %s of CLEARML_API_HOST", shellWord(dir.value), config.API.Value, host)
	case config.API.From == "environment variable CLEARML_API_HOST":
		put(a.sys.stderr, "Notice: no ClearML server runs on --data-dir %s: %s of CLEARML_API_HOST is used", shellWord(dir.value), host)
	}
}

// connect makes the client of the ClearML server.
func (a *app) connect() (*clearml.Client, error) {
	config, err := a.clearmlConfig()
	if err != nil {
		return nil, err
	}
	a.sayContradiction(config)
	return clearml.New(clearml.Options{Config: config, Logger: a.logger(slog.LevelWarn), ClientName: "clearml-serving-" + compatVersion})
}

// openService selects the service that a command is about: the one of --id,
// else the first active one.
func (a *app) openService(ctx context.Context) (*operations.Service, error) {
	if a.serviceID == "" && a.original {
		a.print.notice(noIDNotice)
	}
	client, err := a.connect()
	if err != nil {
		return nil, err
	}
	id := a.serviceID
	if id == "" {
		services, err := client.ListServices(ctx)
		if err != nil {
			return nil, err
		}
		if len(services) == 0 {
			err := notFound("Could not find any valid Control Tasks")
			return nil, hint(err, `Try: clearml-serving create --name "serving example"`)
		}
		id = services[0].ID
		if len(services) > 1 {
			a.print.notice("Warning: more than one valid Controller Tasks found, using Task ID=%s", id)
		}
	}
	doc, err := a.loadService(ctx, client, id)
	if err != nil {
		return nil, err
	}
	if !slices.Contains([]string{"created", "in_progress"}, doc.Status) {
		if err := client.StartService(ctx, id); err != nil {
			return nil, fmt.Errorf("start serving service %s again (its status is %s): %w", id, doc.Status, err)
		}
	}
	return operations.Of(client, doc), nil
}

// loadService reads a service's document.
func (a *app) loadService(ctx context.Context, client *clearml.Client, id string) (*clearml.Service, error) {
	doc, err := client.LoadService(ctx, id)
	if errors.Is(err, clearml.ErrNotFound) {
		err := notFound(`Task ID "%s" could not be found`, id)
		return nil, hint(err, "Try: clearml-serving list   (shows the ids)")
	}
	return doc, err
}

// printSync prints what the original prints when it has read the state.
func (a *app) printSync(s *operations.Service) {
	if a.original {
		a.print.line("Info: syncing model endpoint configuration, state hash=%s", s.Hash())
	}
}

// hintIfNotFound adds a next step to an error that says that something is not there.
func hintIfNotFound(err error, text string) error {
	if errors.Is(err, serving.ErrNotFound) {
		return hint(err, "%s", text)
	}
	return err
}
