package main

import "github.com/spf13/cobra"

// modelCommand is the group of commands about models and endpoints.
func modelCommand(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "model",
		Short: "Add, change and list endpoints; upload models",
		Long:  "Add, change and list the endpoints of a serving service; upload models to the model repository.",
		Example: `  clearml-serving model add --engine sklearn --endpoint test_model --name "train sklearn model" --project "serving examples"
  clearml-serving model list`,
	},
		modelListCommand(a), modelAddCommand(a), modelGraphCommand(a), modelRemoveCommand(a), modelLoadCommand(a), modelUnloadCommand(a), modelUploadCommand(a), modelImportCommand(a),
		modelCanaryCommand(a), modelAutoUpdateCommand(a),
		modelHistoryCommand(a), modelShowCommand(a), modelDiffCommand(a), modelRollbackCommand(a),
		modelRecordCommand(a), modelLogCommand(a), modelGoldenCommand(a), modelShadowCommand(a), modelLimitsCommand(a), modelToolCommand(a),
	)
}
