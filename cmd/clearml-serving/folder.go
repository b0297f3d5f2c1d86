package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"clearmlserving/inference/reconcile"
	"clearmlserving/retry"
	"clearmlserving/serving"
	"clearmlserving/storage"
	"clearmlserving/storage/file"
	"clearmlserving/timeseries/gather"
	"clearmlserving/timeseries/remotewrite"
)

// madeFolders are the parts of a served folder that were made when its image was built.
type madeFolders struct {
	environments, constraints, native string // "" for none
	// writes: they are made now.
	writes bool
}

// runFolder serves a folder without a ClearML server. check loads everything, makes what takes time, and ends.
func (a *app) runFolder(ctx context.Context, path, endpoint string, check bool) error {
	if check {
		none := "127.0.0.1:0"
		a.override(map[string]string{"CLEARML_SERVING_SERVE_ADDR": none, "CLEARML_SERVING_GRPC_ADDR": none, "CLEARML_SERVING_ADMIN_ADDR": none})
	}
	served, made, remove, err := a.openFolder(ctx, path, endpoint)
	if err != nil {
		return err
	}
	defer remove()
	made.writes = check
	level := slog.LevelInfo
	if check {
		level = slog.LevelWarn
	}
	return a.runRole(ctx, level, func(sockets *sockets) ([]part, error) {
		queue, err := a.remoteWrite(sockets.log.With("part", "metrics"))
		if err != nil {
			return nil, err
		}
		metrics := &gather.Source{}
		var status func() serving.Status
		serve, err := a.newInference(ctx, inferenceSetup{
			sockets: sockets, folder: served, made: made, poll: time.Hour, metrics: metrics,
			status: func(s func() serving.Status) { status = s },
		})
		if err != nil {
			return nil, err
		}
		parts := []part{inferencePart(serve, func() error {
			if check {
				return nil
			}
			a.greet(sockets)
			return sockets.announce()
		})}
		switch {
		case check:
			parts = append(parts, part{"check", func(ctx context.Context, ready func()) error {
				ready()
				return a.awaitFolder(ctx, path, status)
			}})
		case queue != nil:
			parts = append(parts, queuePart(metrics, queue, sockets.log.With("part", "metrics")))
		}
		return parts, nil
	})
}

// queuePart sends the samples of an instance that has no ClearML server to a Prometheus.
func queuePart(source *gather.Source, queue *remotewrite.Queue, log *slog.Logger) part {
	return part{"metrics", func(ctx context.Context, ready func()) error {
		ready()
		queueCtx, stop := context.WithCancel(context.WithoutCancel(ctx)) // it ends after the last samples
		var running sync.WaitGroup
		defer running.Wait()
		defer stop()
		running.Go(func() { queue.Run(queueCtx) })
		source.Run(ctx, gatherEvery, log, queue)
		return nil
	}}
}

// openFolder opens what build has written, or a model as run takes it. remove removes what was made for it.
func (a *app) openFolder(ctx context.Context, path, endpoint string) (served *reconcile.Folder, made madeFolders, remove func(), err error) {
	remove = func() {}
	if reconcile.IsFolder(path) {
		if endpoint != "" {
			return nil, made, remove, fmt.Errorf("--endpoint %s: %s has the names of its endpoints", endpoint, path)
		}
		if served, err = reconcile.OpenFolder(path); err != nil {
			return nil, made, remove, err
		}
		full, err := filepath.Abs(path)
		if err != nil {
			return nil, made, remove, err
		}
		return served, madeFolders{environments: filepath.Join(full, "environments"), constraints: filepath.Join(full, "constraints"), native: filepath.Join(full, "native")}, remove, nil
	}
	p, err := planRun(path, runFlags{endpoint: endpoint})
	removePlan := func() {
		if err := p.remove(); err != nil {
			a.print.notice("Warning: a temporary folder is left over: %v", err)
		}
	}
	if err != nil {
		removePlan()
		return nil, made, remove, err
	}
	served, removeCode, err := a.folderOf(ctx, p, false)
	if err != nil {
		removePlan()
		return nil, made, remove, err
	}
	return served, made, func() { removeCode(); removePlan() }, nil
}

// The names within the state that is made of a model.
const (
	folderService  = "folder"
	folderModel    = "model"
	folderArtifact = "py_code"
)

// folderOf describes a model as a service with one endpoint, which is computed in Go if inGo. remove removes its packed code.
func (a *app) folderOf(ctx context.Context, p *runPlan, inGo bool) (served *reconcile.Folder, remove func(), err error) {
	remove = func() {}
	e := serving.Endpoint{EngineType: p.engine, ServingURL: p.endpoint}
	if inGo && slices.Contains(modelEngines, p.engine) {
		e.AuxiliaryCfg = map[string]any{serving.AuxAccelerate: true}
	}
	paths := map[string]string{}
	state := &reconcile.State{
		ServiceID: folderService, ServiceName: p.endpoint, Sections: map[serving.Section]json.RawMessage{}, General: map[string]string{},
		Artifacts: map[string]reconcile.Artifact{}, Models: map[serving.ModelID]reconcile.Model{},
		Found: map[string][]serving.MonitoredModel{}, Trouble: map[string]string{},
	}
	// The addresses have no paths of this machine, so that a folder that is written of them is the same on each.
	if p.file.Path != "" {
		full, err := filepath.Abs(p.file.Path)
		if err != nil {
			return nil, remove, err
		}
		uri := "folder:///" + filepath.Base(full)
		e.ModelID, paths[uri] = folderModel, full
		state.Models[folderModel] = reconcile.Model{Name: p.endpoint, URI: uri}
	}
	if p.code != "" {
		c, err := a.packCode(ctx, p.code)
		if err != nil {
			return nil, remove, err
		}
		remove = c.remove
		uri := "folder:///code/" + c.name
		e.PreprocessArtifact, paths[uri] = folderArtifact, c.file
		state.Artifacts[folderArtifact] = reconcile.Artifact{URI: uri, SHA256: c.sha256, Folder: c.kind == "archive"}
	}
	if err := e.Validate(); err != nil {
		remove()
		return nil, func() {}, err
	}
	text, err := serving.Service{Endpoints: map[string]serving.Endpoint{string(e.URL()): e}}.Encode(serving.SectionEndpoints)
	if err != nil {
		remove()
		return nil, func() {}, err
	}
	state.Sections[serving.SectionEndpoints] = json.RawMessage(text)
	return reconcile.FolderOf(state, paths), remove, nil
}

// folderTries is how often a load that may pass is tried in a check.
const folderTries = 3

// awaitFolder waits until every endpoint has loaded, or cannot be.
func (a *app) awaitFolder(ctx context.Context, path string, status func() serving.Status) error {
	for {
		s := status()
		if done, err := a.checked(path, s); done {
			return err
		}
		if err := retry.Sleep(ctx, statusInterval); err != nil {
			return err
		}
	}
}

func (a *app) checked(path string, s serving.Status) (done bool, err error) {
	if !s.Synced {
		return false, nil
	}
	var failed []error
	for _, problem := range s.Problems {
		failed = append(failed, errors.New(problem.String()))
	}
	for _, e := range s.Endpoints {
		switch {
		case e.Failure != nil && (e.Failure.Final || e.Failure.NextTry.IsZero() || e.Failure.Attempts >= folderTries):
			failed = append(failed, fmt.Errorf("endpoint '%s': %s: %s", e.URL, e.Failure.Step, e.Failure.Reason))
		case e.State != serving.StateReady:
			return false, nil
		}
	}
	if len(s.Endpoints) == 0 {
		failed = append(failed, errors.New("it has no endpoint"))
	}
	if len(failed) > 0 {
		return true, fmt.Errorf("check %s: %w", path, errors.Join(failed...))
	}
	for _, e := range s.Endpoints {
		a.print.line("%s: ready, engine %s", e.URL, e.Engine)
	}
	return true, nil
}

// folderFiles fetches the files of a folder through the cache of the data folder.
func (a *app) folderFiles(dataDir string, served *reconcile.Folder, log *slog.Logger) error {
	cache, err := storage.NewCache(storage.CacheOptions{Dir: filepath.Join(dataDir, "cache"), Adapters: storage.Adapters{"file": file.Adapter{}}, Logger: log})
	if err != nil {
		return err
	}
	served.Local = reconcile.CachedFiles{Cache: cache, Logger: log}
	return nil
}

// folderOption is the folder that inference serves, "" for none.
func (a *app) folderOption() (string, error) {
	s := a.setting("folder")
	if s.value == "" {
		return "", nil
	}
	if _, err := os.Stat(s.value); err != nil {
		return "", s.refuse("there is no such file or folder")
	}
	return s.value, nil
}
