package wordpiece

import (
	"encoding/json"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func tokenizer(tb testing.TB) *Tokenizer {
	tb.Helper()
	text, err := os.ReadFile("testdata/tokenizer.json")
	if err != nil {
		tb.Fatal(err)
	}
	t, err := Parse(text)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

// The golden file has the tokens of the library tokenizers.
func TestTokensAreThoseOfTheLibrary(t *testing.T) {
	text, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden []struct {
		Text string
		IDs  []int64
	}
	if err := json.Unmarshal(text, &golden); err != nil || len(golden) < 15 {
		t.Fatal(err)
	}
	made := tokenizer(t)
	for _, g := range golden {
		if got := made.Encode(g.Text); !slices.Equal(got, g.IDs) {
			t.Errorf("%q:\ngot  %v\nwant %v", g.Text, got, g.IDs)
		}
	}
}

func TestALimitCutsTexts(t *testing.T) {
	made := tokenizer(t)
	made.Limit(5)
	before, after := made.Around()
	got := made.Encode(strings.Repeat("hello ", 100))
	if len(got) != 5 || got[0] != before[0] || got[4] != after[0] {
		t.Errorf("%v", got)
	}
}

// What is cut costs next to nothing, however long the text of a client is.
func TestWhatIsCutIsNotMadeIntoWords(t *testing.T) {
	made := tokenizer(t)
	made.Limit(512)
	const size = 16 << 20
	text := strings.Repeat("!", size)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	ids := made.Encode(text)
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; len(ids) != 512 || used > 8*size {
		t.Errorf("%d tokens took %d MiB for a text of %d MiB", len(ids), used>>20, size>>20)
	}
	begun := time.Now()
	ids = made.Encode(strings.Repeat("[MASK]"+strings.Repeat(" ", 100), 256) + strings.Repeat(" ", 2*size))
	if took := time.Since(begun); len(ids) != 258 || took > 5*time.Second {
		t.Errorf("%d tokens after %s", len(ids), took)
	}
}

func TestAFileOfAnotherKindIsRefused(t *testing.T) {
	text, err := os.ReadFile("testdata/tokenizer.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range [][2]string{
		{`"type": "WordPiece"`, `"type": "BPE"`},
		{`"BertNormalizer"`, `"NFC"`},
		{`"BertPreTokenizer"`, `"Whitespace"`},
		{`"TemplateProcessing"`, `"RobertaProcessing"`},
		{`"unk_token": "[UNK]"`, `"unk_token": "[NONE]"`},
		{`"max_length": 32`, `"max_length": 2`},
	} {
		changed := strings.Replace(string(text), change[0], change[1], 1)
		if changed == string(text) {
			t.Errorf("the file has no %s", change[0])
		}
		if _, err := Parse([]byte(changed)); err == nil {
			t.Errorf("%s is accepted", change[1])
		}
	}
}

func FuzzEncode(f *testing.F) {
	f.Add("hello [MASK] world")
	f.Add("\xff\xfe broken")
	made := tokenizer(f)
	f.Fuzz(func(t *testing.T, text string) {
		ids := made.Encode(text)
		if len(ids) < 2 || len(ids) > 32 {
			t.Errorf("%d tokens of %q", len(ids), text)
		}
		if utf8.ValidString(text) && !slices.Equal(ids, made.Encode(text)) {
			t.Errorf("%q has different tokens", text)
		}
	})
}

func FuzzParse(f *testing.F) {
	text, err := os.ReadFile("testdata/tokenizer.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"model":{"type":"WordPiece","unk_token":"a","vocab":{"a":0}},"normalizer":{"type":"BertNormalizer"},"pre_tokenizer":{"type":"BertPreTokenizer"}}`))
	f.Fuzz(func(_ *testing.T, text []byte) {
		if made, err := Parse(text); err == nil {
			made.Encode("Hello, world")
		}
	})
}
