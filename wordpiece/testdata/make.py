"""Makes tokenizer.json, and golden.json with texts and their tokens, by the library tokenizers."""

import json
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

HERE = Path(__file__).parent
TEXTS = [
    "hello world",
    "Hello, WORLD!",
    "unaffable unaffordable",
    "  spaces\t\n\r everywhere  ",
    "Ünïcödé naïve Straße ŒUVRE İstanbul",
    "中文 mixed with 日本語 and 한국어",
    "e\u0301 combining, \u00a0 no-break, \u200b zero width, \ufeff mark, \u2028 line",
    "a+b=c <tag> $5 ^ `x` | ~",
    "“quotes” — dashes… «и» ¿qué?",
    "control \x00\x01\x7f\ufffd characters",
    "emoji 👍🏽 and 👨‍👩‍👧",
    "a" * 101,
    "b" * 100,
    "[CLS] is special, [MASK] too, [cls] is not",
    "don't can't e-mail 3.14 1,000",
    "",
    " ",
    "ﬁ ligature ½ ² ℌ",
    "Σίσυφος ΣΑΣ",
    "word " * 60,
]
tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
tokenizer.normalizer = normalizers.BertNormalizer(
    clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True
)
tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
trainer = trainers.WordPieceTrainer(vocab_size=260, special_tokens=special, show_progress=False)
tokenizer.train_from_iterator(
    ["hello world unaffable affordable mixed with special characters everywhere and word"] * 3 + TEXTS[4:9],
    trainer,
)
cls, sep = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
tokenizer.post_processor = processors.TemplateProcessing(
    single="[CLS] $A [SEP]",
    pair="[CLS] $A [SEP] $B:1 [SEP]:1",
    special_tokens=[("[CLS]", cls), ("[SEP]", sep)],
)
tokenizer.enable_truncation(32)
tokenizer.save(str(HERE / "tokenizer.json"))
golden = [{"text": text, "ids": tokenizer.encode(text).ids} for text in TEXTS]
(HERE / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")
