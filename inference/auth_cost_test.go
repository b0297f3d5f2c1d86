package inference

import (
	"log/slog"
	"testing"
	"time"

	"clearmlserving/serving"
)

// keyed is a request with a valid key, and a gate with that key.
func keyed(tb testing.TB) (*gate, Head) {
	tb.Helper()
	secret, id := serving.NewAccessKey()
	g := &gate{log: slog.New(slog.DiscardHandler), now: time.Now}
	g.follow(serving.Access{Required: true, Keys: map[string]serving.AccessKey{
		id: {Digest: serving.DigestOf(secret), Endpoints: []string{"a", "b"}, Expires: time.Now().Add(time.Hour)},
	}})
	return g, Head{Endpoint: "b/1", Key: BearerKey("Bearer " + secret)}
}

func TestAKeyCostsNoMemory(t *testing.T) {
	g, r := keyed(t)
	allocated := testing.AllocsPerRun(100, func() {
		if refused := g.admit(r); refused != nil {
			t.Fatal(refused)
		}
	})
	if allocated != 0 {
		t.Errorf("%v allocations a request", allocated)
	}
}

func BenchmarkKey(b *testing.B) {
	g, r := keyed(b)
	b.ReportAllocs()
	for b.Loop() {
		_ = g.admit(r)
	}
}

func FuzzBearer(f *testing.F) {
	for _, header := range []string{"", "Bearer x", "bearer  x ", "Bearer", "Basic eDp5", "Bearer csk_", "Bearer \xff\x00"} {
		f.Add(header)
	}
	g, _ := keyed(f)
	f.Fuzz(func(t *testing.T, header string) {
		refused := g.admit(Head{Endpoint: "a", Key: BearerKey(header)})
		if refused == nil || (refused.Kind != KindUnauthenticated && refused.Kind != KindForbidden) {
			t.Errorf("%q was let in", header)
		}
	})
}
