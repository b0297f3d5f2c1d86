package ui

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"mime/multipart"
	"net/http"
	"path"
	"slices"
	"strings"

	"clearmlserving/clearml"
	"clearmlserving/operations"
	"clearmlserving/serving"
)

type deployPage struct {
	Services []clearml.Service
	Models   []ref
	Model    modelDoc // that is chosen; without an id: none
	Engines  []string
	// Code lists the code that endpoints of the services use.
	Code      []string
	Templates []codeTemplate
	Form      deployFields
	// Problem is what is wrong with the form, "" before it was sent.
	Problem string
}

// deployFields are the fields of the form as they were sent.
type deployFields struct {
	Service, Model, Engine, Endpoint, Version, Code, Text, Message string
	// Change keeps what the form does not name of the endpoint that is there.
	Change bool
}

// codeTemplate is the code that the editor starts with.
type codeTemplate struct{ Engine, Text string }

//go:embed code/*.py
var codeFiles embed.FS

// newCode is the choice of the form for code that comes with it.
const newCode = "+new"

// engines are those that every instance runs.
func engines() []string {
	return []string{serving.EngineSklearn, serving.EngineXGBoost, serving.EngineLightGBM, serving.EngineONNX, serving.EngineCustom, serving.EngineCustomAsync}
}

// ownCode says that an engine runs the process of the user code, and needs no model.
func ownCode(engine string) bool {
	return engine == serving.EngineCustom || engine == serving.EngineCustomAsync
}

// templates are the starts of code, by engine.
func templates() ([]codeTemplate, error) {
	var all []codeTemplate
	for _, engine := range engines() {
		file := "model"
		if ownCode(engine) {
			file = engine
		}
		text, err := codeFiles.ReadFile("code/" + file + ".py")
		if err != nil {
			return nil, err
		}
		all = append(all, codeTemplate{engine, string(text)})
	}
	return all, nil
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
	case "onnx":
		return serving.EngineONNX
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

// deployForm is the form for a new endpoint, of a model or of a service, and for a change of an
// endpoint.
func (p *Pages) deployForm(v *visit) error {
	q := v.r.URL.Query()
	form := deployFields{Service: q.Get("service"), Model: cmp.Or(v.id(), q.Get("model")), Engine: serving.EngineSklearn, Code: newCode}
	page, services, err := v.deployPage(form.Model)
	if err != nil {
		return err
	}
	if form.Service == "" && len(page.Services) > 0 {
		form.Service = page.Services[0].ID
	}
	if page.Model.ID != "" {
		form.Engine, form.Endpoint = engineOf(page.Model.Framework), endpointName(page.Model.Name)
	}
	if at := q.Get("endpoint"); at != "" {
		s := serviceOf(services, form.Service)
		if s == nil {
			return refusal{http.StatusNotFound, "There is no serving service with the id " + form.Service + "."}
		}
		e, ok := serving.LookUp(s.Config.Endpoints, at)
		if !ok {
			return refusal{http.StatusNotFound, fmt.Sprintf("The service %s has no endpoint %s that can be changed.", s.Doc.Name, at)}
		}
		form = deployFields{
			Service: s.Doc.ID, Model: string(e.ModelID), Engine: e.EngineType, Endpoint: string(serving.CleanURL(e.ServingURL)), Version: e.Version,
			Code: e.PreprocessArtifact, Change: true,
		}
		if now := v.codeOf(s.Doc.Artifacts, e.PreprocessArtifact); len(now.Files) == 1 && !now.Files[0].Cut && now.Artifact.Type != "archive" {
			form.Code, form.Text = newCode, now.Files[0].Text()
		}
		page.offer(form)
	}
	form.Text = cmp.Or(form.Text, page.templateOf(form.Engine))
	page.Form = form
	return v.render("deploy", page.title(), page)
}

func (page deployPage) title() string {
	switch {
	case page.Form.Change:
		return "Change " + page.Form.Endpoint
	case page.Model.ID != "":
		return "Deploy " + page.Model.Name
	}
	return "Add endpoint"
}

func (page deployPage) templateOf(engine string) string {
	at := slices.IndexFunc(page.Templates, func(t codeTemplate) bool { return t.Engine == engine })
	if at < 0 {
		return ""
	}
	return page.Templates[at].Text
}

// offer adds what an endpoint has already to the choices.
func (page *deployPage) offer(form deployFields) {
	if !slices.Contains(page.Engines, form.Engine) {
		page.Engines = append(page.Engines, form.Engine)
	}
	if form.Model != "" && !slices.ContainsFunc(page.Models, func(m ref) bool { return m.ID == form.Model }) {
		page.Models = append(page.Models, ref{ID: form.Model})
	}
}

func serviceOf(services []*operations.Service, id string) *operations.Service {
	at := slices.IndexFunc(services, func(s *operations.Service) bool { return s.Doc.ID == id })
	if at < 0 {
		return nil
	}
	return services[at]
}

// offeredModels is how many models the form offers, the newest.
const offeredModels = 100

// deployPage reads what can be chosen. model may be "".
func (v *visit) deployPage(model string) (deployPage, []*operations.Service, error) {
	page := deployPage{Engines: engines()}
	var err error
	if page.Templates, err = templates(); err != nil {
		return page, nil, err
	}
	if model != "" {
		if page.Model, err = v.readModel(model); err != nil {
			return page, nil, err
		}
	}
	if page.Models, err = v.newestModels(offeredModels); err != nil {
		return page, nil, err
	}
	if at := slices.IndexFunc(page.Models, func(m ref) bool { return m.ID == page.Model.ID }); page.Model.ID != "" && at < 0 {
		page.Models = append(page.Models, ref{ID: page.Model.ID, Name: page.Model.Name})
	}
	services, err := v.openServices()
	for _, s := range services {
		page.Services = append(page.Services, *s.Doc)
		for _, artifact := range sortedKeys(s.Doc.Artifacts) {
			if strings.HasPrefix(artifact, "py_code_") && !slices.Contains(page.Code, artifact) {
				page.Code = append(page.Code, artifact)
			}
		}
	}
	return page, services, err
}

// deploy stores an endpoint by the rules of the command line. A form with a mistake comes
// back as it was, with the mistake named. The page of the endpoint then follows the load.
func (p *Pages) deploy(v *visit) error {
	form, err := v.readParts()
	if err != nil {
		return err
	}
	defer form.release()
	if !v.hasToken(form.text("csrf")) {
		return errForged
	}
	fields := deployFields{
		Service: form.text("service"), Model: cmp.Or(v.id(), form.text("model")), Engine: form.text("engine"), Endpoint: form.text("endpoint"),
		Version: form.text("version"), Code: form.text("code"), Text: strings.ReplaceAll(form.fields["text"], "\r\n", "\n"), Change: form.text("change") != "",
		Message: form.text("message"),
	}
	page, services, err := v.deployPage(fields.Model)
	if err != nil {
		return err
	}
	page.Form = fields
	page.offer(fields)
	at, err := v.storeEndpoint(fields, serviceOf(services, fields.Service), form)
	if err != nil {
		told := explain(err)
		if told.Status >= http.StatusInternalServerError {
			return err
		}
		page.Problem = told.Text
		return v.renderStatus(told.Status, "deploy", page.title(), page)
	}
	return v.redirect(endpointLink(fields.Service, string(at)))
}

func (v *visit) storeEndpoint(form deployFields, s *operations.Service, parts *formParts) (serving.EndpointURL, error) {
	bad := func(format string, args ...any) (serving.EndpointURL, error) {
		return "", refusal{http.StatusBadRequest, fmt.Sprintf(format, args...)}
	}
	if s == nil {
		return bad("Choose the serving service that shall serve the model.")
	}
	s.Author = operations.Author{Name: v.user.Name, Message: form.Message}
	e := serving.Endpoint{ServingURL: form.Endpoint, Version: form.Version}
	before, replaced := serving.LookUp(s.Config.Endpoints, string(e.URL()))
	switch {
	case form.Change && !replaced:
		return bad("The service %s has no endpoint %s any more.", s.Doc.Name, e.URL())
	case form.Change:
		e = before
	case !slices.Contains(engines(), form.Engine):
		return bad("The engine %q is none of %s.", form.Engine, strings.Join(engines(), ", "))
	}
	e.EngineType, e.ModelID, e.PreprocessArtifact = form.Engine, serving.ModelID(form.Model), form.Code
	upload, err := newCodeOf(form, parts)
	if err != nil {
		return "", err
	}
	if upload != nil {
		e.PreprocessArtifact = ""
	}
	if err := e.Validate(); err != nil {
		return bad("%s", err)
	}
	if _, ok := s.Doc.Artifacts[e.PreprocessArtifact]; e.PreprocessArtifact != "" && !ok {
		return bad("The service %s has no code called %s.", s.Doc.Name, form.Code)
	}
	if form.Engine == serving.EngineCustomAsync && form.Code == "" {
		return bad("The engine custom_async needs code: it has no model of its own to run.")
	}
	if !ownCode(form.Engine) && form.Model == "" && parts.file == nil {
		return bad("The engine %s needs a model: choose one, or its file.", form.Engine)
	}
	if parts.file != nil {
		id, err := v.storeModel(uploadFields{"name": cmp.Or(stem(fileName(parts.file)), form.Endpoint), "framework": frameworkOf(form.Engine)}, parts.file)
		if err != nil {
			return "", err
		}
		e.ModelID = serving.ModelID(id)
	}
	if upload != nil {
		if e.PreprocessArtifact, err = v.storeCode(s, string(e.URL()), *upload, func(stored string) bool {
			return replaced && before.PreprocessArtifact == stored && !operations.SameApartFromCode(before, e)
		}); err != nil {
			return "", err
		}
	}
	if err := s.AddEndpoint(v.r.Context(), e); err != nil {
		return "", err
	}
	if err := errors.Join(s.DropUnusedCode(v.r.Context(), before.PreprocessArtifact), s.PruneFiles(v.r.Context())); err != nil {
		v.p.log.Warn("code that is no longer used not removed", "service", s.Doc.ID, "err", err)
	}
	return e.URL(), nil
}

// newCodeOf is the code that came with the form: a file, or the text of the editor. nil: none.
func newCodeOf(form deployFields, parts *formParts) (*smallFile, error) {
	if form.Code != newCode {
		return nil, nil //nolint:nilnil // there is none
	}
	code := smallFile{name: "preprocess.py", text: []byte(form.Text)}
	if parts.code != nil {
		code = *parts.code
	}
	if ext := path.Ext(code.name); ext != ".py" && ext != ".zip" {
		return nil, refusal{http.StatusBadRequest, fmt.Sprintf("The code %s is neither a Python file nor a zip of a folder.", code.name)}
	}
	if path.Ext(code.name) == ".py" && !bytes.Contains(code.text, []byte("Preprocess")) {
		return nil, refusal{http.StatusBadRequest, "The code has no class called Preprocess."}
	}
	return &code, nil
}

// storeCode stores user code as an artifact of the service.
func (v *visit) storeCode(s *operations.Service, at string, c smallFile, keepApart func(artifact string) bool) (artifact string, err error) {
	sum := sha256.Sum256(c.text)
	code := clearml.Artifact{Type: "custom", Hash: hex.EncodeToString(sum[:]), Size: int64(len(c.text))}
	if path.Ext(c.name) == ".zip" {
		code.Type = "archive"
	}
	return s.StoreCode(v.r.Context(), at, code, c.name, keepApart, func(object string) (string, error) {
		return v.api.Upload(v.r.Context(), v.api.FilesURL(), object, bytes.NewReader(c.text), code.Size, nil)
	})
}

func frameworkOf(engine string) string {
	names := map[string]string{serving.EngineSklearn: "ScikitLearn", serving.EngineXGBoost: "XGBoost", serving.EngineLightGBM: "LightGBM", serving.EngineONNX: "ONNX"}
	return cmp.Or(names[engine], "Custom")
}

// fileName is the name of an uploaded file without folders, "" for none.
func fileName(file *multipart.Part) string {
	name := path.Base(strings.ReplaceAll(file.FileName(), `\`, "/"))
	if name == "." || name == "/" {
		return ""
	}
	return name
}

func stem(name string) string { return strings.TrimSuffix(name, path.Ext(name)) }
