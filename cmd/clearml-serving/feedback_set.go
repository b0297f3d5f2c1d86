package main

import (
	"encoding/json"

	"github.com/spf13/cobra"

	"clearmlserving/serving"
)

func feedbackSetCommand(a *app) *cobra.Command {
	option := serving.Feedback{Task: serving.TaskClassification}
	size := int64(serving.DefaultFeedbackMiB) << 20
	cmd := &cobra.Command{
		Use:   "set",
		Short: "Keep the predictions of an endpoint, so that feedback can be compared with them",
		Long: `Keep the predictions of an endpoint on the machines of its instances, so that
feedback can be compared with them. Nothing is kept before this is set.

Only the prediction, its probabilities and its key are kept, not the request. Paths
have dots between names, and go through lists: "result.label". A list of values is a
prediction for each row of the request; feedback then has a list too.

Feedback names a prediction by the id of its request (header X-Request-Id, the
client's own or that of the answer), or by a field of the request with --key.
The base name of an auto-updated endpoint stands for all its versions.`,
		Example: `  clearml-serving feedback set --endpoint test_model --prediction y
  clearml-serving feedback set --endpoint loans --prediction label --score p --key loan.id --positive repaid
  clearml-serving feedback set --endpoint prices --task regression --prediction price --days 90
  clearml-serving feedback set --endpoint test_model --off`,
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			if option.Days < 1 {
				return usagef(cmd, "argument --days: give 1 or more")
			}
			if size < 1<<20 {
				return usagef(cmd, "argument --max-size: give 1MiB or more")
			}
			option.MaxMiB = int(size >> 20)
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&option.Prediction, "prediction", "", "path of the predicted value in the answer (default: the whole answer)")
	flags.StringVar(&option.Task, "task", serving.TaskClassification, "what is predicted: a class or a number")
	oneOf(cmd, "task", serving.Tasks()...)
	flags.StringVar(&option.Score, "score", "", "path of the probabilities in the answer: that of one class, or of each")
	flags.StringVar(&option.Positive, "positive", "", "class that a single probability is about (default: 1 or true)")
	flags.Var(wordList(&option.Classes), "classes", "classes in the order of a list of probabilities (default: 0, 1, 2, …)")
	flags.StringVar(&option.Key, "key", "", "path of the client's own key in the request (default: feedback names the request id)")
	flags.IntVar(&option.Days, "days", serving.DefaultFeedbackDays, "days for which predictions are kept")
	flags.Var(byteSize(&size), "max-size", "size of the kept predictions of this endpoint on each instance, the newest (default 256MiB)")
	return optionCommand(a, cmd, endpointOption[serving.Feedback]{
		what: "feedback option", doing: "Keeping predictions of",
		which: ": an endpoint, an auto-updated one, or a canary", off: "keep no more predictions; those that are kept stay until their time is over",
		at:     func(o *serving.EndpointOptions) **serving.Feedback { return &o.Feedback },
		value:  replacing(&option, func(o *serving.Feedback) *map[string]json.RawMessage { return &o.Unknown }),
		result: "feedback",
	})
}
