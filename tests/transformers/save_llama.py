"""save_llama.py DIRECTORY DTYPE MAX_SHARD_BYTES: saves a small Llama with random weights as
transformers does it, in files of at most MAX_SHARD_BYTES bytes. DTYPE is float32, bfloat16 or
float16.

Exit status: 0 if it was saved, 77 if this cannot be tried here.
"""
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
try:
    import safetensors  # noqa: F401
    import torch
    import transformers
except ImportError as error:
    print(f"{error}; install the Python packages torch, transformers and safetensors")
    sys.exit(77)


def main():
    directory, dtype, max_shard_bytes = sys.argv[1], sys.argv[2], int(sys.argv[3])
    torch.manual_seed(1)
    # The model of the tests' TinyRun, with values under which every part matters for the logits.
    config = transformers.LlamaConfig(
        vocab_size=23, hidden_size=32, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=16,
        rms_norm_eps=1e-2, rope_theta=100.0, initializer_range=0.3, tie_word_embeddings=False)
    model = transformers.LlamaForCausalLM(config).to(getattr(torch, dtype))
    model.save_pretrained(directory, max_shard_size=max_shard_bytes)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}: "
          f"{', '.join(sorted(os.listdir(directory)))}")


main()
