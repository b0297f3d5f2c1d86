"""Train two regressions that vote, and register them as one model with ClearML.

The data are 442 patients that ship with scikit-learn: the progression of their diabetes within a
year, from two of their measurements. This script has no serving code: `Task.init` records the
run, and `joblib.dump` makes the SDK upload and register the file as the model
"train model ensemble - ensemble-vr".
"""

import joblib
from clearml import Task
from sklearn.datasets import load_diabetes
from sklearn.ensemble import RandomForestRegressor, VotingRegressor
from sklearn.metrics import mean_absolute_error
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

task = Task.init(project_name="serving examples", task_name="train model ensemble", output_uri=True)

patients = load_diabetes(scaled=False)
columns = [patients.feature_names.index(name) for name in ("bmi", "s5")]
X_train, X_test, y_train, y_test = train_test_split(
    patients.data[:, columns], patients.target, test_size=0.2, random_state=42
)
parameters = task.connect({"neighbours": 15, "trees": 50})
neighbours = make_pipeline(StandardScaler(), KNeighborsRegressor(n_neighbors=int(parameters["neighbours"])))
forest = RandomForestRegressor(n_estimators=int(parameters["trees"]), min_samples_leaf=5, random_state=1)
model = VotingRegressor([("neighbours", neighbours), ("forest", forest)])
model.fit(X_train, y_train)

logger = task.get_logger()
for name, member in [*model.named_estimators_.items(), ("both", model)]:
    error = mean_absolute_error(y_test, member.predict(X_test))
    logger.report_single_value(f"test mean absolute error, {name}", error)
    print(f"test: {name}: mean absolute error {error:.1f} on {len(y_test)} patients never seen before")

joblib.dump(model, "ensemble-vr.pkl", compress=9)
task.close()  # waits until the model file is uploaded
print(f"trained and registered: {task.get_project_name()}/{task.name} - ensemble-vr")
