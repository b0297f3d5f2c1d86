"""Train a dense network on handwritten digits with Keras, and register it with ClearML.

The data are the 1797 digits that ship with scikit-learn, drawn at the size of MNIST. This script has no
serving code. The network is registered twice: as Keras stores it, which with the backend TensorFlow is the
folder that Triton loads, and as ONNX, which the engine onnx computes without Triton. It also writes a digit
that the network has never seen to `5.png`.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # the smallest one to install

import keras  # noqa: E402
import numpy as np  # noqa: E402
import onnx  # noqa: E402
from clearml import OutputModel, Task  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from PIL import Image  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402
from sklearn.model_selection import train_test_split  # noqa: E402

task = Task.init(
    project_name="serving examples",
    task_name="train keras model",
    output_uri=True,
    auto_connect_frameworks=False,  # what is registered is said below
)
parameters = task.connect({"epochs": 8, "batch": 64})
keras.utils.set_random_seed(1)


def drawn(pixels: np.ndarray) -> Image.Image:
    """A digit of 8 x 8 pixels from 0 to 16 as an image of 28 x 28 from 0 to 255."""
    return Image.fromarray((pixels * 255 / 16).astype(np.uint8)).resize((28, 28), Image.BILINEAR)


def to_onnx(network: keras.Model, file: str) -> None:
    """Write a network of the layers below as ONNX."""
    nodes, weights, value = [], [], "dense_input"
    for number, layer in enumerate(network.layers):
        out = f"value_{number}"
        if isinstance(layer, keras.layers.Rescaling):
            weights.append(numpy_helper.from_array(np.float32(layer.scale), f"scale_{number}"))
            nodes.append(helper.make_node("Mul", [value, f"scale_{number}"], [out]))
        elif isinstance(layer, keras.layers.Flatten):
            nodes.append(helper.make_node("Flatten", [value], [out]))
        elif isinstance(layer, keras.layers.Dense):
            kernel, bias = layer.get_weights()
            weights += [
                numpy_helper.from_array(kernel, f"kernel_{number}"),
                numpy_helper.from_array(bias, f"bias_{number}"),
            ]
            nodes.append(helper.make_node("Gemm", [value, f"kernel_{number}", f"bias_{number}"], [out]))
        elif isinstance(layer, keras.layers.Activation):
            operator = {"relu": "Relu", "softmax": "Softmax"}[layer.activation.__name__]
            nodes.append(helper.make_node(operator, [value], [out]))
        else:
            raise TypeError(f"there is no rule for {layer}")
        value = out
    nodes[-1].output[0] = "activation_2"
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("dense_input", TensorProto.FLOAT, ["images", 28, 28])],
        [helper.make_tensor_value_info("activation_2", TensorProto.FLOAT, ["images", 10])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, file)


digits = load_digits()
images = np.stack([np.array(drawn(pixels)) for pixels in digits.images]).astype(np.float32)
X_train, X_test, y_train, y_test = train_test_split(
    images, digits.target, test_size=0.2, random_state=0, stratify=digits.target
)
network = keras.Sequential(
    [
        keras.layers.Input((28, 28)),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Flatten(),
        keras.layers.Dense(512),
        keras.layers.Activation("relu"),
        keras.layers.Dense(512),
        keras.layers.Activation("relu"),
        keras.layers.Dense(10),
        keras.layers.Activation("softmax"),
    ]
)
network.compile(loss="sparse_categorical_crossentropy", optimizer="rmsprop", metrics=["accuracy"])
network.fit(
    X_train, y_train, batch_size=int(parameters["batch"]), epochs=int(parameters["epochs"]), verbose=0
)
right = network.predict(X_test, verbose=0).argmax(1) == y_test
task.get_logger().report_single_value("test accuracy", float(right.mean()))
print(f"test: {right.mean():.1%} of {len(right)} digits never seen before are right")

sample = next(i for i in range(len(y_test)) if right[i] and y_test[i] == 5)
Image.fromarray(X_test[sample].astype(np.uint8)).save("5.png")

to_onnx(network, "serving_model.onnx")
if keras.backend.backend() == "tensorflow":
    network.export("serving_model")  # a folder that Triton loads
    stored = "serving_model"
else:
    network.save("serving_model.keras")
    stored = "serving_model.keras"
for name, framework, path in (
    ("train keras model - serving_model", "Keras", stored),
    ("train keras model - serving_model_onnx", "ONNX", "serving_model.onnx"),
):
    model = OutputModel(task=task, name=name, framework=framework)
    if os.path.isdir(path):
        model.update_weights_package(weights_path=path, auto_delete_file=False)
    else:
        model.update_weights(path, auto_delete_file=False)
task.close()  # waits until the model files are uploaded
print("trained and registered: serving examples/train keras model - serving_model, and ..._onnx")
