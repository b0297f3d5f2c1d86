package main

import (
	"context"

	"github.com/spf13/cobra"

	"clearmlserving/operations"
	"clearmlserving/serving"
)

func modelAutoUpdateCommand(a *app) *cobra.Command {
	var f endpointFlags
	var maxVersions int
	var why revisionFlags
	cmd := &cobra.Command{
		Use:   "auto-update",
		Short: "Serve the newest models of a project by themselves",
		Long: `Serve the newest models that match a name, project or tags, as versions of one
endpoint: /serve/<endpoint>/1, /2 and so on. A model that appears later becomes
the next version by itself; a number, once given, always means the same model.`,
		Example: `  clearml-serving model auto-update --engine sklearn --endpoint test_model_sklearn_auto \
      --preprocess preprocess.py --name "train sklearn model" --project "serving examples" --max-versions 2`,
	}
	f.declare(cmd)
	required(cmd, "endpoint")
	cmd.Flags().IntVar(&maxVersions, "max-versions", 1, "how many of the newest models are served")
	why.declare(cmd)
	return a.deploys(cmd, func(ctx context.Context, s *operations.Service) (change, error) {
		a.sayEdit(s, "Adding Model monitoring endpoint: '/%s/'", f.endpoint)
		m, err := f.readMonitoring(maxVersions)
		if err != nil {
			return change{}, err
		}
		why.apply(s)
		a.noticeEngine(m.EngineType, m.AuxiliaryCfg)
		base := string(serving.CleanURL(m.BaseServingURL))
		before, replaced := serving.LookUp(s.Config.Monitoring, base)
		if replaced {
			a.print.notice("Warning: Model monitoring '%s' overwritten", base)
		}
		m.Name = a.monitoredName(ctx, s, f.query())
		if f.preprocess != "" {
			if m.PreprocessArtifact, err = a.storeCode(ctx, s, base, f.preprocess, func(string) bool { return false }); err != nil {
				return change{}, err
			}
		}
		a.print.line("Updating serving service")
		if err := s.AddMonitoring(ctx, m); err != nil {
			return change{}, err
		}
		a.dropUnusedCode(ctx, s, before.PreprocessArtifact)
		return change{[]serving.EndpointURL{serving.EndpointURL(base)}, object{
			{"endpoint", base}, {"preprocess_artifact", orNull(m.PreprocessArtifact)}, {"replaced", replaced},
		}}, nil
	})
}

// readMonitoring makes the record that the flags describe, without its code.
func (f *endpointFlags) readMonitoring(maxVersions int) (serving.Monitoring, error) {
	m := serving.Monitoring{
		BaseServingURL: f.endpoint, EngineType: f.engine, Project: f.project, Name: f.name, Tags: f.tags,
		OnlyPublished: f.published, MaxVersions: maxVersions,
	}
	var err error
	if m.Tensors, m.AuxiliaryCfg, err = f.settings(); err != nil {
		return m, err
	}
	if maxVersions < 1 {
		return m, &serving.FieldError{Field: "max_versions", Value: pyRepr(maxVersions), Why: "is no number of versions; give 1 or more"}
	}
	if err := m.Validate(); err != nil {
		return m, err
	}
	return m, f.checkCode(m.AuxiliaryCfg, true)
}
