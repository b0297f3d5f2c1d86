package ui

import (
	"context"
	"math"

	"github.com/prometheus/common/model"
	"golang.org/x/sync/errgroup"
)

// health is how the machine of an instance is, "" where it is not known.
type health struct {
	CPU, Memory, Disk, Network string
	// MemoryFull and DiskFull say that it is nearly used up.
	MemoryFull, DiskFull bool
}

// nearlyFull is the share from which the pages warn of a full memory or disk.
const nearlyFull = 0.9

// healthOf reads how the machines of a service's instances are, by the names of the instances; nil without
// time series.
func (v *visit) healthOf(service string) map[string]health {
	if v.p.opts.Series == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(v.r.Context(), sparkTimeout)
	defer cancel()
	now := v.p.now()
	q := asked{service: v.p.ofService(service), span: span{Step: rateWindow}}
	of := func(expr string) string { return "max by (instance) (" + expr + ")" }
	used := func(free, all string) string { return "1 - " + of(q.of(free)) + " / " + of(q.of(all)) }
	shown := []struct {
		expr   string
		format func(float64) string
		into   func(*health) *string
		full   func(*health) *bool // nil: it cannot be full
	}{
		{"clamp_max(" + of(q.rate("machine_cpu_seconds_total")) + " / " + of(q.of("machine_cpus")) + ", 1)", formatShare, func(h *health) *string { return &h.CPU }, nil},
		{used("machine_memory_available_bytes", "machine_memory_bytes"), formatShare, func(h *health) *string { return &h.Memory }, func(h *health) *bool { return &h.MemoryFull }},
		{used("machine_disk_free_bytes", "machine_disk_bytes"), formatShare, func(h *health) *string { return &h.Disk }, func(h *health) *bool { return &h.DiskFull }},
		{
			of(q.rate("machine_network_received_bytes_total")) + " + " + of(q.rate("machine_network_sent_bytes_total")),
			func(f float64) string { return formatBytes(max(1, int64(f))) + "/s" }, func(h *health) *string { return &h.Network }, nil,
		},
	}
	answers := make([]model.Vector, len(shown))
	var group errgroup.Group
	for i, one := range shown {
		group.Go(func() (err error) {
			answers[i], err = v.p.opts.Series.Query(ctx, one.expr, now)
			return err
		})
	}
	if group.Wait() != nil {
		return nil // the charts of the instance say why
	}
	all := map[string]health{}
	for i, one := range shown {
		for _, s := range answers[i] {
			value := float64(s.Value)
			if math.IsNaN(value) || math.IsInf(value, 0) {
				continue
			}
			name := string(s.Metric["instance"])
			h := all[name]
			*one.into(&h) = one.format(value)
			if one.full != nil {
				*one.full(&h) = value >= nearlyFull
			}
			all[name] = h
		}
	}
	return all
}

func formatShare(share float64) string { return threeDigits(math.Round(share*1000)/10) + " %" }
