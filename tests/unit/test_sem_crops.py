from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pytest
import zarr
from PIL import Image

from cathodeflow.errors import InputError
from cathodeflow.io.crops import crops_geometry, crops_table_path, read_crops, write_crops
from cathodeflow.io.tables import write_table
from cathodeflow.io.volumes import manifest_path, read_volume, write_volume
from cathodeflow.sem.cropping import cut_crops, plan_crops
from cathodeflow.sem.image_options import Crops
from cathodeflow.sem.resample import shrink, to_uint8
from cathodeflow.sem.usable_area import UsableArea

SIZE = {"rows": 120, "cols": 160}

GEOMETRY = {"pixels": 40, "side": 20, "margin": 1, "pixel_nm": None}


def originals(train=4, validation=2, test=2, labels=("333", "811"), **columns):
    splits = ["train"] * train + ["validation"] * validation + ["test"] * test + ["left out"]
    table = pd.DataFrame(
        [
            {"name": f"{label}/{k:02d}.jpg", "label": label, "split": split}
            for label in labels
            for k, split in enumerate(splits)
        ]
    )
    table = table.assign(**({"pixel_nm": np.nan, "bar_rows": 10, "bar_side": "bottom"} | SIZE | columns))
    areas = [
        UsableArea.beside_bar(*at)
        for at in zip(table[["rows", "cols"]].to_numpy(), table.pop("bar_rows"), table.pop("bar_side"), strict=True)
    ]
    return table.assign(**dict(zip(UsableArea._fields, np.array(areas).T, strict=True)))


def plan(table=None, **options):
    table = originals() if table is None else table
    return plan_crops(table, Crops(**{"size": 100, "pixels": 40, "side": 20, "seed": 5} | options))


def image_of(name):
    """Every image has its own grey levels, and its bar is white."""
    image = np.random.default_rng(list(name.encode())).integers(0, 200, (120, 160), dtype=np.uint8)
    image[110:] = 255
    return image


def counts(crops, by="split"):
    return crops[by].value_counts().to_dict()


def test_the_published_shares_are_kept():
    crops = plan(size=1000, ratio=0.3)
    assert counts(crops) == {"train": 700, "validation": 300, "test": 300}
    assert counts(plan(size=101, ratio=0.1, per_class=False)) == {"train": 91, "validation": 10, "test": 10}


def test_no_image_goes_untested_for_want_of_crops():
    with pytest.raises(InputError, match=r"crops.size.* for 14 of the 20 images for validation"):
        plan(originals(validation=10), size=60, ratio=0.1)


def test_crops_lie_in_the_split_of_their_original_and_none_in_what_is_left_out():
    table = originals().set_index("name")
    crops = plan()
    assert (table.loc[crops["name"], "split"].to_numpy() == crops["split"]).all()
    assert (table.loc[crops["name"], "label"].to_numpy() == crops["label"]).all()
    assert set(crops["name"]) == set(table.index[table["split"] != "left out"])
    assert crops["crop"].tolist() == list(range(len(crops)))
    order = crops["split"].map({"train": 0, "validation": 1, "test": 2})
    assert list(zip(order, crops["name"], strict=True)) == sorted(zip(order, crops["name"], strict=True))


def test_every_class_or_every_image_has_as_many_crops():
    table = originals()
    table = table[~((table["label"] == "811") & table["name"].str.contains("00|01|02"))]
    crops = plan(table, size=120, ratio=0.25)
    for _, part in crops.groupby("split"):
        assert np.ptp(list(counts(part, "label").values())) == 0
        assert all(np.ptp(list(counts(of_class, "name").values())) <= 1 for _, of_class in part.groupby("label"))
    assert counts(crops[crops["label"] == "811"], "name")["811/03.jpg"] == 45
    each = plan(table, size=120, ratio=0.25, per_class=False)
    assert set(counts(each[each["split"] == "train"], "name").values()) == {18}


def test_places_reach_every_pixel_above_the_margin_and_none_below():
    crops = plan(size=20000, margin=3)
    assert (crops["row"].min(), crops["col"].min()) == (0, 0)
    assert (crops["row"] + crops["rows"]).max() == 120 - 10 - 3
    assert (crops["col"] + crops["cols"]).max() == 160
    # Uniform: every tenth of the rows has its share.
    share = np.histogram(crops["row"], bins=4, range=(0, 68))[0] / len(crops)
    assert np.abs(share - 0.25).max() < 0.02
    without_bar = plan(originals(bar_rows=0), size=20000, margin=3)
    assert (without_bar["row"] + without_bar["rows"]).max() == 120


@pytest.mark.parametrize(
    ("side", "rows", "cols"),
    [("top", (13, 120), (0, 160)), ("left", (0, 120), (13, 160)), ("right", (0, 120), (0, 160 - 13))],
)
def test_crops_keep_off_a_bar_at_any_side(side, rows, cols):
    crops = plan(originals(bar_side=side), size=20000, margin=3)
    for axis, (first, end) in (("row", rows), ("col", cols)):
        assert (crops[axis].min(), (crops[axis] + crops[axis + "s"]).max()) == (first, end)


def test_places_follow_from_seed_and_name_alone():
    table = originals()
    one = plan(table)
    pd.testing.assert_frame_equal(one, plan(table.sample(frac=1, random_state=1)))
    assert not one["row"].equals(plan(table, seed=6)["row"])
    # A class more, and as many crops of each as before, moves none of the others.
    more = plan(originals(labels=("333", "622", "811")), size=150)
    more = more[more["label"] != "622"].drop(columns="crop").reset_index(drop=True)
    a, b = (table.groupby("name")[["row", "col"]].agg(list) for table in (one, more))
    same = [
        a.loc[name, "row"] == b.loc[name, "row"]
        for name in a.index
        if len(a.loc[name, "row"]) == len(b.loc[name, "row"])
    ]
    assert len(same) > 5 and all(same)


def test_half_the_image_is_squeezed_to_a_square_as_published():
    crops = plan(pixels=None)
    assert set(crops["rows"]) == {60} and set(crops["cols"]) == {80}
    cut = cut_crops(crops.head(1), image_of, side=20).compute()
    row, col = crops.loc[0, ["row", "col"]]
    expected = image_of(crops["name"][0])[row : row + 60, col : col + 80].reshape(20, 3, 20, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(cut[0], expected, atol=0.5)


def test_one_pixel_size_makes_crops_of_one_extent_in_nanometres():
    table = originals(pixel_nm=100.0)
    table.loc[table["label"] == "811", "pixel_nm"] = 250.0
    crops = plan(table, pixel_nm=200)
    extents = crops.groupby("label")[["rows", "cols"]].agg(["min", "max"]).to_numpy()
    assert extents.tolist() == [[80] * 4, [32] * 4]
    table.loc[[1, 2], "pixel_nm"] = np.nan
    with pytest.raises(InputError) as caught:
        plan(table, pixel_nm=200)
    assert [error.where for error in caught.value.errors] == ["333/01.jpg", "333/02.jpg"]
    with pytest.raises(InputError, match=r"half an image, expected crops.pixels too"):
        plan(pixels=None, pixel_nm=200)


@pytest.mark.parametrize(("overlap", "size"), [(0.0, 60), (0.3, 160), (0.9, 160)])
def test_crops_of_an_image_share_no_more_than_allowed(overlap, size):
    # Twelve crops of 40 x 40 px fit on a grid in a 160 x 110 image; eight an image are asked for.
    crops = plan(size=size, overlap=overlap, ratio=0.2, pixels=30)
    for _, mine in crops.groupby("name"):
        down, across = (np.abs(np.subtract.outer(v, v)) for v in (mine["row"].to_numpy(), mine["col"].to_numpy()))
        shared = np.maximum(30 - down, 0) * np.maximum(30 - across, 0) / 900
        assert shared[~np.eye(len(mine), dtype=bool)].max(initial=0) <= overlap
    assert (crops["row"] + crops["rows"]).max() <= 109 and (crops["col"] + crops["cols"]).max() <= 160


def test_a_grid_is_used_where_chance_wastes_too_much_room():
    # Just six crops fit, two by three, and chance hardly ever finds them all.
    table = originals(rows=96, cols=144, bar_rows=0)
    crops = plan(table, size=60, overlap=0.0, pixels=46, ratio=0.2)
    assert max(counts(crops, "name").values()) == 6
    for _, mine in crops.groupby("name"):
        covered = np.zeros((96, 144), int)
        for row, col in zip(mine["row"], mine["col"], strict=True):
            covered[row : row + 46, col : col + 46] += 1
        assert covered.max() == 1


def test_without_room_the_image_that_lacks_most_is_named():
    # 80 crops in the four training images of each class, 20 in the two of validation and of test.
    with pytest.raises(InputError) as caught:
        plan(size=200, overlap=0.0)
    message = "crops.overlap: found room for 8 of 20 crops in 811/03.jpg, and too little room in 16 images"
    assert str(caught.value).startswith(message)


def test_images_smaller_than_a_crop_are_named():
    table = originals()
    table.loc[[0, 3], ["rows", "row1"]] = [50, 40]
    with pytest.raises(InputError) as caught:
        plan(table)
    assert str(caught.value).splitlines() == [
        f"333/0{k}.jpg: found 39 x 160 px without a bar, expected at least a crop, 40 x 40 px: decrease crops.pixels"
        for k in (0, 3)
    ]


def test_many_small_images_are_counted():
    with pytest.raises(InputError) as caught:
        plan(pixels=200)
    lines = str(caught.value).splitlines()
    assert len(lines) == 11 and lines[-1].startswith("6 more images: found the same")


def test_every_class_needs_a_crop():
    with pytest.raises(InputError, match=r"crops.size, validation: found 1 crops for 2 classes"):
        plan(size=10, ratio=0.1)


def test_crops_are_cut_where_the_plan_says():
    crops = plan(pixels=40)
    cut = cut_crops(crops, image_of, side=40).compute()
    for number, crop in enumerate(crops.itertuples()):
        image = image_of(crop.name)
        np.testing.assert_array_equal(cut[number], image[crop.row : crop.row + 40, crop.col : crop.col + 40])
    assert cut.max() < 200


def test_an_image_is_read_once_for_all_its_crops_and_only_when_needed():
    crops, read = plan(), []

    def reader(name):
        read.append(name)
        return image_of(name)

    array = cut_crops(crops, reader, side=20)
    assert array.shape == (len(crops), 20, 20) and array.dtype == np.uint8 and read == []
    first = crops["name"][0]
    with dask.config.set(scheduler="synchronous"):
        array[: (crops["name"] == first).sum()].compute()
        assert read == [first]
        array.compute()
    assert sorted(read[1:]) == sorted(set(crops["name"]))


@pytest.mark.parametrize("image", [np.zeros((60, 160), np.uint8), np.zeros((120, 160), np.uint16)])
def test_an_image_that_is_not_what_the_table_says_is_an_error(image):
    with pytest.raises(InputError, match=r"333/0\d.jpg: found uint"):
        cut_crops(plan(), lambda _: image, side=20).compute()


@pytest.mark.parametrize("shape", [(20, 20), (20, 40), (27, 33), (41, 64), (7, 9), (16, 50)])
@pytest.mark.parametrize("side", [1, 10, 16, 20])
def test_shrinking_is_the_exact_mean_over_the_area(shape, side):
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    # Every pixel is divided until the new ones are whole numbers of its parts.
    fine = np.kron(image, np.ones((side, side), dtype=np.int64))
    mean = fine.reshape(side, shape[0], side, shape[1]).mean(axis=(1, 3))
    np.testing.assert_array_equal(shrink(image, side=side), np.floor(mean + 0.5))


def test_shrinking_by_powers_of_two_is_that_of_pillow():
    image = np.random.default_rng(1).integers(0, 256, (448, 896), dtype=np.uint8)
    np.testing.assert_array_equal(shrink(image, side=224), np.asarray(Image.fromarray(image).reduce((4, 2))))


def test_shrinking_large_images_does_not_overflow():
    assert (shrink(np.full((4003, 4001), 255, np.uint8), side=2048) == 255).all()


def test_eight_bits_stay_and_sixteen_are_scaled_without_the_bar():
    image = np.random.default_rng(2).integers(0, 256, (100, 100), dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(image), image)
    wide = image.astype(np.uint16) * 50 + 3000
    bar = np.full((30, 100), 65535, np.uint16)
    scaled = to_uint8(np.concatenate([wide, bar]), area=UsableArea(0, 100, 0, 100))
    assert scaled.dtype == np.uint8
    assert np.abs(scaled[:100].astype(int) - image).max() <= 1 and (scaled[100:] == 255).all()
    # One hot pixel does not take the contrast away.
    wide[50, 50] = 65535
    assert np.abs(np.delete(to_uint8(wide).astype(int) - image, 5050)).max() <= 1
    assert not to_uint8(np.full((5, 5), 700, np.uint16)).any()


def test_a_store_of_crops_is_read_with_its_table(tmp_path):
    table = plan(size=2000)
    store = tmp_path / "crops.zarr"
    write_crops(store, cut_crops(table, image_of, side=20), table, attributes=GEOMETRY)
    expected = cut_crops(table, image_of, side=20).compute()
    for path in (store, manifest_path(store)):
        crops, read = read_crops(path)
        np.testing.assert_array_equal(crops.compute(), expected)
        pd.testing.assert_frame_equal(read, table, check_dtype=False)
    read_volume(store, verify=True)
    array = zarr.open_group(str(store), mode="r")["0"]
    assert array.chunks == (16, 20, 20) and array.metadata.dimension_names == ("crop", "y", "x")
    # Many chunks lie in few files.
    assert sum(path.is_file() for path in (store / "0" / "c").rglob("*")) <= 64 < len(table) / 16


def test_a_table_of_other_crops_is_refused(tmp_path):
    table = plan()
    store = tmp_path / "crops.zarr"
    write_crops(store, cut_crops(table, image_of, side=20), table, attributes=GEOMETRY)
    assert Path(crops_table_path(store)) == tmp_path / "crops.parquet"
    for wrong, found in (
        (table.iloc[:-1], "a table of 119"),
        (table.iloc[::-1], "a table of 120"),
        (table.drop(columns="row"), "columns crop, name"),
    ):
        write_table(crops_table_path(store), wrong)
        with pytest.raises(InputError, match=f"crops.parquet: found .*{found}"):
            read_crops(store)


def test_a_store_tells_what_its_crops_were_cut_with(tmp_path):
    store, table = tmp_path / "c.zarr", plan()
    write_crops(store, cut_crops(table, image_of, side=20), table, attributes=GEOMETRY)
    # Stores of before `min_usable` was an option have all crops.
    assert crops_geometry(store) == crops_geometry(manifest_path(store)) == GEOMETRY | {"min_usable": 0.0}
    write_volume(store, cut_crops(table, image_of, side=20), axes=("crop", "y", "x"))
    with pytest.raises(InputError, match="found no attributes that describe how the crops were cut"):
        crops_geometry(store)


def test_crops_without_particles_are_left_out_and_an_image_without_any_is_not_trained_on():
    """The right half of some images is bare; of one all but a corner."""
    table = originals(train=3, validation=1, test=1, labels=("333", "811"))
    half, corner = "/".join(["....bbbb"] * 6), "/".join(["bbbbbbbb"] * 5 + ["....bbbb"])
    table["blocks"] = "/".join(["........"] * 6)
    table.loc[table["name"].isin(["333/00.jpg", "333/04.jpg"]), "blocks"] = half
    table.loc[table["name"] == "333/01.jpg", "blocks"] = corner
    for overlap in (None, 0.9):
        crops = plan(table, size=120, min_usable=0.9, overlap=overlap)
        of_half = crops[crops["name"].isin(["333/00.jpg", "333/04.jpg"])]
        assert len(of_half) and (of_half["col"] + 0.9 * 40 <= 80).all() and of_half["col"].max() > 40
        assert "333/01.jpg" not in set(crops["name"]) and len(crops) == 120 + 24
    everything = plan(table, size=120, min_usable=0)
    assert everything[everything["name"] == "333/00.jpg"]["col"].max() > 80 and "333/01.jpg" in set(everything["name"])
    pd.testing.assert_frame_equal(everything, plan(table.drop(columns="blocks"), size=120))
    # For the test an image is never without crops: those with the most particles are taken.
    table["split"] = table["split"].replace({"train": "test", "test": "train"})
    kept = plan(table, size=120, min_usable=0.9).query("name == '333/01.jpg'")
    assert len(kept) and kept["row"].min() > 60 and kept["col"].max() <= 40
