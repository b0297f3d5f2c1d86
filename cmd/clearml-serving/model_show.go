package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"clearmlserving/operations"
	"clearmlserving/serving"
)

func modelShowCommand(a *app) *cobra.Command {
	var word string
	return a.reads(&cobra.Command{
		Use:   "show ENDPOINT[@N]",
		Short: "Show a revision of an endpoint: settings and code",
		Long: `Show a revision of an endpoint: what became of it, its settings, and its code. Without
a number it is the newest one.`,
		Example: `  clearml-serving model show test_model
  clearml-serving model show test_model/1@12`,
		Args:        oneArg(&word, "give one endpoint, with @ and a number for an earlier revision", "Try: clearml-serving model show test_model@12"),
		Annotations: map[string]string{markWords: ""},
	}, func(ctx context.Context, s *operations.Service) (object, error) {
		r, err := a.revision(s, word)
		if err != nil {
			return nil, err
		}
		code, err := a.revisionCode(ctx, s, r)
		if err != nil {
			return nil, err
		}
		settings, err := operations.Settings(r)
		if err != nil {
			return nil, err
		}
		state := string(r.State)
		if r.State == serving.RevisionRefused {
			state = a.print.paint(red, state+": "+r.Why())
		}
		a.print.line("Revision %d, %s", r.Number, state)
		a.print.line("By %s on %s UTC", authorOf(r), r.Time.UTC().Format(time.DateTime))
		if r.Message != "" {
			a.print.line("Message: %s", r.Message)
		}
		a.print.line("Settings:\n%s", strings.TrimSuffix(settings, "\n"))
		for _, name := range keys(code) {
			a.print.line("%s", a.print.paint(bold, "Code "+name+":"))
			a.print.line("%s", strings.TrimSuffix(code[name], "\n"))
		}
		return append(showRevision(r), field{"settings", json.RawMessage(settings)}, field{"code", code}), nil
	})
}

// revision finds the revision of a word ENDPOINT[@N].
func (a *app) revision(s *operations.Service, word string) (serving.Revision, error) {
	endpoint, number, err := revisionWord(word)
	if err != nil {
		return serving.Revision{}, err
	}
	r, err := s.Revision(endpoint, number)
	return r, hintIfNotFound(err, "Try: clearml-serving model history "+shellWord(endpoint))
}

// revisionWord splits ENDPOINT[@N]; the number is 0 if there is none.
func revisionWord(word string) (endpoint string, number int, err error) {
	i := strings.LastIndexByte(word, '@')
	if i < 0 {
		return word, 0, nil
	}
	number, err = strconv.Atoi(word[i+1:])
	if err != nil || number < 1 {
		return "", 0, hint(fmt.Errorf("'%s': behind @ stands the number of a revision", word), "Try: clearml-serving model history %s", shellWord(word[:i]))
	}
	return word[:i], number, nil
}

// revisionCode reads the code of a revision from where it is stored.
func (a *app) revisionCode(ctx context.Context, s *operations.Service, r serving.Revision) (map[string]string, error) {
	open, err := a.opener(s.Client)
	if err != nil {
		return nil, err
	}
	return operations.Code(ctx, r, open)
}
