# Trains the maze solver on one GPU, in pieces: each run goes on from the checkpoint folder and stops after --seconds. It is saved at
# each evaluation too, so that a run that is cut off loses half a minute.
# The mazes come from maze.ts through `data.ts train` in background processes; the scores from `data.ts score`.
# Writes weights.pt, average.pt (the moving average: this is what is exported), moments.pt, snapshots-*.pt, log.txt.
#   usage: train.py --folder ck --seconds 540 [--generator "node --import tsx models/maze/data.ts"]
import argparse
import json
import math
import os
import queue
import shlex
import subprocess
import sys
import threading
import time

import numpy as np
import torch

from score import GENERATOR, Evaluator, call, preference
from solver import Solver, slot_layout

args = argparse.ArgumentParser()
args.add_argument("--folder", required=True)
args.add_argument("--seconds", type=float, required=True, help="stop after this long, evaluation and saving included")
args.add_argument("--generator", default=GENERATOR)
args.add_argument("--workers", type=int, default=12)
args.add_argument("--batch", type=int, default=128, help="mazes a step; each carries one problem per slot")
args.add_argument("--rate", type=float, default=2e-3)
args.add_argument("--evaluate", type=int, default=500, help="steps between evaluations")
args.add_argument("--mazes", type=int, default=256, help="held-out mazes in an evaluation")
args.add_argument("--enough", type=float, default=0.74, help="stop when greedy solves more than this part twice running")
args = args.parse_args()
born = time.time()
device = "cuda" if torch.cuda.is_available() else "cpu"
WARM_UP, AVERAGE, SNAPSHOTS, TEMPERATURES = 300, 0.999, 6, (0.8, 1.0, 1.2)


def main():
    os.makedirs(args.folder, exist_ok=True)
    voc = json.loads(call(args.generator, "vocabulary"))
    grid, slots, nothing = voc["grid"], voc["slots"], voc["nothing"]
    torch.manual_seed(1)
    model = Solver(len(voc["tokens"])).to(device)
    average = Solver(len(voc["tokens"])).to(device)
    average.load(model.weights())
    optimizer = torch.optim.AdamW(groups(model), lr=args.rate, betas=(0.9, 0.98), fused=device == "cuda")
    step, snapshots = resume(model, average, optimizer)
    size = sum(p.numel() for p in model.parameters())
    where = torch.cuda.get_device_name() if device == "cuda" else device
    log(f"{size:,} parameters, {where}, torch {torch.__version__}, from step {step}")
    batches = Batches(step, grid + sum(slots))
    evaluator = Evaluator(args.generator, voc, 0, args.mazes, torch.device(device))
    positions, mask = slot_layout(grid, slots, device)
    mask = mask.bfloat16()
    # Targets are the path and the end of text: the next token of the same slot, from the colon on.
    starts = np.cumsum([0] + slots[:-1])
    wanted = torch.zeros(sum(slots), dtype=torch.bool)
    for start, size in zip(starts, slots):
        wanted[start + 3 : start + size - 1] = True
    wanted = wanted.to(device)
    run = torch.compile(model) if device == "cuda" else model
    window, losses, above, compiled = time.time(), [], 0, False
    while time.time() - born < args.seconds - 15:
        raw = torch.from_numpy(batches.next()).to(device, non_blocking=True).long()
        ids = torch.where(raw == nothing, 0, raw)
        after = torch.roll(raw[:, grid:], -1, 1)
        targets = torch.where(wanted & (after != nothing), after, -1)
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        with torch.autocast(device, dtype=torch.bfloat16):
            try:
                loss = run(ids, targets, positions, mask, grid)
            except Exception as error:
                if compiled or run is model:
                    raise
                log(f"torch.compile failed, going on without: {str(error)[:300]}")
                run = model
                loss = run(ids, targets, positions, mask, grid)
        loss.backward()
        compiled = True
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        keep = min(AVERAGE, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)
        step += 1
        losses.append(loss.detach())
        if len(losses) == 100:
            mean = torch.stack(losses).mean().item()
            speed = 100 / (time.time() - window)
            log(f"step {step} loss {mean:.4f}, {speed:.1f} steps/s, {batches.ready()} batches ready")
            if not math.isfinite(mean):
                sys.exit("the loss is not finite")
            window, losses = time.time(), []
        if step % args.evaluate == 0:
            began = time.time()
            scores = evaluator.run(average, TEMPERATURES)
            log(f"step {step} held out {json.dumps(scores)} in {time.time() - began:.1f} s")
            if "pass" in scores:
                weights = {k: v.half().cpu() for k, v in average.weights().items()}
                snapshots.append({"step": step, "scores": scores, "weights": weights})
                snapshots = sorted(snapshots, key=preference)[-SNAPSHOTS:]
            save(model, average, optimizer, step, snapshots)
            above = above + 1 if scores["greedy"][0] > args.enough else 0
            if above == 2:
                log("good enough, stopping")
                break
            window, losses = time.time(), []
    save(model, average, optimizer, step, snapshots)
    batches.stop()
    log(f"saved at step {step}, snapshots {[s['step'] for s in snapshots]}")


def rate(step):
    return args.rate * min(1, (step + 1) / WARM_UP)


def groups(model):
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    return [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]


class Batches:
    """Training batches in the order of their index, made by background processes, read ahead by a thread each."""

    def __init__(self, first, width):
        self.shape, self.index, self.first = (args.batch, width), first, first
        self.queues = [queue.Queue(8) for _ in range(args.workers)]
        self.workers = []
        for i, q in enumerate(self.queues):
            command = f"{args.generator} train --first {first + i} --every {args.workers} --batch {args.batch}"
            worker = subprocess.Popen(shlex.split(command), stdout=subprocess.PIPE)
            self.workers.append(worker)
            threading.Thread(target=self.read, args=(worker.stdout, q), daemon=True).start()

    def read(self, pipe, q):
        size = 2 * self.shape[0] * self.shape[1]
        while len(block := pipe.read(size)) == size:
            q.put(np.frombuffer(block, np.uint16).reshape(self.shape).astype(np.int32))

    def next(self):
        block = self.queues[(self.index - self.first) % len(self.queues)].get(timeout=60)
        self.index += 1
        return block

    def ready(self):
        return sum(q.qsize() for q in self.queues)

    def stop(self):
        for worker in self.workers:
            worker.kill()


def save(model, average, optimizer, step, snapshots):
    """Replaces the checkpoint: a run that is cut off leaves the one before."""
    state = [optimizer.state[p] for p in model.parameters()]
    moments = [(s["exp_avg"].bfloat16().cpu(), s["exp_avg_sq"].bfloat16().cpu()) for s in state]
    files = {
        "weights.pt": {"step": step, "weights": {k: v.cpu() for k, v in model.weights().items()}},
        "average.pt": {"step": step, "weights": {k: v.cpu() for k, v in average.weights().items()}},
        "moments.pt": {"step": step, "moments": moments},
    }
    for i in range(0, SNAPSHOTS, 3):
        files[f"snapshots-{i // 3}.pt"] = snapshots[i : i + 3]
    for name, content in files.items():
        torch.save(content, os.path.join(args.folder, f"{name}.part"))
    for name in files:
        os.replace(os.path.join(args.folder, f"{name}.part"), os.path.join(args.folder, name))


def resume(model, average, optimizer):
    at = lambda name: os.path.join(args.folder, name)
    if not os.path.exists(at("moments.pt")):
        return 0, []
    kept = torch.load(at("weights.pt"), map_location=device)
    model.load(kept["weights"])
    average.load(torch.load(at("average.pt"), map_location=device)["weights"])
    for p, (m, v) in zip(model.parameters(), torch.load(at("moments.pt"), map_location=device)["moments"]):
        steps = torch.tensor(float(kept["step"]), device=device)
        optimizer.state[p] = {"step": steps, "exp_avg": m.float(), "exp_avg_sq": v.float()}
    snapshots = [s for i in range(0, SNAPSHOTS, 3) for s in torch.load(at(f"snapshots-{i // 3}.pt"), map_location="cpu")]
    return kept["step"], snapshots


def log(line):
    line = f"{time.time() - born:6.0f} s  {line}"
    print(line, flush=True)
    with open(os.path.join(args.folder, "log.txt"), "a") as file:
        print(line, file=file)


main()
