"""Fits models that have no native form: python others.py FOLDER"""

import os
import sys

import joblib
import numpy as np
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelPropagation
from sklearn.svm import SVC

random = np.random.default_rng(1)
x = random.normal(size=(300, 4)) * [1, 2, 3, 4]
score = x @ [1, -1, 0.5, 0.25]
y = np.digitize(score, [-2, 2])
words = np.array(["low", "middle", "high"], dtype=object)[y]

models = {
    "neighbors": KNeighborsClassifier(3).fit(x, y),
    "bayes": GaussianNB().fit(x, y),
    "network": make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(8,))).fit(x, score),
    "own": LabelPropagation().fit(x, y),
    "shifting": KNeighborsRegressor(3, weights="distance").fit(x, score),
    "words": make_pipeline(StandardScaler(), SVC(random_state=1)).fit(x, words),
}
if __name__ == "__main__":
    for name, model in models.items():
        joblib.dump(model, os.path.join(sys.argv[1], name + ".pkl"))
