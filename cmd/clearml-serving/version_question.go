package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"clearmlserving/operations"
)

// openForEdit selects the service and asks before it edits one that another
// version has made.
func (a *app) openForEdit(ctx context.Context) (*operations.Service, error) {
	s, err := a.openService(ctx)
	if err != nil {
		return nil, err
	}
	stored, own := majorMinor(firstOf(s.Doc.Version, "1.0.0")), majorMinor(compatVersion)
	s.Author.Name = a.author(ctx, s.Client)
	if stored == own {
		return s, nil
	}
	a.print.notice("WARNING: You are about to edit clearml-serving session ID=%s\n"+
		"It was created with a different version (%s), you are currently using version %s", s.Doc.ID, stored, own)
	yes, err := a.confirm(ctx, "Do you want to continue [n]/y? ")
	if err != nil {
		return nil, err
	}
	if !yes {
		a.print.notice("INFO: If you wish to downgrade your clearml-serving CLI use `pip3 install clearml-serving==%s`", stored)
		return nil, errDeclined
	}
	return s, nil
}

// errDeclined ends a command whose question was answered with no. It is no failure.
var errDeclined = errors.New("declined")

// majorMinor is a version as the original compares it: a number of two parts.
func majorMinor(version string) string {
	parts := strings.SplitN(version, ".", 3)
	f, err := strconv.ParseFloat(strings.Join(parts[:min(2, len(parts))], "."), 64)
	if err != nil {
		return version
	}
	return pyFloat(f)
}

// confirm asks a question. With --yes the answer is yes.
func (a *app) confirm(ctx context.Context, question string) (bool, error) {
	out := a.sys.stdout
	if a.print.json {
		out = a.sys.stderr
	}
	if a.yes {
		put(out, "%sy", question)
		return true, nil
	}
	_, _ = fmt.Fprint(out, question)
	type reading struct {
		line string
		err  error
	}
	// A read from a terminal cannot be interrupted: on Ctrl-C the goroutine is
	// left behind and ends with the process, which is what comes next.
	answers := make(chan reading, 1)
	go func() {
		line, err := bufio.NewReader(a.sys.stdin).ReadString('\n')
		answers <- reading{line, err}
	}()
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case r := <-answers:
		line := strings.ToLower(strings.TrimSpace(r.line))
		if r.err != nil && line == "" {
			return false, hint(errors.New("EOF when reading a line: the question was not answered"), "Try: clearml-serving --yes %s", strings.Join(a.sys.args, " "))
		}
		return line == "y" || line == "yes", nil
	}
}
