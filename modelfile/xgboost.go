package modelfile

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"

	"clearmlserving/serving"
)

// isXGBoost recognises both formats of Booster.save_model: an object with the key "learner".
func isXGBoost(data []byte) bool {
	if len(data) == 0 || data[0] != '{' {
		return false
	}
	return bytes.Contains(data[:min(len(data), 64)], []byte("learner"))
}

// xgboost reads a Booster's description of its input.
func (f *File) xgboost(data []byte) {
	f.Engine, f.Framework, f.Packages = serving.EngineXGBoost, "XGBoost", []string{"xgboost"}
	if data[1] != 'L' {
		f.Format = "XGBoost json"
		var model struct {
			Learner struct {
				Names []string `json:"feature_names"`
				Param struct {
					Features string `json:"num_feature"`
				} `json:"learner_model_param"`
			} `json:"learner"`
			Version []int `json:"version"`
		}
		if err := json.Unmarshal(data, &model); err != nil {
			f.Why, f.Engine = "the file is damaged: "+err.Error(), ""
			return
		}
		f.Columns, f.Version = model.Learner.Names, dotted(model.Version)
		f.Features, _ = strconv.Atoi(model.Learner.Param.Features) // 0 if invalid
		return
	}
	f.Format = "XGBoost ubj"
	names := ubjValue(data, "feature_names")
	if len(names) > 11 && names[0] == '[' && names[1] == '#' {
		count := binary.BigEndian.Uint64(names[3:])
		names = names[11:]
		for range min(count, uint64(len(data))) {
			var name string
			if name, names = ubjText(names); name == "" {
				break
			}
			f.Columns = append(f.Columns, name)
		}
	}
	text, _ := ubjText(ubjValue(data, "num_feature"))
	f.Features, _ = strconv.Atoi(text) // 0 if invalid
}

func dotted(version []int) string {
	if len(version) != 3 {
		return ""
	}
	return fmt.Sprintf("%d.%d.%d", version[0], version[1], version[2])
}

// ubjValue is the data after a key in UBJSON, nil if the key is missing.
func ubjValue(data []byte, key string) []byte {
	marked := binary.BigEndian.AppendUint64([]byte{'L'}, uint64(len(key)))
	_, value, _ := bytes.Cut(data, append(marked, key...))
	return value
}

// ubjText reads a text at the beginning of data, "" if there is none.
func ubjText(data []byte) (text string, rest []byte) {
	if len(data) < 10 || data[0] != 'S' || data[1] != 'L' {
		return "", nil
	}
	length := binary.BigEndian.Uint64(data[2:])
	data = data[10:]
	if length > uint64(len(data)) {
		return "", nil
	}
	return string(data[:length]), data[length:]
}
