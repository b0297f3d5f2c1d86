package grpcfront

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"clearmlserving/inference"
)

// kinds describes the failures for users, and when a repetition may help.
var kinds = []struct {
	kind         inference.FailureKind
	when, repeat string
}{
	{inference.KindBadRequest, "the request cannot be understood, or its data do not fit the model", "no: correct it"},
	{inference.KindUnauthenticated, "a key is required, and none or an invalid one was sent", "with a key"},
	{inference.KindForbidden, "the key is for other endpoints", "with another key"},
	{inference.KindUnknownEndpoint, "there is no such endpoint or version", "no"},
	{inference.KindTooLarge, "the request, or the answer, is larger than `--max-body`", "no"},
	{inference.KindOverloaded, "the endpoint's queue is full", "after `Retry-After`"},
	{inference.KindClientLeft, "the client has disconnected: only the log has it", ""},
	{inference.KindInternal, "user code, or the model, has failed; the log has the traceback", "only if the code is said to be safe for it"},
	{inference.KindDied, "the worker died while it processed this request", "only if the request may be processed twice"},
	{inference.KindNotReady, "the endpoint is loading, has no worker, or cannot be loaded; the text has the reason", "after `Retry-After`"},
	{inference.KindDeadline, "the deadline of the client or of the endpoint has passed", "with more time"},
	{inference.KindLoopDetected, "endpoints ask each other too deeply", "no"},
}

func TestReferenceOfErrors(t *testing.T) {
	var b strings.Builder
	b.WriteString(`# Reference: errors

<!-- Made from the program: UPDATE=1 go test ./inference/grpcfront -run Reference. Don't edit. -->

An answer with an error of the service has ` + "`{\"detail\": \"…\"}`" + ` as its body, and ` + "`{\"error\": \"…\"}`" + ` for the Open Inference Protocol. The header
` + "`X-Request-Id`" + ` leads to its line in the log. User code may answer with any other status: [requests.md](requests.md#errors-with-a-status).

| HTTP | gRPC | when | may the client repeat it? |
|---|---|---|---|
`)
	described := map[inference.FailureKind]bool{}
	for _, k := range kinds {
		described[k.kind] = true
		fmt.Fprintf(&b, "| %d | `%s` | %s | %s |\n", (&inference.Failure{Kind: k.kind}).Response().Status, failureCodes[k.kind], k.when, k.repeat)
	}
	b.WriteString(`
A ` + "`ValueError`" + ` of user code is 422 (gRPC: ` + "`InvalidArgument`" + `). Exit codes of commands: [reference-commands.md](reference-commands.md). What to do about an error:
[troubleshooting.md](troubleshooting.md).
`)
	for kind := range failureCodes {
		if !described[inference.FailureKind(kind)] {
			t.Errorf("failure %d is not described", kind)
		}
	}
	const page = "../../docs/reference-errors.md"
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(page, []byte(b.String()), 0o644); err != nil { //nolint:gosec // a page of the documentation
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(page); err != nil || string(got) != b.String() {
		t.Errorf("%s is stale: UPDATE=1 go test ./inference/grpcfront -run Reference (%v)", page, err)
	}
}
