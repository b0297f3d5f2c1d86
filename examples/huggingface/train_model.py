"""Train a text classifier on a language model's embeddings, saved in the layout of Hugging Face.

The embeddings and the tokenizer are WordLlama's, derived from a large language model. Its Python package
(MIT) has them, so nothing has to be downloaded. This script trains the head: a linear layer on a text's
mean embedding that predicts the topic. The training data are the docstrings of Python's own
modules, labelled with the purpose of the module.

The folder `text_topics` gets the files of a repository of the Hugging Face hub:
config.json, tokenizer.json, model.safetensors.
"""

import importlib
import inspect
import json
from pathlib import Path

import numpy as np
import wordllama
from clearml import Task
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split

MODULES = {
    "network": "email.message ftplib http.client http.cookies http.server imaplib ipaddress poplib smtplib "
    "socket socketserver ssl urllib.parse urllib.request xmlrpc.client",
    "mathematics": "bisect cmath decimal fractions heapq math numbers random statistics numpy numpy.linalg "
    "numpy.polynomial.polynomial",
    "files": "csv fileinput filecmp glob os.path pathlib shutil tarfile tempfile zipfile zipimport gzip",
    "concurrency": "asyncio asyncio.events asyncio.tasks concurrent.futures multiprocessing.managers "
    "multiprocessing.pool queue sched selectors signal subprocess threading",
}


def documented_texts(module_name: str) -> set:
    """The docstrings of a module, of what it defines, and of its classes' methods."""
    module = importlib.import_module(module_name)
    found = {inspect.getdoc(module)}
    for name, thing in vars(module).items():
        if name.startswith("_") or inspect.ismodule(thing):
            continue
        found.add(inspect.getdoc(thing))
        if inspect.isclass(thing):
            found.update(inspect.getdoc(method) for method in vars(thing).values() if callable(method))
    return {text for text in found if text and len(text) >= 20}


def main() -> None:
    task = Task.init(project_name="serving examples", task_name="train text topics", output_uri=True)
    labels = sorted(MODULES)
    examples = {}
    for label, modules in MODULES.items():
        for module in modules.split():
            for text in documented_texts(module):
                examples.setdefault(text, set()).add(labels.index(label))
    # Texts of several topics (inherited docstrings) do not help. Sorted, so that each run is the same.
    texts, topics = zip(*sorted((text, min(found)) for text, found in examples.items() if len(found) == 1))
    text_train, text_test, y_train, y_test = train_test_split(
        texts, topics, test_size=0.2, random_state=1, stratify=topics
    )

    # The package's own folder stands for a cache, because load looks for the tokenizer in no other place.
    language_model = wordllama.WordLlama.load(
        cache_dir=Path(wordllama.__file__).parent, disable_download=True
    )
    head = LogisticRegression(max_iter=2000)
    head.fit(language_model.embed(list(text_train)), y_train)
    accuracy = accuracy_score(y_test, head.predict(language_model.embed(list(text_test))))
    task.get_logger().report_single_value("test accuracy", accuracy)
    print(f"{len(texts)} texts; test: accuracy {accuracy:.3f} on {len(y_test)} texts never seen before")

    folder = Path("text_topics")
    folder.mkdir(exist_ok=True)
    tokenizer = language_model.tokenizer
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "architectures": ["MeanEmbeddingClassifier"],
        "model_type": "mean-embedding-classifier",
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": language_model.embedding.shape[1],
        "id2label": dict(enumerate(labels)),
        "label2id": {label: number for number, label in enumerate(labels)},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = {
        "embedding.weight": language_model.embedding.astype(np.float16),  # as the package has them
        "classifier.weight": np.ascontiguousarray(head.coef_, dtype=np.float32),
        "classifier.bias": head.intercept_.astype(np.float32),
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "np"})
    task.close()
    print(f"trained: the folder {folder} with {', '.join(sorted(file.name for file in folder.iterdir()))}")


if __name__ == "__main__":
    main()
