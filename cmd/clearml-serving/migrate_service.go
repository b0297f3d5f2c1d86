package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"clearmlserving/clearml"
	"clearmlserving/inference/reconcile"
	"clearmlserving/serving"
)

// checkStoredService says what of a stored service will differ. The service is read, not started.
func (a *app) checkStoredService(ctx context.Context) ([]finding, error) {
	client, err := a.connect()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	id := firstOf(a.serviceID, a.text("service-id"))
	if id == "" {
		services, err := client.ListServices(ctx)
		if err != nil {
			return nil, err
		}
		if len(services) == 0 {
			return nil, notFound("Could not find any valid Control Tasks")
		}
		id = services[0].ID
		if len(services) > 1 {
			a.print.notice("Notice: there are %d services, this is the first active one; --id chooses", len(services))
		}
	}
	doc, err := a.loadService(ctx, client, id)
	if err != nil {
		return nil, err
	}
	stored := doc.Configuration()
	c := serviceCheck{doc: doc, config: serving.Decode(stored.Sections, stored.General)}
	for _, section := range serving.Sections() {
		if why := stored.Unreadable[section]; why != "" {
			c.say(stateFail, "Correct it in the web page of the task", "section %s cannot be read: %s", section, why)
		}
	}
	c.records()
	c.endpoints()
	c.metrics()
	c.parameters()
	if err := c.models(ctx, client); err != nil {
		return nil, err
	}
	dir, err := a.dataDir()
	if err != nil {
		return nil, err
	}
	files, err := a.modelFiles(dir, client, a.logger(0))
	if err != nil {
		return nil, err
	}
	further := strings.FieldsFunc(a.text("worker-env"), func(r rune) bool { return r == ',' || r == ' ' })
	c.code(ctx, files, slices.Concat(workerVariables, networkVariables, further))
	served := len(c.config.Endpoints) + len(c.config.Monitoring) + len(c.config.Canaries)
	summary := finding{"service", stateOK, fmt.Sprintf("%s (%s), version %s: %s", doc.Name, doc.ID, firstOf(doc.Version, "unknown"), plural(served, "endpoint")), ""}
	return append([]finding{summary}, c.found...), nil
}

// serviceCheck collects what differs of one service.
type serviceCheck struct {
	doc    *clearml.Service
	config serving.Service
	found  []finding
}

func (c *serviceCheck) say(state, fix, format string, args ...any) {
	c.found = append(c.found, finding{"service", state, fmt.Sprintf(format, args...), fix})
}

// records are what cannot be read.
func (c *serviceCheck) records() {
	for _, b := range c.config.Broken {
		c.say(stateFail, "Correct it in the web page of the task, or add the endpoint again", "%s", serving.Problem{Section: b.Section, Key: b.Key, Text: b.Err.Error()})
	}
}

func (c *serviceCheck) endpoints() {
	artifacts := map[string][]string{}
	known := map[string]bool{}
	for _, key := range keys(c.config.Endpoints) {
		e := c.config.Endpoints[key]
		known[strings.Trim(key, "/")] = true
		if strings.HasPrefix(key, "/") {
			c.say(stateOK, "", "%s: no request reached it because of its first slash; here /serve%s does", key, key)
		}
		if e.PreprocessArtifact != "" {
			artifacts[e.PreprocessArtifact] = append(artifacts[e.PreprocessArtifact], "/"+strings.Trim(key, "/"))
		}
	}
	for _, key := range keys(c.config.MonitoringEndpoints) {
		known[strings.Trim(key, "/")] = true
	}
	for _, key := range keys(c.config.Monitoring) {
		m := c.config.Monitoring[key]
		if m.PreprocessArtifact != "" {
			artifacts[m.PreprocessArtifact] = append(artifacts[m.PreprocessArtifact], "/"+key)
		}
	}
	for _, name := range keys(artifacts) {
		if urls := artifacts[name]; len(urls) > 1 {
			c.say(stateWarn, "Add each of them again with its own code: clearml-serving model add --preprocess", "%s share the code %s: what was added last has replaced the others' code", strings.Join(urls, " and "), name)
		}
	}
	for _, key := range keys(c.config.Canaries) {
		for _, target := range c.config.Canaries[key].LoadEndpoints {
			base, _, _ := strings.Cut(strings.Trim(target, "/"), "/")
			if _, monitored := c.config.Monitoring[base]; !known[strings.Trim(target, "/")] && !monitored {
				c.say(stateWarn, "clearml-serving model canary with endpoints that exist", "canary /%s: endpoint %s does not exist; its share goes to the others", key, target)
			}
		}
	}
}

func (c *serviceCheck) metrics() {
	for _, key := range keys(c.config.Metrics) {
		if strings.HasSuffix(key, "*") {
			c.say(stateOK, "", "metrics of %s: matched nothing, and count for all endpoints that begin so here", key)
		}
	}
}

func (c *serviceCheck) parameters() {
	p := c.config.Parameters
	if p.MetricLoggingFreq != "" {
		c.say(stateOK, "", "metric_logging_freq %s: was ignored, and is the share of logged requests here", p.MetricLoggingFreq)
	}
	if p.KafkaServiceServer != "" {
		c.say(stateOK, "", "statistics are sent to Kafka at %s, in the same messages; instances expose them themselves too", p.KafkaServiceServer)
	}
}

// models are those that endpoints name.
func (c *serviceCheck) models(ctx context.Context, client *clearml.Client) error {
	users := map[string][]string{}
	for _, key := range keys(c.config.Endpoints) {
		if id := string(c.config.Endpoints[key].ModelID); id != "" {
			users[id] = append(users[id], "/"+strings.Trim(key, "/"))
		}
	}
	if len(users) == 0 {
		return nil
	}
	models, err := client.Models(ctx, clearml.ModelFilter{IDs: keys(users), WithArchived: true})
	if err != nil {
		return err
	}
	for _, m := range models {
		if strings.HasPrefix(m.URI, "file://") || strings.HasPrefix(m.URI, "/") {
			c.say(stateWarn, "Upload it: clearml-serving model upload", "%s: the file of model %s is on one machine only: %s", strings.Join(users[m.ID], ", "), m.ID, m.URI)
		}
		delete(users, m.ID)
	}
	for _, id := range keys(users) {
		c.say(stateFail, "Add the endpoint again with a model that exists", "%s: model %s does not exist on the server", strings.Join(users[id], ", "), id)
	}
	return nil
}

var readsVariable = regexp.MustCompile(`(?:environ(?:\.get)?|getenv)\s*[\[(]\s*["']([A-Za-z_][A-Za-z0-9_]*)["']`)

// code reads the code of endpoints: it must be there, and the variables that it reads must reach it.
func (c *serviceCheck) code(ctx context.Context, files reconcile.Files, passed []string) {
	names := map[string]string{}
	for _, key := range keys(c.config.Endpoints) {
		names[c.config.Endpoints[key].PreprocessArtifact] = "/" + strings.Trim(key, "/")
	}
	for _, key := range keys(c.config.Monitoring) {
		names[c.config.Monitoring[key].PreprocessArtifact] = "/" + key
	}
	delete(names, "")
	for _, name := range keys(names) {
		artifact, ok := c.doc.Artifacts[name]
		if !ok {
			c.say(stateFail, "Add the endpoint again with --preprocess", "%s: its code %s does not exist", names[name], name)
			continue
		}
		local, err := files.Fetch(ctx, reconcile.File{URL: artifact.URI, SHA256: artifact.Hash, Unpack: artifact.Type == "archive"})
		if err != nil {
			c.say(stateFail, "Add the endpoint again with --preprocess", "%s: its code cannot be fetched: %v", names[name], err)
			continue
		}
		missing := variablesRead(local.Path, passed)
		local.Release()
		if len(missing) > 0 {
			c.say(stateWarn, "Set CLEARML_SERVING_WORKER_ENV="+strings.Join(missing, ",")+" for the inference service", "%s: its code reads %s, which user code is not given by itself", names[name], strings.Join(missing, ", "))
		}
	}
}

// variablesRead are the variables that Python files read and that do not reach them.
func variablesRead(path string, passed []string) (names []string) {
	_ = filepath.WalkDir(path, func(file string, d fs.DirEntry, err error) error { // what cannot be read is told by the worker
		if err != nil || d.IsDir() || (filepath.Ext(file) != ".py" && file != path) {
			return nil //nolint:nilerr // see above
		}
		if info, err := d.Info(); err != nil || info.Size() > composeLimit {
			return nil //nolint:nilerr // see above
		}
		text, _ := os.ReadFile(file)
		for _, m := range readsVariable.FindAllSubmatch(text, -1) {
			if name := string(m[1]); !slices.Contains(passed, name) && !slices.Contains(names, name) && !strings.HasPrefix(name, "CLEARML_") {
				names = append(names, name)
			}
		}
		return nil
	})
	slices.Sort(names)
	return names
}
