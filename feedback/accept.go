package feedback

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"clearmlserving/serving"
)

const maxItems = 10_000 // of one request

// item is the truth about one request, or about one row with its own key.
type item struct {
	key   string
	truth []Truth
	field string // its place in the list
}

// Taken is the answer to feedback that was stored.
type Taken struct {
	Accepted int `json:"accepted"`
	// Joined truths belong to predictions of this instance.
	Joined int `json:"joined"`
	// Pending truths wait for their predictions, which another instance may have.
	Pending int `json:"pending"`
	// Duplicate truths were known already, and are ignored.
	Duplicate int `json:"duplicate"`
}

// Take stores feedback about an endpoint: all of it or nothing. It returns an HTTP status and a JSON
// body.
func (s *Store) Take(endpoint serving.EndpointURL, body []byte) (status int, answer []byte) {
	f := s.table.Load().about(endpoint)
	if f == nil {
		return http.StatusConflict, serving.Detail(fmt.Sprintf(
			"Endpoint '%s' keeps no predictions to compare with: clearml-serving feedback set --endpoint %s", endpoint, endpoint))
	}
	items, err := itemsOf(body, f)
	var taken Taken
	if err == nil {
		taken, err = s.accept(endpoint, items, f)
	}
	if err != nil {
		return refusal(err)
	}
	if taken.Pending > 0 {
		select {
		case s.offered <- struct{}{}:
		default:
		}
	}
	text, err := json.Marshal(taken)
	if err != nil {
		return http.StatusInternalServerError, serving.Detail(err.Error())
	}
	return http.StatusOK, text
}

func refusal(err error) (status int, answer []byte) {
	status = http.StatusUnprocessableEntity
	if _, ok := errors.AsType[*unavailableError](err); ok {
		status = http.StatusServiceUnavailable
	}
	return status, serving.Detail(err.Error())
}

// about returns the option of an endpoint, or of one of the URLs below it.
func (t *table) about(endpoint serving.EndpointURL) *serving.Feedback {
	if f := t.options[endpoint]; f != nil {
		return f
	}
	var best serving.EndpointURL
	for url := range t.options {
		if about(endpoint, url, url) && (best == "" || url < best) {
			best = url
		}
	}
	return t.options[best]
}

// itemsOf reads the body of a request: an object or a list of objects.
func itemsOf(body []byte, f *serving.Feedback) ([]item, error) {
	value, err := parse(body)
	if err != nil {
		return nil, &invalidError{"The body " + err.Error()}
	}
	list, several := value.([]any)
	if !several {
		list = []any{value}
	}
	if len(list) > maxItems {
		return nil, &invalidError{fmt.Sprintf("The list has %d items: send at most %d at a time", len(list), maxItems)}
	}
	items := make([]item, len(list))
	for i, one := range list {
		field := ""
		if several {
			field = fmt.Sprintf("[%d].", i)
		}
		if items[i], err = itemOf(one, f, field); err != nil {
			return nil, err
		}
	}
	return items, nil
}

func itemOf(value any, f *serving.Feedback, field string) (item, error) {
	it := item{field: field}
	object, ok := value.(map[string]any)
	if !ok {
		what := "The body"
		if field != "" {
			what = field[:len(field)-1]
		}
		return it, &invalidError{what + ` must be an object like {"request_id": "…", "truth": 1}`}
	}
	name, other := "request_id", "key"
	if f.Key != "" {
		name, other = other, name
	}
	for given := range object {
		switch given {
		case name, "truth":
		case other:
			if f.Key != "" {
				return it, &invalidError{field + other + ": feedback about this endpoint names the client's key: send " + name + ", the value of " + f.Key + " in the request"}
			}
			return it, &invalidError{field + other + ": this endpoint has no field with the client's key: send " + name + ", from the header X-Request-Id of the answer"}
		default:
			return it, &invalidError{fmt.Sprintf("%s%s: there is no such field: send %s and truth", field, given, name)}
		}
	}
	key, ok := object[name]
	if !ok {
		return it, &invalidError{field + name + " is missing"}
	}
	if it.key, ok = keyText(key); !ok {
		return it, &invalidError{fmt.Sprintf("%s%s must be a text of 1 to %d bytes", field, name, maxKey)}
	}
	truth, ok := object["truth"]
	if !ok {
		return it, &invalidError{field + "truth is missing"}
	}
	rows, several := truth.([]any)
	if !several {
		rows = []any{truth}
	}
	if len(rows) == 0 || len(rows) > maxRows {
		return it, &invalidError{fmt.Sprintf("%struth must have 1 to %d values", field, maxRows)}
	}
	it.truth = make([]Truth, len(rows))
	for i, row := range rows {
		place := field + "truth"
		if several {
			place += fmt.Sprintf("[%d]", i)
		}
		if f.Task == serving.TaskRegression {
			n, ok := number(row)
			if !ok {
				return it, &invalidError{place + " must be a number: the endpoint's task is regression"}
			}
			it.truth[i].Number = &n
		} else if it.truth[i].Class, ok = class(row); !ok {
			return it, &invalidError{fmt.Sprintf("%s must be a class: a text of at most %d bytes, a number, true or false", place, maxClass)}
		}
	}
	return it, nil
}

// accept stores the items of one request in one transaction.
func (s *Store) accept(endpoint serving.EndpointURL, items []item, f *serving.Feedback) (taken Taken, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keepWaiting(nil) // they come first
	s.open()
	err = s.write(func(tx *tx) error {
		taken = Taken{Accepted: len(items)}
		for _, it := range items {
			p, err := tx.find(endpoint, it.key)
			if err != nil {
				return err
			}
			switch {
			case p == nil:
				stored, err := tx.wait(endpoint, it.key, it.truth)
				if err != nil {
					return err
				}
				if stored {
					taken.Pending++
				} else {
					taken.Duplicate++
					tx.count(endpoint, countDuplicate, 1)
				}
			case p.joined:
				taken.Duplicate++
				tx.count(endpoint, countDuplicate, 1)
			default:
				if why := mismatch(p.rows, it.truth); why != "" {
					return &invalidError{it.field + "truth " + why}
				}
				if err := tx.join(*p, it.truth, f); err != nil {
					return err
				}
				taken.Joined++
				tx.count(endpoint, countJoined, 1)
			}
		}
		return nil
	})
	return taken, err
}
