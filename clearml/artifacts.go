package clearml

import (
	"context"
	"time"
)

// Artifact is a file that a task refers to.
type Artifact struct {
	Key       string `json:"key"`
	Type      string `json:"type,omitempty"` // "custom" for a file, "archive" for a packed folder
	Mode      string `json:"mode,omitempty"` // "" is output
	URI       string `json:"uri,omitempty"`
	Hash      string `json:"hash,omitempty"` // SHA-256 of the file
	Size      int64  `json:"content_size,omitempty"`
	Timestamp int64  `json:"timestamp,omitempty"` // seconds; SetArtifact fills it in
}

// SetArtifact enters an artifact on a task; one of the same key is replaced.
func (c *Client) SetArtifact(ctx context.Context, taskID string, a Artifact) error {
	if a.Timestamp == 0 {
		a.Timestamp = time.Now().Unix()
	}
	return c.Call(ctx, "tasks.add_or_update_artifacts", map[string]any{"task": taskID, "artifacts": []Artifact{a}, "force": true}, nil)
}

// DeleteArtifact takes an artifact off a task; its file stays. It need not be there.
func (c *Client) DeleteArtifact(ctx context.Context, taskID, key string) error {
	return c.Call(ctx, "tasks.delete_artifacts", map[string]any{
		"task": taskID, "artifacts": []map[string]string{{"key": key, "mode": "output"}}, "force": true,
	}, nil)
}
