// Package e2e tests the built binary from outside: it starts it as a user would, trains and
// registers models with the real ClearML SDK, deploys them with the command line, injects faults,
// and compares the answers with scikit-learn's. It owns the processes that it starts and checks
// that none is left. It never imports the product's packages.
//
// "make test-e2e" runs it, because it needs the binary and Python environments; a plain "go test"
// skips it with a message.
package e2e
