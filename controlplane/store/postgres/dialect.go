package postgres

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"clearmlserving/controlplane/store"
	"clearmlserving/controlplane/store/tables"
)

// writerLock is the advisory lock that each writing transaction holds to its end.
const writerLock = "7164820301"

// dialect is the dialect of PostgreSQL.
type dialect struct{}

var _ tables.Dialect = dialect{}

func (dialect) Mark(n int) string       { return "$" + strconv.Itoa(n) }
func (dialect) Explain(err error) error { return explain(err) }

// Text replaces the only character that PostgreSQL cannot store.
func (dialect) Text(text string) string { return strings.ReplaceAll(text, "\x00", "\ufffd") }

// Begin makes writing transactions run one after the other, including those of other servers:
// reads of a transaction are current until its end, and none must be repeated.
func (dialect) Begin() string { return "SELECT pg_advisory_xact_lock(" + writerLock + ")" }

// Pattern implements tables.Dialect with LIKE, or with PostgreSQL's own patterns if they have
// the same syntax.
func (dialect) Pattern(col string, re *regexp.Regexp) (tables.Condition, bool) {
	pattern := re.String()
	if text, ok := tables.Substring(pattern); ok {
		escaped := strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(text)
		return tables.Condition{SQL: col + " LIKE ?", Args: []any{"%" + escaped + "%"}}, true
	}
	if text, ok := tables.FoldedSubstring(pattern); ok {
		like := tables.Condition{SQL: col + " ILIKE ?", Args: []any{text.Loose}}
		if text.From != "" { // translate is slow: only for rows that nearly match
			like.SQL, like.Args = "("+like.SQL+" AND translate("+col+", ?, ?) ILIKE ?)", append(like.Args, text.From, text.To, text.Like)
		}
		return like, true
	}
	return samePattern(col, pattern)
}

// same matches the patterns with the same meaning in both languages: ASCII letters, digits,
// spaces, escaped signs, the dot, \d, and \w, each possibly repeated.
var same = regexp.MustCompile(`^(\(\?i\))?(\^?)((?:(?:[A-Za-z0-9 ,:/_-]|\.|\\[][(){}.*+?|^$\\/_-]|\\[dw])[*+?]?)+)(\$|\\z)?$`)

// maxChoices bounds the optional and repeated parts of a pattern for PostgreSQL, whose time to
// compile them grows steeply, to a minute for 500 optional letters.
const maxChoices = 50

// samePattern uses PostgreSQL's patterns for a pattern with the same meaning there.
func samePattern(col, pattern string) (tables.Condition, bool) {
	parts := same.FindStringSubmatch(pattern)
	if parts == nil || strings.Count(pattern, "*")+strings.Count(pattern, "+")+strings.Count(pattern, "?") > maxChoices {
		return tables.Condition{}, false
	}
	options, end := "(?p)", parts[4] // the dot does not match the end of a line
	if parts[1] != "" {
		options = "(?pi)"
		if strings.ContainsAny(pattern, `kKsSw`) { // w for words: the signs of Kelvin and of the long s
			col = "translate(" + col + ", '\u212a\u017f', 'ks')"
		}
	}
	if end != "" {
		end = `\Z`
	}
	return tables.Condition{SQL: col + " ~ ?", Args: []any{options + parts[2] + parts[3] + end}}, true
}

// Analyze implements tables.Dialect.
func (dialect) Analyze() string { return "ANALYZE documents, terms, events, bodies" }

// explain adds one of store's errors to an error of PostgreSQL, and what to do.
func explain(err error) error {
	var told *pgconn.PgError
	var refused *pgconn.ConnectError
	var network net.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &told):
		return explainCode(told.Code, err)
	case errors.As(err, &refused):
		return fmt.Errorf("%w: start PostgreSQL or correct --database-url: %w", store.ErrUnavailable, err)
	case errors.As(err, &network), pgconn.SafeToRetry(err), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, driver.ErrBadConn):
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	return err
}

func explainCode(code string, err error) error {
	switch {
	case code == "53100" || code == "58030": // disk_full, io_error
		return fmt.Errorf("%w: free some space on the disk of PostgreSQL: %w", store.ErrFull, err)
	case code == "25006" || code == "42501": // read_only_sql_transaction, insufficient_privilege
		return fmt.Errorf("%w: the user of --database-url needs the right to write, on a primary server: %w", store.ErrReadOnly, err)
	case code == "57014": // query_canceled, by statement_timeout
		return fmt.Errorf("%w: %w", store.ErrTooMuch, err)
	case code == "54000": // program_limit_exceeded
		return fmt.Errorf("%w: %w", store.ErrTooLong, err)
	case code == "53300" || strings.HasPrefix(code, "57P") || strings.HasPrefix(code, "08"):
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err) // too many connections, shutting down, connection lost
	}
	return err
}
