package serving

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
)

// RevisionState is what became of a revision.
type RevisionState string

// The states of a revision. Good is final: a revision that was served once is never refused later.
// A refused revision becomes good only if an instance serves it after all.
const (
	RevisionPending RevisionState = "pending" // no instance has served or refused it yet
	RevisionGood    RevisionState = "good"
	RevisionRefused RevisionState = "refused"
)

// Content is what a revision deploys: all that decides how a URL answers.
type Content struct {
	Endpoint Endpoint
	// Monitoring is the record of an auto-updated endpoint, nil for an endpoint. Its versions have
	// revisions of their own, each with the endpoint that was made for one model.
	Monitoring *Monitoring
	Code       *ModelCode // nil: no code
	// ModelURI is the address of the model's file, "" while it is unknown.
	ModelURI string  `record:"model_uri"`
	Limits   *Limits `record:"limits"`
	Golden   *Golden `record:"golden"`
}

// Revision is one immutable state of a URL.
type Revision struct {
	Content
	Number  int       `record:"n,always"`
	Time    time.Time `record:"time"`
	By      string    `record:"by"`      // who made it, "" when another program did
	Message string    `record:"message"` // why
	Of      int       `record:"of"`      // the earlier revision that this one brings back, 0 for none
	Rule    int       `record:"rule"`    // the revision of the monitoring that made this endpoint, 0 for none

	State RevisionState `record:"state,always"`
	// The rest belongs to State.
	Since       time.Time `record:"since"`
	Step        string    `record:"step"` // that refused it: load, golden
	Reason      string    `record:"reason"`
	Instance    string    `record:"instance"`     // that served or refused it first
	ModelSHA256 string    `record:"model_sha256"` // of the model's file as it was served
	Unknown     map[string]json.RawMessage
}

// History is the revisions of one URL, oldest first.
type History struct {
	Revisions []Revision
	Keep      int       `record:"keep"`    // how many are kept, 0: DefaultKeep
	Removed   time.Time `record:"removed"` // when the URL was removed, zero while it is configured
	Unknown   map[string]json.RawMessage
}

// The bounds of what is kept: per URL by default, of a URL that was removed, of removed URLs, and
// of all URLs together, since the revisions of a service are one document.
const (
	DefaultKeep    = 20
	MaxKeep        = 200
	keepRemoved    = 5
	maxRemoved     = 50
	maxRevisions   = 4000
	leastRevisions = 3
	maxReasonRunes = 500
)

// Same reports whether two contents answer alike. The name of the code's artifact and the place of
// its file do not count, and the model's address only where both know it.
func (c Content) Same(d Content) bool {
	if (c.Monitoring == nil) != (d.Monitoring == nil) || (c.Code == nil) != (d.Code == nil) {
		return false
	}
	if c.Code != nil && c.Code.identity() != d.Code.identity() {
		return false
	}
	if c.ModelURI != "" && d.ModelURI != "" && c.ModelURI != d.ModelURI {
		return false
	}
	return c.settings() == d.settings()
}

// AnswersLike is Same without the golden samples, which judge answers and do not change them.
func (c Content) AnswersLike(d Content) bool {
	d.Golden = c.Golden
	return c.Same(d)
}

// identity is the hash of the code, or its address while the hash is unknown.
func (c ModelCode) identity() string { return cmp.Or(c.SHA256, c.URI) }

// settings is the content without files, as a comparable text.
func (c Content) settings() string {
	c.ModelURI = ""
	r := recordOf(c)
	if c.Monitoring != nil {
		m := *c.Monitoring
		m.PreprocessArtifact = ""
		r["monitoring"] = recordOf(m)
	} else {
		e := c.Endpoint
		e.PreprocessArtifact = ""
		r["endpoint"] = recordOf(e)
	}
	text, err := marshal(r)
	if err != nil {
		return err.Error()
	}
	return text
}

// SettingsRecord is what people read of the content: the record, limits and golden samples, and
// the hash of the code.
func (c Content) SettingsRecord() (json.RawMessage, error) {
	r := recordOf(c.Endpoint)
	if c.Monitoring != nil {
		r = recordOf(*c.Monitoring)
	}
	delete(r, "preprocess_artifact") // the hash of its content says more
	c.ModelURI = ""
	maps.Copy(r, recordOf(c))
	if c.Code != nil {
		r.text("code_sha256", c.Code.SHA256)
	}
	text, err := marshal(r)
	return json.RawMessage(text), err
}

// Newest returns the newest revision; the zero value if there is none.
func (h History) Newest() Revision {
	if len(h.Revisions) == 0 {
		return Revision{}
	}
	return h.Revisions[len(h.Revisions)-1]
}

// LastGood returns the newest revision that was served.
func (h History) LastGood() (Revision, bool) {
	for _, r := range slices.Backward(h.Revisions) {
		if r.State == RevisionGood {
			return r, true
		}
	}
	return Revision{}, false
}

// Revision returns the revision of that number.
func (h History) Revision(number int) (Revision, bool) {
	for _, r := range h.Revisions {
		if r.Number == number {
			return r, true
		}
	}
	return Revision{}, false
}

// Current reports whether c is what the newest revision deploys.
func (h History) Current(c Content) bool {
	return len(h.Revisions) > 0 && h.Removed.IsZero() && h.Newest().Same(c)
}

// Add appends a revision with the next number. The receiver is not changed.
func (h History) Add(r Revision) History {
	r.Number = h.Newest().Number + 1
	r.State = cmp.Or(r.State, RevisionPending)
	r.By, r.Message = clean(r.By), clean(r.Message)
	h.Revisions = append(slices.Clone(h.Revisions), r)
	h.Removed = time.Time{}
	return h.pruned(cmp.Or(h.Keep, DefaultKeep))
}

// clean bounds a text of other programs and takes control characters out of it.
func clean(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) <= maxReasonRunes {
		return text
	}
	if runes := []rune(text); len(runes) > maxReasonRunes {
		return string(runes[:maxReasonRunes-1]) + "…"
	}
	return text
}

// Verdict is what an instance found out about a revision.
type Verdict struct {
	State        RevisionState // good or refused
	Time         time.Time
	Step, Reason string
	Instance     string
	ModelURI     string
	ModelSHA256  string
}

// Judge records what became of a revision; the first verdict stands, but good replaces refused. It
// reports whether something changed. The receiver is not changed.
func (h History) Judge(number int, v Verdict) (History, bool) {
	for i, r := range h.Revisions {
		if r.Number != number || r.State == RevisionGood || r.State == v.State {
			continue
		}
		r.State, r.Since, r.Step, r.Reason, r.Instance = v.State, v.Time, v.Step, clean(v.Reason), v.Instance
		r.ModelURI, r.ModelSHA256 = cmp.Or(r.ModelURI, v.ModelURI), v.ModelSHA256
		h.Revisions = slices.Clone(h.Revisions)
		h.Revisions[i] = r
		return h, true
	}
	return h, false
}

// Merge adds to the stored history what an instance knows beyond it: verdicts, and the revisions
// that follow the newest stored one. What another writer has overtaken is dropped. It reports
// whether something was added.
func (h History) Merge(known History) (History, bool) {
	if len(h.Revisions) == 0 {
		return known, len(known.Revisions) > 0
	}
	changed := false
	for _, r := range known.Revisions {
		if stored, ok := h.Revision(r.Number); ok && (stored.State == r.State || stored.State == RevisionGood) {
			continue // nothing to add; records are compared only where they matter
		}
		n := h.like(r)
		switch {
		case n == 0 && r.Number == h.Newest().Number+1:
			h.Revisions = append(slices.Clone(h.Revisions), r)
			h.Removed, changed = time.Time{}, true
		case n != 0 && r.State != RevisionPending:
			judged, more := h.Judge(n, Verdict{r.State, r.Since, r.Step, r.Reason, r.Instance, r.ModelURI, r.ModelSHA256})
			h, changed = judged, changed || more
		}
	}
	if changed {
		h = h.pruned(cmp.Or(h.Keep, DefaultKeep))
	}
	return h, changed
}

// like is the number of the revision with r's content: that of r's number, else the newest; 0 for
// none.
func (h History) like(r Revision) int {
	if same, ok := h.Revision(r.Number); ok && same.Same(r.Content) {
		return r.Number
	}
	for _, other := range slices.Backward(h.Revisions) {
		if other.Same(r.Content) && other.Number >= r.Number {
			return other.Number
		}
	}
	return 0
}

// Choice is what an instance loads for one URL.
type Choice struct {
	// Wanted is what the configuration asks for.
	Wanted Revision
	// Load is served: Wanted, or the last good revision if Wanted was refused.
	Load Revision
	// Base is the last good revision, served until Load is proven; nil if Load is proven itself or
	// nothing was good yet.
	Base *Revision
	// Repeated counts the refused revisions of the same content before Wanted.
	Repeated int
}

// Choose returns what to load for the present content. If another program has made it, the returned
// history has a new revision for it. A refused revision without a good one before it is loaded
// still: there is nothing else.
func (h History) Choose(now Content, at time.Time) (History, Choice) {
	if !h.Current(now) {
		h = h.Add(Revision{Content: now, Time: at})
	}
	c := Choice{Wanted: h.Newest()}
	// The stored form may lack what only this moment knows, such as the artifact's present name.
	c.Wanted.Content = now
	c.Load = c.Wanted
	for _, r := range h.Revisions[:len(h.Revisions)-1] {
		if r.State == RevisionRefused && r.Same(now) {
			c.Repeated++
		}
	}
	good, ok := h.LastGood()
	switch {
	case !ok || c.Wanted.State == RevisionGood:
	case c.Wanted.State == RevisionRefused:
		c.Load = good
	default:
		c.Base = &good
	}
	return h, c
}

// WithNewest returns the history with its newest revision changed.
func (h History) WithNewest(change func(*Revision)) History {
	h.Revisions = slices.Clone(h.Revisions)
	if len(h.Revisions) > 0 {
		change(&h.Revisions[len(h.Revisions)-1])
	}
	return h
}

// String is what people read of a revision that is not served.
func (c Choice) String() string {
	if c.Wanted.State != RevisionRefused {
		return ""
	}
	text := fmt.Sprintf("revision %d refused: %s", c.Wanted.Number, c.Wanted.Why())
	if c.Load.Number != c.Wanted.Number {
		text += fmt.Sprintf("; %d serves", c.Load.Number)
	}
	return text
}

// Why says why a revision was refused.
func (r Revision) Why() string {
	if r.Step == "" {
		return r.Reason
	}
	return r.Step + ": " + r.Reason
}

// Back returns the revision that a rollback without a number brings back: the last good one before
// the newest whose content differs from it.
func (h History) Back() (Revision, bool) {
	newest := h.Newest()
	for _, r := range slices.Backward(h.Revisions[:max(0, len(h.Revisions)-1)]) {
		if r.State == RevisionGood && !r.AnswersLike(newest.Content) {
			return r, true
		}
	}
	return Revision{}, false
}

// pruned leaves the newest revisions. The last good one, which may serve, always stays.
func (h History) pruned(keep int) History {
	keep = min(max(keep, 1), MaxKeep)
	if len(h.Revisions) <= keep {
		return h
	}
	good, ok := h.LastGood()
	left := h.Revisions[len(h.Revisions)-keep:]
	if ok && good.Number < left[0].Number {
		left = append([]Revision{good}, left[min(1, keep-1):]...)
	}
	h.Revisions = slices.Clone(left)
	return h
}

// PruneRevisions brings all histories within their bounds.
func (s *Service) PruneRevisions() {
	keys := make([]string, 0, len(s.Revisions))
	total := 0
	var removed []string
	for key, h := range s.Revisions {
		keys = append(keys, key)
		if !h.Removed.IsZero() {
			h = h.pruned(keepRemoved)
			s.Revisions[key] = h
			removed = append(removed, key)
		}
		total += len(h.Revisions)
	}
	total -= s.pruneVersions()
	slices.SortFunc(removed, func(a, b string) int { return s.Revisions[b].Removed.Compare(s.Revisions[a].Removed) })
	for _, key := range removed[min(len(removed), maxRemoved):] {
		total -= len(s.Revisions[key].Revisions)
		delete(s.Revisions, key)
	}
	if total <= maxRevisions {
		return
	}
	each := max(leastRevisions, maxRevisions/len(keys))
	for key, h := range s.Revisions {
		s.Revisions[key] = h.pruned(each)
	}
}

// pruneVersions drops the histories of a monitoring's oldest versions, which it serves no more: the
// newest good ones may serve, however many were refused after them. It returns the number of
// dropped revisions.
func (s *Service) pruneVersions() (dropped int) {
	byBase := map[string][]string{}
	for key, h := range s.Revisions {
		if newest := h.Newest(); newest.Rule > 0 && h.Removed.IsZero() {
			byBase[string(CleanURL(newest.Endpoint.ServingURL))] = append(byBase[string(CleanURL(newest.Endpoint.ServingURL))], key)
		}
	}
	for base, keys := range byBase {
		m, ok := LookUp(s.Monitoring, base)
		if most := 2*m.MaxVersions + DefaultKeep; ok && m.MaxVersions > 0 && len(keys) > most {
			slices.SortFunc(keys, func(a, b string) int { return cmp.Compare(versionOrder(EndpointURL(b)), versionOrder(EndpointURL(a))) })
			good := 0
			for i, key := range keys {
				if _, served := s.Revisions[key].LastGood(); served {
					good++
					if good <= m.MaxVersions {
						continue
					}
				}
				if i < most {
					continue
				}
				dropped += len(s.Revisions[key].Revisions)
				delete(s.Revisions, key)
			}
		}
	}
	return dropped
}

// ContentOf is what the configuration deploys now under the URL of an endpoint or a monitoring. Code
// looks up an artifact.
func (s Service) ContentOf(url EndpointURL, code func(artifact string) *ModelCode) (Content, bool) {
	var c Content
	var artifact string
	if e, ok := LookUp(s.Endpoints, string(url)); ok {
		c.Endpoint, artifact = e, e.PreprocessArtifact
	} else if m, ok := LookUp(s.Monitoring, string(url)); ok {
		c.Monitoring, artifact = &m, m.PreprocessArtifact
	} else {
		return c, false
	}
	if artifact != "" {
		c.Code = code(artifact)
	}
	options := s.optionsOf(url)
	c.Limits, c.Golden = options.Limits, options.Golden
	return c, true
}

func decodeHistory(_ string, f *fields) (History, error) {
	var h History
	var list []json.RawMessage
	if raw, ok := f.take("revisions"); ok {
		if err := json.Unmarshal(raw, &list); err != nil {
			return h, &FieldError{Field: "revisions", Why: "is not a list of revisions"}
		}
	}
	f.into(&h)
	var before Revision
	for i, raw := range list {
		r, err := decodeRecord(raw, "", func(_ string, f *fields) (Revision, error) { return decodeRevision(f, before) })
		if err != nil {
			return h, fmt.Errorf("revision %d: %w", i+1, err)
		}
		h.Revisions = append(h.Revisions, r)
		before = r
	}
	return h, nil
}

// decodeRevision reads one revision. A record that is missing is that of the revision before.
func decodeRevision(f *fields, before Revision) (Revision, error) {
	var r Revision
	if uri := f.text("code_uri"); uri != "" {
		r.Code = &ModelCode{URI: uri, SHA256: f.text("code_sha256"), Folder: f.boolean("code_folder")}
	}
	r.Endpoint, r.Monitoring = before.Endpoint, before.Monitoring
	var err error
	if raw, ok := f.take("endpoint"); ok {
		r.Monitoring = nil
		r.Endpoint, err = decodeRecord(raw, "", decodeEndpoint)
	} else if raw, ok := f.take("monitoring"); ok {
		var m Monitoring
		m, err = decodeRecord(raw, "", decodeMonitoring)
		r.Endpoint, r.Monitoring = Endpoint{}, &m
	}
	if err != nil {
		return r, err
	}
	f.into(&r)
	for _, text := range []*string{&r.By, &r.Message, &r.Step, &r.Reason, &r.Instance} {
		*text = clean(*text)
	}
	switch {
	case f.err != nil:
		return r, f.err
	case r.Number < 1:
		return r, &FieldError{Field: "n", Why: "is missing"}
	case r.State != RevisionGood && r.State != RevisionRefused:
		r.State = RevisionPending // also one of a newer version: it has to prove itself
	}
	return r, nil
}

func encodeHistory(h History) record {
	all := recordOf(h)
	list := make([]record, len(h.Revisions))
	before := ""
	for i, r := range h.Revisions {
		list[i], before = encodeRevision(r, before)
	}
	all["revisions"] = list
	return all
}

// encodeRevision writes a revision, without its record if that is the one of the revision before.
func encodeRevision(r Revision, before string) (one record, now string) {
	one = recordOf(r)
	name, content := "endpoint", recordOf(r.Endpoint)
	if r.Monitoring != nil {
		name, content = "monitoring", recordOf(*r.Monitoring)
	}
	text, err := marshal(content)
	now = name + text
	if err != nil || now != before {
		one[name] = content
	}
	if r.Code != nil {
		one["code_uri"] = r.Code.URI
		one.text("code_sha256", r.Code.SHA256)
		if r.Code.Folder {
			one["code_folder"] = true
		}
	}
	return one, now
}
