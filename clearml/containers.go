package clearml

import "context"

// Container is an endpoint of a serving instance, as newer servers list it among their model
// endpoints.
type Container struct {
	ID           string `json:"container_id"` // of this endpoint in this instance
	EndpointName string `json:"endpoint_name"`
	EndpointURL  string `json:"endpoint_url,omitempty"` // its address; "" while it loads
	ModelName    string `json:"model_name"`
	ModelSource  string `json:"model_source,omitempty"`
	ModelVersion string `json:"model_version,omitempty"`
	// PreprocessArtifact is the name of the code on the service's task. InputType and InputSize,
	// in bytes, are those of the model's inputs, as configured.
	PreprocessArtifact string `json:"preprocess_artifact,omitempty"`
	InputType          string `json:"input_type,omitempty"`
	InputSize          int64  `json:"input_size,omitempty"`
	// References are the tasks and models of the endpoint.
	References []Reference `json:"reference,omitempty"`

	UptimeSec   int64   `json:"uptime_sec"`
	Requests    uint64  `json:"requests_num"`
	RequestsMin float64 `json:"requests_min"` // per minute, recently
	LatencyMS   float64 `json:"latency_ms"`
	// Machine is the resource usage of the instance, nil if unknown.
	Machine *MachineStats `json:"machine_stats,omitempty"`
}

// MachineStats is the resource usage of an instance.
type MachineStats struct {
	CPU        []float64 `json:"cpu_usage"`   // of each core, in percent
	MemoryUsed float64   `json:"memory_used"` // in MB
}

// Reference refers to something on the server.
type Reference struct {
	Type  string `json:"type"` // "task", "model", or "url"
	Value string `json:"value"`
}

// RegisterContainer lists an endpoint of an instance. It returns ErrUnsupported from servers
// without such a list.
func (c *Client) RegisterContainer(ctx context.Context, container Container) error {
	return c.Call(ctx, "serving.register_container", container, nil)
}

// ReportContainer reports the state of an endpoint of an instance. A server may replace the
// registered data by it, so it has all of them again. The server drops endpoints without a report
// for some minutes.
func (c *Client) ReportContainer(ctx context.Context, container Container) error {
	return c.Call(ctx, "serving.container_status_report", container, nil)
}

// UnregisterContainer removes an endpoint of an instance from the list.
func (c *Client) UnregisterContainer(ctx context.Context, id string) error {
	return c.Call(ctx, "serving.unregister_container", map[string]string{"container_id": id}, nil)
}
