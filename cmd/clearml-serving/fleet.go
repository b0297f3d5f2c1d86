package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/operations"
	"clearmlserving/serving"
)

// liveState is what a running inference service tells of itself.
type liveState struct {
	serving.InstanceReport // only the status and the URL of one that was asked directly

	seen time.Time // its last sign of life, by the server's clock
}

// fleet is the live instances of one serving service.
type fleet struct {
	instances []liveState
	// silent are live instances that tell nothing of their state, as those of the
	// original: they can be neither shown nor waited for.
	silent []string
	// lost are instances that have given no sign of life for some time and did not end, but for
	// those that have been started again under the same name.
	lost []liveState
}

// answering are the instances that answer requests.
func (f fleet) answering() []liveState {
	return slices.DeleteFunc(slices.Clone(f.instances), func(l liveState) bool { return l.Role != "" })
}

// example is the example of a body in the signature of an endpoint, "" if no instance has one.
func (f fleet) example(endpoint serving.EndpointURL) string {
	for _, l := range f.instances {
		for _, e := range l.Endpoints {
			if e.URL == endpoint && e.Signature != nil && e.Signature.Example != nil {
				return string(e.Signature.Example)
			}
		}
	}
	return ""
}

// fleet finds the instances of a service: the one at --serve-url if that is given,
// else all that are alive according to the control plane.
func (a *app) fleet(ctx context.Context, s *operations.Service) (fleet, error) {
	if a.text("serve-url") != "" {
		live, err := a.liveState(ctx)
		if err != nil {
			return fleet{}, err
		}
		if live.ServiceID != "" && live.ServiceID != s.Doc.ID {
			return fleet{}, hint(fmt.Errorf("the inference service at %s serves another serving service, id=%s", live.URL, live.ServiceID),
				"Try: clearml-serving inference --id %s   (in another terminal), or --serve-url with the address of one that serves it", s.Doc.ID)
		}
		return fleet{instances: []liveState{*live}}, nil
	}
	recorded, err := s.Client.Instances(ctx, s.Doc.ID, "inference")
	if err != nil {
		return fleet{}, err
	}
	return aliveOf(recorded, s.Client.ServerTime()), nil
}

// aliveOf leaves out the instances that are not alive at now.
func aliveOf(recorded []clearml.Instance, now time.Time) fleet {
	var f fleet
	for _, i := range recorded {
		report, err := serving.ParseReport(i.Report)
		switch alive := serving.Alive(i.Seen, now); {
		case !alive && err == nil:
			f.lost = append(f.lost, liveState{report, i.Seen})
		case !alive:
		case err != nil:
			f.silent = append(f.silent, i.TaskID)
		default:
			f.instances = append(f.instances, liveState{report, i.Seen})
		}
	}
	f.lost = slices.DeleteFunc(f.lost, func(lost liveState) bool {
		return slices.ContainsFunc(f.instances, func(l liveState) bool { return l.Name == lost.Name })
	})
	return f
}

// called is an instance's name as it stands in front of what is told of it:
// empty when there is nothing to confuse it with.
func (f fleet) called(l liveState) string {
	if len(f.instances) < 2 {
		return ""
	}
	return l.Name + ": "
}

// where is called for what stands behind the name of an endpoint.
func (f fleet) where(l liveState) string {
	if len(f.instances) < 2 {
		return ""
	}
	return " on " + l.Name
}

// endpointRow is what a fleet does with one endpoint.
type endpointRow struct {
	state, note string
	counts      *serving.Counts // of all instances, nil: none serves it
}

// of tells what the instances do with an endpoint: "ready 2/3" when they differ,
// and then why on which.
func (f fleet) of(url serving.EndpointURL) endpointRow {
	return f.row(func(l liveState) (found bool, state, note string, counts serving.Counts) {
		for _, e := range l.Endpoints {
			if e.URL == url {
				return true, string(e.State), noteOf(e), e.Counts
			}
		}
		return false, "", "", counts
	})
}

// ofCanary is of for canaries; the counts are nil while no request came to none of its endpoints.
func (f fleet) ofCanary(url serving.EndpointURL) endpointRow {
	row := f.row(func(l liveState) (found bool, state, note string, counts serving.Counts) {
		for _, c := range l.Canaries {
			switch {
			case c.URL == url && len(c.Shares) == 0:
				return true, "failed", c.Problem, c.Counts
			case c.URL == url:
				return true, "ready", c.Problem, c.Counts
			}
		}
		return false, "", "", counts
	})
	if row.counts != nil && *row.counts == (serving.Counts{}) {
		row.counts = nil
	}
	return row
}

// row sums up what the instances do with a url, as one of them tells it.
func (f fleet) row(told func(l liveState) (found bool, state, note string, counts serving.Counts)) endpointRow {
	var states, notes []string
	var sum *serving.Counts
	for _, l := range f.instances {
		found, state, note, counts := told(l)
		if l.Role != "" { // it answers no requests: what matters is why it cannot hold the model
			if found && state != "ready" {
				notes = append(notes, fmt.Sprintf("%s (%s): %s", l.Name, l.Role, joinNotes([]string{state, note})))
			}
			continue
		}
		if !found {
			state = "not served"
		} else {
			if sum == nil {
				sum = &serving.Counts{}
			}
			sum.Add(counts)
		}
		states = append(states, state)
		notes = append(notes, f.note(l, state, note))
	}
	return endpointRow{f.summed(states), joinNotes(notes), sum}
}

// noteOf says why an endpoint is not ready, and what its owner should know otherwise.
func noteOf(e serving.EndpointReport) string {
	notes := []string{firstLine(e.Reason())}
	for _, w := range e.Model.Warnings {
		notes = append(notes, "warning: "+w)
	}
	return joinNotes(notes)
}

func firstLine(text string) string {
	first, _, _ := strings.Cut(text, "\n")
	return first
}

// note says why an instance is not ready, with its name when there are several.
func (f fleet) note(l liveState, state, note string) string {
	switch {
	case len(f.instances) < 2:
		return note
	case state == "ready" && note == "":
		return ""
	case state == "ready":
		return l.Name + ": " + note
	case note != "":
		state += ", " + note
	}
	return l.Name + ": " + state
}

func joinNotes(notes []string) string {
	return strings.Join(slices.DeleteFunc(notes, func(note string) bool { return note == "" }), "; ")
}

// summed is one word for the states of all instances.
func (f fleet) summed(states []string) string {
	switch len(states) {
	case 0:
		return "unknown"
	case 1:
		return states[0]
	}
	count := map[string]int{}
	for _, s := range states {
		count[s]++
	}
	word := "ready"
	if count[word] == 0 { // the first one's state stands for them
		word = states[0]
	}
	return fmt.Sprintf("%s %d/%d", word, count[word], len(states))
}

// forJSON lists the instances with all that they tell.
func (f fleet) forJSON() []object {
	list := []object{}
	for _, l := range f.instances {
		list = append(list, object{{"instance", orNull(l.Name)}, {"role", orNull(l.Role)}, {"serve_url", l.URL}, {"status", l.Status}})
	}
	return list
}

// reported is the time of the oldest report of an instance by the server's clock, zero for
// instances that were asked directly.
func (f fleet) reported() time.Time {
	var oldest time.Time
	for _, l := range f.instances {
		if at := l.At(l.seen); oldest.IsZero() || at.Before(oldest) {
			oldest = at
		}
	}
	return oldest
}

// printInstances shows the instances themselves, when there is more than one.
func (a *app) printInstances(s *operations.Service, f fleet) {
	if len(f.instances) > 1 {
		var rows [][]string
		for _, l := range f.instances {
			configuration := "current"
			if l.StateHash != s.Hash() {
				configuration = "behind"
			}
			note := ""
			if l.SourceError != "" {
				note = "cannot read its configuration: " + l.SourceError
			}
			rows = append(rows, []string{l.Name, l.URL, configuration, l.Started.UTC().Format(time.DateTime), note})
		}
		a.print.line("")
		a.print.table([]string{"INSTANCE", "ADDRESS", "CONFIGURATION", "STARTED (UTC)", "NOTE"}, rows)
	}
	for _, l := range f.lost {
		a.print.notice("Warning: the instance %s is gone: its last sign of life was %s ago", l.Name, s.Client.ServerTime().Sub(l.seen).Round(time.Second))
	}
	a.noticeSilent(f)
}

// noticeSilent names instances whose state nobody can tell.
func (a *app) noticeSilent(f fleet) {
	if len(f.silent) > 0 {
		a.print.notice("Notice: %s of this serving service tell nothing of their state, as those of the Python product: %s", plural(len(f.silent), "instance"), strings.Join(f.silent, " "))
	}
}
