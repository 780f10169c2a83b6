# Writes a training snapshot as models/maze.gguf: architecture llama, byte-level BPE with the GPT-2 pre-tokenizer,
# matrices Q8_0, norms F32, output tied to the embedding. Needs the `gguf` package; knows no mazes.
# The end of a text is <|endoftext|>; nothing is put before a prompt (add_bos_token is false).
#   usage: export.py folder models/maze.gguf [--step 9500] [--weights as-exported.pt]
import argparse
import glob
import json
import sys

import gguf
import numpy as np
import torch

from score import GENERATOR, call, preference
from solver import DIM, EPS, HEAD_DIM, HEADS, HIDDEN, KV_HEADS, LAYERS, ROPE_BASE

CONTEXT = 1536  # the prompt is 1,180 tokens; training saw positions up to 1,285

args = argparse.ArgumentParser()
args.add_argument("folder", help="what train.py wrote")
args.add_argument("target")
args.add_argument("--step", type=int, help="which snapshot; without it, the best by score.preference")
args.add_argument("--weights", help="also write the weights as the quantised file holds them, for score.py")
args.add_argument("--generator", default=GENERATOR)
args = args.parse_args()

files = sorted(glob.glob(f"{args.folder}/snapshots-*.pt"))
snapshots = [s for file in files for s in torch.load(file, map_location="cpu", weights_only=False)]
wanted = [s for s in snapshots if args.step in (None, s["step"])]
if not wanted:
    sys.exit(f"{args.folder} has the snapshots {[s['step'] for s in snapshots]}, expected {args.step or 'at least one'}")
source = wanted[0] if len(wanted) == 1 else max(wanted, key=preference)
vocabulary = json.loads(call(args.generator, "vocabulary"))
tokens, end = vocabulary["tokens"], vocabulary["endOfText"]

out = gguf.GGUFWriter(args.target, "llama")
out.add_name("furcate maze solver")
out.add_description(f"Finds paths through mazes of 24 x 24 rooms; trained from random mazes, step {source['step']}")
out.add_license("MIT")
out.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
out.add_quantization_version(gguf.GGML_QUANT_VERSION)
out.add_context_length(CONTEXT)
out.add_embedding_length(DIM)
out.add_block_count(LAYERS)
out.add_feed_forward_length(HIDDEN)
out.add_head_count(HEADS)
out.add_head_count_kv(KV_HEADS)
out.add_key_length(HEAD_DIM)
out.add_value_length(HEAD_DIM)
out.add_rope_dimension_count(HEAD_DIM)
out.add_rope_freq_base(ROPE_BASE)
out.add_layer_norm_rms_eps(EPS)
out.add_vocab_size(len(tokens))
out.add_tokenizer_model("gpt2")
out.add_tokenizer_pre("gpt-2")
out.add_token_list(tokens)
out.add_token_types([gguf.TokenType.CONTROL if i == end else gguf.TokenType.NORMAL for i in range(len(tokens))])
out.add_token_merges(vocabulary["merges"])
out.add_bos_token_id(end)
out.add_eos_token_id(end)
out.add_add_bos_token(False)
out.add_add_eos_token(False)

held = {}
for name, weight in source["weights"].items():
    values = weight.detach().float().numpy()
    if values.ndim == 1:
        out.add_tensor(f"{name}.weight", values)
        held[name] = torch.from_numpy(values)
        continue
    kind = gguf.GGMLQuantizationType.Q8_0
    blocks = gguf.quants.quantize(values, kind)
    out.add_tensor(f"{name}.weight", blocks, raw_dtype=kind)
    held[name] = torch.from_numpy(np.ascontiguousarray(gguf.quants.dequantize(blocks, kind)))
out.write_header_to_file()
out.write_kv_data_to_file()
out.write_tensors_to_file()
out.close()
if args.weights:
    torch.save({"step": source["step"], "weights": held}, args.weights)
print(f"{args.target}: step {source['step']}, {sum(v.numel() for v in held.values()):,} parameters")
