package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"clearmlserving/operations"
	"clearmlserving/serving"
)

// bound is one of the limits of an endpoint as a flag.
type bound struct {
	flag  string
	value pflag.Value
	help  string
}

// limitFlags are the flags that set l.
func limitFlags(l *serving.Limits) []bound {
	return []bound{
		{"deadline", decimal(&l.Deadline), "seconds that one request may take (default: the instance's request timeout)"},
		{"min-workers", optionalWhole(&l.MinWorkers), "worker processes without load; 0: none, the next request starts one (default: the instance's number)"},
		{"max-workers", whole(&l.MaxWorkers), "worker processes under load: another is started when requests wait"},
		{"idle-timeout", decimal(&l.IdleTimeout), "seconds without requests until a worker ends that is above --min-workers (default 60)"},
		{"max-queue", whole(&l.MaxQueue), "requests that may wait for a worker; one more is answered 429 (default 4096)"},
		{"memory-limit", byteSize(&l.Memory), "memory of one worker, such as 512MiB or 2GB; one that takes more is killed (default: none)"},
		{"recycle-requests", whole(&l.RecycleRequests), "replace a worker after about so many requests (default: the instance's number, never)"},
		{"tokens-per-minute", whole(&l.TokensPerMinute), "tokens of a language model within a minute, on each instance; more are answered 429 (default: no bound)"},
		{"tokens-per-day", whole(&l.TokensPerDay), "tokens of a language model within a day, on each instance (default: no bound)"},
		{"recycle-memory", byteSize(&l.RecycleMemory), "replace a worker that takes more memory, such as 400MiB (default: never)"},
	}
}

func modelLimitsCommand(a *app) *cobra.Command {
	given := limitFlags(&serving.Limits{})
	cmd := &cobra.Command{
		Use:   "limits",
		Short: "Bound an endpoint's time, workers and memory",
		Long: `Bound what an endpoint takes: the time of a request, how many worker processes it
has without and under load, how many requests wait, how much memory a worker takes,
and when a worker is replaced by a fresh one. What is not given stays as it was;
0 gives a bound back to the instance's own. Running instances load the endpoint anew
with the new bounds, without a gap.

With --min-workers 0 the endpoint sleeps without a process when nobody asks; the next
request is held until a worker is ready. The base name of an auto-updated endpoint
stands for all its versions.`,
		Example: `  clearml-serving model limits --endpoint test_model --deadline 2.5 --max-queue 100
  clearml-serving model limits --endpoint test_model --min-workers 0 --max-workers 4 --idle-timeout 300
  clearml-serving model limits --endpoint test_model --memory-limit 2GiB --recycle-requests 10000
  clearml-serving model limits --endpoint test_model --off`,
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			if slices.ContainsFunc(given, func(b bound) bool { return cmd.Flags().Changed(b.flag) }) == cmd.Flags().Changed("off") {
				return usagef(cmd, "give one of the bounds, or --off")
			}
			return nil
		},
	}
	for _, b := range given {
		cmd.Flags().Var(b.value, b.flag, b.help)
		mark(cmd.Flags(), b.flag, markOurs)
	}
	return optionCommand(a, cmd, endpointOption[serving.Limits]{
		what: "limits", doing: "Limits of", which: ": an endpoint, or an auto-updated one", off: "take all bounds off",
		at: func(o *serving.EndpointOptions) **serving.Limits { return &o.Limits },
		value: func(before *serving.Limits) *serving.Limits {
			l := serving.Limits{}
			if before != nil {
				l = *before
			}
			for _, b := range limitFlags(&l) {
				if f := cmd.Flags().Lookup(b.flag); f.Changed {
					_ = b.value.Set(f.Value.String()) // read once already
				}
			}
			return &l
		},
		done: func(_ context.Context, s *operations.Service, url string, _ *serving.Limits, _ bool) change {
			var limits any
			if all, err := storedRecords(s.Config, serving.SectionOptions); err == nil {
				if own, _ := serving.LookUp(all, url); own["limits"] != nil {
					limits = own["limits"]
				}
			}
			return change{[]serving.EndpointURL{serving.EndpointURL(url)}, object{{"limits", limits}}}
		},
	})
}

// parseSize reads "512MiB", "512M", "1.5GB" or "1048576".
func parseSize(text string) (int64, error) {
	digits := strings.TrimRight(strings.TrimSpace(text), "kKmMgGtTiIbB ")
	unit := strings.ToLower(strings.TrimSpace(strings.TrimSpace(text)[len(digits):]))
	factor, known := map[string]float64{
		"": 1, "b": 1, "k": 1 << 10, "kib": 1 << 10, "kb": 1e3, "m": 1 << 20, "mib": 1 << 20, "mb": 1e6,
		"g": 1 << 30, "gib": 1 << 30, "gb": 1e9, "t": 1 << 40, "tib": 1 << 40, "tb": 1e12,
	}[unit]
	n, err := strconv.ParseFloat(digits, 64)
	if !known || err != nil || math.IsNaN(n) || n < 0 || n*factor > 1<<50 {
		return 0, fmt.Errorf("%s is no size: give bytes or a unit, such as 512MiB or 2GB", pyText(text))
	}
	return int64(n * factor), nil
}
