package files

// Route is one route of the file server, for the table in docs/security.md.
type Route struct {
	Method, Path, Caller string
}

// The callers of the file server.
const (
	callerAnybody = "anybody"
	callerReader  = "users and guests"
	callerWriter  = "users"
)

// Routes lists every route. A test with every method checks that nothing else is answered without
// credentials.
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
