"""A token-and-duration transducer (TDT) in torch, with the joint of NeMo's parakeet, trained for a minute on the CPU.

The joint is a ReLU, dropout and an output layer. The layer's last five rows are durations of 0 to 4 frames, and the
blank is the last row before them. The loss is the fused one of example 03, so there are no logits. The features are
generated: a phone is a spectrum that moves, over 6 to 16 frames, with noise. Others are decoded, without dropout.

Run: python examples/11_tdt_torch.py    (needs torch; with OPENBLAS_NUM_THREADS=1 it takes a third of the time)
"""

import runpy
from pathlib import Path

import torch
from torch.nn.functional import interpolate, pad
from torch.nn.utils.rnn import pad_sequence

import lattice

joint_transducer_loss = runpy.run_path(str(Path(__file__).with_name("03_torch_autograd.py")))["joint_transducer_loss"]
TDT = lattice.Topology("tdt", durations=(0, 1, 2, 3, 4), sigma=0.05)
OPTIONS = {"blank": -1, "activation": "relu", "topology": TDT}  # the blank: the last token
PHONES, BANDS, WIDTH, STEPS, BATCH = 20, 24, 96, 300, 16
TOKENS = PHONES + 1
SPECTRA = 1.5 * torch.randn(PHONES, BANDS, 3, generator=torch.Generator().manual_seed(1))  # beginning, middle and end


class Transducer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        convolutions = [torch.nn.Conv1d(size, WIDTH, 7, padding=3) for size in (BANDS, WIDTH, WIDTH)]
        self.encoder = torch.nn.Sequential(*(x for one in convolutions for x in (one, torch.nn.ReLU())))
        self.enc, self.pred = torch.nn.Linear(WIDTH, WIDTH), torch.nn.Linear(WIDTH, WIDTH)
        self.embedding = torch.nn.Embedding(TOKENS, WIDTH, padding_idx=PHONES)  # the blank begins: a row of zeros
        self.history = torch.nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.output = torch.nn.Linear(WIDTH, TOKENS + len(TDT.durations))

    def predict(self, labels, state):
        """A step of the search. A state is (N, WIDTH)."""
        before = None if state is None else state[0][None].contiguous()
        found, after = self.history(self.embedding(labels)[:, None], before)
        return self.pred(found[:, 0]), (after[0],)

    def forward(self, features, targets):
        """The fused loss's first four arguments."""
        f = self.enc(self.encoder(features.transpose(1, 2)).transpose(1, 2))
        g, _ = self.history(self.embedding(pad(targets, (1, 0), value=PHONES)))
        return f, self.pred(g), self.output.weight, self.output.bias


def speak(count):
    """Features (B, T, BANDS), targets (B, U) of as many utterances, and the lengths of both."""
    targets = [torch.randint(PHONES, (int(torch.randint(4, 11, ())),)) for _ in range(count)]
    features = []
    for ids in targets:
        sizes = torch.randint(6, 17, (len(ids),)).tolist()
        phones = [interpolate(SPECTRA[i][None], size, mode="linear")[0].T for i, size in zip(ids, sizes)]
        features.append(torch.cat(phones) + torch.randn(sum(sizes), BANDS))
    lengths = (torch.tensor([len(x) for x in given]) for given in (features, targets))
    return pad_sequence(features, batch_first=True), pad_sequence(targets, batch_first=True), *lengths


def errors(found, truth):
    """Insertions, deletions and substitutions."""
    row = list(range(len(truth) + 1))
    for i, x in enumerate(found):
        last, row = row, [i + 1]
        for j, y in enumerate(truth):
            row.append(min(last[j] + (x != y), last[j + 1] + 1, row[j] + 1))
    return row[-1]


@torch.no_grad()
def measure(model, features, targets, frames, labels):
    """The label error rate of greedy decoding."""
    encoder, _, *output = (x.detach() for x in model(features, targets))
    found = lattice.greedy_decode(encoder, frames, model.predict, *output, **OPTIONS)
    pairs = zip(found.labels.tolist(), found.lengths.tolist(), targets.tolist(), labels.tolist())
    wrong = sum(errors(ours[:n], truth[:u]) for ours, n, truth, u in pairs)
    return f"label error rate {wrong / int(labels.sum()):.1%}"


def main():
    torch.manual_seed(0)
    model, unseen = Transducer(), speak(100)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    print(f"before: {measure(model, *unseen)}")
    for step in range(STEPS):
        features, *rest = speak(BATCH)
        training = {"fastemit_lambda": 1e-3, "dropout": (0.2, step)}  # as in its recipe; a seed is a mask
        loss = joint_transducer_loss(*model(features, rest[0]), *rest, **training, **OPTIONS)
        optimizer.zero_grad()
        (loss.sum() / rest[-1].sum()).backward()  # NeMo's "mean_volume"
        optimizer.step()
    print(f"after {STEPS} steps: {measure(model, *unseen)}")


if __name__ == "__main__":
    main()
