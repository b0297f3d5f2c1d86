package modelfile

import (
	"path"
	"strings"
)

// Frameworks are the keys of the SDK's table of frameworks: the valid names of a model's
// framework. It is stored as typed.
var Frameworks = []string{
	"tensorflow", "tensorflowjs", "tensorflowlite", "pytorch", "torchscript", "caffe", "caffe2", "onnx", "keras",
	"mknet", "cntk", "torch", "darknet", "paddlepaddle", "scikitlearn", "xgboost", "lightgbm", "parquet", "megengine",
	"catboost", "tensorrt", "openvino", "custom",
}

// FrameworkAliases are other names of frameworks (the original's readme has the first,
// but the original refuses it).
var FrameworkAliases = map[string]string{"scikit-learn": "scikitlearn", "sklearn": "scikitlearn"}

// FrameworkOf returns the framework of a file's extension, in the display form
// that the SDK stores; "" for an unknown extension.
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
