// Package wordpiece makes the tokens of models such as BERT: what the file tokenizer.json of the library tokenizers
// describes, if it is a WordPiece model with BERT's normalizer. It does no I/O.
package wordpiece

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Tokenizer makes tokens. It may be used by many goroutines.
type Tokenizer struct {
	vocabulary map[string]int64
	unknown    int64
	prefix     string // of pieces that continue a word
	mostRunes  int    // of a word
	clean      bool
	spaced     bool // Chinese characters are words
	bare       bool // accents are removed
	lower      bool
	before     []int64 // tokens at the beginning of each text
	after      []int64 // and at its end
	most       int     // tokens of a text, 0 for no limit
	added      []addedToken
}

type addedToken struct {
	text string
	id   int64
}

// file is the part of tokenizer.json that is read.
type file struct {
	Truncation *struct {
		MaxLength int `json:"max_length"`
	} `json:"truncation"`
	Added []struct {
		ID         int64  `json:"id"`
		Content    string `json:"content"`
		SingleWord bool   `json:"single_word"`
		LStrip     bool   `json:"lstrip"`
		RStrip     bool   `json:"rstrip"`
		Normalized bool   `json:"normalized"`
	} `json:"added_tokens"`
	Normalizer *struct {
		Type    string `json:"type"`
		Clean   bool   `json:"clean_text"`
		Chinese bool   `json:"handle_chinese_chars"`
		Strip   *bool  `json:"strip_accents"`
		Lower   bool   `json:"lowercase"`
	} `json:"normalizer"`
	Pre *struct {
		Type string `json:"type"`
	} `json:"pre_tokenizer"`
	Post *struct {
		Type   string `json:"type"`
		Single []struct {
			Special *struct {
				ID string `json:"id"`
			} `json:"SpecialToken"`
			Sequence *struct {
				ID string `json:"id"`
			} `json:"Sequence"`
		} `json:"single"`
		Special map[string]struct {
			IDs []int64 `json:"ids"`
		} `json:"special_tokens"`
		Sep []json.RawMessage `json:"sep"`
		Cls []json.RawMessage `json:"cls"`
	} `json:"post_processor"`
	Model struct {
		Type       string           `json:"type"`
		Unknown    string           `json:"unk_token"`
		Prefix     *string          `json:"continuing_subword_prefix"`
		MostRunes  int              `json:"max_input_chars_per_word"`
		Vocabulary map[string]int64 `json:"vocab"`
	} `json:"model"`
}

// Parse reads tokenizer.json. Its error says what the file has that this package does not know.
func Parse(text []byte) (*Tokenizer, error) {
	var f file
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, err
	}
	switch {
	case f.Model.Type != "WordPiece":
		return nil, fmt.Errorf("its model is %q, not WordPiece", f.Model.Type)
	case f.Normalizer == nil || f.Normalizer.Type != "BertNormalizer":
		return nil, errors.New("its normalizer is not BertNormalizer")
	case f.Pre == nil || f.Pre.Type != "BertPreTokenizer":
		return nil, errors.New("its pre_tokenizer is not BertPreTokenizer")
	}
	unknown, ok := f.Model.Vocabulary[f.Model.Unknown]
	if !ok {
		return nil, fmt.Errorf("its vocabulary has no %q", f.Model.Unknown)
	}
	t := &Tokenizer{
		vocabulary: f.Model.Vocabulary, unknown: unknown, prefix: "##", mostRunes: cmp.Or(f.Model.MostRunes, 100),
		clean: f.Normalizer.Clean, spaced: f.Normalizer.Chinese, lower: f.Normalizer.Lower, bare: f.Normalizer.Lower,
	}
	if f.Model.Prefix != nil {
		t.prefix = *f.Model.Prefix
	}
	if f.Normalizer.Strip != nil {
		t.bare = *f.Normalizer.Strip
	}
	if f.Truncation != nil {
		t.most = f.Truncation.MaxLength
	}
	for _, a := range f.Added {
		if a.SingleWord || a.LStrip || a.RStrip || a.Normalized {
			return nil, fmt.Errorf("its added token %q is matched in a way that is not known here", a.Content)
		}
		if a.Content != "" {
			t.added = append(t.added, addedToken{a.Content, a.ID})
		}
	}
	return t, t.readTemplate(&f)
}

// readTemplate reads what is put around a text.
func (t *Tokenizer) readTemplate(f *file) error {
	switch {
	case f.Post == nil:
	case f.Post.Type == "BertProcessing":
		for _, around := range []struct {
			pair []json.RawMessage
			to   *[]int64
		}{{f.Post.Cls, &t.before}, {f.Post.Sep, &t.after}} {
			var id int64
			if len(around.pair) != 2 || json.Unmarshal(around.pair[1], &id) != nil {
				return errors.New("its post_processor has no tokens cls and sep")
			}
			*around.to = []int64{id}
		}
	case f.Post.Type == "TemplateProcessing":
		to := &t.before
		for _, piece := range f.Post.Single {
			switch {
			case piece.Sequence != nil && to == &t.before:
				to = &t.after
			case piece.Special != nil:
				*to = append(*to, f.Post.Special[piece.Special.ID].IDs...)
			default:
				return errors.New("its post_processor has no usual template")
			}
		}
	default:
		return fmt.Errorf("its post_processor is %q", f.Post.Type)
	}
	if t.most > 0 && t.most <= len(t.before)+len(t.after) {
		return fmt.Errorf("its texts have at most %d tokens", t.most)
	}
	return nil
}

// Limit bounds the tokens of a text, those around it included. What is longer is cut.
func (t *Tokenizer) Limit(most int) { t.most = max(most, len(t.before)+len(t.after)+1) }

// Limited reports whether the tokens of a text are bounded.
func (t *Tokenizer) Limited() bool { return t.most > 0 }

// Around are the numbers of tokens before and after each text.
func (t *Tokenizer) Around() (before, after []int64) { return t.before, t.after }

// Encode returns the tokens of a text, with those around it.
func (t *Tokenizer) Encode(text string) []int64 {
	room := -1
	if t.most > 0 {
		room = t.most - len(t.before) - len(t.after)
	}
	ids := slices.Clone(t.before)
	left := func() int { return room - (len(ids) - len(t.before)) }
	next := make([]int, len(t.added)) // where each of them comes next
	for i, a := range t.added {
		next[i] = indexFrom(text, 0, a.text)
	}
	for from := 0; from < len(text) && (room < 0 || left() > 0); {
		at, found := len(text), addedToken{}
		for i, a := range t.added {
			if next[i] < from {
				next[i] = indexFrom(text, from, a.text)
			}
			if next[i] < at || next[i] == at && at < len(text) && len(a.text) > len(found.text) {
				at, found = next[i], a
			}
		}
		most := -1
		if room >= 0 {
			most = left()
		}
		for _, word := range t.words(text[from:at], most) {
			if room >= 0 && left() <= 0 {
				break
			}
			ids = t.pieces(ids, word)
		}
		if found.text != "" {
			ids = append(ids, found.id)
		}
		from = at + len(found.text)
	}
	if room >= 0 && len(ids)-len(t.before) > room {
		ids = ids[:len(t.before)+room]
	}
	return append(ids, t.after...)
}

// indexFrom is where a part comes in a text from a place on, the text's end if it does not.
func indexFrom(text string, from int, part string) int {
	if i := strings.Index(text[from:], part); i >= 0 {
		return from + i
	}
	return len(text)
}

// words normalises a text and splits it at spaces and around punctuation. It ends after most words, each of which is at
// least one token; -1 is no bound.
func (t *Tokenizer) words(text string, most int) []string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case t.clean && (r == 0 || r == unicode.ReplacementChar || isControl(r)):
		case t.clean && unicode.IsSpace(r):
			b.WriteByte(' ')
		case t.spaced && isChinese(r):
			b.WriteByte(' ')
			b.WriteRune(r)
			b.WriteByte(' ')
		default:
			b.WriteRune(r)
		}
	}
	text = b.String()
	if t.bare {
		text = strings.Map(func(r rune) rune {
			if unicode.Is(unicode.Mn, r) {
				return -1
			}
			return r
		}, norm.NFD.String(text))
	}
	if t.lower {
		text = strings.Map(unicode.ToLower, text)
	}
	var words []string
	begin := -1
	end := func(i int) {
		if begin >= 0 {
			words = append(words, text[begin:i])
			begin = -1
		}
	}
	for i, r := range text {
		if most >= 0 && len(words) >= most {
			return words
		}
		switch {
		case unicode.IsSpace(r):
			end(i)
		case isPunctuation(r):
			end(i)
			words = append(words, text[i:i+utf8.RuneLen(r)])
		case begin < 0:
			begin = i
		}
	}
	end(len(text))
	return words
}

// pieces appends the tokens of a word: each time the longest piece that the vocabulary has.
func (t *Tokenizer) pieces(ids []int64, word string) []int64 {
	bounds := make([]int, 0, len(word)+1)
	for i := range word {
		bounds = append(bounds, i)
	}
	if len(bounds) > t.mostRunes {
		return append(ids, t.unknown)
	}
	bounds = append(bounds, len(word))
	begun := len(ids)
	for from := 0; from < len(bounds)-1; {
		to := len(bounds) - 1
		for ; to > from; to-- {
			piece := word[bounds[from]:bounds[to]]
			if from > 0 {
				piece = t.prefix + piece
			}
			if id, ok := t.vocabulary[piece]; ok {
				ids = append(ids, id)
				break
			}
		}
		if to == from {
			return append(ids[:begun], t.unknown)
		}
		from = to
	}
	return ids
}

func isControl(r rune) bool {
	if r == '\t' || r == '\n' || r == '\r' {
		return false
	}
	if r < unicode.MaxLatin1 {
		return unicode.IsControl(r) || r == 0xad
	}
	// What is in no category is not assigned.
	return unicode.Is(unicode.C, r) || !unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.P, unicode.S, unicode.Z)
}

func isPunctuation(r rune) bool {
	if r < unicode.MaxASCII {
		return r >= '!' && r <= '/' || r >= ':' && r <= '@' || r >= '[' && r <= '`' || r >= '{' && r <= '~'
	}
	return unicode.IsPunct(r)
}

// chinese are the blocks of ideographs that BERT separates.
var chinese = &unicode.RangeTable{
	R16: []unicode.Range16{{Lo: 0x3400, Hi: 0x4dbf, Stride: 1}, {Lo: 0x4e00, Hi: 0x9fff, Stride: 1}, {Lo: 0xf900, Hi: 0xfaff, Stride: 1}},
	R32: []unicode.Range32{
		{Lo: 0x20000, Hi: 0x2a6df, Stride: 1},
		{Lo: 0x2a700, Hi: 0x2b73f, Stride: 1},
		{Lo: 0x2b740, Hi: 0x2b81f, Stride: 1},
		{Lo: 0x2b920, Hi: 0x2ceaf, Stride: 1},
		{Lo: 0x2f800, Hi: 0x2fa1f, Stride: 1},
	},
}

func isChinese(r rune) bool { return unicode.Is(chinese, r) }
