package clearml

import (
	"cmp"
	"context"
	"slices"
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
	// TypeData is what the SDK says of the content; the page of an experiment shows it.
	TypeData *ArtifactData `json:"type_data,omitempty"`
}

// ArtifactData describes the content of an artifact.
type ArtifactData struct {
	Preview string `json:"preview,omitempty"`
}

// SetArtifact adds artifacts to a task, or replaces those with the same keys, in one call.
func (c *Client) SetArtifact(ctx context.Context, taskID string, all ...Artifact) error {
	stamped := slices.Clone(all)
	for i := range stamped {
		stamped[i].Timestamp = cmp.Or(stamped[i].Timestamp, time.Now().Unix())
	}
	return c.Call(ctx, "tasks.add_or_update_artifacts", map[string]any{"task": taskID, "artifacts": stamped, "force": true}, nil)
}

// DeleteArtifact removes an artifact from a task; its file stays. It is no error if there is none.
func (c *Client) DeleteArtifact(ctx context.Context, taskID, key string) error {
	return c.Call(ctx, "tasks.delete_artifacts", map[string]any{
		"task": taskID, "artifacts": []map[string]string{{"key": key, "mode": "output"}}, "force": true,
	}, nil)
}
