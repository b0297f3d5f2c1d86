package clearml

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"clearmlserving/hocon"
	"clearmlserving/serving"
)

const (
	serviceTag     = "serving-control-plane" // the system tag that makes a task a serving service
	generalSection = "General"
	versionKey     = "version" // of the runtime properties

	// conditionalWrites is the extension of the embedded server by which an edit names the state
	// that it is based on.
	conditionalWrites = "conditional_configuration"
)

// ServiceVersion is the version of the original that created services name. The original's CLI asks
// for confirmation before it edits a service of another major or minor version.
const ServiceVersion = "1.3.5"

// Service is the document of one serving service as it was read. Calls that store something do not
// change it: load it again to see their effect. ListServices sets only the fields of a list.
type Service struct {
	ID, Name          string
	ProjectID         string
	Project           string // its name
	Tags              []string
	Status            string
	Version           string // of the product that stored it last
	OutputDestination string
	General           map[string]string   // the parameters of section General
	Artifacts         map[string]Artifact // output artifacts by key
	Changed           time.Time           // the last write to its task, pings included, by the server's clock

	stored map[string]string // the configuration objects' texts
}

// nonResponsive is the status message of a task that a server's watchdog has stopped because it was
// not pinged for hours.
const nonResponsive = "forced stop (non-responsive)"

// ListServices lists the active services in the server's order: created or in progress, or stopped
// by the server's watchdog because no instance ran. The first one is the default.
func (c *Client) ListServices(ctx context.Context) ([]Service, error) {
	return c.listServices(ctx, nil)
}

// LoadServices reads the services of ListServices in full, as LoadService reads one, with a fixed
// number of calls.
func (c *Client) LoadServices(ctx context.Context) ([]Service, error) {
	return c.listServices(ctx, []string{"output", "models", "runtime", "hyperparams", "execution", "configuration"})
}

func (c *Client) listServices(ctx context.Context, more []string) ([]Service, error) {
	tasks, err := c.Tasks(ctx, TaskFilter{
		Types: []string{"service"}, Statuses: []string{StatusCreated, StatusInProgress, StatusStopped}, SystemTags: []string{serviceTag},
		Fields: append([]string{"id", "name", "status", "status_message", "project", "tags", "last_update", "system_tags"}, more...),
	})
	tasks = slices.DeleteFunc(tasks, func(t Task) bool { // a service that a user has stopped is not active
		return t.Status == StatusStopped && !strings.EqualFold(strings.TrimSpace(t.StatusMessage), nonResponsive)
	})
	if err != nil || len(tasks) == 0 {
		return nil, err
	}
	var ids []string
	for _, t := range tasks {
		ids = append(ids, t.ProjectID)
	}
	names, err := c.ProjectNames(ctx, ids)
	if err != nil {
		return nil, err
	}
	services := make([]Service, len(tasks))
	for i, t := range tasks {
		services[i] = serviceOf(t)
		services[i].Project = names[t.ProjectID]
	}
	return services, nil
}

// LoadService reads the document of a service in any status; the error is ErrNotFound if there is
// no such task.
func (c *Client) LoadService(ctx context.Context, id string) (*Service, error) {
	t, err := c.Task(ctx, id)
	if err != nil {
		return nil, err
	}
	s := serviceOf(t)
	if t.ProjectID != "" {
		project, err := c.Project(ctx, t.ProjectID)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		s.Project = project.Name
	}
	return &s, nil
}

// serviceOf extracts a service from a task.
func serviceOf(t Task) Service {
	s := Service{
		ID: t.ID, Name: t.Name, ProjectID: t.ProjectID, Tags: t.Tags, Status: t.Status, Changed: t.LastUpdate.Time,
		OutputDestination: t.Output.Destination, General: map[string]string{}, Artifacts: map[string]Artifact{},
		stored: map[string]string{},
	}
	var version Text
	_ = version.UnmarshalJSON(t.Runtime[versionKey]) // never fails
	s.Version = string(version)
	for name, p := range t.Parameters[generalSection] {
		s.General[name] = string(p.Value)
	}
	for _, a := range t.Execution.Artifacts {
		if a.Mode == "" || a.Mode == "output" {
			s.Artifacts[a.Key] = a
		}
	}
	for name, object := range t.Configuration {
		s.stored[name] = string(object.Value)
	}
	return s
}

// Configuration parses the stored configuration objects. Those that cannot be
// parsed are in Unreadable, with the cause.
func (s *Service) Configuration() serving.Configuration {
	c := serving.Configuration{Sections: map[serving.Section]json.RawMessage{}, Unreadable: map[serving.Section]string{}, General: s.General}
	for _, section := range serving.Sections() {
		text, ok := s.stored[string(section)]
		if !ok {
			continue
		}
		if (section == serving.SectionRevisions || section == serving.SectionDrift) && json.Valid([]byte(text)) {
			c.Sections[section] = json.RawMessage(text) // only ours write it, and it may be long
			continue
		}
		// No environment: the meaning of a service must not depend on its reader.
		object, err := hocon.Parse([]byte(text), hocon.Options{})
		if err != nil {
			c.Unreadable[section] = err.Error()
			continue
		}
		encoded, err := object.JSON()
		if err != nil {
			c.Unreadable[section] = err.Error()
			continue
		}
		c.Sections[section] = encoded
	}
	return c
}

// StoragePath is the folder of the service's files below a destination.
func (s *Service) StoragePath() string { return TaskPath(s.Project, s.ProjectID, s.Name, s.ID) }

// NewService describes a serving service to create.
type NewService struct {
	Name    string
	Project string // its name; created if it does not exist
	Tags    []string
	Version string // "": ServiceVersion
}

// CreateService creates a serving service with empty configuration, in one call, so that it is
// never visible incompletely.
func (c *Client) CreateService(ctx context.Context, n NewService) (string, error) {
	project, err := c.EnsureProject(ctx, n.Project)
	if err != nil {
		return "", err
	}
	n.Version = cmp.Or(n.Version, ServiceVersion)
	configuration := map[string]ConfigObject{}
	for _, section := range []serving.Section{serving.SectionEndpoints, serving.SectionCanary, serving.SectionMonitoring, serving.SectionMetrics} {
		configuration[string(section)] = ConfigObject{Name: string(section), Value: "{}"}
	}
	return c.CreateTask(ctx, NewTask{
		Name: n.Name, Type: "service", ProjectID: project.ID, Tags: n.Tags, SystemTags: []string{serviceTag},
		Configuration: configuration, Runtime: map[string]any{versionKey: n.Version},
	})
}

// StartService sets the status of a service to in_progress, from any other status.
func (c *Client) StartService(ctx context.Context, id string) error {
	return c.StartTask(ctx, id, true)
}

// hash is the condition of a write: the SHA-256 of the stored text, "" for none.
func (s *Service) hash(section serving.Section) string {
	text, ok := s.stored[string(section)]
	if !ok {
		return ""
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// SetServiceVersion stores the version of the product that edited a service last, and keeps its
// other runtime properties.
func (c *Client) SetServiceVersion(ctx context.Context, id, version string) error {
	t, err := c.Task(ctx, id)
	if err != nil {
		return err
	}
	runtime := map[string]any{}
	for key, value := range t.Runtime {
		runtime[key] = value
	}
	runtime[versionKey] = version
	return c.EditTask(ctx, id, map[string]any{"runtime": runtime})
}

// parameterTexts are the descriptions that the original stores.
var parameterTexts = [...]struct{ name, text string }{
	{serving.ParamServingBaseURL, "External address of the inference containers, for example http://host:8080/serve"},
	{serving.ParamTritonGRPCServer, "Address of the Triton gRPC server, for example triton:8001"},
	{serving.ParamTritonGRPCCompression, "Compress the requests to the Triton gRPC server"},
	{serving.ParamKafkaServiceServer, "Address of the Kafka server that takes the statistics, for example kafka:9092"},
	{serving.ParamMetricLoggingFreq, "Share of the requests whose statistics are logged, from 0 to 1"},
}

// SetServiceParameter stores a setting of a service. kind is its Python type
// name, like "str".
func (c *Client) SetServiceParameter(ctx context.Context, id, name, value, kind string) error {
	p := Parameter{Section: generalSection, Name: name, Value: Text(value), Type: kind}
	for _, known := range parameterTexts {
		if known.name == name {
			p.Description = known.text
		}
	}
	return c.EditParameters(ctx, id, []Parameter{p})
}

// PreprocessArtifact is the original's name for the preprocess code of an endpoint. Two URLs that
// differ only in / and _ share it.
func PreprocessArtifact(url serving.EndpointURL) string {
	return "py_code_" + strings.ReplaceAll(string(url), "/", "_")
}
