package kafka

import (
	"os"
	"path/filepath"
	"testing"
)

func TestAFolderOfMessagesThatIsRemovedIsMadeAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "queue")
	lost := map[string]int{}
	q := &queue{dir: dir, memoryBound: 100, lost: func(reason string, n int) { lost[reason] += n }, fail: func(err error) { t.Log(err) }}
	if err := q.open(); err != nil {
		t.Fatal(err)
	}
	put := func(from int) {
		for i := range 10 {
			q.put(packet{Key: "k", Value: make([]byte, 50), Records: from + i})
		}
	}
	put(0)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	put(100)
	if q.stored == 0 || lost["disk"] > 0 {
		t.Errorf("%d bytes on the disk, lost: %v", q.stored, lost)
	}
	var got []int
	for all := q.next(); len(all) > 0; all = q.next() {
		for _, p := range all {
			got = append(got, p.Records)
		}
		q.done(nil)
	}
	if len(got) < 10 || got[len(got)-1] != 109 || lost["unreadable"] == 0 {
		t.Errorf("got %v, lost %v", got, lost)
	}
	if want := 45; lost["unreadable"] > want {
		t.Errorf("%d records lost, and at most %d were in the folder", lost["unreadable"], want)
	}
}
