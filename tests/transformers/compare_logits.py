"""compare_logits.py CHECKPOINT EXPECTED BOUND: opens a checkpoint directory with transformers and
compares its logits, computed in float32, with those in EXPECTED, a JSON object:

  sequences   lists of token ids
  logits      for each sequence and each of its tokens, what follows it: a list over the vocabulary

Exit status: 0 if no logit is off by more than BOUND, 1 if one is, 77 if this cannot be tried here.
"""
import inspect
import json
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
try:
    import torch
    import transformers
except ImportError as error:
    print(f"{error}; install the Python packages torch and transformers")
    sys.exit(77)


def refuse_old_version(config):
    """Versions that derive the heads' width would not notice that the file says another one."""
    derived = config.hidden_size // config.num_attention_heads
    known = "head_dim" in inspect.signature(type(config).__init__).parameters
    if getattr(config, "head_dim", derived) != derived and not known:
        print(f"transformers {transformers.__version__} does not know head_dim; install 4.46")
        sys.exit(77)


def largest_error(model, expected):
    error = 0.0
    for tokens, logits in zip(expected["sequences"], expected["logits"], strict=True):
        with torch.no_grad():
            actual = model(torch.tensor([tokens])).logits[0]
        wanted = torch.tensor(logits)
        if actual.shape != wanted.shape:
            sys.exit(f"logits have shape {tuple(actual.shape)}, not {tuple(wanted.shape)}")
        # A NaN must not get lost in a maximum.
        if not bool(torch.isfinite(actual).all()):
            sys.exit("a logit is not finite")
        error = max(error, float((actual - wanted).abs().max()))
    return error


def main():
    checkpoint, expected_file, bound = sys.argv[1], sys.argv[2], float(sys.argv[3])
    transformers.utils.logging.disable_progress_bar()
    refuse_old_version(transformers.AutoConfig.from_pretrained(checkpoint))
    # Without it gains, which are float32 in a file of bf16 matrices, would be rounded in loading.
    dtype = "torch_dtype" if transformers.__version__.startswith("4.") else "dtype"
    model, loading = transformers.AutoModelForCausalLM.from_pretrained(
        checkpoint, output_loading_info=True, **{dtype: torch.float32})
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if loading[kind]:
            sys.exit(f"{kind}: {loading[kind]}")
    with open(expected_file, encoding="utf-8") as file:
        error = largest_error(model.eval(), json.load(file))
    print(f"{type(model).__name__}, transformers {transformers.__version__}, "
          f"torch {torch.__version__}: largest error {error:.3g}, bound {bound:.3g}")
    return 0 if error <= bound else 1


sys.exit(main())
