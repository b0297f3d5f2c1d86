// Package pb has the messages of the Open Inference Protocol over gRPC, generated from the .proto
// files beside it (make generate).
package pb
