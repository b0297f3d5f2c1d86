package tables

import "time"

// SetMaxHold changes how long a transaction may take, and returns what undoes that.
func SetMaxHold(d time.Duration) (undo func()) {
	before := maxHold
	maxHold = d
	return func() { maxHold = before }
}
