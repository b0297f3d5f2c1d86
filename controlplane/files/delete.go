package files

import (
	"crypto/rand"
	"encoding/json"
	"io/fs"
	"net/http"
	"net/url"
	"path"
)

// maxDeleteList bounds the body of delete_many.
const maxDeleteList = 16 << 20

// delete removes one file. A folder is answered like a missing file.
func (s *Server) delete(w http.ResponseWriter, r *http.Request) error {
	name, err := safePath(r.URL.Path)
	if err != nil {
		return err
	}
	name = s.stored(name)
	if err := s.remove(name, false); err != nil {
		return err
	}
	answerJSON(w, http.StatusOK, name)
	return nil
}

// deleteMany removes a list of files and whole folders. One that fails does not keep
// the others; the answer says what became of each.
func (s *Server) deleteMany(w http.ResponseWriter, r *http.Request) error {
	var ask struct {
		Files []string `json:"files"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxDeleteList)).Decode(&ask); err != nil {
		return refusal(http.StatusBadRequest, `delete_many takes {"files": ["path", …]}: %s`, err)
	}
	answer := struct {
		Deleted map[string]string   `json:"deleted"`
		Errors  map[string][]string `json:"errors"`
	}{map[string]string{}, map[string][]string{}}
	for _, quoted := range ask.Files {
		name, err := s.removeQuoted(quoted)
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

func (s *Server) removeQuoted(quoted string) (string, error) {
	raw, err := url.QueryUnescape(quoted) // quoted as in a form: "+" is a space
	if err != nil {
		return "", nameError("the path is not quoted correctly")
	}
	name, err := safePath(raw)
	if err != nil {
		return "", err
	}
	return name, s.remove(name, true)
}

// remove deletes a file, or a whole folder when that is allowed, and then the folders
// above it that have become empty.
func (s *Server) remove(name string, folders bool) error {
	trash, err := s.detach(name, folders)
	if err != nil {
		return asMissing(err)
	}
	if trash == "" {
		return nil
	}
	// The folder is out of sight already; clearing it may take long and holds no lock.
	return s.root.RemoveAll(trash)
}

// detach takes the name out of the tree at once. For a folder it returns where the
// folder lies now, to be cleared.
func (s *Server) detach(name string, folders bool) (trash string, err error) {
	s.shape.Lock()
	defer s.shape.Unlock()
	if err := s.refuseLinks(name); err != nil {
		return "", err
	}
	info, err := s.root.Lstat(name)
	switch {
	case err != nil:
		return "", err
	case info.IsDir() && !folders:
		return "", fs.ErrNotExist
	case info.IsDir():
		trash = path.Join(incoming, rand.Text())
		err = s.root.Rename(name, trash)
	default:
		err = s.root.Remove(name)
	}
	if err != nil {
		return "", err
	}
	s.prune(path.Dir(name))
	return trash, nil
}

// prune removes the folder and those above it for as long as they are empty.
func (s *Server) prune(dir string) {
	for ; dir != "."; dir = path.Dir(dir) {
		if err := s.root.Remove(dir); err != nil {
			return // not empty: this is where it ends
		}
	}
}
