package serving_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"clearmlserving/serving"
)

func TestAKeyIsStoredByItsDigestAlone(t *testing.T) {
	secret, id := serving.NewAccessKey()
	other, otherID := serving.NewAccessKey()
	if secret == other || id == otherID || !strings.HasPrefix(secret, "csk_") || len(secret) > serving.MaxAccessKey {
		t.Fatalf("keys %q %q, ids %q %q", secret, other, id, otherID)
	}
	s := decode(t, nil)
	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	key := serving.AccessKey{Digest: serving.DigestOf(secret), Endpoints: []string{"/a/"}, Label: "ci", Created: created, Expires: created.AddDate(0, 3, 0)}
	if err := s.AddKey(id, key); err != nil {
		t.Fatal(err)
	}
	s.RequireKeys(true)
	text, err := s.Encode(serving.SectionAccess)
	if err != nil || strings.Contains(text, secret) || strings.Contains(text, strings.TrimPrefix(secret, "csk_")) {
		t.Fatalf("%s, %v", text, err)
	}
	again := decode(t, map[serving.Section]string{serving.SectionAccess: text})
	got := again.Access.Keys[id]
	if !again.Access.Required || got.Digest != serving.DigestOf(secret) || got.Label != "ci" || !got.Created.Equal(created) || !got.Expires.Equal(key.Expires) || len(got.Endpoints) != 1 || got.Endpoints[0] != "a" {
		t.Errorf("%s was read as %+v", text, again.Access)
	}
	if err := again.RevokeKey(id); err != nil {
		t.Error(err)
	}
	if err := again.RevokeKey(id); !errors.Is(err, serving.ErrNotFound) {
		t.Errorf("revoked twice: %v", err)
	}
	again.RequireKeys(false)
	if text, err := again.Encode(serving.SectionAccess); err != nil || text != "{}" {
		t.Errorf("at the end: %s, %v", text, err)
	}
}

func TestAKeyOpensItsEndpointsAndWhatLiesBelow(t *testing.T) {
	for _, tc := range []struct {
		endpoints string
		url       serving.EndpointURL
		want      bool
	}{
		{"", "anything/1", true},
		{"a", "a", true},
		{"a", "a/1", true},
		{"a", "ab", false},
		{"a", "b/a", false},
		{"a/1", "a", false},
		{"a/1", "a/10", false},
		{"a b/c", "b/c", true},
		{"a b/c", "", false},
	} {
		k := serving.AccessKey{Endpoints: strings.Fields(tc.endpoints)}
		if got := k.Opens(tc.url); got != tc.want {
			t.Errorf("a key for %q opens %q: %t", tc.endpoints, tc.url, got)
		}
	}
}

func TestAccessThatCannotBeReadIsClosed(t *testing.T) {
	good := `"k1":{"sha256":"` + strings.Repeat("ab", 32) + `"}`
	for name, tc := range map[string]struct {
		section  string
		required bool
		keys     int
	}{
		"nothing stored":         {"", false, 0},
		"off":                    {`{` + good + `}`, false, 1},
		"on":                     {`{"service":{"required":true},` + good + `}`, true, 1},
		"one bad key":            {`{"k2":{"sha256":"abc"},` + good + `}`, false, 1},
		"a key without a digest": {`{"k2":{"label":"x"},` + good + `}`, false, 1},
		"a digest of nothing":    {`{"k2":{"sha256":"` + strings.Repeat("00", 32) + `"}}`, false, 0},
		"a bad time":             {`{"k2":{"sha256":"` + strings.Repeat("ab", 32) + `","expires":"soon"}}`, false, 0},
		"bad settings":           {`{"service":{"required":"perhaps"},` + good + `}`, true, 1},
		"settings of no record":  {`{"service":7}`, true, 0},
		"no map at all":          {`[1]`, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := decode(t, map[serving.Section]string{serving.SectionAccess: tc.section})
			access := serving.Resolve(s, nil, nil).Access
			if access.Required != tc.required || len(access.Keys) != tc.keys {
				t.Errorf("keys are required: %t, %d of them", access.Required, len(access.Keys))
			}
		})
	}
}

func TestTheHashMovesWithTheKeys(t *testing.T) {
	s := decode(t, nil)
	before := s.StateHash(nil)
	secret, id := serving.NewAccessKey()
	if err := s.AddKey(id, serving.AccessKey{Digest: serving.DigestOf(secret)}); err != nil {
		t.Fatal(err)
	}
	added := s.StateHash(nil)
	s.RequireKeys(true)
	if required := s.StateHash(nil); before == added || added == required {
		t.Errorf("%s, with a key %s, required %s", before, added, required)
	}
}

func TestLifeOfAKey(t *testing.T) {
	for text, want := range map[string]time.Duration{"": 0, "90d": 90 * 24 * time.Hour, "12h": 12 * time.Hour, "30m": 30 * time.Minute} {
		if got, err := serving.ParseLife(text); err != nil || got != want {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"0d", "-1d", "d", "x", "3", "1d2", "99999999d", "-5h"} {
		if got, err := serving.ParseLife(text); err == nil {
			t.Errorf("%q was read as %s", text, got)
		}
	}
	k := serving.AccessKey{Expires: time.Unix(100, 0)}
	if k.Expired(time.Unix(99, 0)) || !k.Expired(time.Unix(100, 0)) || (serving.AccessKey{}).Expired(time.Unix(1<<40, 0)) {
		t.Error("a key expires at its time, and one without a time never")
	}
}
