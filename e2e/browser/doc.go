// Package browser tests the web pages with a real browser: it starts the built binary, trains with
// the ClearML SDK, and then uses every page and every form. It owns the processes that it starts,
// and takes the screenshots of the documentation.
//
// "make e2e-browser" runs it, because it needs the binary, Python, and Chromium; a plain "go test"
// skips it with a message.
package browser
