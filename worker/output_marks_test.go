package worker

import (
	"log/slog"
	"testing"
)

func TestAMarkTellsLevelAndRequestOfALine(t *testing.T) {
	for line, want := range map[string]outputLine{
		"":                            {slog.LevelInfo, "", nil},
		"plain":                       {slog.LevelInfo, "", []byte("plain")},
		"\x1e1r1\x1fprinted":          {slog.LevelInfo, "r1", []byte("printed")},
		"\x1e3\x1ffailed\x1dTrace":    {slog.LevelError, "", []byte("failed\nTrace")},
		"\x1e0r\x1f":                  {slog.LevelDebug, "r", []byte{}},
		"\x1e":                        {slog.LevelInfo, "", []byte("\x1e")},
		"\x1e9r\x1fno level":          {slog.LevelInfo, "", []byte("\x1e9r\x1fno level")},
		"\x1e2r, and the end is away": {slog.LevelInfo, "", []byte("\x1e2r, and the end is away")},
		"\x1f\x1e":                    {slog.LevelInfo, "", []byte("\x1f\x1e")},
	} {
		got := parseLine([]byte(line))
		if got.level != want.level || got.requestID != want.requestID || string(got.text) != string(want.text) {
			t.Errorf("%q: %v %q %q", line, got.level, got.requestID, got.text)
		}
	}
}
