package files

// Route is one way into the file server, for the table in docs/security.md.
type Route struct {
	Method, Path, Caller string
}

// The callers of the file server.
const (
	callerAnybody = "anybody"
	callerReader  = "users and guests; anybody, where anonymous reading is on"
	callerWriter  = "users"
)

// Routes lists every way in. That nothing else is answered without credentials is
// the business of a test, which asks with every method.
func Routes() []Route {
	return []Route{
		{"OPTIONS", "/<path>", callerAnybody},
		{"GET, HEAD", "/", callerAnybody},
		{"GET, HEAD", "/<path>", callerReader},
		{"POST", "/", callerWriter},
		{"POST", "/delete_many", callerWriter},
		{"PUT", "/<path>", callerWriter},
		{"DELETE", "/<path>", callerWriter},
	}
}
