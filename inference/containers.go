package inference

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"

	"clearmlserving/clearml"
	"clearmlserving/serving"
)

// containers lists an instance's endpoints in the server's own list of model endpoints,
// where the server has one: one container id for each endpoint.
type containers struct {
	listed      map[serving.EndpointURL]*container
	unsupported bool // the server keeps no list; it isn't asked again
}

// container is an endpoint on the list, with what the next report's rate is counted from.
type container struct {
	id       string
	since    time.Time
	requests uint64
	counted  time.Time
}

// report lists new endpoints, tells how each is, and takes those off that are gone.
func (c *containers) report(ctx context.Context, r *Recording, status Status, serviceID string) error {
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
			Requests: e.Requests, LatencyMS: e.MeanMS,
		}
		if e.ModelID != "" {
			told.References = append(told.References, clearml.Reference{Type: "model", Value: string(e.ModelID)})
		}
		if known == nil {
			known = &container{id: strings.ReplaceAll(uuid.NewString(), "-", ""), since: now, counted: now, requests: e.Requests}
			told.ID = known.id
			if err := c.told(r.Client.RegisterContainer(ctx, told)); err != nil || c.unsupported {
				return err
			}
			c.listed[e.URL] = known
		}
		told.ID, told.UptimeSec = known.id, int64(now.Sub(known.since).Seconds())
		if span := now.Sub(known.counted).Minutes(); span > 0 && e.Requests >= known.requests {
			told.RequestsMin = float64(e.Requests-known.requests) / span
		}
		if err := c.told(r.Client.ReportContainer(ctx, told)); err != nil || c.unsupported {
			return err
		}
		known.requests, known.counted = e.Requests, now
	}
	for url, known := range c.listed {
		if !alive[url] {
			if err := r.Client.UnregisterContainer(ctx, known.id); err != nil {
				return err
			}
			delete(c.listed, url)
		}
	}
	return nil
}

// told takes note of a server without the list.
func (c *containers) told(err error) error {
	if errors.Is(err, clearml.ErrUnsupported) {
		c.unsupported = true
		return nil
	}
	return err
}

// end takes all off the list.
func (c *containers) end(ctx context.Context, r *Recording) error {
	var errs []error
	for _, known := range c.listed {
		errs = append(errs, r.Client.UnregisterContainer(ctx, known.id))
	}
	return errors.Join(errs...)
}

// endpointURL is where an endpoint of this instance is asked.
func (r *Recording) endpointURL(url serving.EndpointURL) string {
	if r.URL == "" {
		return ""
	}
	return r.URL + "/" + cmp.Or(r.Suffix, "serve") + "/" + string(url)
}
