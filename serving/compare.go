package serving

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Difference is one place where an answer differs from the expected one.
type Difference struct {
	Path string `json:"path"` // y[0].label; "" for the whole, "status" for the status
	Want string `json:"want"`
	Got  string `json:"got"`
}

func (d Difference) String() string {
	place := cmp.Or(d.Path, "the answer")
	return fmt.Sprintf("%s is %s, expected %s", place, d.Got, d.Want)
}

// Answer is what Compare compares.
type Answer struct {
	Status int // 0: any
	Body   []byte
}

// maxDifferences bounds the list; for more differences, compare the answers directly.
const maxDifferences = 20

// Compare lists the places, at most 20, where got differs from the expected answer. JSON is
// compared by value: the order of fields and blanks are ignored, and numbers are equal if they
// differ by at most tolerance, absolutely or relative to the greater one. Everything else is
// compared byte by byte.
func Compare(want, got Answer, tolerance float64) []Difference {
	c := comparison{tolerance: tolerance}
	if want.Status != 0 && want.Status != got.Status {
		c.add("status", strconv.Itoa(want.Status), strconv.Itoa(got.Status))
	}
	if bytes.Equal(want.Body, got.Body) {
		return c.found
	}
	wanted, wantJSON := parseJSON(want.Body)
	given, gotJSON := parseJSON(got.Body)
	if wantJSON && gotJSON {
		c.values("", wanted, given)
		return c.found
	}
	c.add("", excerpt(want.Body), excerpt(got.Body))
	return c.found
}

type comparison struct {
	tolerance float64
	found     []Difference
}

func (c *comparison) add(path, want, got string) {
	if len(c.found) < maxDifferences {
		c.found = append(c.found, Difference{Path: path, Want: want, Got: got})
	}
}

func (c *comparison) values(path string, want, got any) {
	if len(c.found) == maxDifferences {
		return
	}
	switch w := want.(type) {
	case map[string]any:
		if g, ok := got.(map[string]any); ok {
			c.objects(path, w, g)
			return
		}
	case []any:
		if g, ok := got.([]any); ok {
			c.lists(path, w, g)
			return
		}
	case json.Number:
		if g, ok := got.(json.Number); ok && c.near(w.String(), g.String()) {
			return
		}
	default:
		if want == got { // texts, booleans and null compare as they are
			return
		}
	}
	c.add(path, shown(want), shown(got))
}

func (c *comparison) objects(path string, want, got map[string]any) {
	all := maps.Clone(want)
	maps.Copy(all, got)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		w, wanted := want[name]
		g, given := got[name]
		below := joinPath(path, name)
		switch {
		case !given:
			c.add(below, shown(w), "missing")
		case !wanted:
			c.add(below, "nothing", shown(g))
		default:
			c.values(below, w, g)
		}
	}
}

func (c *comparison) lists(path string, want, got []any) {
	for i := range min(len(want), len(got)) {
		c.values(path+"["+strconv.Itoa(i)+"]", want[i], got[i])
	}
	if len(want) != len(got) {
		c.add(path, fmt.Sprintf("a list of %d", len(want)), fmt.Sprintf("a list of %d", len(got)))
	}
}

// near compares two JSON numbers: exactly as decimals, or within the tolerance.
func (c *comparison) near(want, got string) bool {
	if want == got {
		return true
	}
	w, errW := strconv.ParseFloat(want, 64)
	g, errG := strconv.ParseFloat(got, 64)
	if errW != nil || errG != nil { // outside of the range of float64
		return false
	}
	if c.tolerance > 0 {
		return math.Abs(w-g) <= c.tolerance*max(1, math.Abs(w), math.Abs(g))
	}
	// Whole numbers above 2^53 can differ although their floats are equal.
	wholeW, okW := new(big.Int).SetString(want, 10)
	wholeG, okG := new(big.Int).SetString(got, 10)
	if okW && okG {
		return wholeW.Cmp(wholeG) == 0
	}
	return w == g
}

func joinPath(path, name string) string {
	plain := name != "" && !strings.ContainsAny(name, ".[]\" ")
	switch {
	case !plain:
		return path + "[" + strconv.Quote(name) + "]"
	case path == "":
		return name
	default:
		return path + "." + name
	}
}

func parseJSON(data []byte) (any, bool) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, false
	}
	return v, len(bytes.TrimSpace(data[dec.InputOffset():])) == 0
}

// shownBytes bounds one value in a difference.
const shownBytes = 80

func shown(v any) string {
	text, err := marshal(v)
	if err != nil {
		text = fmt.Sprint(v)
	}
	return Shorten(text, shownBytes)
}

// excerpt formats an answer that is not JSON.
func excerpt(data []byte) string {
	if len(data) == 0 {
		return "empty"
	}
	if !utf8.Valid(data) {
		return fmt.Sprintf("%d bytes that are no text", len(data))
	}
	if _, isJSON := parseJSON(data); isJSON {
		return Shorten(string(data), shownBytes)
	}
	return Shorten(strconv.Quote(string(data)), shownBytes)
}

// Shorten cuts a text to at most so many bytes, between characters.
func Shorten(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
