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
	"path"
	"path/filepath"
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

// uploadFields are what the form says of the file. They come before the file in the
// form, so that the file can go through without being kept here.
type uploadFields map[string]string

// maxFields and maxField bound what is kept of the form beside the file.
const (
	maxFields = 20
	maxField  = 64 << 10
)

// takeUpload takes a model's file, stores it on the file server, and registers it. Nothing is
// registered when the file does not arrive in full.
func (p *Pages) takeUpload(v *visit) error {
	v.r.Body = io.NopCloser(intake.Pace(v.w, v.r.Body, uploadStall))
	form, err := v.r.MultipartReader()
	if err != nil {
		return refusal{http.StatusBadRequest, "The form could not be read: send it from the page “Upload a model”."}
	}
	fields := uploadFields{}
	for {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			return refusal{http.StatusBadRequest, "No file was sent: choose the file of the model."}
		}
		if err != nil {
			return refusal{http.StatusBadRequest, "The upload broke off: " + err.Error()}
		}
		if part.FormName() == "file" {
			return v.storeUpload(fields, part)
		}
		text, err := io.ReadAll(io.LimitReader(part, maxField))
		if err != nil {
			return refusal{http.StatusBadRequest, "The upload broke off: " + err.Error()}
		}
		if len(fields) == maxFields {
			return refusal{http.StatusBadRequest, "The form has too many fields: send it from the page “Upload a model”."}
		}
		fields[part.FormName()] = strings.TrimSpace(string(text))
	}
}

// storeUpload checks the fields before a byte of the file is stored.
func (v *visit) storeUpload(fields uploadFields, file *multipart.Part) error {
	name := path.Base(filepath.ToSlash(strings.ReplaceAll(file.FileName(), `\`, "/")))
	switch {
	case !v.hasToken(fields["csrf"]):
		return errForged
	case fields["name"] == "":
		return refusal{http.StatusBadRequest, "The model needs a name."}
	case file.FileName() == "" || name == "." || name == "/":
		return refusal{http.StatusBadRequest, "No file was sent: choose the file of the model."}
	}
	ctx := v.r.Context()
	stored, err := v.sendFile("uploads/"+strings.ToLower(rand.Text())+"/"+name, file)
	if err != nil {
		return err
	}
	id, err := v.register(ctx, fields, stored)
	if err != nil {
		return errors.Join(err, v.api.DeleteFile(context.WithoutCancel(ctx), stored))
	}
	return v.done("/models/"+id, name+" is uploaded.")
}

func (v *visit) register(ctx context.Context, fields uploadFields, uri string) (string, error) {
	project, err := v.api.EnsureProject(ctx, cmp.Or(fields["project"], "uploaded models"))
	if err != nil {
		return "", err
	}
	return v.api.CreateModel(ctx, clearml.NewModel{
		Name: fields["name"], ProjectID: project.ID, Framework: fields["framework"], Tags: words(fields["tags"]),
		Comment: fields["comment"], URI: uri,
	})
}

// uploadStall is the time in which 64 KiB of an upload must arrive.
const uploadStall = 5 * time.Minute

// sendFile hands a file on to the file server as it arrives, and returns its address.
func (v *visit) sendFile(name string, file io.Reader) (string, error) {
	address := clearml.FileURL(v.p.opts.FilesURL, name)
	header, err := v.api.AuthHeader(v.r.Context(), address)
	if err != nil {
		return "", err
	}
	request, err := http.NewRequestWithContext(v.r.Context(), http.MethodPut, address, io.NopCloser(file))
	if err != nil {
		return "", err
	}
	request.Header.Set("Authorization", header)
	answer, err := v.p.opts.API.RoundTrip(request)
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
