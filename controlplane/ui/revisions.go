package ui

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"clearmlserving/clearml"
	"clearmlserving/operations"
	"clearmlserving/serving"
)

// revisionRow is a revision of an endpoint, in its table.
type revisionRow struct {
	serving.Revision
	Serves bool // on an instance that is alive
}

// revisionRows are the revisions of a url, the newest first. A url without a history has none.
func revisionRows(s *operations.Service, url string, instances []instance) []revisionRow {
	h, err := s.History(url)
	if err != nil {
		return nil
	}
	serves, refused := map[int]bool{}, map[int]*serving.Refusal{}
	for _, i := range instances {
		for _, e := range i.Report.Endpoints {
			if i.Alive() && string(e.URL) == url {
				serves[e.Revision] = true
				if e.Refusal != nil {
					refused[e.Refusal.Revision] = e.Refusal
				}
			}
		}
	}
	var rows []revisionRow
	for _, r := range slices.Backward(h.Revisions) {
		if why := refused[r.Number]; why != nil && r.State == serving.RevisionPending { // its record follows
			r.State, r.Step, r.Reason = serving.RevisionRefused, why.Step, why.Reason
		}
		rows = append(rows, revisionRow{r, serves[r.Number]})
	}
	return rows
}

// revisionPage is one revision with its code, and its difference from another.
type revisionPage struct {
	Doc      *clearml.Service
	URL      string
	Revision revisionRow
	Newest   int
	Others   []revisionRow
	Against  int // the revision that it is compared with, 0 for none
	Lines    []diffLine
	Files    []codeFile
	Problem  string
}

// CanBringBack says that the page offers to bring the revision back.
func (page revisionPage) CanBringBack() bool { return page.Revision.Number != page.Newest }

func (p *Pages) revision(v *visit, s *operations.Service) error {
	at := string(serving.CleanURL(v.r.PathValue("url")))
	q := v.r.URL.Query()
	number, err := strconv.Atoi(q.Get("number"))
	if err != nil {
		return refusal{http.StatusNotFound, "The address names no revision."}
	}
	shown, err := s.Revision(at, number)
	if err != nil {
		return err
	}
	instances, err := v.instances(s.Doc.ID)
	if err != nil {
		return err
	}
	page := revisionPage{Doc: s.Doc, URL: at, Others: revisionRows(s, at, instances)}
	for i, row := range page.Others {
		if row.Number == shown.Number {
			page.Revision = row
			if i+1 < len(page.Others) {
				page.Against = page.Others[i+1].Number
			}
		}
	}
	page.Newest = page.Others[0].Number
	if chosen, err := strconv.Atoi(q.Get("against")); err == nil {
		page.Against = chosen
	}
	code, err := operations.Code(v.r.Context(), shown, v.openFile)
	if err != nil {
		page.Problem = err.Error()
	}
	page.Files = filesOf(code)
	if page.Against > 0 && page.Against != shown.Number {
		other, err := s.Revision(at, page.Against)
		if err != nil {
			return err
		}
		before, err := operations.Code(v.r.Context(), other, v.openFile)
		if err != nil {
			page.Problem = err.Error()
		}
		text, err := operations.Diff(other, shown, before, code)
		if err != nil {
			return err
		}
		page.Lines = clipLines(unifiedLines(text))
	}
	return v.render("revision", fmt.Sprintf("Revision %d of %s", shown.Number, at), page)
}

// unifiedLines reads a difference in the form of diff -u.
func unifiedLines(text string) []diffLine {
	var lines []diffLine
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "+++ "):
			_, file, _ := strings.Cut(line, "/")
			lines = append(lines, diffLine{"=", file})
		case strings.HasPrefix(line, "--- "):
		case strings.HasPrefix(line, "@@"):
			if n := len(lines); n > 0 && lines[n-1].Mark != "=" {
				lines = append(lines, diffLine{"…", ""})
			}
		case line != "":
			lines = append(lines, diffLine{line[:1], line[1:]})
		}
	}
	return lines
}

// rollback brings an earlier revision back as a new one.
func (p *Pages) rollback(v *visit, s *operations.Service) error {
	at := string(serving.CleanURL(v.r.PostForm.Get("endpoint")))
	number, err := strconv.Atoi(v.r.PostForm.Get("number"))
	if err != nil {
		return refusal{http.StatusBadRequest, "The form names no revision."}
	}
	now, err := s.Rollback(v.r.Context(), at, number)
	if errors.Is(err, operations.ErrNothingToRollBack) {
		return refusal{http.StatusConflict, err.Error()}
	}
	if err != nil {
		return err
	}
	if err := s.PruneFiles(v.r.Context()); err != nil {
		v.p.log.Warn("files of old revisions not removed", "service", s.Doc.ID, "err", err)
	}
	return v.done(endpointLink(s.Doc.ID, at), fmt.Sprintf("Revision %d is stored again, as revision %d.", number, now.Number))
}
