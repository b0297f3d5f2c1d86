package worker

// SendAhead has each worker sent n requests at a time from now to its next answer,
// however fast it has been so far.
func (g *Group) SendAhead(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range g.workers {
		w.ahead = n
	}
}
