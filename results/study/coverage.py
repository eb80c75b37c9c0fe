"""How often an interval excludes zero where nothing differs: `python coverage.py` (four minutes).

Of made-up pairs of runs whose true difference is zero, for the noise of this study's differences: standard deviations
over images (by the bootstrap on 300 images; on 1,449 it is less by the root of the ratio) and between seeds.
"""

import numpy as np

from tutored.evaluate.resample import Resampled, compare

NOISE = {
    "mAP, 300 images": (0.0135, 0.017),
    "mIoU, 300 images": (0.0107, 0.011),
    "mAP, 1,449 images": (0.0061, 0.017),
    "mIoU, 1,449 images": (0.0049, 0.011),
}
SEEDS, TRIALS, SAMPLES = (2, 3, 5), 2000, 400


def excludes_zero(rng: np.random.Generator, images: float, between: float, seeds: int) -> bool:
    """One comparison: all seeds share the images' deviation, and each has one of its own."""
    of_seeds = rng.normal(0, between, seeds)
    of_images = rng.normal(0, images, SAMPLES + 1)
    of_images[1:] += of_images[0]
    theirs = np.full((seeds, SAMPLES + 1, 2), 0.5)
    ours = theirs + (of_seeds[:, None] + of_images)[..., None]
    sides = [[Resampled(values, "made up") for values in side] for side in (theirs, ours)]
    return compare(*sides, seed=int(rng.integers(2**30)))["mIoU"].verdict is not None


if __name__ == "__main__":
    rng = np.random.default_rng(1)
    for name, (images, between) in NOISE.items():
        shares = {
            seeds: np.mean([excludes_zero(rng, images, between, seeds) for _ in range(TRIALS)]) for seeds in SEEDS
        }
        print(name, *(f"{seeds} seeds {share:.3f}" for seeds, share in shares.items()), sep="; ", flush=True)
