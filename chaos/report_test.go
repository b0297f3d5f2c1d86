package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestResultsOfFaultsThatWereNotChosenStay(t *testing.T) {
	file := filepath.Join(t.TempDir(), "results.json")
	names := faults()
	before := report{outcomes: []outcome{{Fault: "of-former-times", Requests: 1}, {Fault: names[2].name, Requests: 10, ErrorsOnHit: 1}, {Fault: names[0].name, Requests: 20, ErrorsElsewhere: 2}}}
	if err := before.write(file); err != nil {
		t.Fatal(err)
	}
	now := report{outcomes: []outcome{{Fault: names[1].name, Requests: 40}, {Fault: names[0].name, Requests: 100, Wrong: 5}}, total: 7}
	if err := now.keep(file); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{100, 40, 10} {
		if i >= len(now.outcomes) || now.outcomes[i].Fault != names[i].name || now.outcomes[i].Requests != want {
			t.Fatalf("%+v", now.outcomes)
		}
	}
	if len(now.outcomes) != 3 || now.total != 95+40+9 {
		t.Errorf("%d results, %d right answers", len(now.outcomes), now.total)
	}
	if err := now.keep(filepath.Join(t.TempDir(), "none")); err != nil {
		t.Errorf("without results before: %v", err)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if now.keep(file) == nil {
		t.Error("results that cannot be read are replaced")
	}
}

func TestAnswersOfChatsAreJudged(t *testing.T) {
	const (
		piece = `data: {"choices":[{"delta":{"content":"4"},"finish_reason":null}]}` + "\n\n"
		end   = `data: {"choices":[{"delta":{},"finish_reason":"stop"}]}` + "\n\n"
		done  = "data: [DONE]\n\n"
		lost  = `data: {"error":{"message":"the engine failed","code":"engine_failed"}}` + "\n\n"
	)
	for body, want := range map[string]int{
		`{"choices":[{"message":{"content":"4"},"finish_reason":"stop"}]}`:  200,
		`{"choices":[{"message":{"content":"5"},"finish_reason":"stop"}]}`:  0,
		`{"choices":[{"message":{"content":"4"},"finish_reason":"other"}]}`: 0,
		piece + end + done:         200,
		piece + piece + end + done: 0,
		piece + lost:               500,
		piece + end + lost:         0,
		piece + done:               0,
		piece + end:                0,
		piece:                      0,
		"garbage":                  0,
	} {
		if got := standChat().judge(2, body); got != want {
			t.Errorf("%s is judged %d, want %d", body, got, want)
		}
	}
}
