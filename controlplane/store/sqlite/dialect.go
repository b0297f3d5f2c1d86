package sqlite

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"sync"
	"syscall"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"clearmlserving/controlplane/store"
	"clearmlserving/controlplane/store/tables"
)

// registerRegexp adds the function re_match(pattern, text) to SQLite, for patterns that are no
// plain text. The driver's functions are global.
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

// compiled caches the compiled patterns of running queries.
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

// dialect is the dialect of SQLite.
type dialect struct{}

var _ tables.Dialect = dialect{}

func (dialect) Mark(int) string         { return "?" }
func (dialect) Explain(err error) error { return explain(err) }
func (dialect) Text(text string) string { return text }

// Begin is empty: the driver begins writing transactions as immediate ones.
func (dialect) Begin() string { return "" }

// Pattern implements tables.Dialect with LIKE, instr, or the function.
func (dialect) Pattern(col string, re *regexp.Regexp) (tables.Condition, bool) {
	pattern := re.String()
	if text, ok := tables.FoldedSubstring(pattern); ok {
		like := tables.Condition{SQL: col + ` LIKE ? ESCAPE '\'`, Args: []any{text.Loose}}
		if text.From != "" {
			like.SQL, like.Args = "("+like.SQL+" AND re_match(?, "+col+"))", append(like.Args, pattern)
		}
		return like, true
	}
	if text, ok := tables.Substring(pattern); ok {
		return tables.Condition{SQL: "instr(" + col + ", ?) > 0", Args: []any{text}}, true
	}
	return tables.Condition{SQL: "re_match(?, " + col + ")", Args: []any{pattern}}, true
}

// Analyze implements tables.Dialect. It reads everything: samples are misleading for few kinds.
func (dialect) Analyze() string { return "PRAGMA analysis_limit = 0; ANALYZE" }

// explain adds one of store's errors to an error of SQLite or the system, and what to do.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: make the folder writable for this user: %w", store.ErrReadOnly, err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: free some space: %w", store.ErrFull, err)
	}
	var broken *sqlite.Error
	if !errors.As(err, &broken) {
		return err
	}
	switch broken.Code() & 0xff {
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("%w: free some space: %w", store.ErrFull, err)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN:
		return fmt.Errorf("%w: make the folder and the database writable for this user: %w", store.ErrReadOnly, err)
	case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
		return fmt.Errorf("the file is damaged or no SQLite database: move it away or restore a copy: %w", err)
	}
	return err
}
