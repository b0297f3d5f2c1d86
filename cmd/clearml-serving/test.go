package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"clearmlserving/serving"
)

// defaultTolerance is how much numbers may differ where nobody says: as much as
// the same model gives on another machine.
const defaultTolerance = 1e-6

// testFlags are the flags of the command test.
type testFlags struct {
	code           string // file or folder, "" for none
	engine         string
	endpoint       string
	model, modelID string
	request        string
	contentType    string
	expect         string
	tolerance      float64
	watch          bool
	aux            []string
	stub           []string // endpoint=file
}

func testCommand(a *app) *cobra.Command {
	f := testFlags{tolerance: defaultTolerance}
	cmd := &cobra.Command{
		Use:   "test [FOLDER | FILE]",
		Short: "Try preprocess code and a model without deploying them",
		Long: `Run preprocess code on a model exactly as a running service would, and print the
answer to a request. No service and no server is needed (but for --model-id).

With --expect the answer is compared with a file, JSON as values. A request file
may also be a recording (see model record): all of its requests are asked, and
their answers compared with the recorded ones. The exit code is 1 when an answer
is an error or not as expected.

Other endpoints, which the code asks with send_request, are answered 404 unless
--stub names a file with their answer.`,
		Example: `  clearml-serving test preprocess.py --engine sklearn --model model.pkl --request request.json
  clearml-serving test ./my_code --engine custom --request request.json --expect answer.json --watch
  echo '{"x": 1}' | clearml-serving test preprocess.py --engine custom --request -
  clearml-serving test preprocess.py --engine sklearn --model-id 5c3e… --request recording.jsonl
  clearml-serving test pipeline.py --engine custom --request request.json --stub features=features.json prices/2=price.json`,
		Annotations: map[string]string{markWords: ""},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef(cmd, "give one file or folder of code, not %s", plural(len(args), "word"))
			}
			f.code = strings.Join(args, "")
			return a.test(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.engine, "engine", "", "engine that runs the model: "+strings.Join(availableEngines(), ", "))
	oneOf(cmd, "engine", availableEngines()...)
	flags.StringVar(&f.endpoint, "endpoint", "", "name that the code finds in its endpoint's record (default: that of the file or folder)")
	flags.StringVar(&f.model, "model", "", "file or folder of the model")
	flags.StringVar(&f.modelID, "model-id", "", "model of the ClearML server by id, instead of --model")
	flags.StringVar(&f.request, "request", "", "file with the request's body, or a recording; - for stdin")
	required(cmd, "engine", "request")
	flags.StringVar(&f.contentType, "content-type", "application/json", "content type of the request")
	flags.StringVar(&f.expect, "expect", "", "file with the answer that is expected")
	flags.Var(decimal(&f.tolerance), "tolerance", "how much numbers may differ, absolutely or relatively (default 1e-06)")
	flags.BoolVar(&f.watch, "watch", false, "run again whenever code, model, request or expected answer changes")
	flags.Var(wordList(&f.aux), "aux-config", "engine settings, as for model add")
	flags.Var(wordList(&f.stub), "stub", "what send_request to other endpoints is answered, as endpoint=file")
	a.declare(flags, "python")
	return cmd
}

// test runs the code once, or with --watch at each change until it is interrupted.
func (a *app) test(ctx context.Context, f testFlags) error {
	if err := f.check(); err != nil {
		return err
	}
	t, err := a.newTrial(ctx, f)
	if err != nil {
		return err
	}
	defer t.close()
	if !f.watch {
		passed, err := a.testOnce(ctx, t)
		if err == nil && !passed {
			err = errToldAlready
		}
		return err
	}
	return watch(ctx, t.watched(), func(changed string) error {
		if changed != "" {
			a.print.line("\n%s %s changed", time.Now().Format(time.TimeOnly), changed)
		}
		if _, err := a.testOnce(ctx, t); err != nil { // half-written files are no reason to stop
			if ctx.Err() != nil {
				return err
			}
			a.print.line("Error: %v", err)
		}
		return nil
	})
}

func (f *testFlags) check() error {
	switch {
	case f.model != "" && f.modelID != "":
		return errors.New("give either --model or --model-id, not both")
	case f.code != "" && !exists(f.code):
		return notFound("Preprocessing code '%s' could not be found", f.code)
	case f.code == "" && f.engine == serving.EngineCustomAsync:
		return hint(errors.New("engine custom_async needs code: it has no model of its own to run"), "Try: clearml-serving test preprocess.py --engine custom_async --request …")
	case f.model != "" && !exists(f.model):
		return notFound("--model '%s' could not be found", f.model)
	case f.request != "-" && !exists(f.request):
		return notFound("--request '%s' could not be found", f.request)
	case f.expect != "" && !exists(f.expect):
		return notFound("--expect '%s' could not be found", f.expect)
	case f.tolerance < 0 || f.tolerance != f.tolerance:
		return fmt.Errorf("--tolerance %v: give a number, 0 or more", f.tolerance)
	}
	switch {
	case f.endpoint == "" && f.code == "":
		f.endpoint = "test"
	case f.endpoint == "":
		f.endpoint = baseName(f.code)
	}
	return nil
}

// testOnce loads, asks and compares; passed tells whether all is as expected.
// The error is that the test could not be made.
func (a *app) testOnce(ctx context.Context, t *trial) (passed bool, err error) {
	questions, recorded, err := t.questions()
	if err != nil {
		return false, err
	}
	var answers []trialAnswer
	loaded, failure, err := t.run(ctx, func(ask func(serving.Exchange) (trialAnswer, error)) error {
		for _, q := range questions {
			answer, err := ask(q)
			if err != nil {
				return err
			}
			if recorded || t.flags.expect != "" {
				answer.differences = serving.Compare(serving.Answer{Status: q.Status, Body: q.Answer}, serving.Answer{Status: answer.status, Body: answer.body}, t.flags.tolerance)
			}
			answer.passed = len(answer.differences) == 0 && (recorded || answer.status < http.StatusBadRequest)
			answers = append(answers, answer)
		}
		return nil
	})
	switch {
	case err != nil:
		return false, err
	case failure != nil:
		return false, a.printTrialFailure(t, failure)
	case recorded:
		return a.printReplay(questions, answers, loaded)
	default:
		return a.printTrial(answers[0], loaded, t.flags.expect)
	}
}

// printTrialFailure tells why code and model could not be loaded.
func (a *app) printTrialFailure(t *trial, failure *serving.LoadFailure) error {
	a.print.line("%s: %s", a.print.paint(red, "Error: "+failure.Step), t.shownPaths(failure.Reason))
	if failure.Traceback != "" {
		a.print.line("%s", strings.TrimRight(t.shownPaths(failure.Traceback), "\n"))
	}
	return a.print.result(object{{"passed", false}, {"failure", object{{"step", failure.Step}, {"reason", failure.Reason}, {"traceback", orNull(failure.Traceback)}}}})
}

// goodOrBad are the styles of results.
var goodOrBad = map[bool]string{true: green, false: red}

// printTrial shows one answer.
func (a *app) printTrial(answer trialAnswer, loaded time.Duration, expect string) (bool, error) {
	a.print.line("%s %s, %v (loaded in %v)", a.print.paint(goodOrBad[answer.status < http.StatusBadRequest], fmt.Sprintf("%d %s", answer.status, http.StatusText(answer.status))),
		firstOf(answer.contentType, "no content type"), shownDuration(answer.took), shownDuration(loaded))
	a.print.line("%s", shownBody(answer.body))
	switch {
	case expect == "":
	case len(answer.differences) == 0:
		a.print.line("%s", a.print.paint(green, "As expected"))
	default:
		a.print.line("%s", a.print.paint(red, fmt.Sprintf("Not as in %s:", expect)))
		a.printDifferences(answer.differences)
	}
	return answer.passed, a.print.result(append(object{{"passed", answer.passed}, {"load_ms", inMilliseconds(loaded)}}, showAnswer(answer)...))
}

// printReplay shows what differs, and a summary.
func (a *app) printReplay(questions []serving.Exchange, answers []trialAnswer, loaded time.Duration) (bool, error) {
	different := 0
	var total, slowest time.Duration
	var list []object
	for i, answer := range answers {
		total, slowest = total+answer.took, max(slowest, answer.took)
		if !answer.passed {
			different++
			a.print.line("%s", a.print.paint(red, fmt.Sprintf("Request %d (%s) is not answered as recorded:", i+1, questions[i].Endpoint)))
			a.printDifferences(answer.differences)
			list = append(list, append(object{{"request", i + 1}}, showAnswer(answer)...))
		}
	}
	a.print.line("%s, mean %v, slowest %v (loaded in %v)",
		a.print.paint(goodOrBad[different == 0], fmt.Sprintf("%s: %d as recorded, %d different", plural(len(answers), "request"), len(answers)-different, different)),
		shownDuration(total/time.Duration(len(answers))), shownDuration(slowest), shownDuration(loaded))
	return different == 0, a.print.result(object{
		{"passed", different == 0},
		{"requests", len(answers)},
		{"as_recorded", len(answers) - different},
		{"different", different},
		{"load_ms", inMilliseconds(loaded)},
		{"mean_ms", inMilliseconds(total / time.Duration(len(answers)))},
		{"slowest_ms", inMilliseconds(slowest)},
		{"not_as_recorded", slices.Concat([]object{}, list)},
	})
}

func (a *app) printDifferences(found []serving.Difference) {
	for _, d := range found {
		a.print.line("  %s", d)
	}
}

func showAnswer(answer trialAnswer) object {
	return object{
		{"status", answer.status},
		{"content_type", answer.contentType},
		{"answer", jsonOrText(answer.body)},
		{"took_ms", inMilliseconds(answer.took)},
		{"differences", slices.Concat([]serving.Difference{}, answer.differences)},
	}
}

// shownBody is an answer as a terminal can take it.
func shownBody(body []byte) string {
	if !utf8.Valid(body) {
		return fmt.Sprintf("(%d bytes that are no text)", len(body))
	}
	return strings.TrimRight(string(body), "\n")
}

func shownDuration(d time.Duration) time.Duration { return roundDuration(d.Round(time.Microsecond)) }

func inMilliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
