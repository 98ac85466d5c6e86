"""The text front end's data and model: a lexicon from flite's own pronunciations, and letters to phones by CTC.

    python -m models.training g2p OUT --words /usr/share/dict/words [--data DIR] [--steps N]

Words come from a word list, from `phrases` and, with DIR, from the texts of the corpus. flite pronounces them all; a
fortieth is held out of the training of the model (they stay in the lexicon), and its phone error rate is printed.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn
from tqdm import tqdm

from models.pronounce import CODES, LETTERS, PAUSE, PHONES, collapse, letter_ids, pack_lexicon, unpack_lexicon
from models.training import phrases
from models.training.corpus import read_texts
from models.training.export import write_manifest
from models.training.measures import edits

WORD = re.compile(r"[a-z][a-z']*")
UPSAMPLE = 2
"""CTC steps a letter: x alone is two phones, and u in `unite` too."""
IN_CONTEXT: dict[str, tuple[str, ...]] = {
    "a": ("ax",),
    "live": ("l", "ih", "v"),
    "lives": ("l", "ih", "v", "z"),
    "read": ("r", "iy", "d"),
}
"""How running speech says what flite says otherwise of a word on its own."""

_SAID_AS_WORDS = (
    "anzus ascii awacs bitnet cobol covid eula fica fud gif gigo ikea isis mego mips mooc mpeg nafta nasa nascar nasdaq"
    " nato nimby norad opec osha pac parc ram rem rom sam sars sids sim pin sase unesco unicef unix vax wats"
    " al ba da de er et ko la ne pe ta un"
)
SAID_AS_WORDS = frozenset(_SAID_AS_WORDS.split(" "))
"""Short words in capitals that are not spelled letter by letter (or, the last, are names' parts more often)."""


def acronyms(paths: Sequence[Path]) -> list[str]:
    """Lower-case forms of what a word list has in capitals only, two to six letters, and is spelled when spoken."""
    listed = {line.strip() for path in paths for line in path.read_text("utf-8").splitlines()}
    short = {word.lower() for word in listed if re.fullmatch("[A-Z]{2,6}", word)}
    return sorted(word for word in short - SAID_AS_WORDS if word not in listed)


def spelled(word: str, lexicon: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The names of its letters."""
    return tuple(phone for letter in word for phone in lexicon[letter])


def word_list(paths: Sequence[Path], data: Path | None) -> list[str]:
    """Distinct lower-case words. Possessives are left out: a rule makes them."""
    words: set[str] = set(LETTERS[:26])
    texts: list[str] = list(itertools.islice(phrases.sentences(1), 6000))
    for path in paths:
        texts += path.read_text("utf-8").splitlines()
    for file in ("slurp_recordings.csv", "clinc150.csv") if data else ():
        assert data is not None
        texts += read_texts(data / "text" / file)
    for text in texts:
        words.update(word.rstrip("'") for word in WORD.findall(text.lower()) if text.isascii())
    return sorted(word for word in words if not word.endswith("'s") and (len(word) < 25))


def ask_flite(words: Sequence[str]) -> list[list[str]]:
    """flite's phones of each word, spoken as a sentence of its own. Raises CalledProcessError or FileNotFoundError."""
    command = ["flite", "-voice", "kal16", "-ps", "-t", ". ".join(words) + ".", "-o", "none"]
    spoken = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    groups = [list(group) for pause, group in itertools.groupby(spoken, PAUSE.__eq__) if not pause]
    if len(groups) == len(words):
        return groups
    if len(words) == 1:  # an abbreviation that flite reads as several words with a pause: keep what it says
        return [[phone for phone in spoken if phone != PAUSE]]
    half = len(words) // 2
    return ask_flite(words[:half]) + ask_flite(words[half:])


def make_lexicon(words: Sequence[str], spell: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Word to phones for every word that flite pronounces; those of `spell` letter by letter."""
    entries: dict[str, tuple[str, ...]] = {}
    for start in tqdm(range(0, len(words), 50), desc="asking flite", mininterval=2.0):
        batch = words[start : start + 50]
        for word, phones in zip(batch, ask_flite(batch), strict=True):
            if phones and all(phone in PHONES for phone in phones):
                entries[word] = tuple(phones)
    letters = {word: spelled(word, entries) for word in spell}
    return entries | letters | IN_CONTEXT


class LettersToPhones(nn.Module):
    """letters int64 [B, n] (0 pads) -> CTC log-probabilities float32 [B, 2n, 41]; residual 1-D convolutions."""

    def __init__(self, width: int = 160, layers: int = 6) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(LETTERS) + 1, width, padding_idx=0)
        self.layers = nn.ModuleList(nn.Conv1d(width, width, 5, padding=2) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.dropout = nn.Dropout(0.1)
        self.out = nn.Linear(width, UPSAMPLE * len(PHONES))

    def forward(self, letters: Tensor) -> Tensor:
        mask = (letters > 0).unsqueeze(-1).float()
        hidden = self.embed(letters)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            step = torch.relu(layer((norm(hidden) * mask).transpose(1, 2))).transpose(1, 2)
            hidden = hidden + self.dropout(step)
        scores = self.out(hidden).reshape(letters.shape[0], -1, len(PHONES))
        return torch.log_softmax(scores, dim=-1)


def batch_of(pairs: Sequence[tuple[str, tuple[str, ...]]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """letters [B, n], steps [B], phones (flat), phone counts [B]."""
    letters = [letter_ids(word) for word, _ in pairs]
    grid = torch.zeros(len(pairs), max(map(len, letters)), dtype=torch.long)
    for row, ids in zip(grid, letters, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    targets = torch.tensor([PHONES.index(phone) for _, phones in pairs for phone in phones])
    steps = torch.tensor([UPSAMPLE * len(ids) for ids in letters])
    return grid, steps, targets, torch.tensor([len(phones) for _, phones in pairs])


def error_rates(session: ort.InferenceSession, pairs: Sequence[tuple[str, tuple[str, ...]]]) -> tuple[float, float]:
    """Phone error rate and word error rate of the exported model."""
    wrong = phones = words = 0
    for word, truth in pairs:
        (scores,) = session.run(None, {"letters": np.array([letter_ids(word)], np.int64)})
        distance = edits([PHONES[n] for n in collapse(scores[0].argmax(axis=1).tolist())], truth)
        wrong, phones, words = wrong + distance, phones + len(truth), words + (distance > 0)
    return wrong / phones, words / len(pairs)


def train(pairs: list[tuple[str, tuple[str, ...]]], steps: int, seed: int, batch: int = 128) -> LettersToPhones:
    """One run with a cosine schedule."""
    torch.manual_seed(seed)
    model = LettersToPhones()
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps, pct_start=0.1)
    loss_of = nn.CTCLoss(zero_infinity=True)
    rng = np.random.default_rng(seed)
    started, total = time.monotonic(), 0.0
    for step in (bar := tqdm(range(1, steps + 1), desc="letters to phones", mininterval=5.0)):
        letters, lengths, targets, counts = batch_of([pairs[n] for n in rng.integers(len(pairs), size=batch)])
        with torch.autocast("cpu", torch.bfloat16):
            scores = model(letters)
        loss = loss_of(scores.float().transpose(0, 1), targets, lengths, counts)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        total += float(loss)
        if step % 100 == 0:
            bar.set_postfix(loss=f"{total / 100:.3f}", minutes=f"{(time.monotonic() - started) / 60:.1f}")
            total = 0.0
    return model.eval()


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="models.training g2p")
    parser.add_argument("out", type=Path, help="the model folder to write")
    parser.add_argument("--words", type=Path, action="append", default=[], help="a word list, one word a line")
    parser.add_argument("--data", type=Path, help="folder that holds text/*.csv")
    parser.add_argument("--steps", type=int, default=2500, help="0 makes the lexicon only")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    lexicon = out / "lexicon.txt.gz"
    if options.words or not lexicon.exists():
        entries = make_lexicon(word_list(options.words, options.data), acronyms(options.words))
        lexicon.write_bytes(pack_lexicon(entries))
    packed = lexicon.read_bytes()
    codes = unpack_lexicon(packed)
    print(f"{lexicon}: {len(codes)} words, {len(packed)} bytes")
    if options.steps == 0:
        return

    pairs = [(word, tuple(PHONES[CODES.index(code)] for code in phones)) for word, phones in codes.items()]
    pairs = [(word, phones) for word, phones in pairs if len(phones) <= UPSAMPLE * len(letter_ids(word))]
    held_out = [p for p in pairs if int(hashlib.sha256(p[0].encode()).hexdigest()[:8], 16) % 40 == 0]
    kept = sorted(set(pairs) - set(held_out))
    model = train(kept, options.steps, options.seed)
    example = torch.tensor([letter_ids("example")])
    torch.onnx.export(
        model,
        (example,),
        str(out / "model.onnx"),
        input_names=["letters"],
        output_names=["scores"],
        dynamic_axes={"letters": {1: "letters"}, "scores": {1: "steps"}},
        opset_version=17,
        dynamo=False,
    )
    session = ort.InferenceSession(str(out / "model.onnx"), providers=["CPUExecutionProvider"])
    phone_errors, word_errors = error_rates(session, held_out)
    print(f"{len(held_out)} held-out words: {phone_errors:.2%} of phones wrong, {word_errors:.2%} of words")
    digest = hashlib.sha256(packed).hexdigest()
    write_manifest(out, "g2p", "g2p", "Apache-2.0; the lexicon's sources in card.md", {"lexicon_sha256": digest})
