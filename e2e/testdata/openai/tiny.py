"""Makes a tiny language model of random weights as GGUF: tiny.py FILE. Its texts mean nothing."""

import json
import sys

import gguf
import numpy
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

WIDTH, LAYERS, HEADS, INNER = 64, 2, 4, 128

tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
trainer = trainers.BpeTrainer(
    vocab_size=512, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
)
tokenizer.train_from_iterator(
    ["a quick test of a tiny model. " * 5, "it says hello to the world. " * 5], trainer
)
described = json.loads(tokenizer.to_str())["model"]
words = sorted(described["vocab"], key=described["vocab"].get)
merges = [" ".join(m) if isinstance(m, list) else m for m in described["merges"]]

out = gguf.GGUFWriter(sys.argv[1], "llama")
out.add_name("tiny")
out.add_context_length(2048)
out.add_embedding_length(WIDTH)
out.add_block_count(LAYERS)
out.add_feed_forward_length(INNER)
out.add_head_count(HEADS)
out.add_head_count_kv(2)
out.add_layer_norm_rms_eps(1e-5)
out.add_rope_dimension_count(WIDTH // HEADS)
out.add_vocab_size(len(words))
out.add_file_type(0)
out.add_tokenizer_model("gpt2")
out.add_tokenizer_pre("gpt-2")
out.add_token_list(words)
out.add_token_types([3 if i < len(special) else 1 for i in range(len(words))])
out.add_token_merges(merges)
out.add_bos_token_id(0)
out.add_eos_token_id(2)
out.add_add_bos_token(False)
out.add_chat_template(
    "{% for m in messages %}<|im_start|>{{m['role']}}\n{{m['content']}}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
random = numpy.random.default_rng(0)


def weights(name, *shape):
    out.add_tensor(name, (random.standard_normal(shape) * 0.05).astype(numpy.float32))


weights("token_embd.weight", len(words), WIDTH)
out.add_tensor("output_norm.weight", numpy.ones(WIDTH, numpy.float32))
weights("output.weight", len(words), WIDTH)
for layer in range(LAYERS):
    block = f"blk.{layer}."
    out.add_tensor(block + "attn_norm.weight", numpy.ones(WIDTH, numpy.float32))
    out.add_tensor(block + "ffn_norm.weight", numpy.ones(WIDTH, numpy.float32))
    weights(block + "attn_q.weight", WIDTH, WIDTH)
    weights(block + "attn_k.weight", WIDTH // 2, WIDTH)
    weights(block + "attn_v.weight", WIDTH // 2, WIDTH)
    weights(block + "attn_output.weight", WIDTH, WIDTH)
    weights(block + "ffn_gate.weight", INNER, WIDTH)
    weights(block + "ffn_up.weight", INNER, WIDTH)
    weights(block + "ffn_down.weight", WIDTH, INNER)
out.write_header_to_file()
out.write_kv_data_to_file()
out.write_tensors_to_file()
out.close()
