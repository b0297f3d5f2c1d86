package inference_test

import (
	"testing"
	"time"

	"clearmlserving/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// patience bounds the wait for events that must happen, on a slow machine.
const patience = 2 * time.Minute
