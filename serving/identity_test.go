package serving

import (
	"strings"
	"testing"
)

func TestOnlyTheKeyOfTheRecordProvesAnInstance(t *testing.T) {
	own, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	const challenge = "A7F3QZ5K2M4N6P7R"
	proof, ok := own.Prove(challenge)
	if !ok || proof.Verify(own.Public(), challenge) != nil {
		t.Fatalf("the instance's own proof is refused: %v", proof.Verify(own.Public(), challenge))
	}
	foreign, _ := other.Prove(challenge)
	for name, err := range map[string]error{
		"another instance":  foreign.Verify(own.Public(), challenge),
		"another challenge": proof.Verify(own.Public(), challenge+"x"),
		"no key":            proof.Verify("", challenge),
		"a short key":       proof.Verify(own.Public()[:20], challenge),
		"no signature":      Proof{}.Verify(own.Public(), challenge),
		"an echo":           Proof{challenge}.Verify(own.Public(), challenge),
		"an empty question": proof.Verify(own.Public(), ""),
	} {
		if err == nil {
			t.Errorf("%s proves the instance", name)
		}
	}
	for _, bad := range []string{"", "short", strings.Repeat("a", 129), "with space and more", "line\nbreak012345678"} {
		if _, ok := own.Prove(bad); ok {
			t.Errorf("the challenge %q is signed", bad)
		}
	}
	if _, ok := (Identity{}).Prove(challenge); ok || (Identity{}).Public() != "" {
		t.Error("no identity proves something")
	}
}
