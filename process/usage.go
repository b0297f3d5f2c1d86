package process

import "time"

// TreeUsage is the resource usage of a process and all its descendants.
type TreeUsage struct {
	CPU       time.Duration // since their starts, without ended processes
	Memory    int64         // bytes
	Processes int
}
