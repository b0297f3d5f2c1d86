package process

// OOMWatch remembers how often the kernel had killed for memory when it was
// made, so that a SIGKILL can be told from a person's.
type OOMWatch struct{ before int64 }

// WatchOOM starts to watch. It costs one small read.
func WatchOOM() *OOMWatch {
	n, _ := host.oomKills()
	return &OOMWatch{before: n}
}

// Struck says whether the kernel has killed a process for memory since the watch
// was made, or since Struck last said yes. It says no where that cannot be known.
func (w *OOMWatch) Struck() bool {
	if w == nil {
		return false
	}
	n, ok := host.oomKills()
	if !ok || n <= w.before {
		return false
	}
	w.before = n
	return true
}

func oomKnown() bool {
	_, ok := host.oomKills()
	return ok
}
