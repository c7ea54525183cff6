#!/usr/bin/env python3
"""Times PyTorch on the kernels and shapes of kernel_bench, eager and compiled. See --help.

A line of JSON for each: {"stage": "torch", "kernel", "shape", "mode", "seconds", "spread_seconds"},
or "error" in place of the seconds. Modes are eager and compile; for attention also flash and cudnn,
PyTorch's kernels of that name. Exits with 77 (skipped) where there is no PyTorch.
"""

import argparse
import json
import statistics
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    print("skipped: python3 has no torch")
    sys.exit(77)

# As GpuModelShapes and DryModelShape of kernel_shapes.cc.
MODELS = {
    "124m": dict(tokens=65536, sequence=2048, width=768, heads=12, head=64, ffn=2048),
    "1.3b": dict(tokens=32768, sequence=2048, width=2048, heads=16, head=128, ffn=5504),
    "7b": dict(tokens=16384, sequence=2048, width=4096, heads=32, head=128, ffn=11008),
}
for sizes in MODELS.values():
    sizes.update(vocab=50257, columns=50304, rows=8192)
DRY = dict(tokens=64, sequence=32, width=128, heads=2, head=64, ffn=192)
DRY.update(vocab=300, columns=320, rows=32)
EPS = 1e-5
# Input sets in turn hold more than this together, so that no cache holds them.
ROTATION_BYTES = 512 << 20


class Bench:
    def __init__(self, dry, path):
        self.dry = dry
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.lines = open(path, "a", encoding="ascii") if path else sys.stdout
        torch.manual_seed(1)

    def noise(self, *shape, dtype=torch.bfloat16):
        return torch.rand(shape, device=self.device, dtype=dtype) * 2 - 1

    def integers(self, count, end):
        return torch.randint(end, (count,), device=self.device)

    def batch_seconds(self, calls):
        """Seconds of one of these calls, by events where there is a GPU."""
        if self.device == "cpu":
            begin = time.perf_counter()
            for call in calls:
                call()
            return (time.perf_counter() - begin) / len(calls)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for call in calls:
            call()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1e3 / len(calls)

    def measure(self, kernel, shape, mode, make):
        """make() gives a call on inputs of its own, and their bytes."""
        line = dict(stage="torch", kernel=kernel, shape=shape, mode=mode)
        line.update(program=f"torch {torch.__version__}", device=self.device)
        try:
            calls, held = [], 0
            while len(calls) < 2 or (held < ROTATION_BYTES and len(calls) < 8 and not self.dry):
                call, size = make()
                calls.append(call)
                held += size
            # The first call compiles.
            self.batch_seconds(calls)
            once = self.batch_seconds(calls)
            repeats = 1 if self.dry else max(1, min(200, int(0.004 / once / len(calls))))
            seconds = sorted(
                self.batch_seconds(calls * repeats) for _ in range(2 if self.dry else 15)
            )
            line.update(seconds=statistics.median(seconds))
            high, low = seconds[len(seconds) * 9 // 10], seconds[len(seconds) // 10]
            line.update(spread_seconds=high - low)
        except Exception as error:  # what one kernel lacks, the others may have
            line.update(error=str(error).splitlines()[0][:200] if str(error) else repr(error))
        print(json.dumps(line), file=self.lines, flush=True)

    def forward(self, kernel, shape, mode, function, inputs):
        """A function of tensors that `inputs` makes."""
        run = torch.compile(function, dynamic=False) if mode == "compile" else function

        def make():
            tensors = inputs()
            return (lambda: run(*tensors)), sum(t.nbytes for t in tensors)

        self.measure(kernel, shape, mode, make)

    def backward(self, kernel, shape, mode, function, inputs, wanted, rest=None):
        """The gradients of the first `wanted` inputs; `rest` goes on with the first of them."""
        run = torch.compile(function, dynamic=False) if mode == "compile" else function

        def make():
            tensors = [t.requires_grad_() if i < wanted else t for i, t in enumerate(inputs())]
            out = run(*tensors)
            dout = torch.rand_like(out)
            held = sum(t.nbytes for t in tensors) + out.nbytes

            def call():
                grads = torch.autograd.grad(out, tensors[:wanted], dout, retain_graph=True)
                return rest(grads[0], tensors) if rest else grads

            return call, held

        self.measure(kernel, shape, mode, make)


def rotate(x, cos, sin):
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def swiglu(gate_up):
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def rows(bench, name, m, mode):
    tokens, width = m["tokens"], m["width"]
    norm = (width,)
    f32 = torch.float32

    def rms(x, gain):
        return F.rms_norm(x, norm, gain.to(x.dtype), EPS)

    def add_rms(x, branch, gain):
        total = x + branch
        return total, rms(total, gain)

    def embedding_gradient(dout, ids):
        return torch.ops.aten.embedding_dense_backward(dout, ids, m["columns"], -1, False)

    def cross_entropy(logits, targets):
        logits = logits.detach().requires_grad_()
        loss = F.cross_entropy(logits[:, : m["vocab"]].float(), targets)
        return torch.autograd.grad(loss, logits)

    x = lambda: bench.noise(tokens, width)
    gain = lambda: bench.noise(width, dtype=f32)
    ids = lambda: bench.integers(tokens, m["vocab"])
    bench.forward("embedding_forward", name, mode, lambda i, table: F.embedding(i, table),
                  lambda: [ids(), bench.noise(m["columns"], width)])
    bench.forward("embedding_backward", name, mode,
                  embedding_gradient, lambda: [x(), ids()])
    bench.forward("rmsnorm_forward", name, mode, rms, lambda: [x(), gain()])
    bench.forward("add_rmsnorm_forward", name, mode, add_rms, lambda: [x(), x(), gain()])
    bench.backward("rmsnorm_backward", name, mode, rms, lambda: [x(), gain()], 2,
                   rest=lambda dx, tensors: dx + tensors[0])
    half = m["head"] // 2
    table = lambda: bench.noise(m["sequence"], 1, half)
    heads = (tokens // m["sequence"], m["sequence"], 2 * m["heads"], m["head"])
    bench.forward("rope_forward", name, mode, rotate,
                  lambda: [bench.noise(*heads), table(), table()])
    gate_up = lambda: [bench.noise(tokens, 2 * m["ffn"])]
    bench.forward("swiglu_forward", name, mode, swiglu, gate_up)
    bench.backward("swiglu_backward", name, mode, swiglu, gate_up, 1)
    if mode == "compile":
        # A compiled function may not differentiate inside: the loss is compiled, its gradient
        # follows.
        bench.loss_and_gradient(name, m)
    else:
        bench.forward("cross_entropy", name, mode, cross_entropy,
                      lambda: [bench.noise(m["rows"], m["columns"]),
                               bench.integers(m["rows"], m["vocab"])])
    bench.forward("residual_add", name, mode, torch.add, lambda: [x(), x()])


def loss_and_gradient(bench, name, m):
    loss = torch.compile(
        lambda logits, targets: F.cross_entropy(logits[:, : m["vocab"]].float(), targets),
        dynamic=False)

    def make():
        logits = bench.noise(m["rows"], m["columns"]).requires_grad_()
        targets = bench.integers(m["rows"], m["vocab"])
        return (lambda: torch.autograd.grad(loss(logits, targets), logits)), 2 * logits.nbytes

    bench.measure("cross_entropy", name, "compile", make)


Bench.loss_and_gradient = loss_and_gradient


def attention(bench, shape, batch, length, heads, width):
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backends = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
    if bench.device == "cpu":
        backends = {"flash": SDPBackend.FLASH_ATTENTION}
    for mode, backend in backends.items():

        def attend(q, k, v):
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v, is_causal=True)

        # Heads beside each other in a row, as a fused projection leaves them.
        inputs = lambda: [bench.noise(batch, length, heads, width).transpose(1, 2)
                          for _ in range(3)]
        bench.forward("attention_forward", shape, mode, attend, inputs)
        bench.backward("attention_backward", shape, mode, attend, inputs, 3)


def products(bench, name, m):
    d, f, n = m["width"], m["ffn"], m["tokens"]
    layers = dict(qkv=(n, 3 * d, d), attention_out=(n, d, d), gate_up=(n, 2 * f, d),
                  down=(n, d, f), head=(m["rows"], m["columns"], d))
    for layer, (count, outputs, inputs) in layers.items():
        shape = f"{name} {layer}"
        x, w = lambda: bench.noise(count, inputs), lambda: bench.noise(outputs, inputs)
        y = lambda: bench.noise(count, outputs)
        bench.forward("gemm_forward", shape, "eager", lambda a, b: a @ b.T, lambda: [x(), w()])
        bench.forward("gemm_input_gradient", shape, "eager", torch.mm, lambda: [y(), w()])
        bench.forward("gemm_weight_gradient", shape, "eager", lambda a, b: a.T @ b,
                      lambda: [y(), x()])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", nargs="+", default=["rows", "attention", "products", "sweep"],
                        choices=["rows", "attention", "products", "sweep"])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--compile-models", nargs="*", default=["7b"], choices=list(MODELS),
                        help="whose kernels are also compiled, which takes seconds for each")
    parser.add_argument("--dry", action="store_true", help="tiny sizes, a few calls, eager")
    parser.add_argument("--json", help="file that gets one more line for each")
    arguments = parser.parse_args()
    # Gradients are asked for again and again from one forward pass.
    import torch._functorch.config

    torch._functorch.config.donated_buffer = False
    bench = Bench(arguments.dry, arguments.json)
    models = {"dry": DRY} if arguments.dry else {name: MODELS[name] for name in arguments.models}
    for group in arguments.groups:
        if group == "sweep":
            lengths, widths, tokens, columns = [1024, 2048, 4096, 8192], [64, 128], 16384, 2048
            if arguments.dry:
                lengths, widths, tokens, columns = [32], [64], 64, 64
            for width in widths:
                for length in lengths:
                    attention(bench, f"S={length} D={width} causal", tokens // length, length,
                              columns // width, width)
            continue
        for name, m in models.items():
            if group == "rows":
                rows(bench, name, m, "eager")
                if name in arguments.compile_models:
                    rows(bench, name, m, "compile")
            elif group == "attention":
                attention(bench, name, m["tokens"] // m["sequence"], m["sequence"], m["heads"],
                          m["head"])
            else:
                products(bench, name, m)
    return 0


if __name__ == "__main__":
    sys.exit(main())
