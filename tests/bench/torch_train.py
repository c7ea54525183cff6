#!/usr/bin/env python3
"""Trains the models of tests/bench/bench_models.cc in PyTorch, on random tokens, for a few steps.

    OMP_NUM_THREADS=2 torch_train.py 124m --precision bf16 --mode compile --steps 6

Prints one line of JSON. The model is the same as Panthera's: RMSNorm before attention and before
SwiGLU, rotary positions, causal attention through scaled_dot_product_attention, tied output. With
--precision bf16 the products run in bfloat16 under torch.autocast and the weights stay fp32, as is
usual. The optimizer is either torch.optim.AdamW (fused where there is such a kernel) or the sign
update of Tiger in torch._foreach operations.
"""

import argparse
import contextlib
import json
import os
import resource
import time

import torch
import torch.nn.functional as F
from torch import nn

MODELS = {
    "10m": dict(vocab=8192, width=256, layers=10, heads=4, ffn=704, micro=8, batch=8),
    "124m": dict(vocab=50304, width=768, layers=12, heads=12, ffn=2048, micro=4, batch=8),
}
SEQUENCE = 512


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
    def __init__(self, vocab, width, layers, heads, ffn):
        super().__init__()
        self.embedding = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList(Block(width, heads, ffn) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=1e-5)
        pairs = width // heads // 2
        rates = 10000.0 ** (-torch.arange(pairs) / pairs)
        angles = torch.outer(torch.arange(SEQUENCE), rates).repeat(1, 2)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens, targets):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        logits = F.linear(self.norm(x), self.embedding.weight)
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


def main():
    begin = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--mode", choices=["eager", "compile"], default="eager")
    parser.add_argument("--optimizer", choices=["tiger", "adamw"], default="tiger")
    parser.add_argument("--steps", type=int, default=6, help="measured, after two that are not")
    arguments = parser.parse_args()

    threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count()))
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    sizes = dict(MODELS[arguments.model])
    micro, batch = sizes.pop("micro"), sizes.pop("batch")
    model = Transformer(**sizes)
    optimizer = make_optimizer(arguments.optimizer, model)
    run = torch.compile(model) if arguments.mode == "compile" else model
    autocast = (
        torch.autocast("cpu", dtype=torch.bfloat16)
        if arguments.precision == "bf16"
        else contextlib.nullcontext()
    )

    def step():
        optimizer.zero_grad()
        for _ in range(batch // micro):
            ids = torch.randint(sizes["vocab"], (micro, SEQUENCE + 1))
            with autocast:
                loss = run(ids[:, :-1], ids[:, 1:])
            (loss / (batch // micro)).backward()
        optimizer.step()
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
    print(
        json.dumps(
            dict(
                program=f"torch {torch.__version__}",
                mode=arguments.mode,
                model=arguments.model,
                weights=arguments.precision,
                optimizer=arguments.optimizer,
                threads=threads,
                parameters=sum(p.numel() for p in model.parameters()),
                tokens_per_step=batch * SEQUENCE,
                step_seconds=seconds,
                tokens_per_second=batch * SEQUENCE / median,
                loss=loss,
                seconds_to_first_step=seconds_to_first_step,
                peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            )
        )
    )


if __name__ == "__main__":
    main()
