package operations

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"clearmlserving/clearml"
)

// ModelQuery describes a model in a user's words.
type ModelQuery struct {
	Project, Name string
	Tags          []string
	Published     bool
}

// Empty tells whether the query selects nothing in particular.
func (q ModelQuery) Empty() bool { return q.Project == "" && q.Name == "" && len(q.Tags) == 0 }

// NameMatch is the way in which a model's name fits a query.
type NameMatch int

// A name is tried in this order: exactly; as the name of the task that created the
// model, since the SDK calls a model "<task name> - <file>"; as a regular expression.
const (
	MatchExact NameMatch = iota
	MatchTask
	MatchPattern
)

// ErrNoProject says that the project of a query does not exist.
var ErrNoProject = errors.New("no such project")

// Find returns the two newest models that the query selects, none if there are none,
// and how their names fit.
func (q ModelQuery) Find(ctx context.Context, client *clearml.Client) (found []clearml.Model, match NameMatch, err error) {
	filter := clearml.ModelFilter{Tags: q.Tags, PublishedOnly: q.Published, NewestFirst: true, Limit: 2}
	if filter.ProjectID, err = q.projectID(ctx, client); err != nil {
		return nil, 0, err
	}
	for match, pattern := range q.namePatterns() {
		filter.Name = pattern
		found, err := client.Models(ctx, filter)
		if err != nil {
			return nil, 0, fmt.Errorf("search for the model: %w", err)
		}
		if len(found) > 0 {
			return found, NameMatch(match), nil
		}
	}
	return nil, 0, nil
}

// projectID is the id of the query's project, "" if it names none.
func (q ModelQuery) projectID(ctx context.Context, client *clearml.Client) (string, error) {
	if q.Project == "" {
		return "", nil
	}
	project, err := client.FindProject(ctx, q.Project)
	if errors.Is(err, clearml.ErrNotFound) {
		return "", ErrNoProject
	}
	return project.ID, err
}

// namePatterns are the regular expressions for the name, in the order of NameMatch.
func (q ModelQuery) namePatterns() []string {
	if q.Name == "" {
		return []string{""}
	}
	exact := clearml.QuotePattern(q.Name)
	patterns := []string{"^" + exact + "$", "^" + exact + " - "}
	if _, err := regexp.Compile(q.Name); err == nil && regexp.QuoteMeta(q.Name) != q.Name {
		patterns = append(patterns, q.Name)
	}
	return patterns
}

// Holding lists the models whose names hold word, in upper or lower case, the newest first.
// The name of the query does not count.
func (q ModelQuery) Holding(ctx context.Context, client *clearml.Client, word string, limit int) ([]clearml.Model, error) {
	filter := clearml.ModelFilter{Tags: q.Tags, PublishedOnly: q.Published, NewestFirst: true, Limit: limit}
	for _, r := range word {
		// Not every server reads (?i).
		if lower, upper := unicode.ToLower(r), unicode.ToUpper(r); lower != upper {
			filter.Name += "[" + string(lower) + string(upper) + "]"
		} else {
			filter.Name += clearml.QuotePattern(string(r))
		}
	}
	var err error
	if filter.ProjectID, err = q.projectID(ctx, client); err != nil {
		return nil, err
	}
	return client.Models(ctx, filter)
}

// Near lists the models whose names are like the query's, the nearest first, of all
// projects if the query's does not exist.
func (q ModelQuery) Near(ctx context.Context, client *clearml.Client, limit int) ([]clearml.Model, error) {
	found, err := ModelQuery{Project: q.Project}.Holding(ctx, client, "", nearFrom)
	if errors.Is(err, ErrNoProject) || (err == nil && len(found) == 0) {
		found, err = ModelQuery{}.Holding(ctx, client, "", nearFrom)
	}
	if err != nil || q.Name == "" {
		return found[:min(len(found), limit)], err
	}
	found = slices.DeleteFunc(found, func(m clearml.Model) bool { return likeness(m.Name, q.Name) < leastLike })
	slices.SortStableFunc(found, func(a, b clearml.Model) int {
		return cmp.Compare(likeness(b.Name, q.Name), likeness(a.Name, q.Name))
	})
	return found[:min(len(found), limit)], nil
}

const (
	nearFrom  = 200 // the newest models among which Near looks
	leastLike = 0.3
)

// likeness is the share of pairs of letters that two names have in common, 0 to 1.
func likeness(a, b string) float64 {
	first, second := pairs(a), pairs(b)
	common := 0
	for pair, n := range first {
		common += min(n, second[pair])
	}
	return 2 * float64(common) / float64(max(len([]rune(a))+len([]rune(b))-2, 1))
}

func pairs(name string) map[string]int {
	runes := []rune(strings.ToLower(name))
	all := map[string]int{}
	for i := range max(len(runes)-1, 0) {
		all[string(runes[i:i+2])]++
	}
	return all
}

// TaskWithoutModel is the newest task of the query's name, or of the part of it before " - ",
// if it is there and has registered no model; else its id is empty.
func (q ModelQuery) TaskWithoutModel(ctx context.Context, client *clearml.Client) (clearml.Task, error) {
	if q.Name == "" {
		return clearml.Task{}, nil
	}
	project, err := q.projectID(ctx, client)
	if err != nil {
		return clearml.Task{}, err
	}
	name, _, _ := strings.Cut(q.Name, " - ")
	filter := clearml.TaskFilter{
		Name: "^" + clearml.QuotePattern(name) + "$", OrderBy: []string{"-last_update"}, Limit: 1,
		Fields: []string{"id", "name", "models.output"},
	}
	if project != "" {
		filter.ProjectIDs = []string{project}
	}
	found, err := client.Tasks(ctx, filter)
	if err != nil || len(found) == 0 || len(found[0].Models.Output) > 0 {
		return clearml.Task{}, err
	}
	return found[0], nil
}
