package api

// Bounds of what one call may ask for. The database runs one writing transaction at a time,
// so what a client may put under one is bounded.
const (
	// maxTogether is how many documents one transaction changes.
	maxTogether = 1000
	// maxEach is how many documents a call changes one after the other, each by itself.
	maxEach = 10_000
	// eventsTogether is how many events one transaction stores.
	eventsTogether = 5000
	// maxMetric is how long the names of a metric and its variant are together: they are
	// entries of indexes, and kept in the task.
	maxMetric = 64 << 10
)

// setOf is for lists that are searched many times.
func setOf(texts []string) map[string]bool {
	set := make(map[string]bool, len(texts))
	for _, text := range texts {
		set[text] = true
	}
	return set
}
