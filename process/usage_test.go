//go:build linux

package process_test

import (
	"context"
	"testing"

	"clearmlserving/process"
)

func TestUsageCountsTheProcessesBelow(t *testing.T) {
	before, ok := process.Usage()
	if !ok || before.Memory < 1<<20 || before.Processes < 1 {
		t.Fatalf("usage = %+v, %v", before, ok)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	child, err := process.Start(ctx, process.Spec{Path: "/bin/sleep", Args: []string{"1000"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { // one that has not ended yet would be counted by the next run
		_ = child.Kill()
		<-child.Done()
	}()
	if with, _ := process.Usage(); with.Processes != before.Processes+1 {
		t.Errorf("%d processes, before a child %d", with.Processes, before.Processes)
	}
}
