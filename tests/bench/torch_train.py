#!/usr/bin/env python3
"""Trains the models of tests/bench/bench_models.cc in PyTorch, on random tokens, for a few steps.

    OMP_NUM_THREADS=2 torch_train.py 124m --precision bf16 --mode compile --steps 6
    torch_train.py 1.3b --device cuda --mode compile --steps 8

Prints one line of JSON, or appends it to a file; exits with 77 (skipped) where there is no PyTorch.
The model is the same as Panthera's: RMSNorm before attention and before SwiGLU, rotary positions,
causal attention through scaled_dot_product_attention. With --precision bf16 the products run in
bfloat16 under torch.autocast and the weights stay fp32, as is usual. The optimizer is either
torch.optim.AdamW (fused where there is such a kernel) or the sign update of Tiger in torch._foreach
operations.
"""

import argparse
import contextlib
import json
import os
import resource
import sys
import time

try:
    import torch
    import torch.nn.functional as F
    from torch import nn
except ImportError:
    print("skipped: python3 has no torch")
    sys.exit(77)

MODELS = {
    "10m": dict(vocab=8192, width=256, layers=10, heads=4, ffn=704, tied=True),
    "124m": dict(vocab=50304, width=768, layers=12, heads=12, ffn=2048, tied=True),
    "1.3b": dict(vocab=50304, width=2048, layers=24, heads=16, ffn=5504, tied=False),
}
# Tokens of a sequence, sequences of a step and at a time, as BenchModel's on each device.
STEPS = {
    ("10m", "cpu"): (512, 8, 8),
    ("124m", "cpu"): (512, 8, 4),
    ("10m", "cuda"): (512, 8, 8),
    ("124m", "cuda"): (2048, 32, 8),
    ("1.3b", "cuda"): (2048, 16, 4),
}


def rotate(x, cos, sin):
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Block(nn.Module):
    def __init__(self, width, heads, ffn):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.RMSNorm(width, eps=1e-5)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm2 = nn.RMSNorm(width, eps=1e-5)
        self.gate_up = nn.Linear(width, 2 * ffn, bias=False)
        self.down = nn.Linear(ffn, width, bias=False)

    def forward(self, x, cos, sin):
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, tokens, width))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Transformer(nn.Module):
    def __init__(self, vocab, width, layers, heads, ffn, tied, sequence):
        super().__init__()
        self.embedding = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList(Block(width, heads, ffn) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.head = nn.Linear(width, vocab, bias=False)
        if tied:
            self.head.weight = self.embedding.weight
        pairs = width // heads // 2
        rates = 10000.0 ** (-torch.arange(pairs) / pairs)
        angles = torch.outer(torch.arange(sequence), rates).repeat(1, 2)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens, targets):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class Tiger:
    """theta -= rate * (sign(m) + decay * theta), m = 0.945 m + 0.055 g."""

    def __init__(self, parameters):
        self.parameters = list(parameters)
        self.momentum = [torch.zeros_like(parameter) for parameter in self.parameters]

    @torch.no_grad()
    def step(self):
        torch._foreach_lerp_(self.momentum, [p.grad for p in self.parameters], 0.055)
        torch._foreach_mul_(self.parameters, 1 - 1e-3 * 0.01)
        torch._foreach_add_(self.parameters, torch._foreach_sign(self.momentum), alpha=-1e-3)

    def zero_grad(self):
        for parameter in self.parameters:
            parameter.grad = None


def make_optimizer(name, model):
    if name == "tiger":
        return Tiger(model.parameters())
    return torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)


def flops_per_token(model, sizes, sequence):
    """As CountFlops of model/cost.h: matrices but the embedding, and half of all attention."""
    matrices = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    if not sizes["tied"]:
        matrices -= sizes["vocab"] * sizes["width"]
    return 6 * matrices + 6 * sizes["layers"] * sequence * sizes["width"]


def main():
    begin = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--mode", choices=["eager", "compile"], default="eager")
    parser.add_argument("--optimizer", choices=["tiger", "adamw"], default="tiger")
    parser.add_argument("--steps", type=int, default=6, help="measured, after two that are not")
    parser.add_argument("--json", help="file that gets one more line")
    parser.add_argument("--dry", action="store_true", help="a tiny step, to see that all works")
    arguments = parser.parse_args()
    if (arguments.model, arguments.device) not in STEPS:
        parser.error(f"{arguments.model} is too large for the device {arguments.device}")

    device = arguments.device
    threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count()))
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    sizes = MODELS[arguments.model]
    sequence, batch, micro = (64, 2, 2) if arguments.dry else STEPS[arguments.model, device]
    with torch.device(device):
        model = Transformer(sequence=sequence, **sizes)
    optimizer = make_optimizer(arguments.optimizer, model)
    run = torch.compile(model) if arguments.mode == "compile" else model
    autocast = (
        torch.autocast(device, dtype=torch.bfloat16)
        if arguments.precision == "bf16"
        else contextlib.nullcontext()
    )

    def step():
        optimizer.zero_grad()
        for _ in range(batch // micro):
            ids = torch.randint(sizes["vocab"], (micro, sequence + 1), device=device)
            with autocast:
                loss = run(ids[:, :-1], ids[:, 1:])
            (loss / (batch // micro)).backward()
        optimizer.step()
        # Waits for the device.
        return loss.item()

    step()
    seconds_to_first_step = time.perf_counter() - begin
    step()
    seconds = []
    for _ in range(arguments.steps):
        step_begin = time.perf_counter()
        loss = step()
        seconds.append(time.perf_counter() - step_begin)
    median = sorted(seconds)[len(seconds) // 2]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    line = json.dumps(
        dict(
            stage="train",
            program=f"torch {torch.__version__}",
            device=device,
            mode=arguments.mode,
            model=arguments.model,
            weights=arguments.precision,
            optimizer=arguments.optimizer,
            threads=threads,
            parameters=sum(p.numel() for p in model.parameters()),
            flops_per_token=flops_per_token(model, sizes, sequence),
            tokens_per_step=batch * sequence,
            step_seconds=seconds,
            tokens_per_second=batch * sequence / median,
            loss=loss,
            seconds_to_first_step=seconds_to_first_step,
            peak_bytes=torch.cuda.max_memory_allocated() if device == "cuda" else peak,
        )
    )
    if arguments.json:
        with open(arguments.json, "a", encoding="ascii") as lines:
            lines.write(line + "\n")
    else:
        print(line)


if __name__ == "__main__":
    main()
