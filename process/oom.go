package process

// OOMWatch stores the kernel's count of OOM kills at its creation, to distinguish a SIGKILL of the
// kernel from others.
type OOMWatch struct{ before int64 }

// WatchOOM starts a watch. It costs one small read.
func WatchOOM() *OOMWatch {
	n, _ := host.oomKills()
	return &OOMWatch{before: n}
}

// Struck reports whether the kernel has killed a process for memory since the creation of the
// watch, or since Struck last returned true. It returns false if that is unknown.
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
