"""Compares embeddings with those of Python's libraries: embeddings.py BASE_URL MODEL FOLDER."""

import base64
import json
import math
import sys
from pathlib import Path

import numpy
import openai
from tokenizers import Tokenizer

import onnxruntime

base, model, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
TEXTS = [
    "A man is playing a guitar.",
    "Someone plays an instrument",
    "The stock market fell by 3.5 % on Monday",
    "Ünïcödé, 中文 and emoji 👍🏽 — “quoted”",
    "long " * 500,
    "a",
]
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
tokenizer.no_padding()
limit = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
tokenizer.enable_truncation(limit)
session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
names = [i.name for i in session.get_inputs()]


def embedded(text):
    ids = tokenizer.encode(text).ids
    values = {"input_ids": ids, "attention_mask": [1] * len(ids), "token_type_ids": [0] * len(ids)}
    hidden = session.run(None, {name: numpy.array([values[name]], numpy.int64) for name in names})[0]
    vector = hidden[0].mean(axis=0)
    return vector / numpy.linalg.norm(vector), len(ids)


wanted = [embedded(text) for text in TEXTS]
client = openai.OpenAI(base_url=base, api_key="none", max_retries=0)
for encoding in ("float", "base64", None):
    more = {"encoding_format": encoding} if encoding else {}
    answer = client.embeddings.create(model=model, input=TEXTS, **more)
    assert answer.usage.prompt_tokens == sum(n for _, n in wanted), answer.usage
    for item, (vector, _) in zip(answer.data, wanted):
        got = item.embedding
        if isinstance(got, str):
            got = numpy.frombuffer(base64.b64decode(got), "<f4")
        far = numpy.abs(numpy.array(got) - vector).max()
        assert len(got) == len(vector) and far < 1e-5, (item.index, far)
first, second, third = (
    numpy.array(client.embeddings.create(model=model, input=text).data[0].embedding) for text in TEXTS[:3]
)
assert first @ second > 0.5 > first @ third, (first @ second, first @ third)
short = client.embeddings.create(model=model, input="a", dimensions=64).data[0].embedding
assert len(short) == 64 and math.isclose(sum(x * x for x in short), 1, abs_tol=1e-4)
ids = client.embeddings.create(model=model, input=tokenizer.encode("a").ids).data[0].embedding
assert numpy.abs(numpy.array(ids) - wanted[5][0]).max() < 1e-5
assert model in [m.id for m in client.models.list()]
try:
    client.embeddings.create(model=model, input=[])
except openai.BadRequestError as told:
    assert told.param == "input"
else:
    raise AssertionError("no input")
print("the embeddings are those of Python")
