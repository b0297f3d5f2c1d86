package clearml

import (
	"context"
	"fmt"

	"clearmlserving/serving"
)

// OpenInstance makes the task that stands for one running process of a service,
// named as the original names it: kind is "serve instance" (of type inference)
// or "statistics controller" (of type monitor). It is started; whoever opens it
// pings it, and stops it at the end.
func (c *Client) OpenInstance(ctx context.Context, s *Service, kind, taskType string) (string, error) {
	id, err := c.CreateTask(ctx, NewTask{
		Name: s.Name + " - " + kind, Type: taskType, ProjectID: s.ProjectID, SystemTags: []string{"service"},
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

// ContinueInstance goes on with an instance task of an earlier process.
func (c *Client) ContinueInstance(ctx context.Context, id string) error {
	return c.StartTask(ctx, id, true)
}

// MirrorService copies the configuration of a service to an instance's task,
// where the web application shows it. Sections that cannot be read are left out.
func (c *Client) MirrorService(ctx context.Context, s *Service, instance string) error {
	var objects []ConfigObject
	sections, _ := s.Sections()
	for _, section := range serving.Sections() {
		if text, ok := sections[section]; ok {
			objects = append(objects, ConfigObject{Name: string(section), Value: Text(text)})
		}
	}
	if len(objects) == 0 {
		return nil
	}
	return c.EditConfiguration(ctx, instance, objects, nil)
}

// NewCredentials makes a further pair of keys for the user of this client. The
// secret is given only here.
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
		return "", Secret{}, fmt.Errorf("auth.create_credentials: the answer holds no credentials")
	}
	return data.Credentials.AccessKey, NewSecret(data.Credentials.SecretKey, "auth.create_credentials"), nil
}
