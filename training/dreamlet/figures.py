"""Figures of an evaluation: as a record, as a table, and as JSON for the model card."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

GOALS = {"subject": 0.95, "colour": 0.97, "place": 0.97, "time": 0.97, "pair": 0.80}
"""The share of generated pictures on which the judge shall find what the caption says; `pair`: both of two subjects."""
QUESTIONS = {**{name: name for name in GOALS}, "pair": "both of two subjects, of 48"}


@dataclass(frozen=True, slots=True)
class Figures:
    """One evaluation of one pipeline."""

    pictures: int
    """Generated pictures that the judge has seen."""
    generated: dict[str, float]
    """Its share of right answers on them."""
    drawn: dict[str, float]
    """Its share of right answers on fresh drawings: what it can see at all."""
    psnr_db: float
    """The autoencoder's, on fresh drawings."""
    held_out_loss: float
    """The UNet's, on fixed scenes and noise."""
    load_s: float
    picture_s: float
    """One picture at the default settings."""
    threads: int
    device: str
    parameters: dict[str, int]
    """Of each network."""

    def table(self) -> str:
        """For people; Markdown."""
        rows = [
            f"| {QUESTIONS[name]} | {self.generated[name]:.1%} | {goal:.0%} | {self.drawn[name]:.1%} |"
            for name, goal in GOALS.items()
        ]
        head = [
            f"| the judge finds on {self.pictures} pictures | generated | goal | fresh drawings |",
            "|---|---|---|---|",
        ]
        rest = [
            "",
            f"| figure ({self.device}, {self.threads} threads) | value | goal |",
            "|---|---|---|",
            f"| autoencoder, PSNR on fresh drawings | {self.psnr_db:.1f} dB | 29 dB |",
            f"| loss on held-out scenes | {self.held_out_loss:.4f} | |",
            f"| one picture, 28 guided steps | {self.picture_s:.2f} s | 1 s |",
            f"| weights loaded, after imports | {self.load_s:.2f} s | 1 s |",
        ]
        return "\n".join([*head, *rows, *rest])

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    def line(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, path: Path) -> "Figures":
        """Read what `save` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))
