// Package repository has the messages of MLServer's service about models, generated from the .proto
// file beside it (make generate).
package repository
