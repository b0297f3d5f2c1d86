package ui

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/controlplane/intake"
)

type uploadPage struct {
	Frameworks []string
	Projects   []ref
}

func (p *Pages) uploadForm(v *visit) error {
	projects, err := v.projects()
	if err != nil {
		return err
	}
	return v.render("upload", "Upload a model", uploadPage{Frameworks: frameworks(), Projects: projects})
}

// uploadFields are the fields of a form with a file. They come before the file in the
// form, so that the file can go through without being kept here.
type uploadFields map[string]string

// Bounds of what is kept of a form beside the model's file.
const (
	maxFields = 20
	maxField  = 512 << 10
	maxUpload = 8 << 20 // of code
)

// formParts is a form that may carry files: the code of an endpoint, which is kept, and behind
// everything else the file of a model, which is handed on as it arrives.
type formParts struct {
	fields  uploadFields
	code    *smallFile
	file    *multipart.Part
	release func()
}

type smallFile struct {
	name string
	text []byte
}

func (f *formParts) text(name string) string { return strings.TrimSpace(f.fields[name]) }

// readParts reads a form up to the file of a model. A form without files may also come as
// other forms do. The caller calls release of what it gets.
func (v *visit) readParts() (*formParts, error) {
	parts := &formParts{fields: uploadFields{}, release: func() {}}
	if !strings.HasPrefix(v.r.Header.Get("Content-Type"), "multipart/") {
		release, err := v.p.readForm(v.w, v.r, maxForm)
		if err != nil {
			return nil, refusal{intake.Status(err), "The form could not be read: " + err.Error()}
		}
		for name := range v.r.PostForm {
			parts.fields[name] = v.r.PostForm.Get(name)
		}
		v.r = v.r.WithContext(intake.Paid(v.r.Context()))
		parts.release = release
		return parts, nil
	}
	v.r.Body = io.NopCloser(intake.Pace(v.w, v.r.Body, uploadStall))
	form, err := v.r.MultipartReader()
	if err != nil {
		return nil, refusal{http.StatusBadRequest, "The form could not be read: " + err.Error()}
	}
	for {
		part, err := form.NextPart()
		switch {
		case errors.Is(err, io.EOF):
			return parts, nil
		case err != nil:
			return nil, refusal{http.StatusBadRequest, "The upload broke off: " + err.Error()}
		case len(parts.fields) == maxFields:
			return nil, refusal{http.StatusBadRequest, "The form has too many fields: send it from its page."}
		case part.FormName() == "file" && fileName(part) != "":
			parts.file = part
			return parts, nil
		}
		most := int64(maxField)
		if part.FormName() == "code_file" {
			most = maxUpload
		}
		text, err := io.ReadAll(io.LimitReader(part, most+1))
		switch {
		case err != nil:
			return nil, refusal{http.StatusBadRequest, "The upload broke off: " + err.Error()}
		case int64(len(text)) > most:
			return nil, refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("The field %s has more than %s.", part.FormName(), formatBytes(most))}
		case part.FormName() != "code_file":
			parts.fields[part.FormName()] = string(text)
		case fileName(part) != "":
			parts.code = &smallFile{fileName(part), text}
		}
	}
}

// takeUpload takes a model's file, stores it on the file server, and registers it. Nothing is
// registered when the file does not arrive in full.
func (p *Pages) takeUpload(v *visit) error {
	form, err := v.readParts()
	if err != nil {
		return err
	}
	defer form.release()
	switch {
	case !v.hasToken(form.text("csrf")):
		return errForged
	case form.text("name") == "":
		return refusal{http.StatusBadRequest, "The model needs a name."}
	case form.file == nil:
		return refusal{http.StatusBadRequest, "No file was sent: choose the file of the model."}
	}
	id, err := v.storeModel(form.fields, form.file)
	if err != nil {
		return err
	}
	return v.done("/models/"+id, fileName(form.file)+" is uploaded.")
}

// storeModel stores the file of a model and registers it.
func (v *visit) storeModel(fields uploadFields, file *multipart.Part) (id string, err error) {
	ctx := v.r.Context()
	stored, err := v.sendFile("uploads/"+strings.ToLower(rand.Text())+"/"+fileName(file), file)
	if err != nil {
		return "", err
	}
	id, err = v.register(ctx, fields, stored)
	if err != nil {
		return "", errors.Join(err, v.api.DeleteFile(context.WithoutCancel(ctx), stored))
	}
	return id, nil
}

func (v *visit) register(ctx context.Context, fields uploadFields, uri string) (string, error) {
	project, err := v.api.EnsureProject(ctx, cmp.Or(strings.TrimSpace(fields["project"]), "uploaded models"))
	if err != nil {
		return "", err
	}
	return v.api.CreateModel(ctx, clearml.NewModel{
		Name: strings.TrimSpace(fields["name"]), ProjectID: project.ID, Framework: fields["framework"], Tags: words(fields["tags"]),
		Comment: strings.TrimSpace(fields["comment"]), URI: uri,
	})
}

// uploadStall is the time in which 64 KiB of an upload must arrive.
const uploadStall = 5 * time.Minute

// sendFile hands a file on to the file server as it arrives, and returns its address.
func (v *visit) sendFile(name string, file io.Reader) (string, error) {
	address := clearml.FileURL(v.p.opts.FilesURL, name)
	answer, err := v.askFiles(http.MethodPut, address, io.NopCloser(file), "")
	if err != nil {
		return "", fmt.Errorf("store the file: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(answer.Body, 2000))
		return "", refusal{answer.StatusCode, "The file was not stored: " + strings.TrimSpace(string(why))}
	}
	return address, nil
}
