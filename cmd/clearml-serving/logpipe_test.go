package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
)

func TestALogThatNobodyReadsHoldsUpNobody(t *testing.T) {
	r, w := io.Pipe()
	a := &app{sys: system{stderr: w, env: func(string) (string, bool) { return "", false }}}
	log, end := a.roleLogger()
	const lines, width = 4000, 1000
	for i := range lines {
		log.Info("event", "n", i, "text", strings.Repeat("x", width)) // would wait for ever
	}
	var text bytes.Buffer
	var reader sync.WaitGroup
	reader.Go(func() { _, _ = io.Copy(&text, r) })
	end()
	_ = w.Close()
	reader.Wait()
	got := text.String()
	if !strings.Contains(got, "log lines dropped") || !strings.Contains(got, "n=0 ") || strings.Contains(got, fmt.Sprintf("n=%d ", lines-1)) {
		t.Errorf("the log has %d bytes and ends with %.300s", len(got), got[max(0, len(got)-300):])
	}
	if got := len(got); got > 2*logPending+logPending/10 { // what waits, and what is being written
		t.Errorf("%d bytes were kept", got)
	}
}
