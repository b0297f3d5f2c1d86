package serving

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Versions has, per monitored base URL, the number that each model was ever given, so that numbers
// neither change nor repeat.
type Versions map[string]map[ModelID]int

// MonitoredModel is a model that a monitoring's query found.
type MonitoredModel struct {
	ID      ModelID
	Created time.Time
	URI     string
	// Code is preprocess code of the model itself, used instead of the monitoring's; nil for none.
	Code *ModelCode
	// State is what became of the version that the model makes, "" while it is unknown.
	State RevisionState `json:"-"`
	// Live is set by an instance that serves the version.
	Live bool `json:"-"`
}

// ModelCode is preprocess code that belongs to one model, so that code and model change together
// under monitoring. It is stored in the model's metadata.
type ModelCode struct {
	URI    string
	SHA256 string
	Folder bool // a packed folder
}

// The metadata keys for preprocess code of a model.
const (
	MetadataCodeURI    = "clearml_serving_preprocess"
	MetadataCodeSHA256 = "clearml_serving_preprocess_sha256"
	MetadataCodeFolder = "clearml_serving_preprocess_folder"
)

// CodeOf reads the code from a model's metadata; nil if there is none.
func CodeOf(metadata map[string]string) *ModelCode {
	if metadata[MetadataCodeURI] == "" {
		return nil
	}
	return &ModelCode{URI: metadata[MetadataCodeURI], SHA256: metadata[MetadataCodeSHA256], Folder: metadata[MetadataCodeFolder] == "true"}
}

// Metadata returns the code in the form of a model's metadata.
func (c ModelCode) Metadata() map[string]string {
	return map[string]string{MetadataCodeURI: c.URI, MetadataCodeSHA256: c.SHA256, MetadataCodeFolder: strconv.FormatBool(c.Folder)}
}

// Assign numbers the models of one monitoring. Models that have a number keep it; new models get
// the numbers after the highest ever given, oldest first, so the newest model has the highest
// version. The receiver is not changed; the second result reports whether a number was added.
func (v Versions) Assign(base string, models []MonitoredModel) (Versions, bool) {
	given := v[base]
	highest := 0
	for _, n := range given {
		highest = max(highest, n)
	}
	fresh := slices.DeleteFunc(slices.Clone(models), func(m MonitoredModel) bool { _, known := given[m.ID]; return known })
	if len(fresh) == 0 {
		return v, false
	}
	slices.SortStableFunc(fresh, func(a, b MonitoredModel) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(string(a.ID), string(b.ID))
	})
	next := cloned(given)
	for _, m := range fresh {
		if _, twice := next[m.ID]; twice {
			continue
		}
		highest++
		next[m.ID] = highest
	}
	all := cloned(v)
	all[base] = next
	return all, true
}

// cloned copies a map; the copy of nil is empty.
func cloned[M ~map[K]V, K comparable, V any](m M) M {
	next := make(M, len(m))
	maps.Copy(next, m)
	return next
}

// Known returns the numbers to continue from: the stored ones, and those of endpoints that
// monitoring made before (for example by the original).
func (s Service) Known() Versions {
	known := Versions{}
	for base, given := range s.Versions {
		known[string(CleanURL(base))] = maps.Clone(given)
	}
	for _, e := range s.MonitoringEndpoints {
		n, err := strconv.Atoi(e.Version)
		if err != nil || n <= 0 || e.ModelID == "" {
			continue
		}
		base := string(CleanURL(e.ServingURL))
		if known[base] == nil {
			known[base] = map[ModelID]int{}
		}
		if _, ours := known[base][e.ModelID]; !ours {
			known[base][e.ModelID] = n
		}
	}
	return known
}
