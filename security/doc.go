// Package security is the suite of attacks on the product, based on known vulnerabilities of
// comparable products: each test has their number in its name. It also enumerates every listener
// and route and compares them with docs/security.md.
//
// It has no code of the product. The fast part, in this process, belongs to the plain tests; tests
// with the built binary and real Python workers run with make security.
package security
