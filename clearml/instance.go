package clearml

import (
	"context"
	"fmt"
	"strings"
	"time"

	"clearmlserving/serving"
)

// OpenInstance creates and starts the task of one process of a service, with the name that
// the original uses: kind is "serve instance" (of type inference) or "statistics controller"
// (of type monitor). The service is its parent. The caller pings it and stops it at the end.
func (c *Client) OpenInstance(ctx context.Context, s *Service, kind, taskType string) (string, error) {
	id, err := c.CreateTask(ctx, NewTask{
		Name: s.Name + " - " + kind, Type: taskType, ProjectID: s.ProjectID, ParentID: s.ID, SystemTags: []string{"service"},
		Comment: "Serves the serving service " + s.ID, Runtime: map[string]any{versionKey: ServiceVersion},
	})
	if err != nil {
		return "", err
	}
	if err := c.StartTask(ctx, id, true); err != nil {
		return "", fmt.Errorf("start instance task %s: %w", id, err)
	}
	return id, nil
}

// ContinueInstance restarts the instance task of an earlier process.
func (c *Client) ContinueInstance(ctx context.Context, s *Service, id string) error {
	if err := c.StartTask(ctx, id, true); err != nil {
		return err
	}
	return c.EditTask(ctx, id, map[string]any{"parent": s.ID})
}

// reportObject is the configuration object of an instance's task with the instance's report.
const reportObject = "serving_instance"

// Instance is a process of a service, as recorded on its task.
type Instance struct {
	TaskID, Name string
	ServiceID    string
	Seen         time.Time // time of the last ping, by the server's clock
	Report       string    // as given to ReportInstance, "" for none
	Ended        bool      // it was stopped; false in the lists of those that have not ended
}

// ReportInstance stores an instance's report, a JSON text, on its task.
func (c *Client) ReportInstance(ctx context.Context, id, report string) error {
	object := ConfigObject{Name: reportObject, Value: Text(report), Type: "json", Description: "How this instance is, written by itself"}
	return c.EditConfiguration(ctx, id, []ConfigObject{object}, nil)
}

// ReportOf returns the report on a task, "" for none.
func ReportOf(t Task) string { return string(t.Configuration[reportObject].Value) }

// evidenceObject is the configuration object of an instance's task with what the instance knows about
// canaries.
const evidenceObject = "serving_canaries"

// ReportEvidence stores what an instance knows about canaries, a JSON text, on its task.
func (c *Client) ReportEvidence(ctx context.Context, id, text string) error {
	object := ConfigObject{Name: evidenceObject, Value: Text(text), Type: "json", Description: "The evidence of this instance about canaries, written by itself"}
	return c.EditConfiguration(ctx, id, []ConfigObject{object}, nil)
}

// maxEvidence bounds how many instances, newest first, are asked for evidence.
const maxEvidence = 200

// Evidence lists the newest instances of a service, also those that have ended, with what
// ReportEvidence has stored, as their Report.
func (c *Client) Evidence(ctx context.Context, serviceID string) ([]Instance, error) {
	tasks, err := c.Tasks(ctx, TaskFilter{
		ParentIDs: []string{serviceID}, Types: []string{"inference"}, Statuses: []string{StatusInProgress, StatusStopped, StatusFailed}, Hidden: true,
		Fields: []string{"id", "status", "last_update", "configuration." + evidenceObject}, OrderBy: []string{"-last_update"}, Limit: maxEvidence,
	})
	if err != nil {
		return nil, fmt.Errorf("read the evidence of the instances of serving service %s: %w", serviceID, err)
	}
	instances := make([]Instance, len(tasks))
	for i, t := range tasks {
		instances[i] = Instance{TaskID: t.ID, ServiceID: serviceID, Seen: t.LastUpdate.Time, Ended: t.Status != StatusInProgress, Report: string(t.Configuration[evidenceObject].Value)}
	}
	return instances, nil
}

// Instances lists the tasks of a service's instances of that type that have not
// ended, the longest running first. An instance whose process was killed stays in the
// list until its task is ended: check Seen with serving.Alive and ServerTime.
func (c *Client) Instances(ctx context.Context, serviceID, taskType string) ([]Instance, error) {
	return c.InstancesOf(ctx, []string{serviceID}, taskType)
}

// InstancesOf is Instances for several services.
func (c *Client) InstancesOf(ctx context.Context, serviceIDs []string, taskType string) ([]Instance, error) {
	if len(serviceIDs) == 0 {
		return nil, nil
	}
	tasks, err := c.Tasks(ctx, TaskFilter{
		ParentIDs: serviceIDs, Types: []string{taskType}, Statuses: []string{StatusInProgress}, Hidden: true,
		Fields: []string{"id", "name", "parent", "last_update", "configuration." + reportObject}, OrderBy: []string{"started"},
	})
	if err != nil {
		return nil, fmt.Errorf("list the instances of serving service %s: %w", strings.Join(serviceIDs, ", "), err)
	}
	instances := make([]Instance, len(tasks))
	for i, t := range tasks {
		instances[i] = Instance{TaskID: t.ID, Name: t.Name, ServiceID: t.ParentID, Seen: t.LastUpdate.Time, Report: string(t.Configuration[reportObject].Value)}
	}
	return instances, nil
}

// MirrorService copies the configuration of a service to an instance's task,
// where the web application shows it. Sections that cannot be read are left out, and so are
// access keys, since a copy would stay when a key is revoked, and the revisions and the steps of canaries, which say
// nothing of the instance.
func (c *Client) MirrorService(ctx context.Context, s *Service, instance string) error {
	var objects []ConfigObject
	sections := s.Configuration().Sections
	for _, section := range serving.Sections() {
		if text, ok := sections[section]; ok && section != serving.SectionAccess && section != serving.SectionRevisions && section != serving.SectionRollouts {
			objects = append(objects, ConfigObject{Name: string(section), Value: Text(text)})
		}
	}
	if len(objects) == 0 {
		return nil
	}
	return c.EditConfiguration(ctx, instance, objects, nil)
}

// NewCredentials creates another pair of keys for the user of this client. The server
// returns the secret only once.
func (c *Client) NewCredentials(ctx context.Context, label string) (accessKey string, secretKey Secret, err error) {
	var data struct {
		Credentials struct {
			AccessKey string `json:"access_key"`
			SecretKey string `json:"secret_key"`
		} `json:"credentials"`
	}
	if err := c.Call(ctx, "auth.create_credentials", map[string]string{"label": label}, &data); err != nil {
		return "", Secret{}, err
	}
	if data.Credentials.AccessKey == "" || data.Credentials.SecretKey == "" {
		return "", Secret{}, fmt.Errorf("auth.create_credentials: the answer has no credentials")
	}
	return data.Credentials.AccessKey, NewSecret(data.Credentials.SecretKey, "auth.create_credentials"), nil
}
