// Package e2e tests the built binary from outside: it starts it as a user would,
// trains and registers models with the real ClearML SDK, deploys them with the
// command line, breaks things on purpose, and compares the answers with
// scikit-learn's. It owns the processes that it starts and proves that none is
// left. It never imports the product's packages.
//
// "make test-e2e" runs it, because it needs the binary and Python environments;
// a plain "go test" skips it and says so.
package e2e
