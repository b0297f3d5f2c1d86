"""Train a model that tells three cultivars of wine apart, and register it with ClearML.

The data are the 178 chemical analyses that ship with scikit-learn. Nothing here knows about
serving: `Task.init` records the run, and `joblib.dump` makes the SDK upload and register the file
as the model "train sklearn model - sklearn-model".
"""

import joblib
from clearml import Task
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

task = Task.init(project_name="serving examples", task_name="train sklearn model", output_uri=True)

wine = load_wine()
X_train, X_test, y_train, y_test = train_test_split(
    wine.data, wine.target, test_size=0.25, random_state=1, stratify=wine.target
)
parameters = task.connect({"C": 0.5, "max_iter": 500})
model = make_pipeline(
    StandardScaler(),
    LogisticRegression(C=float(parameters["C"]), max_iter=int(parameters["max_iter"])),
)

logger = task.get_logger()
for fold, score in enumerate(cross_val_score(model, X_train, y_train, cv=5)):
    logger.report_scalar(title="accuracy", series="cross validation", value=score, iteration=fold)
    print(f"fold {fold + 1}: accuracy {score:.3f}")

model.fit(X_train, y_train)
accuracy = accuracy_score(y_test, model.predict(X_test))
loss = log_loss(y_test, model.predict_proba(X_test))
logger.report_single_value("test accuracy", accuracy)
logger.report_single_value("test log loss", loss)
print(f"test: accuracy {accuracy:.3f}, log loss {loss:.3f}, {len(y_test)} wines never seen before")

joblib.dump(model, "sklearn-model.pkl", compress=9)
task.close()  # waits until the model file is uploaded
print(f"trained and registered: {task.get_project_name()}/{task.name} - sklearn-model")
