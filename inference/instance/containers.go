package instance

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"strings"
	"time"

	"github.com/google/uuid"

	"clearmlserving/clearml"
	"clearmlserving/inference/engine"
	"clearmlserving/serving"
)

// containers registers an instance's endpoints in the server's list of model endpoints,
// if the server has one: one container id for each endpoint.
type containers struct {
	listed      map[serving.EndpointURL]*container
	unsupported bool // the server has no list, so it is not called again
}

// container is a registered endpoint, with the base of the next report's rate.
type container struct {
	id       string
	since    time.Time
	requests uint64
	counted  time.Time
}

// report registers new endpoints, reports the state of each, and unregisters removed ones.
func (c *containers) report(ctx context.Context, r *Task, status serving.Status, serviceID string, planned map[serving.EndpointURL]serving.PlannedEndpoint, usage serving.Usage) error {
	if c.unsupported {
		return nil
	}
	if c.listed == nil {
		c.listed = map[serving.EndpointURL]*container{}
	}
	now := time.Now()
	alive := map[serving.EndpointURL]bool{}
	for _, e := range status.Endpoints {
		alive[e.URL] = true
		known := c.listed[e.URL]
		told := clearml.Container{
			EndpointName: string(e.URL), EndpointURL: r.endpointURL(e.URL), ModelName: cmp.Or(string(e.ModelID), "none"),
			ModelSource: "ClearML", References: []clearml.Reference{{Type: "task", Value: serviceID}},
			Requests: e.Requests, LatencyMS: e.MeanMS, Machine: machineStats(usage),
		}
		if p, ok := planned[e.URL]; ok {
			told.ModelVersion, told.PreprocessArtifact = p.Version, p.PreprocessArtifact
			told.InputType, told.InputSize = strings.Join(p.InputType, ", "), inputBytes(p.Tensors)
		}
		if e.ModelID != "" {
			told.References = append(told.References, clearml.Reference{Type: "model", Value: string(e.ModelID)})
		}
		if known == nil {
			known = &container{id: strings.ReplaceAll(uuid.NewString(), "-", ""), since: now, counted: now, requests: e.Requests}
			told.ID = known.id
			if err := c.told(r.o.Client.RegisterContainer(ctx, told)); err != nil || c.unsupported {
				return err
			}
			c.listed[e.URL] = known
		}
		told.ID, told.UptimeSec = known.id, int64(now.Sub(known.since).Seconds())
		if span := now.Sub(known.counted).Minutes(); span > 0 && e.Requests >= known.requests {
			told.RequestsMin = float64(e.Requests-known.requests) / span
		}
		if err := c.told(r.o.Client.ReportContainer(ctx, told)); err != nil || c.unsupported {
			return err
		}
		known.requests, known.counted = e.Requests, now
	}
	for url, known := range c.listed {
		if !alive[url] {
			if err := r.o.Client.UnregisterContainer(ctx, known.id); err != nil {
				return err
			}
			delete(c.listed, url)
		}
	}
	return nil
}

// machineStats distributes the instance's CPU usage evenly over the cores, because its
// distribution is unknown.
func machineStats(u serving.Usage) *clearml.MachineStats {
	if u.Memory == 0 {
		return nil
	}
	cores := make([]float64, runtime.NumCPU())
	for i := range cores {
		cores[i] = u.CPU / float64(len(cores))
	}
	return &clearml.MachineStats{CPU: cores, MemoryUsed: float64(u.Memory) / (1 << 20)}
}

// inputBytes is the size of all inputs together, 0 if the configuration does not fix it.
func inputBytes(t serving.Tensors) int64 {
	signature, err := engine.SignatureOf(t)
	if err != nil {
		return 0
	}
	total := int64(0)
	for _, in := range signature.Inputs {
		size := in.Bytes()
		if size == 0 {
			return 0
		}
		total += size
	}
	return total
}

// told records that a server has no such list.
func (c *containers) told(err error) error {
	if errors.Is(err, clearml.ErrUnsupported) {
		c.unsupported = true
		return nil
	}
	return err
}

// end unregisters all endpoints.
func (c *containers) end(ctx context.Context, r *Task) error {
	var errs []error
	for _, known := range c.listed {
		errs = append(errs, r.o.Client.UnregisterContainer(ctx, known.id))
	}
	return errors.Join(errs...)
}

// endpointURL is the URL of an endpoint of this instance.
func (r *Task) endpointURL(url serving.EndpointURL) string {
	if r.o.URL == "" {
		return ""
	}
	return r.o.URL + "/" + cmp.Or(r.o.Suffix, "serve") + "/" + string(url)
}
