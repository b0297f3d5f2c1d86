package reconcile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
)

const (
	stepLoad   = "load"
	stepGolden = "golden"
	// maxGoldenBytes bounds a file of samples and one streamed answer.
	maxGoldenBytes = 64 << 20
	// maxRefusals is the number of reported differences after which the check stops.
	maxRefusals = 3
)

// wantedGolden is what an endpoint's new models must reproduce.
type wantedGolden struct {
	serving.Golden
	file    File
	missing string // why there are no samples
}

// golden returns the samples of an endpoint, nil if it has none. If configured samples are missing,
// a new model is refused, because it cannot be checked.
func (s *State) golden(options *serving.Golden) *wantedGolden {
	if options == nil {
		return nil
	}
	g := &wantedGolden{Golden: *options}
	artifact, ok := s.Artifacts[options.Artifact]
	if !ok {
		g.missing = fmt.Sprintf("its samples, artifact '%s' of the serving service, are missing: attach them again, or take them off with: clearml-serving model golden --off", options.Artifact)
	}
	g.file = File{URL: artifact.URI, SHA256: artifact.SHA256}
	return g
}

// samples fetches and reads the samples of an endpoint.
func (r *Reconciler) samples(ctx context.Context, g *wantedGolden) (samples []serving.Exchange, err error) {
	if g.missing != "" {
		return nil, errors.New(g.missing)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("samples '%s': %w", g.Artifact, err)
		}
	}()
	local, err := r.o.Files.Fetch(ctx, g.file)
	if err != nil {
		return nil, err
	}
	defer local.Release()
	info, err := os.Stat(local.Path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxGoldenBytes {
		return nil, fmt.Errorf("the file has %d bytes, at most %d are read", info.Size(), maxGoldenBytes)
	}
	data, err := os.ReadFile(local.Path)
	if err != nil {
		return nil, err
	}
	return serving.ParseExchanges(data)
}

// reproduces sends the recorded requests to a model that is not in service yet, one after the
// other. The error names the first samples with a different answer. The check ends when a request
// fails or times out.
func (g *wantedGolden) reproduces(ctx context.Context, model engine.Model, samples []serving.Exchange, limit time.Duration) error {
	var refusals []string
	for i, sample := range samples {
		got, err := ask(ctx, model, fmt.Sprintf("golden-%d", i+1), sample, limit)
		if ctx.Err() != nil {
			return errors.New("given up: the configuration changed")
		}
		name := fmt.Sprintf("sample %d of %d", i+1, len(samples))
		if err != nil {
			refusals = append(refusals, name+": "+err.Error())
			break
		}
		found := serving.Compare(serving.Answer{Status: sample.Status, Body: sample.Answer}, got, g.Tolerance)
		if len(found) == 0 {
			continue
		}
		text := name + ": " + found[0].String()
		if found[0].Path == "status" && got.Status >= 400 {
			text += " (" + oneLine(string(got.Body)) + ")"
		} else if len(found) > 1 {
			text += fmt.Sprintf(" (and %d more)", len(found)-1)
		}
		if refusals = append(refusals, text); len(refusals) == maxRefusals {
			break
		}
	}
	if len(refusals) > 0 {
		return errors.New("it does not reproduce the golden samples: " + strings.Join(refusals, "; "))
	}
	return nil
}

// ask sends one recorded request to the model within limit, 0 for none.
func ask(ctx context.Context, model engine.Model, id string, sample serving.Exchange, limit time.Duration) (serving.Answer, error) {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %v", limit))
		defer cancel()
	}
	resp, err := model.Infer(ctx, &engine.Request{ID: id, Body: sample.Body, ContentType: sample.ContentType, Route: sample.Route})
	if err == nil && resp.Stream != nil {
		resp.Body, err = engine.ReadAll(ctx, resp.Stream, maxGoldenBytes)
	}
	if ctx.Err() != nil {
		return serving.Answer{}, context.Cause(ctx)
	}
	if err != nil {
		return serving.Answer{}, fmt.Errorf("no answer: %s", oneLine(err.Error()))
	}
	return serving.Answer{Status: resp.Status, Body: resp.Body}, nil
}

// oneLine shortens a text to one line for tables.
func oneLine(text string) string {
	return serving.Shorten(strings.Join(strings.Fields(text), " "), 300)
}
