package onnxruntime

import (
	"errors"
	"runtime"
	"testing"
	"time"
)

func TestCopiesOfOutputsAreBoundedUntilTheyAreFreed(t *testing.T) {
	c := &copies{most: 3 * countFrom}
	held, err := c.take(2 * countFrom)
	if err != nil || len(held) != 2*countFrom {
		t.Fatal(err)
	}
	if _, err := c.take(countFrom - 1); err != nil { // a small one does not count
		t.Error(err)
	}
	_, err = c.take(2 * countFrom)
	if large, ok := errors.AsType[*MemoryError](err); !ok || large.Held != 2*countFrom || OutOfMemory(err) {
		t.Errorf("beside another: %v", err)
	}
	if _, err = c.take(4 * countFrom); !OutOfMemory(err) {
		t.Errorf("more than all may have: %v", err)
	}
	runtime.KeepAlive(held) // from here on it is garbage
	for end := time.Now().Add(time.Minute); c.held.Load() > 0; time.Sleep(time.Millisecond) {
		if runtime.GC(); time.Now().After(end) {
			t.Fatalf("%d bytes are still held", c.held.Load())
		}
	}
	if _, err := (&copies{}).take(1 << 20); err != nil {
		t.Errorf("without a bound: %v", err)
	}
}
