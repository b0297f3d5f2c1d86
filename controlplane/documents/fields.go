package documents

import (
	"slices"
	"strings"

	"clearmlserving/controlplane/store"
)

// Fields is an undecoded request, for calls whose behaviour depends on the keys. It has no
// nulls at the top level, so every key has a value.
type Fields = map[string]any

// fieldsOf are the fields of the documents on a ClearML server. Requests that name others are
// refused, there and here: a misspelt name would be ignored otherwise.
var fieldsOf = map[store.Kind][]string{
	store.Task: strings.Fields(`id name type status status_reason status_message status_changed comment report report_assets
		created started completed published active_duration parent project output execution tags system_tags script
		last_worker last_worker_report last_update last_change last_changed_by last_iteration last_metrics unique_metrics
		metric_stats company company_origin user duration hyperparams configuration runtime models container enqueue_status`),
	store.Model: strings.Fields(`id name parent user company project created task comment tags system_tags uri framework
		design labels ready last_update last_change last_changed_by ui_cache company_origin metadata last_iteration
		last_metrics unique_metrics`),
	store.Project: strings.Fields(`id name basename description user company created tags system_tags
		default_output_destination last_update featured logo_url logo_blob company_origin parent path`),
	store.Queue:   strings.Fields(`id name display_name company user created tags system_tags entries last_update metadata resources`),
	store.User:    strings.Fields(`id company name family_name given_name avatar preferences created created_in_version`),
	store.Company: strings.Fields(`id name defaults`),
}

// knows refuses a path that does not begin with a field of the entity or, below one of its
// references, with a field of the document referred to.
func (e Entity) knows(path []string, expand bool) error {
	if !slices.Contains(fieldsOf[e.kind], path[0]) {
		return Refuse(subInvalidFields, "Invalid fields: field=%s is none of a %s's", strings.Join(path, "."), e.kind)
	}
	for _, ref := range e.references {
		below := len(path) > len(ref.path) && slices.Equal(path[:len(ref.path)], ref.path)
		if below && (!expand || !slices.Contains(fieldsOf[ref.kind], path[len(ref.path)])) {
			return Refuse(subInvalidFields, "Invalid fields: field=%s is none of a %s's", strings.Join(path, "."), e.kind)
		}
	}
	return nil
}
