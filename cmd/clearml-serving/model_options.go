package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"clearmlserving/operations"
	"clearmlserving/serving"
)

// endpointOption is what model record, model golden, model shadow and model limits share:
// each sets one of the options of an endpoint, or removes it with --off.
type endpointOption[T any] struct {
	what, doing string // for errors, and for the first line
	which, off  string // the help of --endpoint and --off
	at          func(*serving.EndpointOptions) **T
	// prepare comes before an option is set, nil for nothing.
	prepare func(ctx context.Context, s *operations.Service, url string) error
	// value is what the option becomes. It may be called several times.
	value func(before *T) *T
	// result is the field of the result that says whether the option is on, for an option without done.
	result string
	// done completes a stored change.
	done func(ctx context.Context, s *operations.Service, url string, before *T, off bool) change
}

// replacing is the value of an option of which the flags say everything. What another release has stored
// beside it stays.
func replacing[T any](option *T, unknown func(*T) *map[string]json.RawMessage) func(before *T) *T {
	return func(before *T) *T {
		next := *option
		if before != nil {
			*unknown(&next) = *unknown(before)
		}
		return &next
	}
}

func optionCommand[T any](a *app, cmd *cobra.Command, o endpointOption[T]) *cobra.Command {
	var endpoint string
	var off bool
	cmd.Flags().StringVar(&endpoint, "endpoint", "", "name under /serve/"+o.which)
	cmd.Flags().BoolVar(&off, "off", false, o.off)
	required(cmd, "endpoint")
	return a.deploys(cmd, func(ctx context.Context, s *operations.Service) (change, error) {
		url := string(serving.CleanURL(endpoint))
		a.sayEdit(s, "%s '/%s/'", o.doing, url)
		stored, _ := serving.LookUp(s.Config.Options, url)
		before := *o.at(&stored)
		value := o.value
		switch {
		case off && before == nil && !brokenOptions(s, url):
			return change{}, notFound("endpoint '%s' has no %s: there is nothing to take off", url, o.what)
		case off:
			value = func(*T) *T { return nil }
		default:
			a.warnOfMissingEndpoint(s, url)
			if o.prepare == nil {
				break
			}
			if err := o.prepare(ctx, s, url); err != nil {
				return change{}, err
			}
		}
		a.print.line("Updating serving service")
		err := s.Edit(ctx, func(c *serving.Service) (serving.Section, error) {
			return serving.SectionOptions, c.SetOptions(url, func(all *serving.EndpointOptions) { *o.at(all) = value(*o.at(all)) })
		})
		if wrong, ok := errors.AsType[*serving.FieldError](err); ok && wrong.Field == "share" {
			return change{}, hint(err, "Try: --share 0.1")
		}
		if err != nil {
			return change{}, err
		}
		done := change{result: object{{o.result, !off}}}
		if o.done != nil {
			done = o.done(ctx, s, url, before, off)
		}
		done.result = append(object{{"endpoint", url}}, done.result...)
		return done, nil
	})
}

// warnOfMissingEndpoint tells that a url is not served: it may be added later,
// but more often the name is mistyped.
func (a *app) warnOfMissingEndpoint(s *operations.Service, url string) {
	if url != serving.AllEndpoints && !s.Config.Serves(serving.CleanURL(url)) {
		a.print.notice("Warning: endpoint '%s' does not exist yet, nothing happens until it is added", serving.CleanURL(url))
	}
}

// brokenOptions tells whether what is stored for an endpoint cannot be read.
func brokenOptions(s *operations.Service, url string) bool {
	return slices.ContainsFunc(s.Config.BrokenIn(serving.SectionOptions), func(b serving.BrokenRecord) bool {
		return string(serving.CleanURL(b.Key)) == url
	})
}

// storedRecords are the records of a section as they are stored.
func storedRecords(c serving.Service, section serving.Section) (map[string]map[string]json.RawMessage, error) {
	c.Broken = nil // listed by themselves
	text, err := c.Encode(section)
	if err != nil {
		return nil, err
	}
	all := map[string]map[string]json.RawMessage{}
	return all, json.Unmarshal([]byte(text), &all)
}

// printCopies shows what recordings and shadow traffic have come to, instance by
// instance when there are several.
func (a *app) printCopies(f fleet) {
	var shadows, recordings [][]string
	for _, l := range f.instances {
		where := f.where(l)
		for _, s := range l.Shadows {
			shadows = append(shadows, []string{"/" + string(s.From) + where, "/" + string(s.To), fmt.Sprint(s.Share), fmt.Sprint(s.Shadowed), fmt.Sprint(s.Equal), fmt.Sprint(s.Different), fmt.Sprint(s.Errors), fmt.Sprint(s.Dropped)})
		}
		for _, r := range l.Recordings {
			recordings = append(recordings, []string{"/" + string(r.URL) + where, fmt.Sprint(r.Recorded), fmt.Sprint(r.Dropped), fmt.Sprint(r.Skipped), r.Problem})
		}
	}
	a.print.section([]string{"SHADOW OF", "TO", "SHARE", "SENT", "EQUAL", "DIFFERENT", "ERRORS", "DROPPED"}, shadows)
	a.print.section([]string{"RECORDING OF", "RECORDED", "DROPPED", "SKIPPED", "NOTE"}, recordings)
}
