package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// answered is one tensor of an answer. Values are numbers; texts are not compared.
type answered struct {
	Name   string
	Values []float64
}

// errTorn means that an answer does not have the form of its protocol.
var errTorn = errors.New("not an answer of the V2 protocol")

// outputs reads the tensors of an answer.
func (p protocol) outputs(answer []byte) ([]answered, error) {
	if p == v2GRPC {
		return grpcOutputs(answer)
	}
	var v2 struct {
		Outputs []struct {
			Name, Datatype string
			Data           []json.RawMessage
			Parameters     struct {
				Size *int `json:"binary_data_size"`
			}
		}
	}
	head := json.NewDecoder(bytes.NewReader(answer))
	if err := head.Decode(&v2); err != nil {
		return nil, err
	}
	raw := answer[head.InputOffset():]
	var all []answered
	for _, one := range v2.Outputs {
		o := answered{Name: one.Name}
		if size := one.Parameters.Size; size != nil {
			if *size < 0 || *size > len(raw) {
				return nil, fmt.Errorf("%w: output %s has %d of %d bytes", errTorn, one.Name, len(raw), *size)
			}
			o.Values = numbersOf(one.Datatype, raw[:*size])
			raw = raw[*size:]
		}
		for _, text := range one.Data {
			var v float64
			if json.Unmarshal(text, &v) != nil {
				continue
			}
			if one.Datatype == "FP32" { // servers print it with more digits or fewer
				v = float64(float32(v))
			}
			o.Values = append(o.Values, v)
		}
		all = append(all, o)
	}
	return all, nil
}

// numbersOf reads raw elements; nil for types that are not numbers.
func numbersOf(datatype string, raw []byte) (values []float64) {
	switch datatype {
	case "FP64":
		for ; len(raw) >= 8; raw = raw[8:] {
			values = append(values, math.Float64frombits(binary.LittleEndian.Uint64(raw)))
		}
	case "INT64":
		for ; len(raw) >= 8; raw = raw[8:] {
			values = append(values, float64(int64(binary.LittleEndian.Uint64(raw))))
		}
	case "FP32":
		for ; len(raw) >= 4; raw = raw[4:] {
			values = append(values, float64(math.Float32frombits(binary.LittleEndian.Uint32(raw))))
		}
	case "INT32":
		for ; len(raw) >= 4; raw = raw[4:] {
			values = append(values, float64(int32(binary.LittleEndian.Uint32(raw))))
		}
	}
	return values
}

// grpcOutputs reads a ModelInferResponse: outputs are field 5, raw contents field 6.
func grpcOutputs(message []byte) (all []answered, err error) {
	var types []string
	var raws [][]byte
	err = fields(message, func(number protowire.Number, value []byte, _ uint64) error {
		switch number {
		case 5:
			o, datatype, err := grpcOutput(value)
			all, types = append(all, o), append(types, datatype)
			return err
		case 6:
			raws = append(raws, value)
		}
		return nil
	})
	for i, raw := range raws {
		if i >= len(all) {
			return nil, fmt.Errorf("%w: %d contents of %d outputs", errTorn, len(raws), len(all))
		}
		all[i].Values = numbersOf(types[i], raw)
	}
	return all, err
}

// grpcOutput reads an InferOutputTensor: name 1, datatype 2, contents 5.
func grpcOutput(message []byte) (o answered, datatype string, err error) {
	err = fields(message, func(number protowire.Number, value []byte, _ uint64) error {
		switch number {
		case 1:
			o.Name = string(value)
		case 2:
			datatype = string(value)
		case 5:
			return o.contents(value)
		}
		return nil
	})
	return o, datatype, err
}

// contents reads the numbers of an InferTensorContents: whole ones are fields 2 to 5, FP32 6, FP64 7,
// each packed or one by one.
func (o *answered) contents(message []byte) error {
	return fields(message, func(number protowire.Number, value []byte, one uint64) error {
		switch {
		case number >= 2 && number <= 5 && value == nil:
			o.Values = append(o.Values, float64(int64(one)))
		case number >= 2 && number <= 5:
			for len(value) > 0 {
				v, n := protowire.ConsumeVarint(value)
				if n < 0 {
					return errTorn
				}
				o.Values, value = append(o.Values, float64(int64(v))), value[n:]
			}
		case number == 6:
			o.Values = append(o.Values, numbersOf("FP32", value)...)
		case number == 7:
			o.Values = append(o.Values, numbersOf("FP64", value)...)
		}
		return nil
	})
}

// fields calls take for each field of a message: with its bytes, or with its number.
func fields(message []byte, take func(number protowire.Number, value []byte, one uint64) error) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return errTorn
		}
		message = message[n:]
		var value []byte
		var one uint64
		switch kind {
		case protowire.BytesType:
			value, n = protowire.ConsumeBytes(message)
			if value == nil {
				value = []byte{}
			}
		case protowire.VarintType:
			one, n = protowire.ConsumeVarint(message)
		default:
			n = protowire.ConsumeFieldValue(number, kind, message)
		}
		if n < 0 {
			return errTorn
		}
		if err := take(number, value, one); err != nil {
			return err
		}
		message = message[n:]
	}
	return nil
}
