package main

import (
	"log/slog"
	"math"
	"strconv"
	"strings"

	"clearmlserving/process"
	"clearmlserving/worker"
)

// memoryBudget is what all workers of the instance may take, nil for no bound.
func (a *app) memoryBudget(log *slog.Logger) (*worker.Budget, error) {
	all, _ := process.MemoryLimit() // 0 where it is not known: then only a size bounds
	limit, err := a.setting("memory-budget").memory(all)
	if err != nil || limit == 0 {
		return nil, err
	}
	return worker.NewBudget(limit, log), nil
}

// memory reads a size, or a share in percent of all bytes that there are.
func (s setting) memory(all int64) (int64, error) {
	const what = "give a size such as 4GiB, a share such as 80%, or 0 for no bound"
	if percent, isShare := strings.CutSuffix(s.value, "%"); isShare {
		f, err := strconv.ParseFloat(strings.TrimSpace(percent), 64)
		if err != nil || math.IsNaN(f) || f < 0 || f > 100 {
			return 0, s.refuse(what)
		}
		return int64(float64(all) * f / 100), nil
	}
	size, err := parseSize(s.value)
	if err != nil {
		return 0, s.refuse(what)
	}
	return size, nil
}
