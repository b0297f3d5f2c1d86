//go:build unix && !linux

package worker

// facts are what the system says of a process. Here it does not tell cheaply:
// workers are neither limited in memory and processes nor watched for being stopped.
type facts struct {
	stopped  bool
	threads  int
	resident int64
}

func factsOf(int) (facts, bool) { return facts{}, false }

type census struct{}

func takeCensus() *census { return &census{} }

func (*census) attribute(uint32, map[int]bool) {}

func endOrphans(uint32) int { return 0 }

func (*census) below(int) []int { return nil }

func (*census) tree([]int) []int { return nil }

func tasksOfMachine() int { return 0 }
