// Package security is the suite that attacks the product with the known holes of
// its field: each test is named by what went wrong elsewhere, with its number. It
// also enumerates every listener and route and holds docs/security.md against them.
//
// It holds no code for the product. The fast part, in this process, belongs to the
// plain tests; what needs the built binary and real Python workers runs with make
// security.
package security
