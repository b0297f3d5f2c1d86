package modelfile

import (
	"path"
	"strings"
)

// Frameworks are the keys of the SDK's table of frameworks: what a model's
// framework may be called. It is stored as typed.
var Frameworks = []string{
	"tensorflow", "tensorflowjs", "tensorflowlite", "pytorch", "torchscript", "caffe", "caffe2", "onnx", "keras",
	"mknet", "cntk", "torch", "darknet", "paddlepaddle", "scikitlearn", "xgboost", "lightgbm", "parquet", "megengine",
	"catboost", "tensorrt", "openvino", "custom",
}

// FrameworkAliases are words that people use for a framework (the first stands
// in the original's own readme, which the original refuses).
var FrameworkAliases = map[string]string{"scikit-learn": "scikitlearn", "sklearn": "scikitlearn"}

// FrameworkOf tells a framework by a file's extension, in the display form
// that the SDK stores then; "" when the extension tells nothing.
func FrameworkOf(name string) string {
	switch strings.ToLower(path.Ext(name)) {
	case ".pkl", ".joblib":
		return "ScikitLearn"
	case ".pb", ".meta", ".pbtxt", ".zip", ".tgz", ".tar.gz":
		return "TensorFlow"
	case ".pt", ".pth":
		return "PyTorch"
	case ".onnx":
		return "ONNX"
	case ".h5", ".keras":
		return "Keras"
	case ".caffemodel", ".prototxt":
		return "Caffe"
	case ".tflite":
		return "TensorFlow Lite"
	case ".weights":
		return "Darknet"
	case ".model", ".xgb", ".bst":
		return "XGBoost"
	case ".cbm":
		return "CatBoost"
	case ".plan", ".engine":
		return "TensorRT"
	}
	return ""
}
