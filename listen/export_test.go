package listen

import "net/netip"

// Holder exports the search for the process that has a port.
var Holder = holder

// Explain exports the explanation of an address that the system refuses, because the
// refused addresses depend on the user and the machine.
func Explain(o Options, err error) error {
	return explain(o, netip.MustParseAddrPort(o.Addr), err)
}
