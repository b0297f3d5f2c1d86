package grpcfront

import (
	"time"
	_ "unsafe" // for go:linkname
)

// answerWithin is how long a handler may take to answer after the deadline of its call.
const answerWithin = 5 * time.Second

// gRPC's server ends a call with RST_STREAM(CANCEL) when its deadline passes, at the moment when the call's
// context ends. If the reset wins, clients whose own clock is later say CANCELLED and not DEADLINE_EXCEEDED. There
// is no option for it, so that the timer of the reset is made later: the handler, whose context has ended, answers
// with its status. The server of this process is the only one that uses this function of gRPC.
//
//go:linkname timeAfterFunc google.golang.org/grpc/internal.TimeAfterFunc
var timeAfterFunc func(d time.Duration, f func()) interface{ Stop() bool }

func init() { //nolint:gochecknoinits // there is one such function in a process
	timeAfterFunc = func(d time.Duration, f func()) interface{ Stop() bool } {
		return time.AfterFunc(d+answerWithin, f)
	}
}
