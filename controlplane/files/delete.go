package files

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/url"

	"clearmlserving/controlplane/intake"
)

// maxDeleteList and maxDeleted bound the body of delete_many, and its number of files.
const (
	maxDeleteList = 4 << 20
	maxDeleted    = 10_000
)

// delete removes one file. A folder is answered like a missing file.
func (s *Server) delete(w http.ResponseWriter, r *http.Request) error {
	name, err := safePath(r.URL.Path)
	if err != nil {
		return err
	}
	if name, err = s.tree.remove(r.Context(), name, false); err != nil {
		return err
	}
	answerJSON(w, http.StatusOK, name)
	return nil
}

// deleteMany removes a list of files and whole folders. A failure does not affect the others; the
// answer has the result of each.
func (s *Server) deleteMany(w http.ResponseWriter, r *http.Request) error {
	var ask struct {
		Files []string `json:"files"`
	}
	body, err := s.opts.Bodies.Read(w, r, maxDeleteList)
	if err != nil {
		return refusal(intake.Status(err), "%s", err)
	}
	defer body.Release()
	if err := json.Unmarshal(body.Text, &ask); err != nil {
		return refusal(http.StatusBadRequest, `delete_many takes {"files": ["path", …]}: %s`, err)
	}
	if len(ask.Files) > maxDeleted {
		return refusal(http.StatusBadRequest, "delete_many takes at most %d paths: send several requests", maxDeleted)
	}
	answer := struct {
		Deleted map[string]string   `json:"deleted"`
		Errors  map[string][]string `json:"errors"`
	}{map[string]string{}, map[string][]string{}}
	for _, quoted := range ask.Files {
		if err := r.Context().Err(); err != nil {
			return err // the client has disconnected
		}
		name, err := s.removeQuoted(r.Context(), quoted)
		if err != nil {
			_, msg, trouble := explain(err)
			if trouble {
				s.log.Error("file not deleted", "path", quoted, "err", err)
			}
			answer.Errors[msg] = append(answer.Errors[msg], quoted)
			continue
		}
		answer.Deleted[quoted] = name
	}
	answerJSON(w, http.StatusOK, answer)
	return nil
}

// Remove removes the file of a path, as in an address of this server. A missing file is no error.
// The caller has checked the permission.
func (s *Server) Remove(ctx context.Context, path string) error {
	name, err := safePath(path)
	if err == nil {
		_, err = s.tree.remove(ctx, name, false)
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	_, msg, trouble := explain(err)
	if trouble {
		s.log.Error("file not deleted", "path", path, "err", err)
	}
	return errors.New(msg)
}

func (s *Server) removeQuoted(ctx context.Context, quoted string) (string, error) {
	raw, err := url.QueryUnescape(quoted) // quoted as in a form: "+" is a space
	if err != nil {
		return "", nameError("the path is not quoted correctly")
	}
	name, err := safePath(raw)
	if err != nil {
		return "", err
	}
	return s.tree.remove(ctx, name, true)
}
