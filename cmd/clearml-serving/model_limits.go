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

	"clearmlserving/serving"
)

func modelLimitsCommand(a *app) *cobra.Command {
	var endpoint string
	var off bool
	var f limitFlags
	var wait waitFlags
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
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.given(cmd.Flags()) == off {
				return &usageError{command: cmd, problem: "give one of the bounds, or --off", hint: "Try: " + cmd.CommandPath() + " --help"}
			}
			return a.modelLimits(cmd.Context(), endpoint, f, off, wait)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&endpoint, "endpoint", "", "name under /serve/: an endpoint, or an auto-updated one")
	mark(flags, "endpoint", markRequired)
	f.declare(flags)
	flags.BoolVar(&off, "off", false, "take all bounds off")
	wait.declareImplied(a, cmd)
	return cmd
}

func (a *app) modelLimits(ctx context.Context, endpoint string, f limitFlags, off bool, wait waitFlags) error {
	s, err := a.openOptions(ctx, endpoint, "Limits of")
	if err != nil {
		return err
	}
	if off {
		if optionsOf(s, endpoint).Limits == nil {
			return noOption(endpoint, "limits")
		}
		err = a.setOptions(ctx, s, endpoint, func(o *serving.EndpointOptions) { o.Limits = nil })
	} else {
		a.warnOfMissingEndpoint(s, endpoint)
		err = a.setOptions(ctx, s, endpoint, f.change)
	}
	if err != nil {
		return err
	}
	var limits any
	if l := optionsOf(s, endpoint).Limits; l != nil {
		limits = showLimits(*l)
	}
	url := serving.CleanURL(endpoint)
	return a.finish(ctx, s, wait, []serving.EndpointURL{url}, object{{"id", s.Doc.ID}, {"endpoint", string(url)}, {"limits", limits}})
}

// limitFlags are the bounds as flags.
type limitFlags struct {
	deadline, idle                                    number
	minWorkers, maxWorkers, maxQueue, recycleRequests whole
	memory, recycleMemory                             byteSize
}

func (f *limitFlags) declare(flags *pflag.FlagSet) {
	for _, flag := range []struct {
		name  string
		value pflag.Value
		help  string
	}{
		{"deadline", &f.deadline, "seconds that one request may take (default: the instance's request timeout)"},
		{"min-workers", &f.minWorkers, "worker processes without load; 0: none, the next request starts one (default: the instance's number)"},
		{"max-workers", &f.maxWorkers, "worker processes under load: another is started when requests wait"},
		{"idle-timeout", &f.idle, "seconds without requests until a worker ends that is above --min-workers (default 60)"},
		{"max-queue", &f.maxQueue, "requests that may wait for a worker; one more is answered 429 (default 4096)"},
		{"memory-limit", &f.memory, "memory of one worker, such as 512MiB or 2GB; one that takes more is killed (default: none)"},
		{"recycle-requests", &f.recycleRequests, "replace a worker after about so many requests (default: never)"},
		{"recycle-memory", &f.recycleMemory, "replace a worker that takes more memory, such as 400MiB (default: never)"},
	} {
		flags.Var(flag.value, flag.name, flag.help)
		mark(flags, flag.name, markOurs)
	}
}

// given tells whether any bound is on the command line.
func (f *limitFlags) given(flags *pflag.FlagSet) bool {
	names := []string{"deadline", "min-workers", "max-workers", "idle-timeout", "max-queue", "memory-limit", "recycle-requests", "recycle-memory"}
	return slices.ContainsFunc(names, flags.Changed)
}

// change sets the bounds that were given.
func (f *limitFlags) change(o *serving.EndpointOptions) {
	l := serving.Limits{}
	if o.Limits != nil {
		l = *o.Limits
	}
	set(&l.Deadline, f.deadline.value)
	set(&l.IdleTimeout, f.idle.value)
	set(&l.MaxWorkers, f.maxWorkers.value)
	set(&l.MaxQueue, f.maxQueue.value)
	set(&l.RecycleRequests, f.recycleRequests.value)
	set(&l.Memory, f.memory.value)
	set(&l.RecycleMemory, f.recycleMemory.value)
	if f.minWorkers.value != nil {
		l.MinWorkers = f.minWorkers.value
	}
	o.Limits = &l
}

func set[T any](field, value *T) {
	if value != nil {
		*field = *value
	}
}

// showLimits is an endpoint's limits as they are stored.
func showLimits(l serving.Limits) object {
	shown := object{}
	put := func(name string, isSet bool, value any) {
		if isSet {
			shown = append(shown, field{name, value})
		}
	}
	put("deadline", l.Deadline > 0, l.Deadline)
	if l.MinWorkers != nil {
		put("min_workers", true, *l.MinWorkers)
	}
	put("max_workers", l.MaxWorkers > 0, l.MaxWorkers)
	put("idle_timeout", l.IdleTimeout > 0, l.IdleTimeout)
	put("max_queue", l.MaxQueue > 0, l.MaxQueue)
	put("memory_limit", l.Memory > 0, l.Memory)
	put("recycle_requests", l.RecycleRequests > 0, l.RecycleRequests)
	put("recycle_memory", l.RecycleMemory > 0, l.RecycleMemory)
	return shown
}

// byteSize is a number of bytes with an optional unit.
type byteSize struct{ value *int64 }

func (b *byteSize) String() string { return "" }
func (b *byteSize) Type() string   { return "size" }

func (b *byteSize) Set(text string) error {
	size, err := parseSize(text)
	b.value = &size
	return err
}

// whole is a whole number that may be left out.
type whole struct{ value *int }

func (w *whole) String() string { return "" }
func (w *whole) Type() string   { return "int" }

func (w *whole) Set(text string) error {
	n, err := strconv.Atoi(strings.TrimSpace(text))
	w.value = &n
	return err
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
