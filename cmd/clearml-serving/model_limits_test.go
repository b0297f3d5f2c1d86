package main

import "testing"

func TestSizesHaveUnits(t *testing.T) {
	for text, want := range map[string]int64{
		"1048576": 1 << 20, "512MiB": 512 << 20, "512m": 512 << 20, "2GB": 2e9, "1.5GiB": 3 << 29, " 4 k ": 4 << 10, "7b": 7, "0": 0,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "5lots", "1ib", "NaN", "1e300", "2 2", "5PB"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q is taken as %d", text, got)
		}
	}
}
