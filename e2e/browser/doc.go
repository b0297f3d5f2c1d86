// Package browser tests the web pages with a real browser: it starts the built binary,
// trains with the ClearML SDK, and then clicks through every page and every form. It owns
// the processes that it starts, and draws the pictures of the documentation.
//
// "make e2e-browser" runs it, because it needs the binary, Python, and Chromium; a plain
// "go test" skips it and says so.
package browser
