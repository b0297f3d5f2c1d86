package worker

import (
	"math"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestDeadlinesAreTimesOfTheClockThatPythonReads(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip(err)
	}
	before := workerSeconds(time.Now())
	out, err := exec.CommandContext(t.Context(), python, "-c", "import time; print(time.monotonic())").Output()
	after := workerSeconds(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	if err != nil || theirs < before-0.001 || theirs > after+0.001 {
		t.Errorf("Python's clock shows %v between %v and %v of ours (%v)", theirs, before, after, err)
	}
	now := time.Now()
	if d := workerSeconds(now.Add(time.Hour)) - workerSeconds(now); math.Abs(d-3600) > 1e-3 {
		t.Errorf("an hour is %v seconds", d)
	}
}
