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

// The advisory locks of a database: one that each writing transaction holds to its end,
// one for making the index of texts.
const (
	writerLock = "7164820301"
	indexLock  = "7164820302"
)

// dialect is what PostgreSQL says in its own way.
type dialect struct{}

var _ tables.Dialect = dialect{}

func (dialect) Mark(n int) string       { return "$" + strconv.Itoa(n) }
func (dialect) Explain(err error) error { return explain(err) }

// Text puts a sign in the place of the one character that PostgreSQL can't hold.
func (dialect) Text(text string) string { return strings.ReplaceAll(text, "\x00", "\ufffd") }

// Begin makes writing transactions run one after the other, those of other servers
// included: what a transaction reads is current until its end, and none has to be run
// again.
func (dialect) Begin() string { return "SELECT pg_advisory_xact_lock(" + writerLock + ")" }

// Pattern implements tables.Dialect with LIKE or PostgreSQL's own patterns, which its
// text index knows how to find.
func (dialect) Pattern(_, column string, re *regexp.Regexp) (tables.Condition, bool) {
	col, pattern := `d."`+column+`"`, re.String()
	escaped := strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)
	if text, ok := tables.Substring(pattern); ok {
		return tables.Condition{SQL: col + " LIKE ?", Args: []any{"%" + escaped.Replace(text) + "%"}}, true
	}
	// ILIKE knows the cases of ASCII letters under the columns' collation. Only k and s
	// have further forms, the signs of Kelvin and of the long s.
	if text, ok := tables.FoldedSubstring(pattern); ok && !strings.ContainsAny(text, "ks") {
		return tables.Condition{SQL: col + " ILIKE ?", Args: []any{"%" + escaped.Replace(text) + "%"}}, true
	}
	translated, ok := translate(pattern)
	return tables.Condition{SQL: col + " ~ ?", Args: []any{translated}}, ok
}

// Among implements tables.Dialect.
func (dialect) Among(seqs []int64) tables.Condition {
	list := []byte("{")
	for i, seq := range seqs {
		if i > 0 {
			list = append(list, ',')
		}
		list = strconv.AppendInt(list, seq, 10)
	}
	return tables.Condition{SQL: "d.seq = ANY (CAST(? AS bigint[]))", Args: []any{string(append(list, '}'))}}
}

// AmongFound implements tables.Dialect. As a subquery it would be joined, by reading all documents.
func (dialect) AmongFound(query tables.Condition) tables.Condition {
	return tables.Condition{SQL: "d.seq = ANY (ARRAY(" + query.SQL + "))", Args: query.Args}
}

// Walk implements tables.Dialect. What is skipped has to be passed; the planner would
// rather sort all that match, which takes five times as long.
func (dialect) Walk() string { return "SET LOCAL enable_sort = off" }

// Import implements tables.Dialect. The index of texts goes and is made at once by the next
// Open: document by document it takes most of the time.
func (dialect) Import() (before, after []string) {
	return []string{"DROP INDEX IF EXISTS documents_texts"}, []string{"ANALYZE documents, terms, events, bodies"}
}

// Search knows nothing: the planner uses the text index by itself.
func (dialect) Search(string, *regexp.Regexp) string { return "" }

// Found is never asked, see Search.
func (dialect) Found(string) tables.Condition {
	return tables.Condition{SQL: "SELECT seq FROM documents WHERE FALSE"}
}

// explain adds to an error of PostgreSQL what a caller decides by, and for a person what
// to do.
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
		return fmt.Errorf("%w: start PostgreSQL or mend --database-url: %w", store.ErrUnavailable, err)
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
