"""Train a classifier that only custom code will serve, and register it with ClearML.

The data are three of the measurements of the 178 wines that ship with scikit-learn. This script
has no serving code: `Task.init` records the run, and `joblib.dump` makes the SDK upload and
register the file as the model "custom train model - custom-model".
"""

import joblib
from clearml import Task
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split

task = Task.init(project_name="serving examples", task_name="custom train model", output_uri=True)

wine = load_wine()
columns = [wine.feature_names.index(name) for name in ("alcohol", "flavanoids", "color_intensity")]
X_train, X_test, y_train, y_test = train_test_split(
    wine.data[:, columns], wine.target, test_size=0.25, random_state=1, stratify=wine.target
)
model = LogisticRegression(max_iter=1000)
model.fit(X_train, y_train)
accuracy = accuracy_score(y_test, model.predict(X_test))
task.get_logger().report_single_value("test accuracy", accuracy)
print(f"test: accuracy {accuracy:.3f} on {len(y_test)} wines never seen before")

joblib.dump(model, "custom-model.pkl", compress=9)
task.close()  # waits until the model file is uploaded
print(f"trained and registered: {task.get_project_name()}/{task.name} - custom-model")
