"""Warning for images unlike the training: measured micrographs of two materials, each with the reference of the other.

    python benchmarks/fibsem_unlike.py

Each image that a material's reference was made with is also left out of it once: a warning there is a false alarm.
Then it is changed: magnified or reduced, blurred, with noise. Single images, normalised as by
`augment.normalize_slices`. Data: the folder fibsem of CATHODEFLOW_DATA. RESULTS lines are those of docs/fibsem.md.
"""

import os
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from cathodeflow.fibsem.image_features import feature_distances, feature_reference, slice_features
from cathodeflow.fibsem.patch_features import patch_distances, patch_features, patch_reference
from cathodeflow.io.slices import open_slices

DATA = Path(os.environ.get("CATHODEFLOW_DATA", Path(__file__).parents[2] / "shared" / "data")) / "fibsem"
CHANGES = {
    "magnified 1.5 times": lambda image: zoom(image, 1.5, order=1),
    "reduced 1.5 times": lambda image: zoom(gaussian_filter(image, 0.6), 1 / 1.5, order=1),
    "blur of 1 px": lambda image: gaussian_filter(image, 1.0),
    "noise of 0.3 standard deviations": lambda image: image + np.random.default_rng(0).normal(0, 0.3, image.shape),
}


def main() -> None:
    """Compare all images with both materials."""
    materials = {name: images(DATA / f"{name}_sem" / "images") for name in ("coating", "superalloy")}
    measured = {name: [both(image) for image in own] for name, own in materials.items()}
    scan = both(normalised(np.asarray(open_slices(str(DATA / "battery_xct/im_1.tif"))[0][0], float)))
    for name, own in measured.items():
        rest = [own[:k] + own[k + 1 :] for k in range(len(own))]
        report(name, "left out", [warned(one, others) for one, others in zip(own, rest, strict=True)])
        for other, theirs in measured.items():
            if other != name:
                report(name, other, [warned(one, own) for one in theirs])
        report(name, "tomography of a cell", [warned(scan, own)])
        for text, change in CHANGES.items():
            some = range(0, len(own), 2)
            changed = [both(normalised(change(materials[name][k]))) for k in some]
            report(name, text, [warned(one, rest[k]) for k, one in zip(some, changed, strict=True)])


def images(folder):
    """All images of a folder."""
    return [normalised(np.asarray(open_slices(str(path))[0][0], float)) for path in sorted(folder.glob("*.tif"))]


def normalised(image):
    """Image with mean 0 and standard deviation 1."""
    return (image - image.mean()) / image.std()


def both(image):
    """Features of the image, and of its patches."""
    return slice_features(image, 0.0, 1.0), patch_features(image, 0.0, 1.0)


def warned(one, training):
    """Whether the features, and whether the patches, are far from those of some images."""
    (whole,) = feature_distances([one[0]], [feature_reference([own[0] for own in training])])
    (patches,) = patch_distances([one[1]], [patch_reference([own[1] for own in training])])
    return whole.far, patches.far, patches.value, patches.limit


def report(trained, shown, found):
    """Print how many images are warned of."""
    whole, patches, values, limits = map(np.array, zip(*found, strict=True))
    print(
        f"RESULTS {trained:>10} | {shown:<32} | images {len(found):2d} | warned {int((whole | patches).sum()):2d} "
        f"(features {int(whole.sum())}, patches {int(patches.sum())}) | patch distance {values.min():.2f}"
        f"-{values.max():.2f}, limit {np.median(limits):.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
