package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// codeFaults are harmful actions of user code on its process. Requests of the same endpoint may be
// lost with their worker, but no others.
func codeFaults() []fault {
	do := func(what string) string { return `{"x": 1, "do": "` + what + `"}` }
	died := append([]int{http.StatusGatewayTimeout}, lost...)
	raised := []int{http.StatusUnprocessableEntity, http.StatusInternalServerError}
	return []fault{
		{name: "code-exits", about: "user code calls os._exit", hit: victim, statuses: lost, inject: several(3, 300*time.Millisecond, harm(do("exit"), lost...))},
		{name: "code-sys-exit", about: "user code calls sys.exit", slow: true, hit: victim, statuses: died, inject: harm(do("sys_exit"), append(raised, lost...)...)},
		{name: "code-segfault", about: "native code reads address 0", hit: victim, statuses: lost, inject: harm(do("segv"), lost...)},
		{name: "code-raises", about: "an exception whose __str__ raises", hit: victim, inject: several(20, 0, harm(do("raise"), raised...))},
		{name: "code-recursion", about: "endless recursion", slow: true, hit: victim, inject: harm(do("recursion"), raised...)},
		{name: "code-spins", about: "an endless Python loop: killed after its deadline", slow: true, hit: victim, statuses: died, inject: overdue(do("spin"))},
		{name: "code-stuck-native", about: "native code that holds the GIL past the deadline", hit: victim, statuses: died, inject: overdue(do("native"))},
		{name: "code-blocks-signals", about: "an endless loop with all signals blocked", slow: true, hit: victim, statuses: died, inject: overdue(do("deaf"))},
		{name: "code-leaks-threads", about: "200 threads that never end", hit: victim, statuses: lost, inject: harm(do("threads"), http.StatusOK)},
		{name: "code-leaks-files", about: "opens files up to the limit", slow: true, hit: victim, statuses: lost, inject: harm(do("files"), http.StatusOK, http.StatusUnprocessableEntity, http.StatusInternalServerError)},
		{name: "code-forks", about: "20 children that never end", hit: victim, statuses: lost, inject: harm(do("forks"), http.StatusOK)},
		{name: "code-prints", about: "prints 30 MB", slow: true, hit: victim, inject: harm(do("print"), http.StatusOK)},
		{name: "code-closes-output", about: "closes stdout and stderr", hit: victim, inject: harm(do("mute"), http.StatusOK)},
		{name: "code-closes-socket", about: "closes every socket of the process", slow: true, hit: victim, statuses: lost, inject: harm(do("cut"), append([]int{http.StatusOK}, lost...)...)},
		{name: "code-writes-garbage", about: "writes garbage to its socket, as a hostile worker", hit: victim, statuses: lost, inject: harm(do("garbage"), append([]int{http.StatusOK}, lost...)...)},
		{name: "code-kills-group", about: "SIGKILL to its process group", slow: true, hit: victim, statuses: lost, inject: harm(do("kill_group"), lost...)},
		{name: "code-kills-parent", about: "SIGTERM to its parent", slow: true, hit: victim, statuses: lost, inject: harm(do("kill_parent"), append([]int{http.StatusOK}, lost...)...)},
		{name: "code-spoils-process", about: "changes folder, environment, locale and recursion limit", slow: true, hit: victim, inject: harm(do("spoil"), http.StatusOK)},
		{name: "code-clock-steps", about: "the wall clock as a worker sees it jumps by a year, forward and back", hit: victim, inject: func(ctx context.Context, w *world) error {
			return errors.Join(
				w.ask(ctx, victim, `{"x": 1, "do": "step"}`, http.StatusOK), pause(ctx, 300*time.Millisecond),
				w.ask(ctx, victim, `{"x": 0, "do": "step"}`, http.StatusOK), w.ask(ctx, victim, `{"x": 0, "do": "step"}`, http.StatusOK), pause(ctx, 300*time.Millisecond))
		}},
		{name: "code-huge-answer", about: "an answer of 64 MB", slow: true, hit: victim, statuses: []int{http.StatusTooManyRequests}, inject: harm(do("huge"), http.StatusOK)},
		{name: "code-odd-answer", about: "answers that JSON cannot represent: NaN, a socket, a set, a cycle", hit: victim, inject: several(5, 0, harm(do("odd"), http.StatusOK, http.StatusUnprocessableEntity, http.StatusInternalServerError))},
		{name: "code-breaks-stream", about: "the process dies in the middle of a streamed answer", hit: victim, statuses: lost, inject: harm(do("stream_dies"), http.StatusOK, 0)},
		{name: "code-calls-itself", about: "send_request in a circle", slow: true, hit: victim, inject: harm(do("circle"), http.StatusOK, http.StatusUnprocessableEntity, http.StatusInternalServerError, http.StatusLoopDetected)},
		{
			name: "code-burns", about: "two seconds of computing beside all other endpoints", hit: victim, slow: true,
			inject: func(ctx context.Context, w *world) error {
				return w.ask(ctx, victim, do("burn"), http.StatusOK)
			},
		},
		{name: "code-answers-nobody", about: "every request hangs, until /readyz reports the endpoint as unready", hit: victim, statuses: append([]int{http.StatusTooManyRequests}, died...), slow: true, inject: answersNobody},
		{name: "code-crash-loop", about: "dies at each request for three seconds", hit: victim, statuses: lost, slow: true, inject: func(ctx context.Context, w *world) error {
			for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
				if err := w.ask(ctx, victim, do("exit"), lost...); err != nil {
					return err
				}
			}
			return nil
		}},
	}
}

// answersNobody makes every request of the victim hang and waits until its health reports it.
func answersNobody(ctx context.Context, w *world) (err error) {
	hang := filepath.Join(w.dir, "tmp", "hang")
	if err := os.WriteFile(hang, nil, 0o600); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(hang)) }()
	for end := time.Now().Add(2 * stale); ; {
		status, body, err := readyz(ctx, http.DefaultClient, w.serving(), victim)
		if err != nil {
			return err
		}
		if status == http.StatusServiceUnavailable {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("no answer for %v, but /readyz answers %d %s", 2*stale, status, body)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}
