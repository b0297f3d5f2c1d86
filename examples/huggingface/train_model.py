"""Train a tokenizer and a small text classifier, and save them as Hugging Face lays a model out.

The text is what Python's own modules say of themselves (their docstrings), the label is what the
module is about, so nothing has to be downloaded. The folder `text_topics` gets the files that one
finds in a repository of the Hugging Face hub: config.json, tokenizer.json, model.safetensors.

The classifier gives each token a number per topic, and takes the mean over the text's tokens: a
linear model on top of a learned vocabulary, trained in seconds.
"""

import importlib
import inspect
import json
from pathlib import Path

import numpy as np
from clearml import Task
from safetensors.numpy import save_file
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.trainers import WordPieceTrainer

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
    # What several topics say (inherited docstrings) tells nothing. Sorted, so that each run is the same.
    texts, topics = zip(*sorted((text, min(found)) for text, found in examples.items() if len(found) == 1))
    text_train, text_test, y_train, y_test = train_test_split(
        texts, topics, test_size=0.2, random_state=1, stratify=topics
    )

    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    trainer = WordPieceTrainer(vocab_size=6000, special_tokens=["[PAD]", "[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(text_train, trainer)
    tokenizer.enable_truncation(max_length=256)
    tokenizer.enable_padding(pad_token="[PAD]", pad_id=0)

    def shares(some: tuple) -> csr_matrix:
        """One row per text: which share of its tokens each word of the vocabulary has."""
        rows, columns, values = [], [], []
        for row, encoding in enumerate(tokenizer.encode_batch(list(some))):
            ids = [token for token, real in zip(encoding.ids, encoding.attention_mask) if real]
            rows += [row] * len(ids)
            columns += ids
            values += [1 / len(ids)] * len(ids)
        return csr_matrix((values, (rows, columns)), shape=(len(some), tokenizer.get_vocab_size()))

    model = LogisticRegression(C=300.0, max_iter=2000)
    model.fit(shares(text_train), y_train)
    accuracy = accuracy_score(y_test, model.predict(shares(text_test)))
    task.get_logger().report_single_value("test accuracy", accuracy)
    print(f"{len(texts)} texts; test: accuracy {accuracy:.3f} on {len(y_test)} texts never seen before")

    folder = Path("text_topics")
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "architectures": ["MeanTokenClassifier"],
        "model_type": "mean-token-classifier",
        "vocab_size": tokenizer.get_vocab_size(),
        "max_position_embeddings": 256,
        "id2label": dict(enumerate(labels)),
        "label2id": {label: number for number, label in enumerate(labels)},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = {
        "token.weight": np.ascontiguousarray(model.coef_.T, dtype=np.float32),
        "classifier.bias": model.intercept_.astype(np.float32),
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "np"})
    task.close()
    print(f"trained: the folder {folder} with {', '.join(sorted(file.name for file in folder.iterdir()))}")


if __name__ == "__main__":
    main()
