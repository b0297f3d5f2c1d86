package grpcfront

import "time"

// SetPatience sets how long a client may read nothing. Call it before Run.
func (f *Front) SetPatience(d time.Duration) { f.patience = d }
