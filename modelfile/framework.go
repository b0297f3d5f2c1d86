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

// byExtension are the frameworks by the extensions of their files, in the display form that the SDK
// stores.
var byExtension = map[string]string{
	".pkl": "ScikitLearn", ".joblib": "ScikitLearn",
	".pb": "TensorFlow", ".meta": "TensorFlow", ".pbtxt": "TensorFlow", ".zip": "TensorFlow", ".tgz": "TensorFlow",
	".pt": "PyTorch", ".pth": "PyTorch",
	".onnx": "ONNX",
	".h5":   "Keras", ".keras": "Keras",
	".caffemodel": "Caffe", ".prototxt": "Caffe",
	".tflite":  "TensorFlow Lite",
	".weights": "Darknet",
	".model":   "XGBoost", ".xgb": "XGBoost", ".bst": "XGBoost",
	".cbm":  "CatBoost",
	".plan": "TensorRT", ".engine": "TensorRT",
}

// FrameworkOf returns the framework of a file's extension; "" for an unknown extension.
func FrameworkOf(name string) string { return byExtension[strings.ToLower(path.Ext(name))] }
