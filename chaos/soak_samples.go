package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// sample has the resources of an installation at one moment.
type sample struct {
	Seconds    float64 `json:"seconds"`
	Answers    int     `json:"answers"`
	ServiceKB  int     `json:"inference_pss_kb"`
	WorkersKB  int     `json:"workers_pss_kb"`
	ControlKB  int     `json:"control_plane_pss_kb"`
	Files      int     `json:"inference_descriptors"`
	ControlFDs int     `json:"control_plane_descriptors"`
	Processes  int     `json:"processes"`
	Threads    int     `json:"inference_threads"`
	Goroutines int     `json:"inference_goroutines"`
	TempFiles  int     `json:"temporary_files"`
}

func (s sample) String() string {
	return fmt.Sprintf("%4.0f s: %d answers, inference %d MB, workers %d MB, control plane %d MB, %d+%d descriptors, %d processes, %d threads, %d goroutines, %d temporary files",
		s.Seconds, s.Answers, s.ServiceKB>>10, s.WorkersKB>>10, s.ControlKB>>10, s.Files, s.ControlFDs, s.Processes, s.Threads, s.Goroutines, s.TempFiles)
}

func takeSample(ctx context.Context, w *world, at time.Duration, answers int) sample {
	s := sample{Seconds: at.Seconds(), Answers: answers}
	serving := w.serving()
	for _, pid := range w.processes() {
		s.Processes++
		switch pid {
		case serving.pid():
			s.ServiceKB = pss(pid)
		case w.control.pid():
			s.ControlKB = pss(pid)
		default:
			s.WorkersKB += pss(pid)
		}
	}
	s.Files, s.ControlFDs, s.Threads = count(serving.pid(), "fd"), count(w.control.pid(), "fd"), count(serving.pid(), "task")
	if text, err := fetch(ctx, serving.urls["admin"]+"/debug/pprof/goroutine?debug=1"); err == nil {
		// "goroutine profile: total 57"
		first, _, _ := strings.Cut(string(text), "\n")
		s.Goroutines, _ = strconv.Atoi(first[strings.LastIndexByte(first, ' ')+1:])
	}
	if entries, err := os.ReadDir(filepath.Join(w.dir, "tmp")); err == nil {
		s.TempFiles = len(entries)
	}
	return s
}

// pss is a process's share of memory in KB, 0 when it has ended.
func pss(pid int) int {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "Pss:" {
			kb, _ := strconv.Atoi(fields[1])
			return kb
		}
	}
	return 0
}

func count(pid int, what string) int {
	entries, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), what))
	if err != nil {
		return 0
	}
	return len(entries)
}

// growth compares a figure's median in the second quarter of the time, after the warm-up, with that
// in the last one.
type growth struct {
	What    string `json:"what"`
	Early   int    `json:"early"`
	Late    int    `json:"late"`
	Allowed int    `json:"allowed"`
}

func (g growth) grows() bool { return g.Late > g.Early+g.Allowed }

func (g growth) String() string {
	mark := "flat"
	if g.grows() {
		mark = "GROWS"
	}
	return fmt.Sprintf("%-28s %8d -> %8d  (allowed +%d)  %s", g.What, g.Early, g.Late, g.Allowed, mark)
}

func growthsOf(samples []sample) []growth {
	quarter := len(samples) / 4
	if quarter == 0 {
		return nil
	}
	middle := func(part []sample, of func(sample) int) int {
		var values []int
		for _, s := range part {
			values = append(values, of(s))
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	var all []growth
	add := func(what string, share, least int, of func(sample) int) {
		g := growth{What: what, Early: middle(samples[quarter:2*quarter], of), Late: middle(samples[3*quarter:], of)}
		g.Allowed = max(g.Early*share/100, least)
		all = append(all, g)
	}
	add("inference, memory in KB", 10, 6<<10, func(s sample) int { return s.ServiceKB })
	add("workers, memory in KB", 10, 6<<10, func(s sample) int { return s.WorkersKB })
	add("control plane, memory in KB", 10, 8<<10, func(s sample) int { return s.ControlKB })
	add("inference, descriptors", 10, 8, func(s sample) int { return s.Files })
	add("control plane, descriptors", 10, 8, func(s sample) int { return s.ControlFDs })
	add("inference, threads", 10, 4, func(s sample) int { return s.Threads })
	add("inference, goroutines", 10, 10, func(s sample) int { return s.Goroutines })
	add("processes", 0, 2, func(s sample) int { return s.Processes })
	add("temporary files", 0, 2, func(s sample) int { return s.TempFiles })
	return all
}

// writeSoak writes the samples as JSON and as a chart, if requested.
func writeSoak(results, chart string, samples []sample, growths []growth) error {
	if results != "" {
		text, err := json.MarshalIndent(map[string]any{"growth": growths, "samples": samples}, "", " ")
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(results), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(results, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	if chart == "" {
		return nil
	}
	return os.WriteFile(chart, []byte(soakChart(samples)), 0o644)
}
