# The oracle of the tokenizer tests: the `tokenizers` package (Rust; its regular expressions are Oniguruma with Unicode 16.0.0).
# Reads {"batch", "texts", "families": {name: {"file", "pretokenizer", "added"}}} and writes {"version", "hashes": {name: base64 of u32}}.
# Every other text has its control tokens recognised. Run by tests/oracle/tokenizer.ts.

import base64
import json
import struct
import sys

import tokenizers


def hash_ids(lists):
    value = 0x811C9DC5
    for ids in lists:
        for number in [*ids, len(ids)]:
            value = ((value ^ number) * 0x01000193) & 0xFFFFFFFF
    return value


def load(family):
    with open(family["file"], encoding="utf8") as file:
        data = json.load(file)
    if family.get("pretokenizer"):
        data["pre_tokenizer"] = family["pretokenizer"]
    data["added_tokens"] += family.get("added", [])
    return tokenizers.Tokenizer.from_str(json.dumps(data))


def encode(tokenizer, text, special):
    tokenizer.encode_special_tokens = not special
    return tokenizer.encode(text, add_special_tokens=False).ids


job = json.load(sys.stdin)
hashes = {}
for name, family in job["families"].items():
    tokenizer = load(family)
    ids = [encode(tokenizer, text, index % 2 == 1) for index, text in enumerate(job["texts"])]
    batches = [hash_ids(ids[at : at + job["batch"]]) for at in range(0, len(ids), job["batch"])]
    hashes[name] = base64.b64encode(struct.pack(f"<{len(batches)}I", *batches)).decode()
    if job.get("show"):
        print(json.dumps([ids[index] for index in job["show"]]), file=sys.stderr)
json.dump({"version": tokenizers.__version__, "hashes": hashes}, sys.stdout)
