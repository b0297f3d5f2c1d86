package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"clearmlserving/bench/load"
)

// protocol is how a case is asked, if not by the server's own way.
type protocol string

const (
	ownWay   protocol = ""          // of the server
	v2JSON   protocol = "V2 JSON"   // the Open Inference Protocol over REST
	v2Binary protocol = "V2 binary" // with the extension for binary tensors
	v2GRPC   protocol = "V2 gRPC"
)

// matrix is the numbers of a request or an answer.
type matrix struct {
	rows, columns int
	values        []float64
}

// matrixOf reads the numbers of a case's body.
func matrixOf(body []byte) (m matrix, err error) {
	var two struct {
		X0, X1 *float64
		Rows   [][]float64
	}
	if err := json.Unmarshal(body, &two); err != nil {
		return m, err
	}
	if two.X0 != nil && two.X1 != nil {
		two.Rows = [][]float64{{*two.X0, *two.X1}}
	}
	if len(two.Rows) == 0 {
		return m, errors.New("a body without numbers cannot be expressed in the V2 protocol")
	}
	m = matrix{rows: len(two.Rows), columns: len(two.Rows[0])}
	for _, row := range two.Rows {
		m.values = append(m.values, row...)
	}
	return m, nil
}

// bare is the rows alone, for an endpoint without code.
func (m matrix) bare() ([]byte, error) {
	rows := make([][]float64, m.rows)
	for i := range rows {
		rows[i] = m.values[i*m.columns:][:m.columns]
	}
	return json.Marshal(rows)
}

// input is the name and the type of the only input of a case's model.
type input struct {
	name string
	fp32 bool // else FP64
}

func (i input) datatype() string {
	if i.fp32 {
		return "FP32"
	}
	return "FP64"
}

func (i input) raw(m matrix) []byte {
	var raw []byte
	for _, v := range m.values {
		if i.fp32 {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(float32(v)))
		} else {
			raw = binary.LittleEndian.AppendUint64(raw, math.Float64bits(v))
		}
	}
	return raw
}

// request is a request of a case in one of the V2 protocols.
func (p protocol) request(base, grpcBase, model string, in input, m matrix) (o load.Options, err error) {
	o.URL = base + "/v2/models/" + model + "/infer"
	tensor := map[string]any{"name": in.name, "shape": []int{m.rows, m.columns}, "datatype": in.datatype()}
	switch p {
	case v2JSON:
		tensor["data"] = m.values
		o.Body, err = json.Marshal(map[string]any{"inputs": []any{tensor}})
	case v2Binary:
		raw := in.raw(m)
		tensor["parameters"] = map[string]any{"binary_data_size": len(raw)}
		var head []byte
		head, err = json.Marshal(map[string]any{"inputs": []any{tensor}, "parameters": map[string]any{"binary_data_output": true}})
		o.Body, o.ContentType = append(head, raw...), "application/octet-stream"
		o.Header = fmt.Sprintf("Inference-Header-Content-Length: %d\r\n", len(head))
	case v2GRPC:
		if grpcBase == "" {
			return o, errors.New("the server has no gRPC")
		}
		o.URL, o.Body = grpcBase+"/inference.GRPCInferenceService/ModelInfer", in.message(model, m)
	case ownWay:
		err = errors.New("not a V2 protocol")
	}
	return o, err
}

// message is a ModelInferRequest; the numbers are those of its fields.
func (i input) message(model string, m matrix) []byte {
	var shape, tensor, all []byte
	shape = protowire.AppendVarint(protowire.AppendVarint(nil, uint64(m.rows)), uint64(m.columns))
	tensor = appendField(tensor, 1, []byte(i.name))
	tensor = appendField(tensor, 2, []byte(i.datatype()))
	tensor = appendField(tensor, 3, shape)
	all = appendField(all, 1, []byte(model))
	all = appendField(all, 5, tensor)
	return appendField(all, 7, i.raw(m))
}

func appendField(b []byte, number protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), value)
}
