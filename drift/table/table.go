// Package table reads the rows of CSV and Parquet files into a reference of package drift.
package table

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"clearmlserving/drift"
)

// Reference reads a file with a column for each variable: Parquet, or CSV with a header, also compressed
// with gzip. timeColumn, if not "", has the times of the rows. notes say what is not watched.
func Reference(file, timeColumn string) (r *drift.Reference, notes []string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, nil, fmt.Errorf("reference: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read from
	info, err := f.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("reference: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("reference '%s' is no file", file)
	}
	r, notes, err = read(f, info.Size(), timeColumn)
	if err != nil {
		return nil, notes, fmt.Errorf("reference '%s': %w", file, err)
	}
	r.Source, r.Created = filepath.Base(file), time.Now().UTC().Truncate(time.Second)
	return r, notes, nil
}

// errEmpty is the error of a file without a row.
var errEmpty = errors.New("the file is empty: a header and rows are needed")

func read(f io.ReaderAt, size int64, timeColumn string) (*drift.Reference, []string, error) {
	if size == 0 {
		return nil, nil, errEmpty
	}
	head := make([]byte, 4)
	n, _ := f.ReadAt(head, 0)
	whole := io.NewSectionReader(f, 0, size)
	switch head = head[:n]; {
	case bytes.Equal(head, []byte("PAR1")):
		return readParquet(f, size, timeColumn)
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		packed, err := gzip.NewReader(whole)
		if err != nil {
			return nil, nil, fmt.Errorf("unpack: %w", err)
		}
		return readCSV(packed, timeColumn)
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		return nil, nil, errors.New("it is a zip archive: unpack it first")
	}
	return readCSV(whole, timeColumn)
}

// readCSV reads values as texts. The separator is the one that the header has most.
func readCSV(in io.Reader, timeColumn string) (*drift.Reference, []string, error) {
	buffered := bufio.NewReaderSize(in, 1<<16)
	if bom, _ := buffered.Peek(3); bytes.Equal(bom, []byte("\xef\xbb\xbf")) {
		_, _ = buffered.Discard(3)
	}
	head, _ := buffered.Peek(1 << 15)
	line, _, _ := bytes.Cut(head, []byte("\n"))
	r := csv.NewReader(buffered)
	r.ReuseRecord = true
	for _, separator := range ";\t|" {
		if bytes.Count(line, []byte(string(separator))) > bytes.Count(line, []byte(string(r.Comma))) {
			r.Comma = separator
		}
	}
	names, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, nil, errEmpty
	}
	if err != nil {
		return nil, nil, fmt.Errorf("header: %w", err)
	}
	if bytes.IndexByte(line, 0) >= 0 {
		return nil, nil, errors.New("it is neither CSV nor Parquet")
	}
	clean := make([]string, len(names))
	for i, name := range names {
		clean[i] = strings.TrimSpace(name)
	}
	return collect(clean, timeColumn, func(row []any) (bool, error) {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("row: %w", err)
		}
		for i, text := range record {
			if row[i] = any(text); drift.MissingWord(strings.TrimSpace(text)) {
				row[i] = nil
			}
		}
		return true, nil
	})
}

// collect builds a reference of the rows that next fills.
func collect(names []string, timeColumn string, next func(row []any) (bool, error)) (*drift.Reference, []string, error) {
	b, err := drift.NewBuilder(names, timeColumn)
	if err != nil {
		return nil, nil, err
	}
	row := make([]any, len(names))
	for {
		more, err := next(row)
		if err != nil {
			return nil, nil, err
		}
		if !more {
			return b.Build()
		}
		if err := b.Row(row); err != nil {
			return nil, nil, err
		}
	}
}

// readParquet reads the columns that have one value in each row.
func readParquet(f io.ReaderAt, size int64, timeColumn string) (r *drift.Reference, notes []string, err error) {
	defer func() { // the library panics on some damaged files
		if p := recover(); p != nil {
			r, err = nil, fmt.Errorf("the Parquet file is damaged: %v", p)
		}
	}()
	file, err := parquet.OpenFile(f, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return nil, nil, fmt.Errorf("open as Parquet: %w", err)
	}
	var names []string
	places := map[int]int{} // index of the leaf -> place in a row
	values := []func(parquet.Value) any{}
	for _, column := range file.Root().Columns() {
		switch name := column.Name(); {
		case !column.Leaf() || column.Repeated():
			notes = append(notes, fmt.Sprintf("column '%s' is nested: not watched", name))
		case strings.HasPrefix(name, "__index_level_"): // of pandas
		default:
			places[column.Index()] = len(names)
			names = append(names, name)
			values = append(values, valueOf(column.Type()))
		}
	}
	if len(names) == 0 {
		return nil, notes, errors.New("the file has no column with one value in each row")
	}
	groups := file.RowGroups()
	var rows parquet.Rows
	defer func() {
		if rows != nil {
			_ = rows.Close()
		}
	}()
	buffer, have := make([]parquet.Row, 256), 0
	at := 0
	r, more, err := collect(names, timeColumn, func(row []any) (bool, error) {
		for at >= have {
			if rows == nil {
				if len(groups) == 0 {
					return false, nil
				}
				rows, groups = groups[0].Rows(), groups[1:]
			}
			n, err := rows.ReadRows(buffer)
			if at, have = 0, n; n > 0 {
				break
			}
			if err != nil && !errors.Is(err, io.EOF) {
				return false, fmt.Errorf("read rows: %w", err)
			}
			_ = rows.Close()
			rows = nil
		}
		clear(row)
		for _, value := range buffer[at] {
			if i, ok := places[value.Column()]; ok && !value.IsNull() {
				row[i] = values[i](value)
			}
		}
		at++
		return true, nil
	})
	return r, append(notes, more...), err
}

// valueOf converts the values of a column: to float64, bool, string, or time.Time, nil for others.
func valueOf(t parquet.Type) func(parquet.Value) any {
	logical := t.LogicalType()
	scale := 1.0
	if logical != nil {
		switch l := logical.Value.(type) {
		case *format.TimestampType:
			unit := time.Nanosecond
			switch l.Unit.String() {
			case "MILLIS":
				unit = time.Millisecond
			case "MICROS":
				unit = time.Microsecond
			}
			return func(v parquet.Value) any {
				if unit == time.Nanosecond {
					return time.Unix(0, v.Int64()).UTC()
				}
				if unit == time.Microsecond {
					return time.UnixMicro(v.Int64()).UTC()
				}
				return time.UnixMilli(v.Int64()).UTC()
			}
		case *format.DateType:
			return func(v parquet.Value) any { return time.Unix(int64(v.Int32())*86400, 0).UTC() }
		case *format.DecimalType:
			scale = math.Pow10(-int(l.Scale))
		case *format.IntType:
			if !l.IsSigned && t.Kind() == parquet.Int64 {
				return func(v parquet.Value) any { return float64(v.Uint64()) }
			}
			if !l.IsSigned && t.Kind() == parquet.Int32 {
				return func(v parquet.Value) any { return float64(v.Uint32()) }
			}
		}
	}
	switch t.Kind() {
	case parquet.Boolean:
		return func(v parquet.Value) any { return v.Boolean() }
	case parquet.Int32:
		return func(v parquet.Value) any { return float64(v.Int32()) * scale }
	case parquet.Int64:
		return func(v parquet.Value) any { return float64(v.Int64()) * scale }
	case parquet.Float:
		return func(v parquet.Value) any { return float64(v.Float()) }
	case parquet.Double:
		return func(v parquet.Value) any { return v.Double() }
	case parquet.ByteArray:
		if scale != 1 {
			return func(parquet.Value) any { return nil }
		}
		return func(v parquet.Value) any { return string(v.ByteArray()) }
	}
	return func(parquet.Value) any { return nil }
}
