package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"clearmlserving/operations"
	"clearmlserving/serving"
)

func modelDiffCommand(a *app) *cobra.Command {
	var words []string
	return a.reads(&cobra.Command{
		Use:   "diff A [B]",
		Short: "Compare two revisions: settings and code",
		Long: `Compare two revisions, given as ENDPOINT[@N]: their settings and their code, as a unified
diff. With one word, that revision is compared with the one before it.`,
		Example: `  clearml-serving model diff test_model@11 test_model@12
  clearml-serving model diff test_model
  clearml-serving model diff staging production`,
		Annotations: map[string]string{markWords: ""},
		Args: func(cmd *cobra.Command, args []string) error {
			if words = args; len(args) != 1 && len(args) != 2 {
				return &usageError{command: cmd, problem: "give one or two revisions", hint: "Try: " + cmd.CommandPath() + " test_model@11 test_model@12"}
			}
			return nil
		},
	}, func(ctx context.Context, s *operations.Service) (object, error) {
		newer, err := a.revision(s, words[len(words)-1])
		if err != nil {
			return nil, err
		}
		var older serving.Revision
		if len(words) == 2 {
			older, err = a.revision(s, words[0])
		} else {
			older, err = a.before(s, words[0], newer)
		}
		if err != nil {
			return nil, err
		}
		codeA, err := a.revisionCode(ctx, s, older)
		if err != nil {
			return nil, err
		}
		codeB, err := a.revisionCode(ctx, s, newer)
		if err != nil {
			return nil, err
		}
		text, err := operations.Diff(older, newer, codeA, codeB)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(text) {
			a.print.line("%s", a.print.paint(diffStyle(line), strings.TrimSuffix(line, "\n")))
		}
		if text == "" {
			a.print.line("There is no difference")
		}
		return object{{"a", older.Number}, {"b", newer.Number}, {"diff", text}}, nil
	})
}

// before is the revision before another one.
func (a *app) before(s *operations.Service, word string, r serving.Revision) (serving.Revision, error) {
	endpoint, _, _ := revisionWord(word) // it has been read before
	h, err := s.History(endpoint)
	if err != nil {
		return serving.Revision{}, err
	}
	i := slices.IndexFunc(h.Revisions, func(other serving.Revision) bool { return other.Number == r.Number })
	if i < 1 {
		return serving.Revision{}, hint(notFound("endpoint '%s' has no revision before %d", serving.CleanURL(endpoint), r.Number), "Try: clearml-serving model history %s", shellWord(endpoint))
	}
	return h.Revisions[i-1], nil
}

func diffStyle(line string) string {
	switch {
	case strings.HasPrefix(line, "+++"), strings.HasPrefix(line, "---"):
		return bold
	case strings.HasPrefix(line, "+"):
		return green
	case strings.HasPrefix(line, "-"):
		return red
	case strings.HasPrefix(line, "@@"):
		return faint
	}
	return ""
}
