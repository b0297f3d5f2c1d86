package ui

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"clearmlserving/clearml"
	"clearmlserving/serving"
)

type deployPage struct {
	Model    modelDoc
	Services []clearml.Service
	Engines  []string
	// Code lists for each service the code that its endpoints use.
	Code []string
	Form deployFields
	// Problem is what is wrong with the form, "" before it was sent.
	Problem string
}

// deployFields are the fields of the form as they were sent.
type deployFields struct {
	Service, Engine, Endpoint, Version, Code string
}

// engineOf guesses the engine of a model by its framework.
func engineOf(framework string) string {
	switch strings.ToLower(strings.ReplaceAll(framework, "-", "")) {
	case "scikitlearn", "scikit_learn", "sklearn", "joblib":
		return serving.EngineSklearn
	case "xgboost":
		return serving.EngineXGBoost
	case "lightgbm":
		return serving.EngineLightGBM
	case "pytorch", "tensorflow", "keras", "onnx":
		return serving.EngineTriton
	}
	return serving.EngineCustom
}

// endpointName makes a path of a model's name.
func endpointName(name string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(name) {
		switch {
		case (r >= 'a' && r <= 'z') || (r >= '0' && r <= '9'):
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "_"):
			b.WriteByte('_')
		}
	}
	return strings.Trim(b.String(), "_")
}

func (p *Pages) deployForm(v *visit) error {
	page, err := v.deployPage()
	if err != nil {
		return err
	}
	page.Form = deployFields{Engine: engineOf(page.Model.Framework), Endpoint: endpointName(page.Model.Name)}
	if len(page.Services) > 0 {
		page.Form.Service = page.Services[0].ID
	}
	return v.render("deploy", "Deploy "+page.Model.Name, page)
}

func (v *visit) deployPage() (deployPage, error) {
	page := deployPage{Engines: serving.Engines()}
	var err error
	if page.Model, err = v.readModel(v.id()); err != nil {
		return page, err
	}
	services, err := v.openServices()
	if err != nil {
		return page, err
	}
	for _, s := range services {
		page.Services = append(page.Services, *s.Doc)
		for _, artifact := range sortedKeys(s.Doc.Artifacts) {
			if strings.HasPrefix(artifact, "py_code_") && !slices.Contains(page.Code, artifact) {
				page.Code = append(page.Code, artifact)
			}
		}
	}
	return page, nil
}

// deploy stores an endpoint by the rules of the command line. A form with a mistake comes
// back as it was, with the mistake named.
func (p *Pages) deploy(v *visit) error {
	page, err := v.deployPage()
	if err != nil {
		return err
	}
	form := v.r.PostForm
	page.Form = deployFields{
		Service: form.Get("service"), Engine: form.Get("engine"), Endpoint: strings.TrimSpace(form.Get("endpoint")),
		Version: strings.TrimSpace(form.Get("version")), Code: form.Get("code"),
	}
	url, err := v.storeEndpoint(page)
	if err != nil {
		told := explain(err)
		if told.Status >= http.StatusInternalServerError {
			return err
		}
		page.Problem = told.Text
		return v.renderStatus(told.Status, "deploy", "Deploy "+page.Model.Name, page)
	}
	return v.done("/services/"+page.Form.Service, fmt.Sprintf("The endpoint %s is stored; instances load it now.", url))
}

func (v *visit) storeEndpoint(page deployPage) (serving.EndpointURL, error) {
	form := page.Form
	if form.Service == "" {
		return "", refusal{http.StatusBadRequest, "Choose the serving service that shall serve the model."}
	}
	e := serving.Endpoint{
		EngineType: form.Engine, ServingURL: form.Endpoint, Version: form.Version, ModelID: serving.ModelID(page.Model.ID),
		PreprocessArtifact: form.Code,
	}
	if err := e.Validate(); err != nil {
		return "", refusal{http.StatusBadRequest, err.Error()}
	}
	s, err := v.openService(form.Service)
	if err != nil {
		return "", err
	}
	if _, ok := s.Doc.Artifacts[form.Code]; form.Code != "" && !ok {
		return "", refusal{http.StatusBadRequest, fmt.Sprintf("The service %s has no code called %s.", s.Doc.Name, form.Code)}
	}
	if form.Engine == serving.EngineCustomAsync && form.Code == "" {
		return "", refusal{http.StatusBadRequest, "The engine custom_async needs code: it has no model of its own to run."}
	}
	return e.URL(), s.AddEndpoint(v.r.Context(), e)
}
