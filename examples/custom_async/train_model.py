"""Train a classifier, put a table of features beside it, and register both as one model.

The data are the 569 biopsies that ship with scikit-learn. The model is a folder: the classifier,
and an SQLite table with the measurements of each patient. A folder is registered as a
package (a zip), and the service unpacks it for `Preprocess.load`.
"""

import sqlite3
from pathlib import Path

import joblib
from clearml import OutputModel, Task
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

# joblib.dump must not register the classifier alone: the whole folder is the model.
task = Task.init(
    project_name="serving examples",
    task_name="train custom async model",
    output_uri=True,
    auto_connect_frameworks={"joblib": False},
)

biopsies = load_breast_cancer()
malignant = biopsies.target == list(biopsies.target_names).index("malignant")
X_train, X_test, y_train, y_test = train_test_split(
    biopsies.data, malignant, test_size=0.25, random_state=1, stratify=malignant
)
model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
model.fit(X_train, y_train)
score = roc_auc_score(y_test, model.predict_proba(X_test)[:, 1])
task.get_logger().report_single_value("test area under the curve", score)
print(f"test: area under the curve {score:.4f} on {len(y_test)} biopsies never seen before")

folder = Path("custom_async_model")
folder.mkdir(exist_ok=True)
joblib.dump(model, folder / "model.pkl", compress=9)
table = folder / "features.sqlite"
table.unlink(missing_ok=True)
names = ", ".join(f'"{name}" REAL' for name in biopsies.feature_names)
places = ", ".join("?" for _ in range(1 + len(biopsies.feature_names)))
database = sqlite3.connect(table)
with database:  # one transaction
    database.execute(f"CREATE TABLE features (patient INTEGER PRIMARY KEY, {names})")
    database.executemany(
        f"INSERT INTO features VALUES ({places})",
        ([patient, *row] for patient, row in enumerate(biopsies.data.tolist())),
    )
database.close()

registered = OutputModel(task=task, name="custom async model", framework="custom")
registered.update_weights_package(weights_path=str(folder), auto_delete_file=False)
task.close()  # waits until the package is uploaded
print(f"trained and registered: {task.get_project_name()}/{registered.name}")
