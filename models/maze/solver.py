# The maze solver as PyTorch: a small Llama, its training pass, and batched sampling for evaluation.
# Knows token ids only. Rotary pairs are neighbours (2i, 2i + 1), as a GGUF of architecture llama wants them,
# so the exporter has nothing to permute. Parameter names are the GGUF tensor names.
import torch
import torch.nn as nn
import torch.nn.functional as F

LAYERS, DIM, HIDDEN = 6, 192, 512
HEADS, KV_HEADS, HEAD_DIM = 6, 2, 32
GROUP = HEADS // KV_HEADS
EPS, ROPE_BASE = 1e-5, 10000.0


class Solver(nn.Module):
    def __init__(self, vocab):
        super().__init__()
        shapes = {"token_embd": (vocab, DIM), "output_norm": (DIM,)}
        for i in range(LAYERS):
            shapes |= {
                f"blk.{i}.attn_norm": (DIM,),
                f"blk.{i}.attn_q": (HEADS * HEAD_DIM, DIM),
                f"blk.{i}.attn_k": (KV_HEADS * HEAD_DIM, DIM),
                f"blk.{i}.attn_v": (KV_HEADS * HEAD_DIM, DIM),
                f"blk.{i}.attn_output": (DIM, HEADS * HEAD_DIM),
                f"blk.{i}.ffn_norm": (DIM,),
                f"blk.{i}.ffn_gate": (HIDDEN, DIM),
                f"blk.{i}.ffn_up": (HIDDEN, DIM),
                f"blk.{i}.ffn_down": (DIM, HIDDEN),
            }
        self.names = list(shapes)
        for name, shape in shapes.items():
            std = 0.02 / (2 * LAYERS) ** 0.5 if name.endswith(("attn_output", "ffn_down")) else 0.02
            weight = torch.ones(shape) if len(shape) == 1 else torch.randn(shape) * std
            self.register_parameter(name.replace(".", "_"), nn.Parameter(weight))

    def weight(self, name):
        return getattr(self, name.replace(".", "_"))

    def weights(self):
        return {name: self.weight(name).detach() for name in self.names}

    def load(self, weights):
        with torch.no_grad():
            for name in self.names:
                self.weight(name).copy_(weights[name])

    def hidden(self, ids, positions, attend):
        """ids (…, tokens) and their positions (tokens,) -> (…, tokens, DIM) after the last norm.
        `attend(layer, q, k, v)` gets (…, tokens, heads, HEAD_DIM) with the rotation done and returns q's shape."""
        x = F.embedding(ids, self.token_embd)
        cos, sin = rotation(positions)
        for i in range(LAYERS):
            at = lambda role: self.weight(f"blk.{i}.{role}")
            y = norm(x, at("attn_norm"))
            q = rotate(F.linear(y, at("attn_q")).unflatten(-1, (HEADS, HEAD_DIM)), cos, sin)
            k = rotate(F.linear(y, at("attn_k")).unflatten(-1, (KV_HEADS, HEAD_DIM)), cos, sin)
            v = F.linear(y, at("attn_v")).unflatten(-1, (KV_HEADS, HEAD_DIM))
            x = x + F.linear(attend(i, q, k, v).flatten(-2), at("attn_output"))
            y = norm(x, at("ffn_norm"))
            x = x + F.linear(F.silu(F.linear(y, at("ffn_gate"))) * F.linear(y, at("ffn_up")), at("ffn_down"))
        return norm(x, self.output_norm)

    def logits(self, hidden):
        return F.linear(hidden, self.token_embd)

    def forward(self, ids, targets, positions, mask, grid):
        """Training: ids (mazes, grid + all slots); every slot sees the grid and itself. Mean loss of the targets ≥ 0."""
        h = self.hidden(ids, positions, lambda i, q, k, v: attend_slots(q, k, v, mask, grid))
        return F.cross_entropy(self.logits(h[:, grid:]).flatten(0, 1).float(), targets.flatten(), ignore_index=-1)


def norm(x, weight):
    return F.rms_norm(x.float(), (DIM,), weight, EPS)


def rotation(positions):
    rate = ROPE_BASE ** (-torch.arange(0, HEAD_DIM, 2, device=positions.device).float() / HEAD_DIM)
    angle = positions.float()[:, None] * rate
    return angle.cos()[:, None], angle.sin()[:, None]  # (tokens, 1, HEAD_DIM / 2)


def rotate(x, cos, sin):
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).to(x.dtype)


def attend_slots(q, k, v, mask, grid):
    """The grid attends causally. The slots' rows, grouped by KV head, attend the grid and their own slot through
    one mask (GROUP · slots, grid + slots), so that the grid's K and V are read once for all problems."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))  # (mazes, heads, tokens, HEAD_DIM)
    kg, vg = (t[:, :, :grid].repeat_interleave(GROUP, 1) for t in (k, v))
    top = F.scaled_dot_product_attention(q[:, :, :grid], kg, vg, is_causal=True)
    rows = q[:, :, grid:].unflatten(1, (KV_HEADS, GROUP)).flatten(2, 3)
    low = F.scaled_dot_product_attention(rows, k.contiguous(), v.contiguous(), attn_mask=mask[None, None].to(q.dtype))
    low = low.unflatten(2, (GROUP, -1)).flatten(1, 2)
    return torch.cat((top, low), 2).transpose(1, 2)


def slot_layout(grid, slots, device):
    """Positions (grid + slots,) and the additive mask (GROUP · slots, grid + slots) of one training record."""
    total = sum(slots)
    positions = torch.cat([torch.arange(grid)] + [grid + torch.arange(s) for s in slots])
    own = torch.cat([torch.full((s,), i) for i, s in enumerate(slots)])
    seen = torch.zeros(total, grid + total, dtype=torch.bool)
    seen[:, :grid] = True
    seen[:, grid:] = (own[:, None] == own[None]) & torch.ones(total, total).tril().bool()
    mask = torch.zeros(seen.shape).masked_fill(~seen, float("-inf")).repeat(GROUP, 1)
    return positions.to(device), mask.to(device)


@torch.no_grad()
def sample(model, prompts, n, temperature, max_new, end, generator=None):
    """prompts (mazes, tokens) -> ids (mazes, n, max_new) padded with `end`, and each answer's mean log-probability
    (mazes, n) at temperature 1. Temperature 0 is greedy. The prompt's K and V are kept once for all n."""
    mazes, length = prompts.shape
    device = prompts.device
    cache, last = [], []
    for part in prompts.split(64):
        kept = []

        def attend(i, q, k, v):
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))
            kept.append((k, v))
            k, v = (t.repeat_interleave(GROUP, 1) for t in (k, v))
            return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)

        h = model.hidden(part, torch.arange(length, device=device), attend)
        last.append(model.logits(h[:, -1:]).float())
        cache.append(kept)
    prefix = [tuple(torch.cat([c[i][j] for c in cache]) for j in (0, 1)) for i in range(LAYERS)]
    logits = torch.cat(last).expand(-1, n, -1)  # (mazes, n, vocab)
    tail = prefix[0][0].new_zeros(LAYERS, 2, mazes, KV_HEADS, n, max_new, HEAD_DIM)
    ids = torch.full((mazes, n, max_new), end, device=device)
    done = torch.zeros(mazes, n, dtype=torch.bool, device=device)
    total, count = torch.zeros(mazes, n, device=device), torch.zeros(mazes, n, device=device)
    for t in range(max_new):
        if temperature == 0:
            chosen = logits.argmax(-1)
        else:
            noise = torch.empty_like(logits).exponential_(generator=generator)
            chosen = (torch.softmax(logits / temperature, -1) / noise).argmax(-1)
        log_p = torch.log_softmax(logits, -1).gather(-1, chosen[..., None])[..., 0]
        total += torch.where(done, 0, log_p)
        count += ~done
        ids[:, :, t] = torch.where(done, end, chosen)
        done |= chosen == end
        if t + 1 == max_new or done.all():
            break

        def attend(i, q, k, v):
            # q (mazes, n, 1, HEADS, HEAD_DIM): rows of all n samples against one copy of the prefix, then their own tail
            tail[i, 0, :, :, :, t] = k[:, :, 0].transpose(1, 2)
            tail[i, 1, :, :, :, t] = v[:, :, 0].transpose(1, 2)
            rows = q[:, :, 0].unflatten(2, (KV_HEADS, GROUP)).transpose(1, 2)  # (mazes, kv, n, group, dim)
            ours = rows @ tail[i, 0, :, :, :, : t + 1].transpose(-1, -2)  # (mazes, kv, n, group, t + 1)
            shared = (rows.flatten(2, 3) @ prefix[i][0].transpose(-1, -2)).unflatten(2, (n, GROUP))
            p = torch.softmax(torch.cat((shared, ours), -1).float() * HEAD_DIM**-0.5, -1).to(q.dtype)
            out = (p[..., :length].flatten(2, 3) @ prefix[i][1]).unflatten(2, (n, GROUP))
            out = out + p[..., length:] @ tail[i, 1, :, :, :, : t + 1]
            return out.transpose(1, 2).flatten(2, 3)[:, :, None]

        h = model.hidden(ids[:, :, t, None], torch.tensor([length + t], device=device), attend)
        logits = model.logits(h)[:, :, 0].float()
    return ids, total / count
