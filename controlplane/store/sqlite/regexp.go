package sqlite

import (
	"database/sql/driver"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"modernc.org/sqlite"

	"clearmlserving/controlplane/store/tables"
)

// registerRegexp gives SQLite the function re_match(pattern, text) for patterns that are
// more than a piece of text. The driver knows functions per program, not per database.
var registerRegexp = sync.OnceValue(func() error {
	patterns := &compiled{byText: map[string]*regexp.Regexp{}}
	return sqlite.RegisterDeterministicScalarFunction("re_match", 2, func(_ *sqlite.FunctionContext, args []driver.Value) (driver.Value, error) {
		pattern, ok := args[0].(string)
		if !ok {
			return nil, fmt.Errorf("pattern is %T", args[0])
		}
		text, ok := args[1].(string)
		if !ok {
			return nil, nil
		}
		re, err := patterns.get(pattern)
		if err != nil {
			return nil, err
		}
		return re.MatchString(text), nil
	})
})

// compiled keeps the patterns of running queries, so that each row doesn't compile anew.
type compiled struct {
	mu     sync.Mutex // guards byText
	byText map[string]*regexp.Regexp
}

func (c *compiled) get(pattern string) (*regexp.Regexp, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if re, ok := c.byText[pattern]; ok {
		return re, nil
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	if len(c.byText) >= 64 {
		clear(c.byText)
	}
	c.byText[pattern] = re
	return re, nil
}

// dialect is what SQLite says in its own way.
type dialect struct{}

var _ tables.Dialect = dialect{}

func (dialect) Mark(int) string         { return "?" }
func (dialect) Explain(err error) error { return explain(err) }
func (dialect) Text(text string) string { return text }

// Begin does nothing: the driver begins writing transactions as immediate ones.
func (dialect) Begin() string { return "" }

// Pattern implements tables.Dialect with LIKE, instr, or the function.
func (d dialect) Pattern(kind, column string, re *regexp.Regexp) (tables.Condition, bool) {
	found := matching(`d."`+column+`"`, re)
	if column != "name" || d.Search(column, re) != "" {
		return found, true
	}
	// Nothing narrows the documents down: names are searched in their index, which holds
	// nothing else, before the documents are looked at.
	return tables.Condition{
		SQL:  "d.seq IN (SELECT d.seq FROM documents d WHERE d.kind = ? AND " + found.SQL + ")",
		Args: append([]any{kind}, found.Args...),
	}, true
}

func matching(col string, re *regexp.Regexp) tables.Condition {
	pattern := re.String()
	if text, ok := tables.FoldedSubstring(pattern); ok {
		// LIKE knows the cases of ASCII letters. Only k and s have further forms, the signs
		// of Kelvin and of the long s.
		like := col + ` LIKE ? ESCAPE '\'`
		escaped := "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(text) + "%"
		if !strings.ContainsAny(text, "ks") {
			return tables.Condition{SQL: like, Args: []any{escaped}}
		}
		return tables.Condition{
			SQL:  "(" + like + " OR (octet_length(" + col + ") <> length(" + col + ") AND re_match(?, " + col + ")))",
			Args: []any{escaped, pattern},
		}
	}
	if text, ok := tables.Substring(pattern); ok {
		return tables.Condition{SQL: "instr(" + col + ", ?) > 0", Args: []any{text}}
	}
	return tables.Condition{SQL: "re_match(?, " + col + ")", Args: []any{pattern}}
}

// maxTrigrams is how many trigrams of a pattern are looked up: more find hardly less.
const maxTrigrams = 8

// Search implements tables.Dialect: the trigrams that every match holds. They find more
// than the pattern does, since their places and cases don't count.
func (dialect) Search(column string, re *regexp.Regexp) string {
	if column != "name" && column != "id" && column != "comment" {
		return ""
	}
	var trigrams []string
	for _, piece := range tables.Pieces(re.String()) {
		for i := 0; i+3 <= len(piece); i++ {
			trigrams = append(trigrams, `"`+strings.ReplaceAll(piece[i:i+3], `"`, `""`)+`"`)
		}
	}
	if len(trigrams) == 0 {
		return ""
	}
	return column + " : (" + strings.Join(spread(trigrams, maxTrigrams), " AND ") + ")"
}

// spread picks some of a list, evenly.
func spread(list []string, n int) []string {
	if len(list) <= n {
		return list
	}
	out := make([]string, n)
	for i := range out {
		out[i] = list[i*(len(list)-1)/(n-1)]
	}
	return out
}

// Among implements tables.Dialect. Numbers in the text are looked up one by one, where a
// subquery may be walked past.
func (dialect) Among(seqs []int64) tables.Condition {
	list := make([]byte, 0, 8*len(seqs))
	for i, seq := range seqs {
		if i > 0 {
			list = append(list, ',')
		}
		list = strconv.AppendInt(list, seq, 10)
	}
	return tables.Condition{SQL: "d.seq IN (" + string(list) + ")"}
}

// AmongFound implements tables.Dialect.
func (dialect) AmongFound(query tables.Condition) tables.Condition {
	return tables.Condition{SQL: "d.seq IN (" + query.SQL + ")", Args: query.Args}
}

// Walk implements tables.Dialect: the planner walks where it can.
func (dialect) Walk() string { return "" }

// Import implements tables.Dialect: the text index is made at once at the end, which takes
// a fraction of the time that one document after the other does.
func (dialect) Import() (before, after []string) {
	return []string{"DROP TRIGGER texts_insert"}, []string{
		"INSERT INTO texts (rowid, name, id, comment) SELECT seq, name, id, comment FROM documents",
		`CREATE TRIGGER texts_insert AFTER INSERT ON documents BEGIN
    INSERT INTO texts (rowid, name, id, comment) VALUES (new.seq, new.name, new.id, new.comment);
END`,
		"PRAGMA analysis_limit = 0", // whole, as a sample says little of so few kinds
		"ANALYZE",
	}
}

// Found implements tables.Dialect.
func (dialect) Found(search string) tables.Condition {
	return tables.Condition{SQL: "SELECT rowid FROM texts WHERE texts MATCH ?", Args: []any{search}}
}
