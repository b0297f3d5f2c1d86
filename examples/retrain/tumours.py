"""The data of this example: tumours that ship with scikit-learn.

The first half was measured with an old device, the second half with a new one, which measures
lengths larger. The model is trained on the first half; the clients send the second half.
"""

import numpy as np
from preprocess import FEATURES
from sklearn.datasets import load_breast_cancer

# What the new device does to each feature.
NEW_DEVICE = np.array([1.3, 1.0, 1.3, 1.69, 1.0, 1.0, 1.0])


def measured(part: str) -> tuple:
    """Return the rows and classes that were "known" before, "served" since, or are "unseen"."""
    data = load_breast_cancer()
    names = [f"mean {name}" for name in FEATURES]
    columns = [list(data.feature_names).index(name) for name in names]
    order = np.random.default_rng(7).permutation(len(data.target))
    chosen = {"known": order[:250], "served": order[250:450], "unseen": order[450:]}[part]
    rows = data.data[chosen][:, columns]
    return (rows if part == "known" else rows * NEW_DEVICE), data.target[chosen]
