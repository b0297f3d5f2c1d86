package serving

import "time"

// AliveFor is how long an instance counts as alive after its last sign of life. An instance
// gives one every 5 seconds, so three in a row may be lost or late.
const AliveFor = 20 * time.Second

// Alive reports whether an instance counts as alive at now. Both times are by the server's
// clock. A lastUpdate in the future counts like one in the past: it was stamped before that
// clock was set back, and a running instance has been stamped since.
func Alive(lastUpdate, now time.Time) bool { return now.Sub(lastUpdate).Abs() <= AliveFor }
