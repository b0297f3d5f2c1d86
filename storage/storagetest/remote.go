package storagetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"clearmlserving/storage"
)

// Refused checks that every operation on a URL fails permanently with a reason that has the
// sentinel, the URL, and some words.
func Refused(t *testing.T, a storage.Adapter, url string, is error, says ...string) {
	t.Helper()
	_, statErr := a.Stat(t.Context(), url)
	body, _, openErr := a.Open(t.Context(), url, storage.Part{})
	if openErr == nil {
		body.Close()
	}
	failures := map[string]error{"stat": statErr, "open": openErr, "delete": a.Delete(t.Context(), url)}
	if !errors.Is(is, storage.ErrNotExist) {
		failures["put"] = a.Put(t.Context(), url, strings.NewReader("x"), 1, nil)
	}
	for op, err := range failures {
		if !errors.Is(err, is) || storage.IsTransient(err) {
			t.Errorf("%s: %v, want %q that is not transient", op, err, is)
			continue
		}
		for _, words := range append(says, storage.Redact(url)) {
			if !strings.Contains(err.Error(), words) {
				t.Errorf("%s: %v does not say %q", op, err, words)
			}
		}
	}
}

// CutUploads checks that an upload leaves no file if its source ends too early or fails, or if its
// context ends: with known and unknown length, short and in pieces.
func CutUploads(t *testing.T, a storage.Adapter, folder string) {
	t.Helper()
	broken := errors.New("the source is broken")
	for name, size := range map[string]int64{"short": 100_000, "long": 40 << 20} {
		for _, told := range []bool{true, false} {
			length, kind := int64(-1), " of unknown length"
			if told {
				length, kind = size, " of known length"
			}
			t.Run(name+kind, func(t *testing.T) {
				url := folder + "cut-" + name + kind
				half := func() io.Reader { return io.LimitReader(zeros{}, size/2) }
				if err := a.Put(t.Context(), url, io.MultiReader(half(), failing{broken}), length, nil); !errors.Is(err, broken) {
					t.Errorf("a source that fails: %v", err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				err := a.Put(ctx, url, io.MultiReader(half(), cancelling(cancel), half()), length, nil)
				if !errors.Is(err, context.Canceled) {
					t.Errorf("a context that ends: %v", err)
				}
				if told {
					if err := a.Put(t.Context(), url, half(), length, nil); err == nil {
						t.Error("half of the source was accepted as the whole")
					}
				}
				if _, err := a.Stat(t.Context(), url); !errors.Is(err, storage.ErrNotExist) {
					t.Errorf("something is stored: %v", err)
				}
			})
		}
	}
}

// zeros is endless.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// cancelling cancels a context when it is reached.
type cancelling context.CancelFunc

func (c cancelling) Read([]byte) (int, error) { c(); return 0, io.EOF }

// Lists checks that a list has exactly the files below a prefix.
func Lists(t *testing.T, a storage.Lister, folder string) {
	t.Helper()
	for _, name := range []string{"a/1", "a/b/2 ä", "ab/3", "c"} {
		if err := a.Put(t.Context(), folder+name, bytes.NewReader([]byte(name)), int64(len(name)), nil); err != nil {
			t.Fatal(err)
		}
	}
	for prefix, want := range map[string][]string{
		"":     {"a/1", "a/b/2 ä", "ab/3", "c"},
		"a/":   {"a/1", "a/b/2 ä"},
		"a":    {"a/1", "a/b/2 ä", "ab/3"},
		"none": nil,
	} {
		var got []string
		for url, err := range a.List(t.Context(), folder+prefix) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, strings.TrimPrefix(url, folder))
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("below %q are %q, want %q", prefix, got, want)
		}
	}
}
