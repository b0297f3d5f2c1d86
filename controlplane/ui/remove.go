package ui

import (
	"fmt"
	"strings"
)

// removal is what the API says of the files of what was deleted.
type removal struct {
	Deleted int `json:"deleted"`
	Failed  []struct {
		URL   string `json:"url"`
		Error string `json:"error"`
	} `json:"failed"`
}

// maxToldFiles is how many files that stay are named; a notice travels in a cookie.
const maxToldFiles = 5

// tell leads to a page that says what was deleted, and which files stay and why.
func (v *visit) tell(to, what string, files removal) error {
	if files.Deleted > 0 {
		what += fmt.Sprintf(" %s removed.", plural(files.Deleted, "file was", "files were"))
	}
	if len(files.Failed) == 0 {
		return v.done(to, what)
	}
	lines := []string{what + fmt.Sprintf(" %s:", plural(len(files.Failed), "file stays", "files stay"))}
	for i, one := range files.Failed {
		if i == maxToldFiles {
			lines = append(lines, "… the server's log names the others")
			break
		}
		lines = append(lines, clip(one.URL)+": "+clip(one.Error))
	}
	return v.warn(to, strings.Join(lines, "\n"))
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// deleteFields are the choices of the forms that delete.
func (v *visit) deleteFields(key string) map[string]any {
	form := v.r.PostForm
	return map[string]any{key: v.id(), "force": form.Get("force") != "", "delete_external_artifacts": form.Get("files") != ""}
}

// deleteModel deletes a model for good, with its file when that is wanted.
func (p *Pages) deleteModel(v *visit) error {
	m, err := v.readModel(v.id())
	if err != nil {
		return err
	}
	var answer struct {
		Files removal `json:"files"`
	}
	if err := v.api.Call(v.r.Context(), "models.delete", v.deleteFields("model"), &answer); err != nil {
		return err
	}
	return v.tell("/models", fmt.Sprintf("The model %s is deleted.", clip(m.Name)), answer.Files)
}

// deleteTask deletes an experiment for good, with the models that it made and nobody
// has published or uses, and with all their files when that is wanted.
func (p *Pages) deleteTask(v *visit) error {
	t, err := v.readTask(v.id())
	if err != nil {
		return err
	}
	var answer struct {
		Models int     `json:"deleted_models"`
		Files  removal `json:"files"`
	}
	if err := v.api.Call(v.r.Context(), "tasks.delete", v.deleteFields("task"), &answer); err != nil {
		return err
	}
	what := fmt.Sprintf("The experiment %s is deleted", clip(t.Name))
	if answer.Models > 0 {
		what += " with " + plural(answer.Models, "model", "models") + " of it"
	}
	return v.tell("/experiments", what+".", answer.Files)
}
