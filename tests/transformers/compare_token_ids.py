"""compare_token_ids.py CHECKPOINT EXPECTED: opens the tokenizer of a checkpoint directory with
transformers, as AutoTokenizer does by default and, in versions that still can, by way of the
SentencePiece library. Compares with EXPECTED, a JSON object:

  end     the id that ends a document
  texts   strings
  ids     the token ids of each

Exit status: 0 if all ids are equal, 1 if not, 77 if this cannot be tried here.
"""
import json
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
try:
    import google.protobuf  # noqa: F401
    import sentencepiece  # noqa: F401
    import transformers
except ImportError as error:
    print(f"{error}; install the Python packages transformers, sentencepiece and protobuf")
    sys.exit(77)


def differences(tokenizer, expected):
    kind = type(tokenizer).__name__
    if tokenizer.eos_token_id != expected["end"]:
        yield f"{kind}: a document ends with {tokenizer.eos_token_id}, not {expected['end']}"
    for text, ids in zip(expected["texts"], expected["ids"], strict=True):
        actual = tokenizer(text)["input_ids"]
        if actual != ids:
            yield f"{kind}: {ascii(text)} gives {actual}, not {ids}"


def main():
    checkpoint, expected_file = sys.argv[1], sys.argv[2]
    with open(expected_file, encoding="utf-8") as file:
        expected = json.load(file)
    found = []
    for use_fast in (True, False):
        tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint, use_fast=use_fast)
        found += differences(tokenizer, expected)
        print(f"{type(tokenizer).__name__}, transformers {transformers.__version__}: "
              f"{len(expected['texts'])} texts")
    for line in found:
        print(line)
    return 1 if found else 0


sys.exit(main())
