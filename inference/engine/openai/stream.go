package openai

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/openaiapi"
)

const (
	pieceSize = 16 << 10
	mostEvent = 16 << 20 // of one event
)

// stream is an answer in events, which are sent as they come: all events that are there at once are one piece.
type stream struct {
	m      *model
	q      *question
	body   io.ReadCloser
	cancel context.CancelCauseFunc
	ctx    context.Context //nolint:containedctx // whose end ends the stream; the same for all calls of Next
	unhook func() bool

	splitter // what has been read and is no whole event yet
	out      []byte
	finished bool  // the last event has come
	failed   error // after the event that tells it
	reading  error // the end of the body

	id      string // for chunks without one
	begun   time.Time
	last    time.Time // of the last piece of content
	pieces  int64     // of content
	usage   openaiapi.Usage
	counted bool
	events  *events // of the Responses API
}

func newStream(m *model, q *question, body io.ReadCloser, cancel context.CancelCauseFunc, begun time.Time) *stream {
	s := &stream{m: m, q: q, body: body, cancel: cancel, begun: begun}
	if q.responses != nil {
		s.events = &events{r: q.responses}
	}
	return s
}

// Next implements engine.Stream.
func (s *stream) Next(ctx context.Context) ([]byte, error) {
	if s.failed != nil {
		return nil, s.failed
	}
	if s.unhook == nil || s.ctx != ctx {
		if s.unhook != nil {
			s.unhook()
		}
		s.ctx, s.unhook = ctx, context.AfterFunc(ctx, func() { s.cancel(context.Cause(ctx)) })
	}
	s.out = s.out[:0]
	for {
		for {
			event, ok := s.cut()
			if !ok {
				break
			}
			if err := s.event(event); err != nil {
				return s.fail(err)
			}
		}
		if len(s.out) > 0 {
			return s.out, nil
		}
		if s.reading != nil {
			return s.end()
		}
		if len(s.buffer) > mostEvent {
			return s.fail(fmt.Errorf("an event of the engine is larger than %d bytes", mostEvent))
		}
		s.read()
	}
}

// read reads what is there, or waits for it.
func (s *stream) read() {
	timer := time.AfterFunc(s.m.settings.Stall, func() { s.cancel(errStalled) })
	defer timer.Stop()
	if cap(s.buffer)-len(s.buffer) < pieceSize/4 {
		s.buffer = append(make([]byte, 0, max(2*len(s.buffer), pieceSize)), s.buffer...)
	}
	n, err := s.body.Read(s.buffer[len(s.buffer):cap(s.buffer)])
	s.buffer = s.buffer[:len(s.buffer)+n]
	s.reading = err
}

// splitter takes events from a text.
type splitter struct {
	buffer  []byte
	scanned int // of buffer, without the end of an event
}

// cut takes the next whole event from the buffer, with the empty line at its end.
func (s *splitter) cut() ([]byte, bool) {
	for i := s.scanned; ; {
		n := bytes.IndexByte(s.buffer[i:], '\n')
		if n < 0 {
			s.scanned = max(len(s.buffer)-2, 0)
			return nil, false
		}
		i += n + 1
		rest := s.buffer[i:]
		size := 0
		switch {
		case len(rest) > 0 && rest[0] == '\n':
			size = 1
		case len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n':
			size = 2
		default:
			continue
		}
		event := s.buffer[: i+size : i+size]
		s.buffer, s.scanned = s.buffer[i+size:], 0
		return event, true
	}
}

// dataOf is the data of an event, nil if it has none, as a comment.
func dataOf(event []byte) []byte {
	var data []byte
	several := false
	for line := range bytes.Lines(event) {
		value, ok := bytes.CutPrefix(bytes.TrimRight(line, "\r\n"), []byte("data:"))
		if !ok {
			continue
		}
		value = bytes.TrimPrefix(value, []byte(" "))
		if data == nil && !several {
			data, several = value, true
			continue
		}
		data = append(append(bytes.Clone(data), '\n'), value...)
	}
	return data
}

var (
	doneData     = []byte("[DONE]")
	errorMember  = []byte(`"error"`)
	choiceMember = []byte(`"choices"`)
	usageMember  = []byte(`"usage"`)
)

// event takes an event of the server. An error says that it is none of the API.
func (s *stream) event(event []byte) error {
	data := dataOf(event)
	switch {
	case data == nil: // a comment, which keeps the connection alive
		if s.events == nil {
			s.out = append(s.out, event...)
		}
		return nil
	case bytes.Equal(bytes.TrimSpace(data), doneData):
		s.finish()
		if s.events != nil {
			s.out = s.events.end(s.out)
			return nil
		}
		s.out = append(s.out, event...)
		return nil
	case !json.Valid(data):
		return errors.New("the engine sends events that are not JSON")
	}
	if s.q.route != openaiapi.Chat && s.q.route != openaiapi.Completions {
		return s.other(event, data)
	}
	if bytes.Contains(data, errorMember) && !bytes.Contains(data, choiceMember) {
		return &toldError{refusalOf(500, data)}
	}
	s.time(data)
	if s.events == nil && !bytes.Contains(data, usageMember) {
		s.pass(event, data)
		return nil
	}
	return s.chunk(event, data)
}

// toldError is an error that the server has sent as an event.
type toldError struct{ problem *openaiapi.Problem }

func (e *toldError) Error() string { return "the engine reports: " + e.problem.Message }

// other takes an event of another route, whose end is that of the body.
func (s *stream) other(event, data []byte) error {
	if bytes.Contains(data, usageMember) {
		if o, err := openaiapi.ParseObject(data); err == nil {
			if inner, err := openaiapi.ParseObject(o.Get("response")); err == nil { // of the Responses API
				o = inner
			}
			if u, ok := usageOf(&o); ok {
				s.usage, s.counted = u, true
			}
		}
	}
	s.out = append(s.out, event...)
	return nil
}

// pass sends a chunk, completed if it lacks something.
func (s *stream) pass(event, data []byte) {
	if whole(data) {
		s.out = append(s.out, event...)
		return
	}
	if s.id == "" {
		s.id = newID("chatcmpl-")
	}
	s.send(completeChunk(data, s.q.route, s.m.name(), s.id, s.begun.Unix()))
}

func (s *stream) send(data []byte) {
	s.out = append(append(append(s.out, "data: "...), data...), "\n\n"...)
}

// chunk takes a chunk that has to be read.
func (s *stream) chunk(event, data []byte) error {
	o, err := openaiapi.ParseObject(data)
	if err != nil {
		return fmt.Errorf("the engine sends events that are no objects: %w", err)
	}
	u, ok := usageOf(&o)
	if ok {
		s.usage, s.counted = u, true
	}
	if s.events != nil {
		s.out = s.events.chunk(s.out, &o)
		return nil
	}
	if ok && !s.q.usage && emptyList(o.Get("choices")) {
		return nil // it was asked for by this instance, not by the client
	}
	s.pass(event, data)
	return nil
}

func emptyList(text json.RawMessage) bool {
	var list []json.RawMessage
	return json.Unmarshal(text, &list) == nil && len(list) == 0
}

// emptyContent are chunks without content, such as the first one, which has the role.
var emptyContent = [][]byte{[]byte(`"content":""`), []byte(`"content":null`), []byte(`"delta":{}`), []byte(`"choices":[]`), []byte(`"text":""`)} //nolint:gochecknoglobals // a constant table

// time measures when content comes.
func (s *stream) time(data []byte) {
	for _, empty := range emptyContent {
		if bytes.Contains(data, empty) && !bytes.Contains(data, []byte(`"tool_calls"`)) && !bytes.Contains(data, []byte(`"reasoning`)) {
			return
		}
	}
	now := time.Now()
	if s.pieces == 0 {
		s.m.tokens.first.add(now.Sub(s.begun))
	} else {
		s.m.tokens.between.add(now.Sub(s.last))
	}
	s.last = now
	s.pieces++
}

// finish counts the tokens at the end. Without a usage, each piece of content is one.
func (s *stream) finish() {
	if s.finished {
		return
	}
	s.finished = true
	if !s.counted {
		s.usage.Completion = s.pieces
	}
	s.m.count(s.usage)
}

// end ends the stream after the last byte of the server.
func (s *stream) end() ([]byte, error) {
	known := s.q.route == openaiapi.Chat || s.q.route == openaiapi.Completions
	if errors.Is(s.reading, io.EOF) && (s.finished || !known) && len(bytes.TrimSpace(s.buffer)) == 0 {
		s.finish()
		return nil, io.EOF
	}
	if s.ctx.Err() != nil {
		s.finish()
		s.failed = context.Cause(s.ctx)
		return nil, s.failed
	}
	if errors.Is(s.reading, io.EOF) {
		s.reading = io.ErrUnexpectedEOF
	}
	return s.fail(s.reading)
}

// fail sends an event that tells the failure; the next call of Next returns it.
func (s *stream) fail(err error) ([]byte, error) {
	p := openaiapi.ProblemOf(500, "the engine failed while it answered"+s.m.cause()+": "+s.words(err))
	p.Code = "engine_failed"
	if told, ok := errors.AsType[*toldError](err); ok {
		p = told.problem
	}
	s.finish()
	s.m.e.o.Logger.Warn("stream failed", "endpoint", s.m.url, "err", s.words(err))
	s.failed = &engine.Error{Kind: engine.KindDied, Endpoint: s.m.url, Text: p.Message, Err: err}
	if s.events != nil {
		s.out = s.events.fail(s.out, p)
	} else {
		s.send(p.Body())
	}
	s.cancel(nil)
	return s.out, nil
}

// words say what has ended the answer.
func (s *stream) words(err error) string {
	if errors.Is(err, context.Canceled) {
		return fmt.Sprintf("%s for %s", errStalled, s.m.settings.Stall) // the end of the client is not told
	}
	return err.Error()
}

// Close implements engine.Stream. It ends the generation if the stream has not ended.
func (s *stream) Close() error {
	if s.unhook != nil {
		s.unhook()
	}
	if !s.finished && s.pieces > 0 {
		s.finish()
	}
	s.cancel(nil)
	return s.body.Close()
}
