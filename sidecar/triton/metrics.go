package triton

import (
	"bytes"
	"regexp"
	"strconv"
)

// Scalar is a value of a metric of a model.
type Scalar struct {
	Title, Series string
	Value         float64
}

// modelSample matches the samples that are reported to tasks, as the original does: of a version of a model, perhaps on
// a GPU.
var modelSample = regexp.MustCompile(`^(\w+)\{(?:gpu_uuid="[\w-]*",)?model="([^"\\]+)"(?:,[^}]*)?,version="(\w+)"[^}]*\} ([-+0-9.eE]+)$`)

// Scalars reads the values of models from Triton's metrics.
func Scalars(text []byte) (values []Scalar) {
	for line := range bytes.Lines(text) {
		found := modelSample.FindSubmatch(bytes.TrimSpace(line))
		if found == nil {
			continue
		}
		value, err := strconv.ParseFloat(string(found[4]), 64)
		if err != nil {
			continue
		}
		values = append(values, Scalar{Title: string(found[1]), Series: string(found[2]) + ".v" + string(found[3]), Value: value})
	}
	return values
}
