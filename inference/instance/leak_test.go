package instance_test

import (
	"testing"
	"time"

	"clearmlserving/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// patience bounds what must come, however slow the machine is at that moment.
const patience = 2 * time.Minute
