package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"clearmlserving/clearml"
	"clearmlserving/serving"
)

// compatVersion is the version of the original that our services are made like.
// Its CLI asks before it edits a service of another version.
const compatVersion = clearml.ServiceVersion

// noIDNotice is the original's line when --id is missing.
const noIDNotice = "Notice! serving service ID not provided, selecting the first active service"

// service is the serving service that a command works on.
type service struct {
	client *clearml.Client
	doc    *clearml.Service
	config serving.Service
}

// connect makes the client of the ClearML server.
func (a *app) connect() (*clearml.Client, error) {
	dir, err := a.dataDir()
	if err != nil {
		return nil, err
	}
	config, err := clearml.LoadConfig(clearml.ConfigOptions{Env: a.sys.env, HomeDir: a.home(), DataDir: dir})
	if err != nil {
		return nil, err
	}
	return clearml.New(clearml.Options{Config: config, Logger: a.logger(slog.LevelWarn), ClientName: "clearml-serving-" + compatVersion})
}

// openService selects the service that a command is about: the one of --id,
// else the first active one.
func (a *app) openService(ctx context.Context) (*service, error) {
	if a.serviceID == "" {
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
	s := &service{client: client, doc: doc}
	s.decode()
	return s, nil
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

func (s *service) decode() {
	sections, unreadable := s.doc.Sections()
	s.config = serving.Decode(sections, s.doc.General)
	for _, section := range keys(unreadable) {
		s.config.Broken = append(s.config.Broken, serving.BrokenRecord{Section: section, Err: fmt.Errorf("configuration section %q cannot be read: %w", section, unreadable[section])})
	}
}

// reload reads the service as it is stored now.
func (s *service) reload(ctx context.Context) error {
	doc, err := s.client.LoadService(ctx, s.doc.ID)
	if err != nil {
		return err
	}
	s.doc = doc
	s.decode()
	return nil
}

// hash is the change marker of the service as it was read.
func (s *service) hash() string { return s.config.StateHash(s.artifactHashes()) }

// digests are the change markers of the single urls.
func (s *service) digests() map[serving.EndpointURL]string {
	return s.config.Digests(s.artifactHashes())
}

func (s *service) artifactHashes() map[string]string {
	hashes := make(map[string]string, len(s.doc.Artifacts))
	for name, artifact := range s.doc.Artifacts {
		hashes[name] = artifact.Hash
	}
	return hashes
}

// printSync prints what the original prints when it has read the state.
func (a *app) printSync(s *service) {
	a.print.line("Info: syncing model endpoint configuration, state hash=%s", s.hash())
}

// maxConflicts bounds how often a change is made again after another writer's.
const maxConflicts = 20

// edit changes one section and stores it. The change is made again on what is
// there when another writer has stored the section in between, or has overwritten
// it. What is stored already is not written again. change must have no other effect
// than on its argument.
func (s *service) edit(ctx context.Context, change func(*serving.Service) (serving.Section, error)) error {
	for attempt := 1; ; attempt++ {
		section, err := change(&s.config)
		if err != nil {
			return err
		}
		text, err := s.config.Encode(section)
		if err != nil {
			return err
		}
		before := s.doc
		s.decode()
		unchanged := false
		if stored, err := s.config.Encode(section); err == nil && stored == text {
			unchanged = true
		}
		if unchanged && s.doc.Version == compatVersion {
			return nil
		}
		if !unchanged {
			err = s.client.SaveSection(ctx, before, section, text)
			if errors.Is(err, clearml.ErrConflict) && attempt < maxConflicts {
				if err := s.reload(ctx); err != nil {
					return err
				}
				continue
			}
			if errors.Is(err, clearml.ErrConflict) {
				return hint(fmt.Errorf("store the change: other writers were faster %d times: %w", attempt, err), "Try: the same command again, when fewer edits are under way")
			}
			if err != nil {
				return fmt.Errorf("store section %q of serving service %s: %w", section, s.doc.ID, err)
			}
		}
		if s.doc.Version != compatVersion {
			if err := s.client.SetServiceVersion(ctx, s.doc.ID, compatVersion); err != nil {
				return fmt.Errorf("store the version of serving service %s: %w", s.doc.ID, err)
			}
		}
		return s.reload(ctx)
	}
}

// setParameter stores a setting of the service.
func (s *service) setParameter(ctx context.Context, name, value, kind string) error {
	if err := s.client.SetServiceParameter(ctx, s.doc.ID, name, value, kind); err != nil {
		return fmt.Errorf("store setting %s of serving service %s: %w", name, s.doc.ID, err)
	}
	return s.reload(ctx)
}

// linkModel enters an endpoint's model as an input model of the service.
func (a *app) linkModel(ctx context.Context, s *service, url string, id serving.ModelID) error {
	if id == "" {
		return nil
	}
	err := s.client.AddTaskModel(ctx, s.doc.ID, clearml.ModelInput, url, string(id))
	if errors.Is(err, clearml.ErrNotFound) {
		return nil // told before: the model may come later
	}
	if err != nil {
		return fmt.Errorf("enter model %s on the serving service: %w", id, err)
	}
	return nil
}

// unlinkModel takes an endpoint's model off the service. The original enters
// models under the url without version; such an entry goes with the last
// endpoint of that url.
func (a *app) unlinkModel(ctx context.Context, s *service, e serving.Endpoint) error {
	names := []string{string(e.URL())}
	shared := false
	for _, other := range s.config.Endpoints {
		shared = shared || serving.CleanURL(other.ServingURL) == serving.CleanURL(e.ServingURL)
	}
	if legacy := string(serving.CleanURL(e.ServingURL)); !shared && legacy != names[0] {
		names = append(names, legacy)
	}
	if err := s.client.DeleteTaskModels(ctx, s.doc.ID, clearml.ModelInput, names); err != nil {
		return fmt.Errorf("take the model of '%s' off the serving service: %w", e.URL(), err)
	}
	return nil
}

// lookUp finds the record of a url, which others may have stored with slashes around.
func lookUp[T any](records map[string]T, url string) (T, bool) {
	if record, ok := records[url]; ok {
		return record, true
	}
	for key, record := range records {
		if serving.CleanURL(key) == serving.CleanURL(url) {
			return record, true
		}
	}
	var none T
	return none, false
}

// hintIfNotFound adds a next step to an error that says that something is not there.
func hintIfNotFound(err error, text string) error {
	if errors.Is(err, serving.ErrNotFound) {
		return hint(err, "%s", text)
	}
	return err
}
