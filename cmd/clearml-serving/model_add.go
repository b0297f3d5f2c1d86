package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"clearmlserving/operations"
	"clearmlserving/serving"
)

func modelAddCommand(a *app) *cobra.Command {
	var f endpointFlags
	var version, modelID string
	var why revisionFlags
	cmd := &cobra.Command{
		Use:   "add",
		Short: "Serve a model under a name",
		Long: `Serve a model under a name: store an endpoint in the serving service.

The model is given by its id, or searched for by name, project and tags: the
newest that matches. Running instances load it and answer under
/serve/<endpoint>[/<version>]; an endpoint of that name is replaced without a
gap.

Each change is a revision (see model history). One that cannot be loaded is
refused: the last good one serves on, also after a restart. On a terminal the
command ends when the running instances serve or refuse the change.`,
		Example: `  clearml-serving model add --engine sklearn --endpoint test_model_sklearn \
      --preprocess preprocess.py --name "train sklearn model" --project "serving examples"
  clearml-serving model add --engine xgboost --endpoint prices --version 2 --model-id 5c3e… --wait
  clearml-serving model add --engine custom --endpoint mine --preprocess ./my_code/`,
	}
	f.declare(cmd)
	required(cmd, "endpoint")
	cmd.Flags().StringVar(&version, "version", "", "version of the endpoint, the last part of its url")
	cmd.Flags().StringVar(&modelID, "model-id", "", "model by id")
	why.declare(cmd)
	return a.deploys(cmd, func(ctx context.Context, s *operations.Service) (change, error) {
		a.sayEdit(s, "Adding Model endpoint '/%s/'", f.endpoint)
		e, err := f.readEndpoint(version, modelID)
		if err != nil {
			return change{}, err
		}
		why.apply(s)
		a.noticeEngine(e.EngineType, e.AuxiliaryCfg)
		url := string(e.URL())
		_, replaced := serving.LookUp(s.Config.Endpoints, url)
		if replaced {
			a.print.notice("Warning: Model endpoint '%s' overwritten", url)
		}
		if err := a.findModel(ctx, s, &e, f.query()); err != nil {
			return change{}, err
		}
		if err := a.putEndpoint(ctx, s, &e, f.preprocess); err != nil {
			return change{}, err
		}
		return change{[]serving.EndpointURL{e.URL()}, object{
			{"endpoint", url},
			{"model_id", orNull(e.ModelID)},
			{"preprocess_artifact", orNull(e.PreprocessArtifact)},
			{"replaced", replaced},
		}}, nil
	})
}

// readEndpoint makes the record that the flags describe, without its code.
func (f *endpointFlags) readEndpoint(version, modelID string) (serving.Endpoint, error) {
	e := serving.Endpoint{EngineType: f.engine, ServingURL: f.endpoint, Version: version, ModelID: serving.ModelID(modelID)}
	var err error
	if e.Tensors, e.AuxiliaryCfg, err = f.settings(); err != nil {
		return e, err
	}
	if err := e.Validate(); err != nil {
		return e, err
	}
	return e, f.checkCode(e.AuxiliaryCfg, false)
}

// checkCode refuses an endpoint that could never answer. Models under auto-update may bring
// their own code.
func (f *endpointFlags) checkCode(aux any, codeMayCome bool) error {
	if f.engine == serving.EngineCustomAsync && f.preprocess == "" {
		return hint(fmt.Errorf("engine custom_async needs code: it has no model of its own to run"), "Try: add --preprocess preprocess.py")
	}
	if f.preprocess != "" && !exists(f.preprocess) {
		return notFound("Preprocessing code '%s' could not be found", f.preprocess)
	}
	return f.checkEnvironment(aux, codeMayCome)
}

// findModel completes an endpoint with the model that the query finds.
func (a *app) findModel(ctx context.Context, s *operations.Service, e *serving.Endpoint, q operations.ModelQuery) error {
	switch {
	case e.ModelID != "":
		return a.checkModel(ctx, s, e.ModelID)
	case q.Empty():
		if e.EngineType != serving.EngineCustom && e.EngineType != serving.EngineCustomAsync && e.EngineType != serving.EngineGraph {
			a.print.notice("Warning: No Model provided for '%s'", e.URL())
		}
		return nil
	}
	id, err := a.searchModel(ctx, s.Client, q)
	e.ModelID = id
	return err
}
