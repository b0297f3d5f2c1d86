package kafka

import (
	"testing"

	"clearmlserving/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }
