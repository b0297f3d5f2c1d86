package main

import "net/http"

// userCodeFaults are actions that user code is allowed to do: no request may be lost.
func userCodeFaults() []fault {
	do := func(what string) string { return `{"x": 1, "do": "` + what + `"}` }
	return []fault{
		{name: "code-forks-and-returns", about: "os.fork, and the child returns into the worker's loop", hit: victim, inject: several(30, 0, harm(do("fork"), http.StatusOK))},
		{name: "code-forks-in-c", about: "fork from C code, and the child returns into the worker's loop", hit: victim, slow: true, inject: several(30, 0, harm(do("fork_native"), http.StatusOK))},
	}
}
