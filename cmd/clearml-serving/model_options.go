package main

import (
	"context"
	"errors"
	"fmt"

	"clearmlserving/operations"
	"clearmlserving/serving"
)

// What model record, model golden, model shadow and model limits share: each sets one of the
// options of an endpoint, or takes it off.

// errNoOption says that there is nothing to take off.
var errNoOption = errors.New("there is nothing to take off")

// openOptions selects the service for a change of an endpoint's options.
func (a *app) openOptions(ctx context.Context, endpoint, doing string) (*operations.Service, error) {
	s, err := a.openForEdit(ctx)
	if err != nil {
		return nil, err
	}
	a.print.line("Serving service Task %s, %s '/%s/'", s.Doc.ID, doing, serving.CleanURL(endpoint))
	a.printSync(s)
	return s, nil
}

// warnOfMissingEndpoint tells that a url is not served: it may be added later,
// but more often the name is mistyped.
func (a *app) warnOfMissingEndpoint(s *operations.Service, url string) {
	if !s.Config.Serves(serving.CleanURL(url)) {
		a.print.notice("Warning: endpoint '%s' does not exist yet, nothing happens until it is added", serving.CleanURL(url))
	}
}

// setOptions stores a change of an endpoint's options.
func (a *app) setOptions(ctx context.Context, s *operations.Service, endpoint string, change func(*serving.EndpointOptions)) error {
	a.print.line("Updating serving service")
	return s.Edit(ctx, func(c *serving.Service) (serving.Section, error) {
		return serving.SectionOptions, c.SetOptions(endpoint, change)
	})
}

// optionsOf are those of the url itself.
func optionsOf(s *operations.Service, endpoint string) serving.EndpointOptions {
	options, _ := serving.LookUp(s.Config.Options, string(serving.CleanURL(endpoint)))
	return options
}

func noOption(endpoint, what string) error {
	return &marked{error: fmt.Errorf("endpoint '%s' has no %s: %w", serving.CleanURL(endpoint), what, errNoOption), kind: errNotFound}
}

// showOptions is an endpoint's options as they are stored.
func showOptions(o serving.EndpointOptions) any {
	shown := object{}
	if r := o.Record; r != nil {
		shown = append(shown, field{"record", object{{"share", r.Share}, {"max", r.Limit()}, {"redact", tagsOf(r.Redact)}}})
	}
	if g := o.Golden; g != nil {
		golden := object{{"artifact", g.Artifact}, {"tolerance", g.Tolerance}}
		if g.Timeout > 0 {
			golden = append(golden, field{"timeout", g.Timeout})
		}
		shown = append(shown, field{"golden", golden})
	}
	if sh := o.Shadow; sh != nil {
		shown = append(shown, field{"shadow", object{{"to", sh.To}, {"share", sh.Share}, {"tolerance", sh.Tolerance}}})
	}
	if o.Limits != nil {
		shown = append(shown, field{"limits", showLimits(*o.Limits)})
	}
	return shown
}

// printCopies shows what recordings and shadow traffic have come to, instance by
// instance when there are several.
func (a *app) printCopies(f fleet) {
	var shadows, recordings [][]string
	for _, l := range f.instances {
		where := ""
		if name := f.called(l); name != "" {
			where = " on " + l.Name
		}
		for _, s := range l.Shadows {
			shadows = append(shadows, []string{"/" + string(s.From) + where, "/" + string(s.To), fmt.Sprint(s.Share), fmt.Sprint(s.Shadowed), fmt.Sprint(s.Equal), fmt.Sprint(s.Different), fmt.Sprint(s.Errors), fmt.Sprint(s.Dropped)})
		}
		for _, r := range l.Recordings {
			recordings = append(recordings, []string{"/" + string(r.URL) + where, fmt.Sprint(r.Recorded), fmt.Sprint(r.Dropped), fmt.Sprint(r.Skipped), r.Problem})
		}
	}
	if len(shadows) > 0 {
		a.print.line("")
		a.print.table([]string{"SHADOW OF", "TO", "SHARE", "SENT", "EQUAL", "DIFFERENT", "ERRORS", "DROPPED"}, shadows)
	}
	if len(recordings) > 0 {
		a.print.line("")
		a.print.table([]string{"RECORDING OF", "RECORDED", "DROPPED", "SKIPPED", "NOTE"}, recordings)
	}
}
