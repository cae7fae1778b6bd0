"""Commands out of generated speech, by CTC: sounds are learnt from what was said, not from when.

    python examples/pytorch/speech_commands.py

A word is a row of sounds, each two formants above a breath of noise, at a pitch, a pace and a
loudness of the speaker's own. A bidirectional LSTM reads spectra of recordings of different
lengths (`lengths=`, no packing) and scores sounds in each frame; CTC sums over every way to place
them (Graves et al., ICML 2006). A command is recognised where the sounds are exactly its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor, nn

import fusedrnn.torch as ft

RATE, FRAME, HOP, BANDS = 8000, 256, 128, 64
# Formants in Hz; CTC's blank is number 0.
SOUNDS = {"a": (750, 1200), "e": (500, 1900), "i": (300, 2300), "o": (450, 850), "s": (2900, 3600)}
COMMANDS = ["asi", "esa", "ios", "osea", "sie", "sao", "aeio", "oes"]


def spoken(word: str) -> Tensor:
    """A recording: silence, the sounds, silence, all in noise."""
    pace, pitch = torch.empty(2).uniform_(0.8, 1.25)
    pieces = [torch.zeros(int(torch.randint(400, 1600, ())))]
    for sound in word:
        t = torch.arange(int(800 * pace * torch.empty(()).uniform_(0.7, 1.3))) / RATE
        tones = [torch.sin(2 * torch.pi * f * pitch**0.5 * t) for f in SOUNDS[sound]]
        breath = 0.5 * torch.randn(len(t)) if sound == "s" else 0.0
        rises = torch.sin(torch.pi * t / t[-1]).clamp(min=0).sqrt()
        pieces.append((sum(tones) + breath) * rises)
    pieces.append(torch.zeros(int(torch.randint(400, 1600, ()))))
    audio = torch.cat(pieces) * torch.empty(()).uniform_(0.3, 1.0)
    return audio + 0.1 * torch.randn(len(audio))


def features(audio: Tensor) -> Tensor:
    """Log power [T, 64] of bands of 62.5 Hz."""
    spectrum = torch.stft(audio, FRAME, HOP, window=torch.hann_window(FRAME), return_complex=True)
    power = spectrum.abs().square()[: 2 * BANDS].reshape(BANDS, 2, -1).mean(1)
    return (power.T + 1e-3).log() / 3


def recordings(count: int) -> tuple[Tensor, Tensor, list[str]]:
    """Features [T, B, 64] filled up with zeros, their lengths, and what was said."""
    words = [COMMANDS[int(i)] for i in torch.randint(len(COMMANDS), (count,))]
    found = [features(spoken(word)) for word in words]
    lengths = torch.tensor([len(one) for one in found])
    return nn.utils.rnn.pad_sequence(found), lengths, words


class Recogniser(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.rnn = ft.LSTM(BANDS, hidden, bidirectional=True)
        self.head = nn.Linear(2 * hidden, 1 + len(SOUNDS))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Log probabilities [T, B, sounds] in each frame."""
        y, _ = self.rnn(x, lengths=lengths)
        return self.head(y).log_softmax(-1)


def heard(scores: Tensor, lengths: Tensor) -> list[str]:
    """The likeliest sound of each frame, repetitions and blanks left out."""
    names, result = ["", *SOUNDS], []
    for row, length in zip(scores.argmax(-1).T, lengths.tolist(), strict=True):
        result.append("".join(names[i] for i in row[:length].unique_consecutive().tolist()))
    return result


def main(arguments: Sequence[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--recordings", type=int, default=512, help="to train on")
    parser.add_argument("--hidden", type=int, default=48)
    o = parser.parse_args(arguments)
    torch.manual_seed(0)
    numbers = {sound: i for i, sound in enumerate(SOUNDS, 1)}
    model, ctc = Recogniser(o.hidden), nn.CTCLoss(zero_infinity=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    x, lengths, words = recordings(o.recordings)
    for step in range(1, o.steps + 1):
        some = torch.randint(len(words), (32,))
        chosen = [words[i] for i in some.tolist()]
        said = torch.tensor([numbers[sound] for word in chosen for sound in word])
        counts = torch.tensor([len(word) for word in chosen])
        longest = lengths[some].max()
        loss = ctc(model(x[:longest, some], lengths[some]), said, lengths[some], counts)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 25 == 0:
            print(f"step {step}: CTC loss {loss.item():.3f} a sound")
    with torch.no_grad():
        x, lengths, words = recordings(256)
        found = heard(model(x, lengths), lengths)
    right = sum(a == b for a, b in zip(found, words, strict=True)) / len(words)
    print(f"{right:.1%} of 256 new recordings recognised")
    return right


if __name__ == "__main__":
    main()
