package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"clearmlserving/operations"
	"clearmlserving/serving"
)

// maxSamples bounds a file of golden samples: each new model has to answer them all.
const maxSamples = 64 << 20

func modelGoldenCommand(a *app) *cobra.Command {
	golden := serving.Golden{Tolerance: defaultTolerance}
	var file string
	var timeout time.Duration
	var data []byte
	var samples []serving.Exchange
	cmd := &cobra.Command{
		Use:   "golden",
		Short: "Let an endpoint take new models only when they reproduce samples",
		Long: `Attach recorded requests with their answers to an endpoint, as golden samples. From
then on, a new model, new code or a new version is asked them after it has loaded
and before it takes traffic. One that answers differently, fails or takes too long
is refused: the last good revision serves on, and model history says why. A canary
has no samples of its own: attach them to its endpoints.

The samples are a recording (see model record), or lines written by hand:
{"body": {"x": 1}, "answer": {"y": [2]}}. The base name of an auto-updated
endpoint stands for all its versions.`,
		Example: `  clearml-serving model golden --endpoint test_model --samples recordings/test_model.jsonl
  clearml-serving model golden --endpoint test_model --samples samples.jsonl --tolerance 0.01 --timeout 500ms
  clearml-serving model golden --endpoint test_model --off`,
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			if (file == "") != cmd.Flags().Changed("off") {
				return usagef(cmd, "give one of --samples and --off")
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&file, "samples", "", "file of recorded requests with their answers")
	flags.Var(decimal(&golden.Tolerance), "tolerance", "how much numbers may differ, absolutely or relatively (default 1e-06)")
	flags.DurationVar(&timeout, "timeout", 0, "longest time for one answer, for example 500ms (default: that of any request)")
	return optionCommand(a, cmd, endpointOption[serving.Golden]{
		what: "golden samples", doing: "Golden samples of", which: ": an endpoint, or an auto-updated one", off: "take the samples off",
		at: func(o *serving.EndpointOptions) **serving.Golden { return &o.Golden },
		prepare: func(ctx context.Context, s *operations.Service, url string) error {
			err := s.Config.MayHaveGolden(url)
			if err != nil {
				return err
			}
			if data, samples, err = a.readSamples(file); err != nil {
				return err
			}
			golden.Timeout = timeout.Seconds()
			golden.Artifact, err = s.StoreSamples(ctx, url, data)
			return err
		},
		value: func(*serving.Golden) *serving.Golden { return &golden },
		done: func(ctx context.Context, s *operations.Service, url string, before *serving.Golden, off bool) change {
			if before != nil {
				if err := s.DropUnusedSamples(ctx, before.Artifact); err != nil {
					a.print.notice("Warning: %v", err)
				}
			}
			if off {
				return change{result: object{{"samples", 0}}}
			}
			a.print.line("%s attached", plural(len(samples), "sample"))
			return change{result: object{
				{"samples", len(samples)},
				{"artifact", golden.Artifact},
				{"not_reproduced", a.checkSamples(ctx, s, serving.EndpointURL(url), golden.Tolerance, samples)},
			}}
		},
	})
}

// readSamples reads a file of exchanges and warns of what can hardly be reproduced.
func (a *app) readSamples(file string) ([]byte, []serving.Exchange, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, nil, notFound("--samples '%s' could not be found", file)
	}
	if info.Size() > maxSamples {
		return nil, nil, fmt.Errorf("--samples '%s' has %d MiB, at most %d are taken: each new model has to answer all of it", file, info.Size()>>20, maxSamples>>20)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, fmt.Errorf("--samples '%s': %w", file, err)
	}
	samples, err := serving.ParseExchanges(data)
	if err != nil {
		return nil, nil, hint(fmt.Errorf("--samples '%s': %w", file, err), `Try: lines of the form {"body": {"x": 1}, "answer": {"y": [2]}}, or a recording: clearml-serving model record --help`)
	}
	redacted, failed := 0, 0
	for _, e := range samples {
		if e.Redacted {
			redacted++
		}
		if e.Status >= http.StatusBadRequest {
			failed++
		}
	}
	if redacted > 0 {
		a.print.notice("Warning: fields of %s were redacted: a model that uses them answers otherwise than recorded", plural(redacted, "sample"))
	}
	if failed > 0 {
		a.print.notice("Warning: %s of %d have an error as the recorded answer; a new model must fail in the same way", plural(failed, "sample"), len(samples))
	}
	return data, samples, nil
}

// checkSamples asks what serves now, when it can be reached: it is not refused
// by new samples. It returns the urls that do not reproduce them.
func (a *app) checkSamples(ctx context.Context, s *operations.Service, base serving.EndpointURL, tolerance float64, samples []serving.Exchange) []string {
	failed := []string{}
	live, err := a.liveState(ctx)
	if err != nil || live.ServiceID != s.Doc.ID {
		return failed // nothing serves it here
	}
	for _, e := range live.Endpoints {
		if (e.URL != base && serving.CleanURL(e.Monitoring) != base) || e.Model.State == "" {
			continue
		}
		for i, sample := range samples {
			problem := a.checkSample(ctx, live.URL, e.URL, sample, tolerance)
			if problem == "" {
				continue
			}
			a.print.notice("Warning: what '%s' serves now does not reproduce the samples: sample %d of %d: %s", e.URL, i+1, len(samples), problem)
			a.print.notice("  it serves on; the next revision has to reproduce them")
			failed = append(failed, string(e.URL))
			break
		}
	}
	return failed
}

// checkSample asks one sample over HTTP; "" means that it is reproduced.
func (a *app) checkSample(ctx context.Context, base string, endpoint serving.EndpointURL, sample serving.Exchange, tolerance float64) string {
	address := base + (&url.URL{Path: "/" + strings.Trim(a.text("serve-suffix"), "/") + "/" + string(endpoint)}).EscapedPath()
	status, body, err := a.post(ctx, address, sample.ContentType, sample.Body)
	if err != nil {
		return err.Error()
	}
	found := serving.Compare(serving.Answer{Status: sample.Status, Body: sample.Answer}, serving.Answer{Status: status, Body: body}, tolerance)
	if len(found) == 0 {
		return ""
	}
	return found[0].String()
}
