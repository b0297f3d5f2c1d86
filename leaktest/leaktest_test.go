package leaktest

import (
	"strings"
	"testing"
)

func TestAGoroutineThatIsLeftIsFoundAndOneThatEndsIsNot(t *testing.T) {
	if err := Find(); err != nil {
		t.Fatalf("before any was started: %v", err)
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() { defer close(ended); <-end }()
	if err := find(0); err == nil || !strings.Contains(err.Error(), "TestAGoroutineThatIsLeft") {
		t.Errorf("one that is left: %v", err)
	}
	close(end)
	if err := Find(); err != nil {
		t.Errorf("one that ends: %v", err)
	}
	<-ended
}
