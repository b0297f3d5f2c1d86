package inference

import (
	"log/slog"
	"testing"
	"time"

	"clearmlserving/inference/listener"
	"clearmlserving/serving"
)

// keyed is a request with a good key, and the gate that knows it.
func keyed(tb testing.TB) (*gate, *listener.Head) {
	tb.Helper()
	secret, id := serving.NewAccessKey()
	g := &gate{log: slog.New(slog.DiscardHandler), now: time.Now}
	g.follow(serving.Access{Required: true, Keys: map[string]serving.AccessKey{
		id: {Digest: serving.DigestOf(secret), Endpoints: []string{"a", "b"}, Expires: time.Now().Add(time.Hour)},
	}})
	header := "Bearer " + secret
	return g, &listener.Head{Header: func(string) string { return header }}
}

func TestAKeyCostsNoMemory(t *testing.T) {
	g, r := keyed(t)
	allocated := testing.AllocsPerRun(100, func() {
		if refused := g.admit("b/1", r); refused != nil {
			t.Fatalf("%d %s", refused.Status, refused.Body)
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
		g.admit("b/1", r)
	}
}

func FuzzBearer(f *testing.F) {
	for _, header := range []string{"", "Bearer x", "bearer  x ", "Bearer", "Basic eDp5", "Bearer csk_", "Bearer \xff\x00"} {
		f.Add(header)
	}
	g, _ := keyed(f)
	f.Fuzz(func(t *testing.T, header string) {
		refused := g.admit("a", &listener.Head{Header: func(string) string { return header }})
		if refused == nil || (refused.Status != 401 && refused.Status != 403) {
			t.Errorf("%q was let in", header)
		}
	})
}
