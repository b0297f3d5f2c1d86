package main

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"clearmlserving/operations"
	"clearmlserving/serving"
)

func modelListCommand(a *app) *cobra.Command {
	var verbose bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the endpoints of a serving service",
		Long: `List the endpoints, auto-updated endpoints and canaries of a serving service, with
what the running instances of the service do with each: "ready 2/3" when one of three
is not ready, and why. They are found on the ClearML server; with --serve-url one is
asked directly.

Where the output is no terminal, the list is JSON by kind, as that of the Python
product; --verbose adds the table. It also adds the steps of each graph, and the
signature of each endpoint: its inputs and outputs, and an example of a request.`,
		Example: `  clearml-serving model list
  clearml-serving model list --format table
  clearml-serving --json model list`,
	}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "add the signatures of the endpoints; in the original's format also the table with the state of the running instances")
	a.declareFormat(cmd)
	mark(cmd.Flags(), "verbose", markOurs)
	a.declare(cmd.Flags(), "serve-url")
	return a.reads(cmd, func(ctx context.Context, s *operations.Service) (object, error) { return a.modelList(ctx, s, verbose) })
}

func (a *app) modelList(ctx context.Context, s *operations.Service, verbose bool) (object, error) {
	if a.original {
		a.print.line("List model serving and endpoints, control task id=%s", s.Doc.ID)
	} else {
		a.print.line("Serving service '%s' id=%s", s.Doc.Name, s.Doc.ID)
	}
	a.printSync(s)
	a.warnOfBroken(s.Config, serving.Sections()...)
	endpoints, monitoring := sorted(s.Config.Endpoints, showRecord), sorted(s.Config.Monitoring, showRecord)
	canaries := sorted(s.Config.Canaries, showCanary)
	options, err := storedRecords(s.Config, serving.SectionOptions)
	if err != nil {
		return nil, err
	}
	rollouts, err := storedRecords(s.Config, serving.SectionRollouts)
	if err != nil {
		return nil, err
	}
	if a.original {
		sections := object{{"Endpoints", endpoints}, {"Model Monitoring", monitoring}, {"Canary", canaries}}
		if len(options) > 0 {
			sections = append(sections, field{"Endpoint options", options})
		}
		for _, section := range sections {
			text, err := indented(section.value)
			if err != nil {
				return nil, err
			}
			a.print.line("%s:\n%s", section.key, text)
		}
	}
	result := object{
		{"id", s.Doc.ID},
		{"name", s.Doc.Name},
		{"state_hash", s.Hash()},
		{"endpoints", endpoints},
		{"model_monitoring", monitoring},
		{"canary", canaries},
		{"endpoint_options", options},
		{"canary_rollouts", rollouts},
		{"monitored", sorted(s.Config.MonitoringEndpoints, showRecord)},
		{"broken", showBroken(s.Config, serving.Sections()...)},
	}
	if verbose || (!a.original && !a.print.json) {
		f, err := a.fleet(ctx, s)
		switch {
		case err != nil:
			a.print.notice("Notice: the state of the running service is not known: %v", err)
		case len(f.answering())+len(f.silent) == 0:
			a.print.notice("Notice: the state of the running service is not known: %v", noInstance())
		}
		a.printEndpointTable(s, f)
		a.printInstances(s, f)
		a.printRollouts(s, f)
		a.printCopies(f)
		a.printBatching(f)
		a.printNative(f)
		a.printEngines(f)
		if verbose {
			a.printGraphs(s)
			a.printSignatures(f)
		}
		result = append(result, field{"instances", f.forJSON()})
	}
	return result, nil
}

func showCanary(c serving.Canary) any {
	return object{
		{"endpoint", c.Endpoint},
		{"weights", c.Weights},
		{"load_endpoints", tagsOf(c.LoadEndpoints)},
		{"load_endpoint_prefix", orNull(c.LoadEndpointPrefix)},
	}
}

// showBroken lists the records of sections that cannot be used, and why.
func showBroken(config serving.Service, sections ...serving.Section) []object {
	list := []object{}
	for _, section := range sections {
		for _, b := range config.BrokenIn(section) {
			list = append(list, object{{"section", string(section)}, {"key", b.Key}, {"problem", b.Err.Error()}})
		}
	}
	return list
}

// warnOfBroken names the records and sections that cannot be used, and how to remove a record.
func (a *app) warnOfBroken(config serving.Service, sections ...serving.Section) {
	for _, section := range sections {
		for _, b := range config.BrokenIn(section) {
			a.print.notice("Warning: %v", b.Err)
			if section == serving.SectionRevisions {
				a.print.notice("  what is configured is served all the same; a newer version may have written it")
				continue
			}
			if b.Key == "" {
				a.print.notice("  running instances keep its last good form until it can be read again")
				continue
			}
			remove := "model remove --endpoint " + shellWord(b.Key)
			switch section {
			case serving.SectionMetrics:
				remove = "metrics remove --endpoint " + shellWord(b.Key)
			case serving.SectionOptions:
				remove = "model record --off --endpoint " + shellWord(b.Key)
			case serving.SectionDrift:
				remove = "drift set --reset --endpoint " + shellWord(b.Key)
			case serving.SectionRollouts:
				remove = "model canary --weights 0 1 --endpoint " + shellWord(b.Key) + " --input-endpoints CANDIDATE BASELINE"
			case serving.SectionAccess:
				remove = "auth revoke " + shellWord(b.Key)
			}
			a.print.notice("  running instances keep its last good form; to remove it: clearml-serving %s", remove)
		}
	}
}

// printEndpointTable shows what is configured beside what the instances do with it.
func (a *app) printEndpointTable(s *operations.Service, f fleet) {
	var rows []listRow
	listed := map[serving.EndpointURL]bool{}
	row := func(url, kind, engine, model string) {
		listed[serving.CleanURL(url)] = true
		rows = append(rows, listRow{f.of(serving.CleanURL(url)), []string{"/" + url, kind, engine, model}})
	}
	for _, key := range keys(s.Config.Endpoints) {
		e := s.Config.Endpoints[key]
		row(string(e.URL()), "static", e.EngineType, string(e.ModelID))
	}
	for _, key := range keys(s.Config.MonitoringEndpoints) {
		e := s.Config.MonitoringEndpoints[key]
		row(string(e.URL()), "auto-update", e.EngineType, string(e.ModelID))
	}
	for _, l := range f.instances {
		for _, e := range l.Endpoints {
			if !listed[e.URL] { // configured no more, or its record cannot be read
				row(string(e.URL), "not configured", e.Engine, string(e.ModelID))
			}
		}
	}
	for _, key := range keys(s.Config.Canaries) {
		rows = append(rows, listRow{f.ofCanary(serving.CleanURL(key)), []string{"/" + string(serving.CleanURL(key)), "canary", "", ""}})
	}
	if len(rows) == 0 && !a.original {
		a.print.line("\nThere is no endpoint; to add one: clearml-serving model add --help")
		return
	}
	a.print.line("")
	heading, cells := endpointTable(rows)
	if !a.original {
		after := slices.Index(heading, "STATE") + 1
		heading = slices.Insert(heading, after, "REVISION", "AGE")
		for i, r := range rows {
			number, old := servedRevision(s, r.first[0])
			cells[i] = slices.Insert(cells[i], after, number, old)
		}
	}
	a.print.table(heading, cells)
	if at := f.reported(); !at.IsZero() {
		a.print.line("Reported %s ago", roundDuration(max(s.Client.ServerTime().Sub(at), 0).Round(time.Second)))
	}
}

// listRow is a row of the table of endpoints, with its first cells.
type listRow struct {
	endpointRow

	first []string
}

// servedRevision is the number of the last good revision of an endpoint, and its age.
func servedRevision(s *operations.Service, url string) (number, old string) {
	h, err := s.History(url)
	if err != nil {
		return "", "" // none is recorded yet
	}
	good, ok := h.LastGood()
	if !ok {
		return "", ""
	}
	return strconv.Itoa(good.Number), age(good.Time)
}

// endpointTable has a column for each kind of count; some only where they are not all 0.
func endpointTable(rows []listRow) (heading []string, cells [][]string) {
	heading = []string{"ENDPOINT", "KIND", "ENGINE", "MODEL", "STATE"}
	cells = make([][]string, len(rows))
	for i, r := range rows {
		cells[i] = append(r.first, r.state)
	}
	add := func(name string, always bool, value func(c *serving.Counts) string) {
		if !always && !slices.ContainsFunc(rows, func(r listRow) bool { return r.counts != nil && value(r.counts) != "0" }) {
			return
		}
		heading = append(heading, name)
		for i, r := range rows {
			cell := ""
			if r.counts != nil {
				cell = value(r.counts)
			}
			cells[i] = append(cells[i], cell)
		}
	}
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	add("REQUESTS", true, func(c *serving.Counts) string { return number(c.Requests) })
	add("ERRORS", true, func(c *serving.Counts) string { return number(c.Errors) })
	add("TIMED OUT", false, func(c *serving.Counts) string { return number(c.TimedOut) })
	add("REFUSED", false, func(c *serving.Counts) string { return number(c.Refused) })
	add("CLIENT ERRORS", false, func(c *serving.Counts) string { return number(c.ClientErrors) })
	add("BAD REQUESTS", false, func(c *serving.Counts) string { return number(c.BadRequests) })
	add("SHADOW COPIES", false, func(c *serving.Counts) string { return number(c.Copies) })
	add("MEAN", true, func(c *serving.Counts) string { return milliseconds(c.MeanMS) })
	add("P95", false, func(c *serving.Counts) string {
		if c.P95MS == 0 {
			return "0"
		}
		return milliseconds(c.P95MS)
	})
	add("RATE", false, func(c *serving.Counts) string {
		if c.PerSecond == 0 {
			return "0"
		}
		return strconv.FormatFloat(c.PerSecond, 'f', 1, 64) + "/s"
	})
	heading = append(heading, "NOTE")
	for i, r := range rows {
		cells[i] = append(cells[i], r.note)
	}
	return heading, cells
}

// shellWord quotes a word for a shell when it needs it.
func shellWord(word string) string {
	if plainWord.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

var plainWord = regexp.MustCompile(`^[a-zA-Z0-9_./:=,@%+-]+$`)

// milliseconds shows a mean duration.
func milliseconds(ms float64) string { return strconv.FormatFloat(ms, 'f', 2, 64) + " ms" }
