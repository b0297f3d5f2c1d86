package api

import (
	"context"
	"maps"
	"slices"

	"clearmlserving/controlplane/store"
)

// organizationCalls lists the calls of the organization service.
func (s *Server) organizationCalls() []callEntry {
	return []callEntry{
		{"organization.get_tags", mayRead, typed(s.allTags)},
		{"organization.get_user_companies", mayRead, typed(s.userCompanies)},
	}
}

// valuesRequest asks for the values that the documents of some projects hold.
type valuesRequest struct {
	Projects      []string `json:"projects"`
	Project       string   `json:"project"`
	IncludeSystem bool     `json:"include_system"`
	// Subprojects is true when absent.
	Subprojects *bool  `json:"include_subprojects"`
	Section     string `json:"section"`
	Name        string `json:"name"`
}

// inside is the filter for the documents of the projects asked for, nil for all.
func (s *Server) inside(ctx context.Context, req valuesRequest) (store.Expr, error) {
	ids := req.Projects
	if req.Project != "" {
		ids = append(ids, req.Project)
	}
	if len(ids) == 0 {
		return nil, nil
	}
	below := req.Subprojects == nil || *req.Subprojects
	fields, err := s.withSubprojects(ctx, Fields{"project": anyTexts(ids), "include_subprojects": below})
	if err != nil {
		return nil, err
	}
	return store.In{Path: store.Path{"project"}, Values: listOf(fields["project"])}, nil
}

type tagsAnswer struct {
	Tags       []string `json:"tags"`
	SystemTags []string `json:"system_tags,omitempty"`
}

// tagsOf lists the tags in use.
func (s *Server) tagsOf(ctx context.Context, req valuesRequest, kinds ...store.Kind) (tagsAnswer, error) {
	answer := tagsAnswer{Tags: []string{}}
	within, err := s.inside(ctx, req)
	if err != nil {
		return answer, err
	}
	for _, kind := range kinds {
		tags, err := s.store.Distinct(ctx, kind, store.Path{"tags"}, within)
		if err != nil {
			return answer, err
		}
		answer.Tags = append(answer.Tags, tags...)
		if !req.IncludeSystem {
			continue
		}
		tags, err = s.store.Distinct(ctx, kind, store.Path{"system_tags"}, within)
		if err != nil {
			return answer, err
		}
		answer.SystemTags = append(answer.SystemTags, tags...)
	}
	for _, list := range []*[]string{&answer.Tags, &answer.SystemTags} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return answer, nil
}

func (s *Server) allTags(ctx context.Context, _ *Call, req valuesRequest) (tagsAnswer, error) {
	return s.tagsOf(ctx, req, store.Task, store.Model)
}

func (s *Server) projectTaskTags(ctx context.Context, _ *Call, req valuesRequest) (tagsAnswer, error) {
	return s.tagsOf(ctx, req, store.Task)
}

func (s *Server) projectModelTags(ctx context.Context, _ *Call, req valuesRequest) (tagsAnswer, error) {
	return s.tagsOf(ctx, req, store.Model)
}

// userCompanies names the one company that there is.
func (s *Server) userCompanies(ctx context.Context, c *Call, _ none) (map[string]any, error) {
	users, err := s.allUsers(ctx, c, usersRequest{})
	owners := []any{}
	for _, user := range users.Users {
		owners = append(owners, map[string]any{"id": user["id"], "name": user["name"]})
	}
	return map[string]any{"companies": []any{map[string]any{
		"id": c.Company, "name": c.CompanyName, "allocated": len(owners), "owners": owners,
	}}}, err
}

// modelFrameworks lists the frameworks of the models of some projects, or of all.
func (s *Server) modelFrameworks(ctx context.Context, _ *Call, req valuesRequest) (map[string]any, error) {
	within, err := s.inside(ctx, req)
	if err != nil {
		return nil, err
	}
	found, err := s.store.Distinct(ctx, store.Model, store.Path{"framework"}, within)
	return map[string]any{"frameworks": append([]string{}, found...)}, err
}

// projectTaskParents lists the tasks that tasks of some projects were made from.
func (s *Server) projectTaskParents(ctx context.Context, _ *Call, req valuesRequest) (map[string]any, error) {
	within, err := s.inside(ctx, req)
	if err != nil {
		return nil, err
	}
	ids, err := s.store.Distinct(ctx, store.Task, store.Path{"parent"}, within)
	if err != nil {
		return nil, err
	}
	docs, err := s.store.Query(ctx, store.Task, store.Query{
		Where: store.In{Path: store.Path{"id"}, Values: anyTexts(ids)}, Order: []store.Order{{Path: store.Path{"name"}}},
	})
	parents := []any{}
	for _, doc := range docs {
		parents = append(parents, map[string]any{"id": doc.ID(), "name": doc.Text("name"), "project": map[string]any{"id": doc.Text("project")}})
	}
	return map[string]any{"parents": parents}, err
}

// maxScanned is how many documents are looked at for what no index knows: the newest.
const maxScanned = 5000

// newestInside reads the newest documents of the projects asked for.
func (s *Server) newestInside(ctx context.Context, kind store.Kind, req valuesRequest) ([]store.Doc, error) {
	within, err := s.inside(ctx, req)
	if err != nil {
		return nil, err
	}
	return s.store.Query(ctx, kind, store.Query{Where: within, Order: []store.Order{{Path: store.Path{"last_update"}, Desc: true}}, Limit: maxScanned})
}

// projectHyperParams lists the names of hyper-parameters in use.
func (s *Server) projectHyperParams(ctx context.Context, _ *Call, req valuesRequest) (map[string]any, error) {
	docs, err := s.newestInside(ctx, store.Task, req)
	if err != nil {
		return nil, err
	}
	seen := map[[2]string]bool{}
	for _, doc := range docs {
		for section, params := range doc.Object("hyperparams") {
			names, _ := params.(map[string]any)
			for name := range names {
				seen[[2]string{section, name}] = true
			}
		}
	}
	parameters := []any{}
	for _, key := range slices.SortedFunc(maps.Keys(seen), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
		parameters = append(parameters, map[string]any{"section": key[0], "name": key[1]})
	}
	return map[string]any{"parameters": parameters, "total": len(parameters), "remaining": 0}, nil
}

// projectHyperParamValues lists the values of one hyper-parameter.
func (s *Server) projectHyperParamValues(ctx context.Context, _ *Call, req valuesRequest) (map[string]any, error) {
	if req.Section == "" || req.Name == "" {
		return nil, missing("section, name")
	}
	docs, err := s.newestInside(ctx, store.Task, req)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, doc := range docs {
		if value, ok := doc.At("hyperparams", req.Section, req.Name, "value").(string); ok {
			seen[value] = true
		}
	}
	values := slices.Sorted(maps.Keys(seen))
	return map[string]any{"values": append([]string{}, values...), "total": len(values)}, nil
}

// projectMetadataKeys lists the keys of models' metadata.
func (s *Server) projectMetadataKeys(ctx context.Context, _ *Call, req valuesRequest) (map[string]any, error) {
	docs, err := s.newestInside(ctx, store.Model, req)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, doc := range docs {
		for key := range doc.Object("metadata") {
			seen[key] = true
		}
	}
	keys := slices.Sorted(maps.Keys(seen))
	return map[string]any{"keys": append([]string{}, keys...), "total": len(keys), "remaining": 0}, nil
}

// projectMetricVariants lists the scalars that tasks have reported.
func (s *Server) projectMetricVariants(ctx context.Context, _ *Call, req valuesRequest) (map[string]any, error) {
	docs, err := s.newestInside(ctx, store.Task, req)
	if err != nil {
		return nil, err
	}
	seen := map[[2]string]map[string]any{}
	for _, doc := range docs {
		for metricHash, variants := range doc.Object("last_metrics") {
			of, _ := variants.(map[string]any)
			for variantHash, v := range of {
				last, _ := v.(map[string]any)
				key := [2]string{asText(last["metric"]), asText(last["variant"])}
				seen[key] = map[string]any{"metric": key[0], "variant": key[1], "metric_hash": metricHash, "variant_hash": variantHash}
			}
		}
	}
	metrics := []any{}
	for _, key := range slices.SortedFunc(maps.Keys(seen), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
		metrics = append(metrics, seen[key])
	}
	return map[string]any{"metrics": metrics}, nil
}
