# Scores a maze solver on held-out mazes: greedy, pass@k of n samples, best of 16 by mean log-probability.
# Every answer is judged by maze.ts's verifier through `data.ts score`; nothing here knows what a right path is.
#   usage: score.py weights.pt [--first 1000 --mazes 1024 --temperatures 0.6,0.8,1.0,1.2]
import argparse
import json
import math
import shlex
import subprocess
import time

import numpy as np
import torch

from solver import Solver, sample

GENERATOR = "node --import tsx models/maze/data.ts"
MAX_NEW, SAMPLES, BEST_OF, AT_ONCE = 120, 64, 16, 256


def call(generator, job, text=None):
    """Runs one job of data.ts and returns its stdout."""
    return subprocess.run(shlex.split(f"{generator} {job}"), input=text, stdout=subprocess.PIPE, check=True).stdout


class Evaluator:
    """Scores on the evaluation seeds first … first + mazes − 1."""

    def __init__(self, generator, vocabulary, first, mazes, device, seed=7):
        block = np.frombuffer(call(generator, f"held-out --first {first} --count {mazes}"), np.uint16)
        self.prompts = torch.from_numpy(block.reshape(mazes, -1).astype(np.int64)).to(device)
        self.words = [token.replace("Ġ", " ") for token in vocabulary["tokens"]]
        self.end, self.generator, self.first = vocabulary["endOfText"], generator, first
        self.random = torch.Generator(device).manual_seed(seed)

    def valid(self, ids, first):
        """ids (mazes, n, tokens) of the seeds first … -> bool (mazes, n)."""
        texts = [["".join(self.words[i] for i in row if i != self.end) for row in maze] for maze in ids.tolist()]
        verdicts = json.loads(call(self.generator, f"score --first {first}", json.dumps(texts).encode()))
        return np.array([[c == "1" for c in row] for row in verdicts])

    def answers(self, model, n, temperature):
        """-> valid (mazes, n) and mean log-probability at temperature 1 (mazes, n)."""
        device = self.prompts.device
        valid, mean_log_p = [], []
        for at in range(0, len(self.prompts), AT_ONCE):
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
                part = self.prompts[at : at + AT_ONCE]
                ids, mean = sample(model, part, n, temperature, MAX_NEW, self.end, self.random)
            valid.append(self.valid(ids, self.first + at))
            mean_log_p.append(mean.cpu().numpy())
        return np.concatenate(valid), np.concatenate(mean_log_p)

    def run(self, model, temperatures, sample_from=0.25):
        """Scores as a dictionary; samples are drawn only once greedy solves the part `sample_from`."""
        model.eval()
        greedy = self.answers(model, 1, 0)[0][:, 0]
        scores = {"greedy": share(greedy)}
        if scores["greedy"][0] < sample_from:
            return scores
        scores["pass"], scores["ranked"], scores["ranked above greedy"] = {}, {}, {}
        for temperature in temperatures:
            ok, mean_log_p = self.answers(model, SAMPLES, temperature)
            ks = [k for k in (1, 2, 4, 8, 16, 32, 64) if k <= SAMPLES]
            scores["pass"][str(temperature)] = {str(k): share(pass_at(ok, k)) for k in ks}
            ok, mean_log_p = (x.reshape(len(x), -1, BEST_OF) for x in (ok, mean_log_p))
            ranked = np.take_along_axis(ok, mean_log_p.argmax(-1)[..., None], -1)[..., 0].mean(-1)
            scores["ranked"][str(temperature)] = share(ranked)
            scores["ranked above greedy"][str(temperature)] = share(ranked - greedy)
        return scores


def preference(snapshot):
    """Sorts snapshots, the best last: greedy and pass@1 inside the window this model is made for, then pass@64."""
    scores = snapshot["scores"]
    one = max(p["1"][0] for p in scores["pass"].values())
    inside = sum(0.42 <= x <= 0.72 for x in (one, scores["greedy"][0]))
    return inside, max(p[str(SAMPLES)][0] for p in scores["pass"].values())


def pass_at(ok, k):
    """Unbiased pass@k of each maze over (mazes, n): 1 − C(n − c, k) / C(n, k) (Chen et al., arXiv 2107.03374)."""
    n = ok.shape[1]
    return np.array([1 - math.comb(n - c, k) / math.comb(n, k) for c in ok.sum(1).tolist()])


def share(per_maze):
    """[mean, half width of its 95 % confidence interval over mazes]."""
    x = np.asarray(per_maze, float)
    return [round(float(x.mean()), 4), round(float(1.96 * x.std(ddof=1) / len(x) ** 0.5), 4)] if len(x) > 1 else [float(x[0]), 1.0]


def main():
    args = argparse.ArgumentParser()
    args.add_argument("weights")
    args.add_argument("--generator", default=GENERATOR)
    args.add_argument("--first", type=int, default=1000)
    args.add_argument("--mazes", type=int, default=1024)
    args.add_argument("--temperatures", default="0.6,0.8,1.0,1.2")
    args = args.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    vocabulary = json.loads(call(args.generator, "vocabulary"))
    model = Solver(len(vocabulary["tokens"])).to(device)
    model.load(torch.load(args.weights, map_location=device)["weights"])
    began = time.time()
    evaluator = Evaluator(args.generator, vocabulary, args.first, args.mazes, device)
    scores = evaluator.run(model, [float(t) for t in args.temperatures.split(",")], 0)
    print(f"{args.weights}: seeds {args.first} … {args.first + args.mazes - 1}, [mean, ±95 %], {time.time() - began:.0f} s")
    for name, value in scores.items():
        for key, x in value.items() if isinstance(value, dict) else [("", value)]:
            print(f"  {name} {key} {json.dumps(x)}", flush=True)


if __name__ == "__main__":
    main()
