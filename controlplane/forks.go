package controlplane

import (
	"net/http"
	"strings"
)

// closesForPython ends the connection with each answer to Python's requests package.
// The ClearML SDK forks a process of its own for reports, and training scripts fork
// too: parent and child then hold the same idle connection, and each may read the
// answer that is for the other. The SDK takes the answer of another call for a success
// without data: the model it has just made is never mentioned again. A connection that
// isn't kept can't be shared; the original server keeps none either.
func closesForPython(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 1 && strings.HasPrefix(r.UserAgent(), "python-requests") {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}
