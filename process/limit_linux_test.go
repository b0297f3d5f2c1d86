package process

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestALimitOfMemoryIsNeverRaised(t *testing.T) {
	const most = 1 << 40 // which this test does not need
	if err := unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: most, Max: most}); err != nil {
		t.Skip(err) // it is lower already
	}
	for _, tc := range []struct{ limit, want int64 }{{0, most}, {2 * most, most}, {most / 4, most / 2}} {
		if err := LimitMemory(tc.limit, most/4); err != nil {
			t.Error(err)
		}
		var got unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_DATA, &got); err != nil || got.Cur != uint64(tc.want) {
			t.Errorf("%d: %+v, %v", tc.limit, got, err)
		}
	}
}
