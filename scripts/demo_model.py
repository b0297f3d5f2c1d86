"""The demo's queries of the control plane and of scikit-learn.

    demo_model.py find                 prints the id of the example's newest model, nothing when
                                       there is none
    demo_model.py row                  prints one real row as a request body
    demo_model.py check URL ROW ANSWER compares ANSWER, and the endpoint's answers to every row of
                                       the data, with what scikit-learn says by itself

The model is fetched and asked here in plain Python, so nothing of what is checked went through
the service.
"""

import json
import sys
import urllib.request
from typing import Any

PROJECT = "serving examples"
MODEL = "train sklearn model - sklearn-model"
ROW = 83  # a wine with a low probability


def newest_model() -> Any:
    """The newest registered model, None without a model or a project."""
    from clearml import Model

    try:
        models = Model.query_models(project_name=PROJECT, model_name=MODEL, max_results=1)
    except ValueError:  # from the SDK: the project does not exist
        return None
    return models[0] if models else None


def rows() -> list[dict]:
    """Every wine of the data as a request body."""
    from sklearn.datasets import load_wine

    wine = load_wine()
    return [dict(zip(wine.feature_names, values)) for values in wine.data.tolist()]


def ask(url: str, body: dict) -> Any:
    """POSTs one request body and decodes the answer."""
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)


def check(url: str, row: str, answer: str) -> int:
    """Compares the service's answers with scikit-learn's; returns 1 if any differs."""
    import joblib

    model = newest_model()
    path = model.get_local_copy(raise_on_error=True)
    estimator = joblib.load(path)

    def expected(body: dict) -> dict:
        return {"y": estimator.predict([list(body.values())]).tolist()}

    bodies = rows()
    first = json.loads(row)
    pairs = [(first, json.loads(answer))]
    pairs += [(body, ask(url, body)) for body in bodies]
    wrong = [(body, got) for body, got in pairs if got != expected(body)]
    for body, got in wrong[:5]:
        print(f"DIFFERENT: {json.dumps(body)}\n  service:      {got}\n  scikit-learn: {expected(body)}")
    if wrong:
        print(f"{len(wrong)} of {len(pairs)} answers differ from scikit-learn's (model {model.id}, {path})")
        return 1
    said = json.dumps(expected(first))
    print(f"scikit-learn says {said} as well, and agrees on all {len(bodies)} rows of the data")
    return 0


def main() -> int:
    words = sys.argv[1:]
    if words == ["find"]:
        model = newest_model()
        if model is not None:
            print(model.id)
    elif words == ["row"]:
        print(json.dumps(rows()[ROW]))
    elif len(words) == 4 and words[0] == "check":
        return check(*words[1:])
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
