package serving

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Access says who may send requests to the endpoints of a service.
type Access struct {
	// Required: a request needs one of the keys.
	Required bool `record:"required,always"`
	// ModelControl: clients may load and unload endpoints, if keys are required those with a key for it.
	ModelControl bool                 `record:"model_control"`
	Keys         map[string]AccessKey // by id
	Unknown      map[string]json.RawMessage
}

// AccessKey is the stored form of a key: enough to recognise it, not to use it. A key has 256
// random bits and cannot be found by brute force, so a plain SHA-256 protects it as well as a slow
// password hash.
type AccessKey struct {
	Digest    KeyDigest
	Label     string    `record:"label"`
	Endpoints []string  `record:"endpoints"` // the endpoints that it opens, with all below them; none: every endpoint
	Created   time.Time `record:"created"`
	Expires   time.Time `record:"expires"` // zero: never
	// ModelControl: the key may also load and unload its endpoints, where Access allows it.
	ModelControl bool `record:"model_control"`
	Unknown      map[string]json.RawMessage
}

// KeyDigest is the SHA-256 of a key.
type KeyDigest [sha256.Size]byte

// String is the digest as it is stored.
func (d KeyDigest) String() string { return hex.EncodeToString(d[:]) }

// MaxAccessKey is the maximum length of a key.
const MaxAccessKey = 128

// keyPrefix makes keys recognisable, also for secret scanners.
const keyPrefix = "csk_"

// accessSettings is the record of the section that is not a key.
const accessSettings = "service"

// NewAccessKey creates a key: the secret, which is shown once, and the id for listing and revoking
// it.
func NewAccessKey() (secret, id string) {
	var bits [32]byte
	_, _ = rand.Read(bits[:]) // never fails, by its documentation
	var name [5]byte
	_, _ = rand.Read(name[:])
	return keyPrefix + base64.RawURLEncoding.EncodeToString(bits[:]), "k" + hex.EncodeToString(name[:])
}

// HoldsAccessKey reports whether a text holds something in the form of a key, known or not.
func HoldsAccessKey(text string) bool { return strings.Contains(text, keyPrefix) }

// DigestOf returns the digest of a key as a client sends it.
func DigestOf(secret string) KeyDigest { return sha256.Sum256([]byte(secret)) }

// Opens reports whether the key may be used for a URL: the URL is one of the key's endpoints, a
// version of one, or below one.
func (k AccessKey) Opens(url EndpointURL) bool {
	if len(k.Endpoints) == 0 {
		return true
	}
	for _, e := range k.Endpoints {
		below, ok := strings.CutPrefix(string(url), e)
		if ok && e != "" && (below == "" || below[0] == '/') {
			return true
		}
	}
	return false
}

// Expired reports whether the key has expired.
func (k AccessKey) Expired(now time.Time) bool { return !k.Expires.IsZero() && !now.Before(k.Expires) }

// Everywhere reports whether the key opens every endpoint.
func (k AccessKey) Everywhere() bool { return len(k.Endpoints) == 0 }

// AddKey stores a key under an unused id.
func (s *Service) AddKey(id string, k AccessKey) error {
	if err := k.validate(); err != nil {
		return err
	}
	if _, taken := s.Access.Keys[id]; taken || id == "" || id == accessSettings {
		return fmt.Errorf("key id %q cannot be used", id)
	}
	for i, e := range k.Endpoints {
		k.Endpoints[i] = string(CleanURL(e))
	}
	next := cloned(s.Access.Keys)
	next[id] = k
	s.Access.Keys = next
	return nil
}

// RevokeKey removes a key, also if it cannot be read.
func (s *Service) RevokeKey(id string) error {
	if _, ok := s.Access.Keys[id]; !ok {
		if id != "" && id != accessSettings && s.forget(SectionAccess, id) {
			return nil
		}
		return fmt.Errorf("key %q: %w", id, ErrNotFound)
	}
	next := maps.Clone(s.Access.Keys)
	delete(next, id)
	s.Access.Keys = next
	return nil
}

// RequireKeys sets whether requests need a key.
func (s *Service) RequireKeys(required bool) {
	s.Access.Required = required
	s.forget(SectionAccess, accessSettings)
}

// AllowModelControl sets whether clients may load and unload endpoints.
func (s *Service) AllowModelControl(allowed bool) {
	s.Access.ModelControl = allowed
	s.forget(SectionAccess, accessSettings)
}

func (k AccessKey) validate() error {
	if k.Digest == (KeyDigest{}) {
		return &FieldError{Field: "sha256", Why: "is missing"}
	}
	for _, e := range k.Endpoints {
		if err := validateURL("endpoint", e); err != nil {
			return err
		}
	}
	if len(k.Label) > 200 {
		return &FieldError{Field: "label", Why: "is longer than 200 characters"}
	}
	return nil
}

// decodeAccess reads the section. A key that cannot be read opens nothing.
func decodeAccess(s *Service, sections map[Section]json.RawMessage) {
	s.Access.Keys = map[string]AccessKey{}
	decodeSection(s, sections, SectionAccess, s.Access.Keys, func(id string, f *fields) (AccessKey, error) {
		if id != accessSettings {
			return decodeKey(f)
		}
		var settings Access
		if f.into(&settings); f.err == nil {
			s.Access.Required, s.Access.ModelControl, s.Access.Unknown = settings.Required, settings.ModelControl, settings.Unknown
		}
		return AccessKey{}, f.err
	})
	delete(s.Access.Keys, accessSettings)
}

// accessInForce is the access that applies. It is closed if it is unknown whether keys are
// required: the section or its settings cannot be read, and have no last good form.
func (s Service) accessInForce() Access {
	a := s.Access
	for _, b := range s.BrokenIn(SectionAccess) {
		if !b.Kept && (b.Key == "" || b.Key == accessSettings) {
			a.Required = true
		}
	}
	return a
}

func decodeKey(f *fields) (k AccessKey, err error) {
	digest, err := hex.DecodeString(f.text("sha256"))
	if err != nil || len(digest) != len(k.Digest) {
		f.fail("sha256", nil, "is not the SHA-256 of a key in hex digits")
	}
	copy(k.Digest[:], digest)
	if f.into(&k); f.err != nil {
		return k, f.err
	}
	return k, k.validate()
}

// time reads a time; the zero time if it is missing.
func (f *fields) time(name string) time.Time {
	text := f.text(name)
	if text == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		f.fail(name, nil, "is not a time as in 2026-01-31T12:00:00Z")
	}
	return t
}

func encodeAccess(into map[string]any, a Access) {
	if a.Required || a.ModelControl || len(a.Unknown) > 0 {
		into[accessSettings] = recordOf(a)
	}
	for id, k := range a.Keys {
		r := recordOf(k)
		r["sha256"] = k.Digest.String()
		into[id] = r
	}
}

// ParseLife reads the lifetime of a key: "90d", "12h", "30m"; "" is unlimited.
func ParseLife(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	var days int
	var life time.Duration
	var err error
	if number, ok := strings.CutSuffix(text, "d"); ok {
		_, err = fmt.Sscanf(number+";", "%d;", &days)
		life = time.Duration(days) * 24 * time.Hour
	} else {
		life, err = time.ParseDuration(text)
	}
	if err != nil || life <= 0 || days > 100*366 || life > 100*366*24*time.Hour {
		return 0, &FieldError{Field: "expires", Value: fmt.Sprintf("%q", text), Why: "is not a length of time: give days or hours, as in 90d or 12h"}
	}
	return life, nil
}

// ErrNoKey, ErrUnknownKey, ErrExpiredKey and ErrOtherEndpoint are the reasons for refusing a
// request.
var (
	ErrNoKey         = errors.New("a key is required")
	ErrUnknownKey    = errors.New("the key is not known")
	ErrExpiredKey    = errors.New("the key has expired")
	ErrOtherEndpoint = errors.New("the key is for other endpoints")
)

// Sorted lists the ids of the keys, oldest first.
func (a Access) Sorted() []string {
	return slices.SortedFunc(maps.Keys(a.Keys), func(x, y string) int {
		return cmp.Or(a.Keys[x].Created.Compare(a.Keys[y].Created), cmp.Compare(x, y))
	})
}
