package ui

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"strconv"
	"strings"
)

// pageSize is how many rows a list shows.
const pageSize = 50

// list is a page of documents, newest first, and the query that led to it. A page begins
// behind a row, or ends before one, so that every page costs the same.
type list[T any] struct {
	Rows []T
	// Page is how far the page is from the first, which is 0; negative ones are counted
	// from the end, where the last is -1. Changes meanwhile make it inexact.
	Page                 int
	HasNext, HasPrevious bool
	query                url.Values
	path                 string
	first, last          string // the places of the outer rows
}

// The parameters of a page's address: the place that it lies behind or before, and the
// number of the page.
const (
	paramAfter, paramBefore, paramPage = "after", "before", "page"
	// theEnd is the place behind all rows.
	theEnd = "end"
)

// Next is the address of the page behind this one.
func (l list[T]) Next() string {
	if l.Page == -2 {
		return l.End()
	}
	return l.at(paramAfter, l.last, l.Page+1)
}

// Previous is the address of the page before.
func (l list[T]) Previous() string {
	if l.Page == 1 {
		return l.Start()
	}
	return l.at(paramBefore, l.first, l.Page-1)
}

// Start is the address of the first page.
func (l list[T]) Start() string { return l.at("", "", 0) }

// End is the address of the last page.
func (l list[T]) End() string { return l.at(paramBefore, theEnd, -1) }

// Range says which rows these are.
func (l list[T]) Range() string {
	n := len(l.Rows)
	switch {
	case l.Page >= 0:
		return fmt.Sprintf("%d–%d", l.Page*pageSize+1, l.Page*pageSize+n)
	case l.Page == -1:
		return fmt.Sprintf("the last %d", n)
	}
	before := (-l.Page - 1) * pageSize
	return fmt.Sprintf("%d–%d from the end", before+1, before+n)
}

// Single says that everything stands on one page.
func (l list[T]) Single() bool { return !l.HasNext && !l.HasPrevious }

func (l list[T]) at(param, place string, page int) string {
	q := maps.Clone(l.query)
	for _, name := range []string{paramAfter, paramBefore, paramPage} {
		q.Del(name)
	}
	if param != "" {
		q.Set(param, place)
		q.Set(paramPage, strconv.Itoa(page))
	}
	if len(q) == 0 {
		return l.path
	}
	return l.path + "?" + q.Encode()
}

// readList asks for one page of a list, newest first, and for one row more, to know
// whether it goes on.
func readList[T any](v *visit, call, name string, query map[string]any) (list[T], error) {
	l := list[T]{query: v.r.URL.Query(), path: v.r.URL.Path}
	query["order_by"], query["page_size"] = []string{"-created"}, pageSize+1
	after, before := placeIn(l.query.Get(paramAfter)), placeIn(l.query.Get(paramBefore))
	switch {
	case after != nil:
		query["search_after"] = after
	case before != nil:
		query["search_before"] = before
	}
	rows, err := take[[]json.RawMessage](v, call, name, query)
	if err == nil && len(rows) == 0 && (after != nil || before != nil) {
		// What was there is gone, or the address was cut: begin anew.
		after, before = nil, nil
		delete(query, "search_after")
		delete(query, "search_before")
		rows, err = take[[]json.RawMessage](v, call, name, query)
	}
	if err != nil {
		return l, err
	}
	more := len(rows) > pageSize
	switch {
	case after != nil:
		l.HasPrevious, l.HasNext = true, more
		rows = rows[:min(len(rows), pageSize)]
	case before != nil:
		l.HasPrevious, l.HasNext = more, len(before) > 0
		rows = rows[max(len(rows)-pageSize, 0):]
	default:
		l.HasNext = more
		rows = rows[:min(len(rows), pageSize)]
	}
	if after != nil || before != nil {
		l.Page, _ = strconv.Atoi(l.query.Get(paramPage)) // for people only
	}
	return l, l.read(call, rows)
}

func (l *list[T]) read(call string, rows []json.RawMessage) error {
	l.Rows = make([]T, len(rows))
	for i, row := range rows {
		if err := json.Unmarshal(row, &l.Rows[i]); err != nil {
			return fmt.Errorf("%s: read the answer: %w", call, err)
		}
	}
	if len(rows) == 0 {
		return nil
	}
	var err error
	if l.first, err = placeOf(rows[0]); err == nil {
		l.last, err = placeOf(rows[len(rows)-1])
	}
	if err != nil {
		return fmt.Errorf("%s: read the answer: %w", call, err)
	}
	return nil
}

// placeOf is where a row stands, for an address. The time is taken digit by digit.
func placeOf(row json.RawMessage) (string, error) {
	var key struct {
		ID      string `json:"id"`
		Created string `json:"created"`
	}
	err := json.Unmarshal(row, &key)
	return key.Created + "," + key.ID, err
}

// placeIn makes of an address's place what the API's search_after and search_before take:
// nil of what is none.
func placeIn(text string) []any {
	if text == theEnd {
		return []any{}
	}
	created, id, ok := strings.Cut(text, ",")
	if !ok || id == "" {
		return nil
	}
	if created == "" {
		return []any{nil, id} // what has no time comes last
	}
	return []any{created, id}
}

// part is the place of some rows of a long table that is in memory.
type part struct {
	From, To, Of   int
	Previous, Next string // addresses, "" for none
}

// paramFrom is the number of the first row of a part, from 0.
const paramFrom = "from"

// partOf is the part of a table that the address names, of at most this many rows.
func partOf[T any](v *visit, rows []T, most int) ([]T, part) {
	q := v.r.URL.Query()
	from, _ := strconv.Atoi(q.Get(paramFrom)) // what is no number is the beginning
	if from < 0 || from >= len(rows) {
		from = 0
	}
	p := part{From: from + 1, To: min(from+most, len(rows)), Of: len(rows)}
	at := func(from int) string {
		q.Set(paramFrom, strconv.Itoa(from))
		return "?" + q.Encode()
	}
	if from > 0 {
		p.Previous = at(max(0, from-most))
	}
	if p.To < len(rows) {
		p.Next = at(p.To)
	}
	return rows[from:p.To], p
}
