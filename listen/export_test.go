package listen

import "net/netip"

// Holder lets tests in on the search for the process that has a port.
var Holder = holder

// Explain lets tests in on what is said of an address that the system refuses: which
// it refuses depends on who runs the tests and where.
func Explain(o Options, err error) error {
	return explain(o, netip.MustParseAddrPort(o.Addr), err)
}
