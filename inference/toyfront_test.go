package inference_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"

	"clearmlserving/inference"
	"clearmlserving/inference/engine"
	"clearmlserving/serving"
)

// toyFront is a complete front. Its protocol: a line "endpoint key text" is answered with a
// line "code text".
type toyFront struct {
	core *inference.Service
	l    net.Listener
}

func (f *toyFront) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = f.l.Close() })()
	var clients sync.WaitGroup
	defer clients.Wait()
	for {
		c, err := f.l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		clients.Go(func() {
			defer context.AfterFunc(ctx, func() { _ = c.Close() })()
			defer func() { _ = c.Close() }()
			for lines := bufio.NewScanner(c); lines.Scan(); {
				if _, err := fmt.Fprintln(c, f.answer(ctx, lines.Text())); err != nil {
					return
				}
			}
		})
	}
}

// toyCodes are the protocol's codes of failures.
var toyCodes = map[inference.FailureKind]string{
	inference.KindUnknownEndpoint: "unknown", inference.KindNotReady: "code", inference.KindUnauthenticated: "who",
	inference.KindForbidden: "forbidden", inference.KindOverloaded: "later", inference.KindDeadline: "late",
}

func (f *toyFront) answer(ctx context.Context, line string) string {
	words := strings.SplitN(line, " ", 3)
	ticket, failure := f.core.Admit(inference.Head{Endpoint: serving.CleanURL(words[0]), Key: words[1]})
	var answer inference.Answer
	if failure == nil {
		answer, failure = f.core.Ask(ctx, ticket, &inference.Question{Request: engine.Request{Body: []byte(words[2])}})
	}
	if failure != nil {
		return toyCodes[failure.Kind] + " " + failure.Text
	}
	defer answer.Close()
	body := answer.Body
	for answer.Stream != nil {
		piece, err := answer.Stream.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "cut " + err.Error()
		}
		body = append(body, piece...)
	}
	return fmt.Sprintf("%d %s", answer.Status, body)
}
