"""The races there are: who runs what, on how many images, how often."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from photographs import photographs
from work import CHOICES, QUESTIONS, Setting, Work, draw_images, draw_lengths

TEMPLATES = {"opt": "Question: {} Answer:", "t5": "Question: {} Short answer:"}
WORDS = {
    "caption": "captions",
    "ask": f"answers to {len(QUESTIONS)} questions an image",
    "choices": f"answers out of {len(CHOICES)} choices",
    "embed": "embeddings (mean of the Q-Former's outputs)",
    "beam": "captions, 5 beams",
    "vision": "images through six layers of ViT-g, pixels ready",
    "pixels": "preprocessing",
}


@dataclass(frozen=True)
class Race:
    """Peers in processes of their own, side by side."""

    model: str
    kind: str
    images: int
    peers: tuple[tuple[str, str], ...]  # peer and precision; ours is the last
    batches: tuple[int, ...] = (16, 32, 64)  # tried by those who choose a batch size
    workers: tuple[int, ...] = (0,)  # the same of the DataLoader's, at the best batch size
    ours: int = 64  # batch size
    rounds: int = 3
    share: int = 1  # ``docs`` runs one image in ``share``
    sequential: bool = False  # too large to be in memory beside another peer
    size: tuple[int, int] = (320, 240)  # of the images, width and height

    @property
    def workload(self) -> str:
        """What is done, in words."""
        of = f"{self.size[0]}x{self.size[1]}"
        if self.kind == "vision":
            return f"{self.images} {WORDS[self.kind]}"
        if self.kind == "pixels":
            return f"{WORDS[self.kind]} of {self.images} JPEG photographs of {of}, one core"
        return f"{WORDS[self.kind]}, {self.model}, {self.images} JPEG files of {of}"

    def work(self, folder: Path) -> Work:
        """The images and what is asked of them."""
        if self.kind == "pixels":
            return Work(self.kind, tuple(photographs(folder, self.images, self.size)))
        files = tuple(draw_images(folder / "images", self.images, self.size))
        template = TEMPLATES["t5" if self.model.endswith(("t5", "vicuna")) else "opt"]
        prompts: tuple[str | None, ...] = (None,)
        if self.kind == "ask":
            prompts = tuple(template.format(question) for question in QUESTIONS)
        elif self.kind == "choices":
            prompts = (template.format(QUESTIONS[-1]),)
        writes = self.kind in ("caption", "ask", "beam") and self.model != "tiny"
        return Work(
            self.kind,
            files,
            prompts,
            draw_lengths(self.images, len(prompts)) if writes else None,
            num_beams=5 if self.kind == "beam" else 1,
            choices=CHOICES if self.kind == "choices" else (),
        )

    def settings(self, peer: str) -> list[Setting]:
        """What is tried, for peers who choose."""
        if peer == "ours":
            return [Setting(self.ours)]
        if peer == "docs":
            return [Setting(1)]
        if peer.startswith("vllm"):
            return [Setting(0)]  # it chooses itself
        return [Setting(size, self.workers[0]) for size in self.batches]

    def fewer(self, images: int | None, rounds: int | None) -> Race:
        """The same on fewer images and in fewer rounds, for trying it out."""
        if images is None:
            return replace(self, rounds=rounds or self.rounds)
        images = min(images, self.images)
        batches = tuple(sorted({min(size, images) for size in self.batches}))
        share = min(self.share, max(1, images // 2))
        return replace(
            self, images=images, batches=batches, share=share, rounds=rounds or self.rounds
        )


def _all(*names: str, dtype: str = "float32") -> tuple[tuple[str, str], ...]:
    return tuple((name, dtype) for name in names)


_WRITE = _all("docs", "batched", "ours")
_ASK = _all("docs", "batched", "cached", "ours")
_FULL = (("docs", "float32"), ("batched", "bfloat16"))
_MIXED = (*_FULL, ("ours", "bfloat16"))
_VLLM = _all("vllm", "ours", dtype="bfloat16")
_BOTH_VLLMS = _all("vllm", "vllm-default", "ours", dtype="bfloat16")


def _vision(dtype: str) -> Race:
    peers = (("batched", "float32"), ("openvino", dtype), ("ours", dtype))
    return Race("vit-g", "vision", 8, peers, (8,), ours=8, rounds=7)


RACES: dict[str, Race] = {
    "caption-vllm": Race("full", "caption", 16, _VLLM, ours=16, sequential=True),
    "ask-vllm": Race("full", "ask", 8, _BOTH_VLLMS, ours=8, sequential=True),
    "vision-openvino": _vision("bfloat16"),
    "vision-openvino-int8": _vision("int8"),
    "caption-tiny": Race("tiny", "caption", 256, _WRITE, workers=(0, 1)),
    "caption-mid-opt": Race("mid-opt", "caption", 256, _MIXED, (8, 16, 32), rounds=2, share=16),
    "caption-mid-t5": Race("mid-t5", "caption", 256, _MIXED, (8, 16, 32), rounds=2, share=16),
    "caption-mid-opt-fp32": Race("mid-opt", "caption", 256, _WRITE, (16, 32), rounds=1, share=16),
    "ask-mid-opt": Race("mid-opt", "ask", 32, _ASK, (16, 32), ours=32, rounds=2, share=8),
    "ask-mid-t5": Race("mid-t5", "ask", 32, _ASK, (16, 32), ours=32, rounds=2, share=8),
    "ask-mid-vicuna": Race("mid-vicuna", "ask", 32, _WRITE, (16, 32), ours=32, rounds=2, share=8),
    "choices-mid-opt": Race("mid-opt", "choices", 64, _all("forward", "ours")),
    "choices-mid-t5": Race("mid-t5", "choices", 64, _all("forward", "ours")),
    "beam-mid-opt": Race("mid-opt", "beam", 32, _all("batched", "ours"), (4, 8, 16), ours=32),
    "beam-mid-t5": Race("mid-t5", "beam", 32, _all("batched", "ours"), (4, 8, 16), ours=32),
    "embed-tiny": Race("tiny", "embed", 256, _all("batched", "ours"), workers=(0, 1)),
    "embed-mid-opt": Race("mid-opt", "embed", 128, _all("batched", "ours")),
    "preprocess-640": Race("tiny", "pixels", 64, _all("docs", "ours"), rounds=5, size=(640, 480)),
    "preprocess-12mp": Race("tiny", "pixels", 8, _all("docs", "ours"), rounds=5, size=(4000, 3000)),
    "caption-full": Race(
        "full", "caption", 16, _MIXED, (8, 16), ours=16, rounds=1, share=8, sequential=True
    ),
    "ask-full": Race(
        "full",
        "ask",
        8,
        (*_FULL, ("cached", "bfloat16"), ("ours", "bfloat16")),
        (8,),
        ours=8,
        rounds=1,
        share=4,
        sequential=True,
    ),
    "int8-full": Race(
        "full",
        "caption",
        16,
        (("batched", "bfloat16"), ("ours", "int8")),
        (8, 16),
        ours=16,
        rounds=1,
        sequential=True,
    ),
}
