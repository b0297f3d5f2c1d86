package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"clearmlserving/operations"
	"clearmlserving/serving"
)

func modelHistoryCommand(a *app) *cobra.Command {
	var endpoint string
	return a.reads(&cobra.Command{
		Use:   "history ENDPOINT",
		Short: "List the revisions of an endpoint",
		Long: `List the revisions of an endpoint, the newest first: each change of its model, code,
environment or settings, by whom and why, and what became of it. A refused
revision is not served: the last good one is. Removed endpoints have a history too.
The history of a canary with steps has the decisions about it.`,
		Example: `  clearml-serving model history test_model
  clearml-serving --json model history test_model/1`,
		Args:        oneArg(&endpoint, "give the name of one endpoint", nameHint),
		Annotations: map[string]string{markWords: ""},
	}, func(_ context.Context, s *operations.Service) (object, error) {
		h, err := s.History(endpoint)
		if r, ok := serving.LookUp(s.Config.Rollouts, string(serving.CleanURL(endpoint))); ok && err != nil {
			return a.canaryHistory(s, endpoint, r)
		}
		if err != nil {
			return nil, hintIfNotFound(err, "Try: clearml-serving model list   (shows the names; a revision is recorded when an instance or a command of this version sees the endpoint)")
		}
		good, served := h.LastGood()
		var rows [][]string
		shown := []object{}
		for _, r := range slices.Backward(h.Revisions) {
			note := ""
			switch {
			case r.State == serving.RevisionRefused:
				note = firstLine(r.Why())
			case served && r.Number == good.Number && h.Removed.IsZero():
				note = "serves"
			}
			if r.Of > 0 {
				note = joinNotes([]string{fmt.Sprintf("brings back %d", r.Of), note})
			}
			code := ""
			if r.Code != nil {
				code = r.Code.SHA256[:min(8, len(r.Code.SHA256))]
			}
			rows = append(rows, []string{strconv.Itoa(r.Number), string(r.State), r.Time.UTC().Format(time.DateTime), authorOf(r), firstLine(r.Message), string(modelOf(r)), code, note})
			shown = append(shown, showRevision(r))
		}
		if !h.Removed.IsZero() {
			a.print.notice("Notice: the endpoint was removed on %s UTC; to bring it back: clearml-serving --id %s model rollback %s", h.Removed.UTC().Format(time.DateTime), s.Doc.ID, shellWord(string(serving.CleanURL(endpoint))))
		}
		a.print.table([]string{"REVISION", "STATE", "TIME (UTC)", "BY", "MESSAGE", "MODEL", "CODE", "NOTE"}, rows)
		return object{
			{"id", s.Doc.ID}, {"endpoint", string(serving.CleanURL(endpoint))}, {"removed", orNull(stamp(h.Removed))}, {"revisions", shown},
		}, nil
	})
}

// canaryHistory shows the decisions about a canary with steps.
func (a *app) canaryHistory(s *operations.Service, endpoint string, r serving.Rollout) (object, error) {
	var rows [][]string
	for _, e := range slices.Backward(r.Events) {
		rows = append(rows, []string{e.What, percentOf(e.Share), e.Time.UTC().Format(time.DateTime), e.By, e.Note})
	}
	a.print.table([]string{"DECISION", "SHARE", "TIME (UTC)", "BY", "NOTE"}, rows)
	return object{{"id", s.Doc.ID}, {"endpoint", string(serving.CleanURL(endpoint))}, {"candidate", string(r.Candidate)}, {"decisions", r.Events}}, nil
}

// authorOf is who made a revision.
func authorOf(r serving.Revision) string {
	if r.By == "" && r.Rule > 0 {
		return "auto-update"
	}
	return firstOf(r.By, "another program")
}

func modelOf(r serving.Revision) serving.ModelID {
	if r.Monitoring != nil {
		return ""
	}
	return r.Endpoint.ModelID
}

// showRevision is a revision without its record, for scripts.
func showRevision(r serving.Revision) object {
	shown := object{
		{"revision", r.Number},
		{"state", string(r.State)},
		{"time", r.Time.UTC().Format(time.RFC3339)},
		{"by", orNull(r.By)},
		{"message", orNull(r.Message)},
		{"model_id", orNull(modelOf(r))},
		{"model_uri", orNull(r.ModelURI)},
		{"model_sha256", orNull(r.ModelSHA256)},
	}
	if r.Code != nil {
		shown = append(shown, field{"code_uri", r.Code.URI}, field{"code_sha256", orNull(r.Code.SHA256)})
	}
	if r.Of > 0 {
		shown = append(shown, field{"brings_back", r.Of})
	}
	if r.State != serving.RevisionPending {
		shown = append(shown, field{"since", r.Since.UTC().Format(time.RFC3339)}, field{"instance", orNull(r.Instance)})
	}
	if r.State == serving.RevisionRefused {
		shown = append(shown, field{"step", r.Step}, field{"reason", r.Reason})
	}
	return shown
}
