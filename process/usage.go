package process

import "time"

// TreeUsage is what a process and all below it use.
type TreeUsage struct {
	CPU       time.Duration // since their starts; what has ended is not in it
	Memory    int64         // bytes
	Processes int
}
