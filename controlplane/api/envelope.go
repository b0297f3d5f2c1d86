package api

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"strconv"

	"clearmlserving/controlplane/documents"
)

// newestVersion is the API version of this server.
const newestVersion = "2.31"

// envelope is the frame of every answer, errors included. Clients repeat a call forever if
// the answer has no "meta".
type envelope struct {
	Meta meta `json:"meta"`
	Data any  `json:"data"`
}

type meta struct {
	ID            string         `json:"id"`
	Trx           string         `json:"trx"`
	Endpoint      endpoint       `json:"endpoint"`
	ResultCode    int            `json:"result_code"`
	ResultSubcode int            `json:"result_subcode"`
	ResultMsg     string         `json:"result_msg"`
	ErrorStack    *string        `json:"error_stack"`
	ErrorData     map[string]any `json:"error_data"`
}

type endpoint struct {
	Name             string `json:"name"`
	RequestedVersion string `json:"requested_version"`
	ActualVersion    string `json:"actual_version"`
}

// newMeta makes the frame of a success; refused turns it into that of an error.
func newMeta(r *http.Request, name, version string) meta {
	id := documents.NewID()
	trx := id
	for _, key := range []string{"X-Clearml-Trx", "X-Trains-Trx"} {
		if given := r.Header.Get(key); given != "" && len(given) <= 200 {
			trx = given
		}
	}
	return meta{
		ID: id, Trx: trx,
		Endpoint:   endpoint{Name: name, RequestedVersion: version, ActualVersion: version},
		ResultCode: http.StatusOK, ResultMsg: "OK", ErrorData: map[string]any{},
	}
}

// refused returns the frame of an error.
func (m meta) refused(e *documents.Error) meta {
	m.ResultCode, m.ResultSubcode, m.ResultMsg = e.Code, e.Subcode, e.Msg
	return m
}

// send writes the envelope. Data that cannot be encoded becomes an error 500.
func send(w http.ResponseWriter, log *slog.Logger, m meta, data any) {
	if data == nil {
		data = none{}
	}
	text, err := encode(envelope{Meta: m, Data: data})
	if err != nil {
		log.Error("answer could not be encoded", "call", m.Endpoint.Name, "err", err)
		told, _ := asError(err)
		m = m.refused(told)
		text, _ = encode(envelope{Meta: m, Data: none{}}) // plain strings and numbers: never fails
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(m.ResultCode)
	_, _ = w.Write(text) // a client that has disconnected does not need the error
}

func encode(v any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return out.Bytes(), err
}

func formatInt(n int64) string { return strconv.FormatInt(n, 10) }
