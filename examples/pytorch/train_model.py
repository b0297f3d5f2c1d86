"""Train a convolutional network on handwritten digits with PyTorch, and register it with ClearML.

The data are the 1797 digits that ship with scikit-learn, drawn at the size of MNIST. This script has no
serving code. It saves the network twice: as TorchScript, which Triton loads, and as ONNX, which the engine
onnx computes without Triton. It also writes a digit that the network has never seen to `5.png`.
"""

import numpy as np
import torch
from clearml import OutputModel, Task
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F  # noqa: N812

task = Task.init(project_name="serving examples", task_name="train pytorch model", output_uri=True)
parameters = task.connect({"epochs": 6, "rate": 0.003, "batch": 64})
torch.manual_seed(1)
torch.set_num_threads(2)


def drawn(pixels: np.ndarray) -> Image.Image:
    """A digit of 8 x 8 pixels from 0 to 16 as an image of 28 x 28 from 0 to 255."""
    return Image.fromarray((pixels * 255 / 16).astype(np.uint8)).resize((28, 28), Image.BILINEAR)


class Net(nn.Module):
    """Takes images of 28 x 28 pixels from 0 to 255, and returns a logarithm for each digit."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 10, 5), nn.Conv2d(10, 20, 5)
        self.fc1, self.fc2 = nn.Linear(320, 50), nn.Linear(50, 10)

    def forward(self, x):
        x = (x / 255).view(-1, 1, 28, 28)
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        x = F.relu(self.fc1(x.view(-1, 320)))
        return F.log_softmax(self.fc2(x), dim=1)


digits = load_digits()
images = np.stack([np.array(drawn(pixels)) for pixels in digits.images]).astype(np.float32)
X_train, X_test, y_train, y_test = train_test_split(
    images, digits.target, test_size=0.2, random_state=0, stratify=digits.target
)
X_train, X_test = torch.tensor(X_train), torch.tensor(X_test)
y_train, y_test = torch.tensor(y_train), torch.tensor(y_test)

network = Net()
optimizer = torch.optim.Adam(network.parameters(), lr=float(parameters["rate"]))
for _ in range(int(parameters["epochs"])):
    for batch in torch.randperm(len(X_train)).split(int(parameters["batch"])):
        optimizer.zero_grad()
        F.nll_loss(network(X_train[batch]), y_train[batch]).backward()
        optimizer.step()
network.eval()
with torch.no_grad():
    right = (network(X_test).argmax(1) == y_test).numpy()
task.get_logger().report_single_value("test accuracy", float(right.mean()))
print(f"test: {right.mean():.1%} of {len(right)} digits never seen before are right")

sample = next(i for i in range(len(y_test)) if right[i] and y_test[i] == 5)
Image.fromarray(X_test[sample].numpy().astype(np.uint8)).save("5.png")

torch.jit.script(network).save("serving_model.pt")
torch.onnx.export(
    network,
    torch.zeros(1, 28, 28),
    "serving_model.onnx",
    opset_version=13,
    input_names=["INPUT__0"],
    output_names=["OUTPUT__0"],
    dynamic_axes={"INPUT__0": {0: "images"}, "OUTPUT__0": {0: "images"}},
)
for name, framework, file in (
    ("train pytorch model - serving_model", "PyTorch", "serving_model.pt"),
    ("train pytorch model - serving_model_onnx", "ONNX", "serving_model.onnx"),
):
    model = OutputModel(task=task, name=name, framework=framework)
    model.update_weights(file, auto_delete_file=False)
task.close()  # waits until the model files are uploaded
print("trained and registered: serving examples/train pytorch model - serving_model, and ..._onnx")
