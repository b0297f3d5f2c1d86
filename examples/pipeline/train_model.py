"""Train a second opinion on the wines of examples/sklearn, and register it with ClearML.

The same data and the same request as examples/sklearn, but a forest instead of a logistic
regression: the two disagree on some wines, so the pipeline has something to join.
"""

import joblib
from clearml import Task
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split

task = Task.init(project_name="serving examples", task_name="train second sklearn model", output_uri=True)

wine = load_wine()
X_train, X_test, y_train, y_test = train_test_split(
    wine.data, wine.target, test_size=0.25, random_state=1, stratify=wine.target
)
# Three shallow trees: good enough to be asked, and wrong on wines that the other gets right.
model = RandomForestClassifier(n_estimators=3, max_depth=2, random_state=3)
model.fit(X_train, y_train)
accuracy = accuracy_score(y_test, model.predict(X_test))
task.get_logger().report_single_value("test accuracy", accuracy)
print(f"test: accuracy {accuracy:.3f} on {len(y_test)} wines never seen before")

joblib.dump(model, "sklearn-model-b.pkl", compress=9)
task.close()  # waits until the model file is uploaded
print(f"trained and registered: {task.get_project_name()}/{task.name} - sklearn-model-b")
