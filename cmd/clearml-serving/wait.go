package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"clearmlserving/modelfile"
	"clearmlserving/operations"
	"clearmlserving/serving"
)

// waitFlags are the flags of every command that changes what is served.
type waitFlags struct {
	wait    bool
	noWait  bool
	implied bool // on a terminal the command waits without --wait
	timeout time.Duration
}

// declare adds the flags. Commands that deploy wait by themselves on a terminal.
func (w *waitFlags) declare(a *app, cmd *cobra.Command) {
	flags := cmd.Flags()
	usage := "end only when all running instances serve the change, or say why one does not"
	if w.implied {
		usage += " (on a terminal: the default)"
		flags.BoolVar(&w.noWait, "no-wait", false, "end when the change is stored")
		mark(flags, "no-wait", markOurs)
	}
	flags.BoolVar(&w.wait, "wait", false, usage)
	flags.DurationVar(&w.timeout, "wait-timeout", 5*time.Minute, "how long --wait waits, for example 90s")
	mark(flags, "wait", markOurs)
	mark(flags, "wait-timeout", markOurs)
	a.declare(flags, "serve-url")
}

// waits tells whether the command waits, and whether only because a person is there.
func (w waitFlags) waits(a *app) (waits, implied bool) {
	if w.wait || w.noWait || !w.implied {
		return w.wait && !w.noWait, false
	}
	person := isTerminal(a.sys.stdout) && !a.print.json
	return person, person
}

// finish ends a command that has changed a service: it waits when asked to, and
// prints the result for scripts.
func (a *app) finish(ctx context.Context, s *operations.Service, w waitFlags, endpoints []serving.EndpointURL, result object) error {
	if waits, implied := w.waits(a); waits {
		if err := s.Reload(ctx); err != nil {
			return err
		}
		if implied {
			a.print.line("Waiting for the running inference services (--no-wait does not)")
		}
		waiting, cancel := context.WithTimeout(ctx, w.timeout)
		defer cancel()
		f, err := a.wait(waiting, s, endpoints)
		if implied && errors.Is(err, errNoInstance) {
			a.print.notice("Notice: %v", err)
			return a.print.result(append(result, field{"state_hash", s.Hash()}))
		}
		if errors.Is(err, errRefused) {
			return err
		}
		if err != nil {
			return fmt.Errorf("the change is stored, but waiting for it ended: %w", err)
		}
		instances := len(f.answering())
		if instances == 1 {
			a.print.line("The running inference service serves the change")
		} else {
			a.print.line("All %d running inference services serve the change", instances)
		}
		result = append(result, field{"live", true}, field{"instances", instances})
		a.printAddresses(ctx, s, f, endpoints)
	}
	return a.print.result(append(result, field{"state_hash", s.Hash()}))
}

const (
	statusInterval = 200 * time.Millisecond
	// A later change of somebody else moves the wanted state on: every so many
	// looks the stored state is read again.
	statusRefresh = 15
	// An instance that has just started needs a moment until it is recorded. One
	// that runs on this machine is surely on its way.
	findPatience, findPatienceHere = 2 * time.Second, 15 * time.Second
)

// wait blocks until all live instances serve the state that s holds and the named
// urls in it (everything, when none is named) have loaded, and returns these
// instances. It fails with errTimedOut when ctx ends first, and with the reason
// and the instance when an endpoint cannot be loaded.
func (a *app) wait(ctx context.Context, s *operations.Service, named []serving.EndpointURL) (f fleet, err error) {
	ticker := time.NewTicker(statusInterval)
	defer ticker.Stop()
	begun := time.Now()
	patience := findPatience
	if _, err := a.serveURL(); err == nil {
		patience = findPatienceHere
	}
	reason := "no running inference service is known"
	defer func() { a.noticeSilent(f) }() // at the end: one that has just started has told something by then
	for looks := 1; ; looks++ {
		if err := unusable(s, named); err != nil {
			return f, err
		}
		f, err = a.fleet(ctx, s)
		switch {
		case err != nil && ctx.Err() != nil:
			return f, stillWaiting(ctx, reason)
		case err != nil:
			return f, err
		}
		if len(f.answering()) > 0 {
			var done bool
			if done, reason, err = f.serve(s, named); done || err != nil {
				return f, err
			}
			if looks%statusRefresh == 0 {
				if err := s.Reload(ctx); err != nil && ctx.Err() == nil {
					return f, err
				}
			}
		} else if time.Since(begun) > patience || ctx.Err() != nil {
			return f, noInstance()
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			if len(f.answering()) == 0 {
				return f, noInstance()
			}
			return f, stillWaiting(ctx, reason)
		}
	}
}

// unusable says what of the stored configuration instances cannot use, as far as it
// concerns the named urls: they keep its last good form, so that waiting for what is
// stored has no end. A section that cannot be read may concern every url.
func unusable(s *operations.Service, named []serving.EndpointURL) error {
	for _, b := range s.Config.Unusable() {
		if b.Section == serving.SectionRevisions {
			continue // what is configured is served without it
		}
		url := serving.CleanURL(b.Key)
		if b.Key != "" && len(named) > 0 && !slices.ContainsFunc(named, func(n serving.EndpointURL) bool { return serving.CleanURL(string(n)) == url }) {
			continue
		}
		return hint(fmt.Errorf("%w; instances keep its last good form, if there is one", b.Err), "Try: clearml-serving model list   (shows all of it)")
	}
	return nil
}

var errNoInstance = errors.New("no running inference service of this serving service is known")

func noInstance() error {
	return hint(errNoInstance,
		"Try: clearml-serving up   (starts one), or --serve-url with the address of a running one")
}

// serve tells whether every instance serves the state of s, and which does not
// and why. It is an error when one cannot: all that hinders is named.
func (f fleet) serve(s *operations.Service, named []serving.EndpointURL) (done bool, reason string, err error) {
	var waiting, hindered []string
	var failure error
	for _, l := range f.instances {
		done, reason, err := l.serves(s, named)
		if err != nil && l.Role == "" && f.heldElsewhere(s, l, named) {
			done, reason, err = false, err.Error(), nil
		}
		switch {
		case err != nil:
			hindered = append(hindered, f.called(l)+err.Error())
			failure = err
		case !done:
			waiting = append(waiting, f.called(l)+reason)
		}
	}
	switch {
	case len(hindered) == 1 && len(f.instances) == 1:
		return false, "", failure
	case len(hindered) > 0:
		serving := len(f.instances) - len(hindered) - len(waiting)
		return false, "", hint(fmt.Errorf("%s; %d of %d instances serve it", strings.Join(hindered, "; "), serving, len(f.instances)), "Try: clearml-serving model list --verbose")
	}
	return len(waiting) == 0, strings.Join(waiting, "; "), nil
}

// triesWhileHeld is how often an instance has tried to load an endpoint before it is said that it cannot, although
// another process holds the model: the instance asks a server that has it at once, but not at the same moment.
const triesWhileHeld = 5

// heldElsewhere reports whether all failures of an instance may be over soon: other processes load the models, or have
// just done so. They tell of failures themselves.
func (f fleet) heldElsewhere(s *operations.Service, l liveState, named []serving.EndpointURL) bool {
	if slices.ContainsFunc(f.instances, func(other liveState) bool { return other.Role != "" && !other.follows(s, named) }) {
		return true
	}
	soon := false
	for _, e := range l.Endpoints {
		if e.Failure == nil || e.Refusal != nil || !slices.Contains(named, e.URL) && !slices.Contains(named, serving.CleanURL(e.Monitoring)) {
			continue
		}
		if e.Failure.Attempts > triesWhileHeld && !f.loads(e.URL) {
			return false
		}
		if soon = f.holds(e.URL); !soon {
			return false
		}
	}
	return soon
}

// holds reports whether a process holds the model of an endpoint for the instances, and loads whether it does not yet.
func (f fleet) holds(url serving.EndpointURL) bool {
	return f.held(url, func(serving.EndpointReport) bool { return true })
}

func (f fleet) loads(url serving.EndpointURL) bool {
	return f.held(url, func(e serving.EndpointReport) bool { return e.State != serving.StateReady })
}

func (f fleet) held(url serving.EndpointURL, is func(serving.EndpointReport) bool) bool {
	return slices.ContainsFunc(f.instances, func(l liveState) bool {
		return l.Role != "" && slices.ContainsFunc(l.Endpoints, func(e serving.EndpointReport) bool { return e.URL == url && is(e) })
	})
}

// serves is serve for one instance.
func (l *liveState) serves(s *operations.Service, named []serving.EndpointURL) (done bool, reason string, err error) {
	if !l.follows(s, named) {
		reason := "it has not taken in the change"
		if l.SourceError != "" {
			reason += ": it cannot read its configuration: " + l.SourceError
		}
		return false, reason, nil
	}
	for _, e := range l.Endpoints {
		if newest := s.Config.Revisions[string(e.URL)].Newest().Number; slices.Contains(named, e.URL) && e.Configured > 0 && e.Configured < newest {
			return false, fmt.Sprintf("it has not taken in revision %d of '%s'", newest, e.URL), nil
		}
	}
	return l.settled(named)
}

// follows tells whether the instance has taken in what is stored for the named
// urls. Without names, or from an instance that does not tell url by url, it is
// the state as a whole.
func (l *liveState) follows(s *operations.Service, named []serving.EndpointURL) bool {
	if !l.StateChanged.IsZero() && l.StateChanged.Before(s.Since) { // that of before a change and back looks the same
		return false
	}
	if len(named) == 0 || len(l.Digests) == 0 {
		return l.StateHash == s.Hash()
	}
	wanted := s.Digests()
	for _, url := range named {
		if url = serving.CleanURL(string(url)); l.Digests[url] != wanted[url] {
			return false
		}
	}
	return true
}

func stillWaiting(ctx context.Context, reason string) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ctx.Err()
	}
	return hint(&marked{error: fmt.Errorf("timed out: %s; what runs goes on by itself", reason), kind: errTimedOut},
		"Try: clearml-serving model list --verbose   (shows what it does), or a longer --wait-timeout")
}

// settled tells whether what is named (endpoints, monitorings, canaries) has
// loaded, or everything when nothing is named. It is an error when one of the
// named has not and will not by itself.
func (l *liveState) settled(named []serving.EndpointURL) (done bool, reason string, err error) {
	wanted := map[serving.EndpointURL]bool{}
	for _, url := range named {
		wanted[url] = true
	}
	for _, p := range l.Problems {
		if url := serving.CleanURL(p.Key); wanted[url] && p.Section != serving.SectionCanary && p.Section != serving.SectionOptions && p.Section != serving.SectionRevisions {
			return false, "", fmt.Errorf("'%s' is not served as configured: %s", url, p.Text)
		}
	}
	for _, c := range l.Canaries {
		switch {
		case !wanted[c.URL]:
		case c.Loading:
			return false, fmt.Sprintf("an endpoint of canary '%s' is loading", c.URL), nil
		case len(c.Shares) == 0:
			return false, "", fmt.Errorf("canary '%s' has nothing to choose from: %s", c.URL, c.Problem)
		}
	}
	for _, e := range l.Endpoints {
		asked := wanted[e.URL] || (e.Monitoring != "" && wanted[serving.CleanURL(e.Monitoring)])
		if len(named) > 0 && !asked {
			continue
		}
		switch {
		case e.Refusal != nil && asked:
			return false, "", hint(&marked{error: fmt.Errorf("endpoint '%s': %s", e.URL, e.Reason()), kind: errRefused}, "Try: clearml-serving model history %s", shellWord(string(e.URL)))
		case e.Refusal != nil:
		case e.Failure != nil && asked:
			return false, "", hint(fmt.Errorf("endpoint '%s': %s", e.URL, e.Reason()), "Try: clearml-serving model list --verbose")
		case e.Failure == nil && (e.State == serving.StateLoading || e.State == serving.StateUpdating):
			return false, fmt.Sprintf("endpoint '%s' is %s", e.URL, e.State), nil
		}
	}
	return true, "", nil
}

// printAddresses prints where what was deployed answers, and a request to paste.
func (a *app) printAddresses(ctx context.Context, s *operations.Service, f fleet, named []serving.EndpointURL) {
	first, key := f.answering()[0], ""
	if s.Config.Access.Required {
		key = ` -H "Authorization: Bearer $CLEARML_SERVING_KEY"`
	}
	say := func(endpoint serving.EndpointURL, body string) {
		address := strings.TrimRight(first.URL, "/") + (&url.URL{Path: "/" + firstOf(first.Path, "serve") + "/" + string(endpoint)}).EscapedPath()
		a.print.line("%s", address)
		data := shellWord(body)
		if body == "" {
			data = "@request.json"
		}
		a.print.line("  curl -X POST %s -H 'Content-Type: application/json'%s -d %s", shellWord(address), key, data)
		if body == "" {
			a.print.line("  (request.json is a file with a request, in the form that the endpoint takes)")
		}
	}
	for _, c := range first.Canaries {
		if slices.Contains(named, c.URL) {
			body := ""
			if targets := slices.Sorted(maps.Keys(c.Shares)); len(targets) > 0 { // they take the same requests
				body = a.requestFor(ctx, s, f, targets[0])
			}
			say(c.URL, body)
		}
	}
	for _, e := range first.Endpoints {
		if slices.Contains(named, e.URL) || (e.Monitoring != "" && slices.Contains(named, serving.CleanURL(e.Monitoring))) {
			say(e.URL, a.requestFor(ctx, s, f, e.URL))
		}
	}
}

// requestFor is the example of the endpoint's signature, else a request with a zero for each field that the
// endpoint's record names, or that its code reads from the body. "": nothing says what a request holds.
func (a *app) requestFor(ctx context.Context, s *operations.Service, f fleet, endpoint serving.EndpointURL) string {
	if body := f.example(endpoint); body != "" {
		return body
	}
	r, err := s.Revision(string(endpoint), 0)
	if err != nil {
		return "" // recorded by an older version
	}
	fields := r.Endpoint.InputName
	if len(fields) == 0 {
		code, err := a.revisionCode(ctx, s, r)
		if err != nil {
			return "" // the deployment has succeeded without this
		}
		for _, name := range keys(code) {
			fields = append(fields, modelfile.BodyKeysIn(code[name])...)
		}
	}
	if len(fields) == 0 {
		return ""
	}
	text, err := marshal(known(fields, nil))
	if err != nil {
		return ""
	}
	return string(text)
}
