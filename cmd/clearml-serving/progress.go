package main

import (
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// The rules of progress: a bar on stderr for what takes long, only when a person
// watches (a terminal) and has not asked for JSON. Nothing is drawn for scripts.

// bar is one transfer that can be watched; without a terminal it does nothing.
type bar struct {
	progress *mpb.Progress
	bar      *mpb.Bar
}

// progress begins a bar. The caller ends it with done.
func (a *app) progress(name string, size int64) *bar {
	if a.print.json || !isTerminal(a.sys.stderr) {
		return &bar{}
	}
	p := mpb.New(mpb.WithOutput(a.sys.stderr), mpb.WithWidth(40))
	return &bar{progress: p, bar: p.AddBar(size,
		mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR), decor.CountersKibiByte("% .1f / % .1f")),
		mpb.AppendDecorators(decor.Percentage(), decor.Name("  "), decor.AverageSpeed(decor.SizeB1024(0), "% .1f")),
	)}
}

// set tells how many bytes are through.
func (b *bar) set(n int64) {
	if b.bar != nil {
		b.bar.SetCurrent(n)
	}
}

// done ends the bar, whether or not the transfer was complete.
func (b *bar) done() {
	if b.bar == nil {
		return
	}
	b.bar.Abort(false)
	b.progress.Wait()
}
