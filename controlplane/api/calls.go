package api

import (
	"cmp"
	"slices"
)

// CallInfo says of a call who may make it, for the table in docs/security.md.
type CallInfo struct {
	Name   string
	Caller string
}

// Calls lists the calls that are answered, from the table that answers them.
func (s *Server) Calls() []CallInfo {
	all := make([]CallInfo, 0, len(s.calls))
	for name, c := range s.calls {
		all = append(all, CallInfo{Name: name, Caller: c.needs.String()})
	}
	slices.SortFunc(all, func(a, b CallInfo) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// String says whom a call answers.
func (p permission) String() string {
	switch p {
	case open:
		return "anybody"
	case mayIfKnown:
		return "anybody; tells more to users"
	case mayRead:
		return "users and guests"
	case mayWrite:
		return "users"
	case mayAdmin:
		return "admins"
	}
	return "nobody"
}
