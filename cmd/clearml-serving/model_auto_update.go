package main

import (
	"context"

	"github.com/spf13/cobra"

	"clearmlserving/serving"
)

func modelAutoUpdateCommand(a *app) *cobra.Command {
	var f endpointFlags
	var maxVersions int
	var wait waitFlags
	var why revisionFlags
	cmd := &cobra.Command{
		Use:   "auto-update",
		Short: "Serve the newest models of a project by themselves",
		Long: `Serve the newest models that match a name, project or tags, as versions of one
endpoint: /serve/<endpoint>/1, /2 and so on. A model that appears later becomes
the next version by itself; a number, once given, always means the same model.`,
		Example: `  clearml-serving model auto-update --engine sklearn --endpoint test_model_sklearn_auto \
      --preprocess preprocess.py --name "train sklearn model" --project "serving examples" --max-versions 2`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.modelAutoUpdate(cmd.Context(), f, maxVersions, why, wait)
		},
	}
	f.declare(cmd)
	mark(cmd.Flags(), "endpoint", markRequired)
	cmd.Flags().IntVar(&maxVersions, "max-versions", 1, "how many of the newest models are served")
	why.declare(cmd)
	wait.declareImplied(a, cmd)
	return cmd
}

func (a *app) modelAutoUpdate(ctx context.Context, f endpointFlags, maxVersions int, why revisionFlags, wait waitFlags) error {
	s, err := a.openForEdit(ctx)
	if err != nil {
		return err
	}
	a.print.line("Serving service Task %s, Adding Model monitoring endpoint: '/%s/'", s.Doc.ID, f.endpoint)
	a.printSync(s)
	m, err := f.readMonitoring(maxVersions)
	if err != nil {
		return err
	}
	why.apply(s)
	base := string(serving.CleanURL(m.BaseServingURL))
	before, replaced := serving.LookUp(s.Config.Monitoring, base)
	if replaced {
		a.print.notice("Warning: Model monitoring '%s' overwritten", base)
	}
	m.Name = a.monitoredName(ctx, s, f.query())
	if f.preprocess != "" {
		code, err := a.packCode(ctx, f.preprocess)
		if err != nil {
			return err
		}
		defer code.remove()
		m.PreprocessArtifact = s.ArtifactName(base, code.sha256, func(string) bool { return false })
		if err := a.uploadCode(ctx, s, m.PreprocessArtifact, code); err != nil {
			return err
		}
	}
	a.print.line("Updating serving service")
	if err := s.AddMonitoring(ctx, m); err != nil {
		return err
	}
	a.dropUnusedCode(ctx, s, before.PreprocessArtifact)
	return a.finish(ctx, s, wait, []serving.EndpointURL{serving.EndpointURL(base)}, object{
		{"id", s.Doc.ID}, {"endpoint", base}, {"preprocess_artifact", orNull(m.PreprocessArtifact)}, {"replaced", replaced},
	})
}

// readMonitoring makes the record that the flags describe, without its code.
func (f *endpointFlags) readMonitoring(maxVersions int) (serving.Monitoring, error) {
	tensors, err := f.tensors()
	if err != nil {
		return serving.Monitoring{}, err
	}
	aux, err := readAuxConfig(f.aux)
	if err != nil {
		return serving.Monitoring{}, err
	}
	m := serving.Monitoring{
		BaseServingURL: f.endpoint, EngineType: f.engine, Project: f.project, Name: f.name, Tags: f.tags,
		OnlyPublished: f.published, MaxVersions: maxVersions, Tensors: tensors, AuxiliaryCfg: aux,
	}
	if maxVersions < 1 {
		return m, &serving.FieldError{Field: "max_versions", Value: pyRepr(maxVersions), Why: "is no number of versions; give 1 or more"}
	}
	if err := m.Validate(); err != nil {
		return m, err
	}
	if err := f.checkCode(); err != nil {
		return m, err
	}
	return m, f.checkEnvironment(aux, true)
}
