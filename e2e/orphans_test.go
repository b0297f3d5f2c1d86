//go:build linux

package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestWhatUserCodeHasStartedEndsWithTheService(t *testing.T) {
	for name, end := range map[string]func(*system, *testing.T){
		"killed": (*system).kill, "stopped": (*system).stop,
	} {
		t.Run(name, func(t *testing.T) {
			s := up(t)
			s.must(t, "create")
			s.must(t, "model", "add", "--engine", "custom", "--endpoint", "leaves", "--preprocess", code("leaves.py"), "--wait")
			status, got := s.ask(t, "leaves", `{}`)
			if status != http.StatusOK {
				t.Fatalf("%d %s", status, got)
			}
			var left []int
			decode(t, got, &left)
			if len(left) != 2 || !lives(left[0]) || !lives(left[1]) {
				t.Fatalf("no process was left behind: %s", got)
			}
			end(s, t)
			for limit := time.Now().Add(patience); ; time.Sleep(tick) {
				still := slices.DeleteFunc(slices.Clone(left), func(pid int) bool { return !lives(pid) })
				if len(still) == 0 {
					break
				}
				if time.Now().After(limit) {
					t.Fatal("these still run: " + fmt.Sprint(still))
				}
			}
		})
	}
}

// lives reports whether a process exists and is not a zombie.
func lives(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}
