"""Tables 1, 2, 3 and 5 of the MatPhase paper from the figures of merit of a run; rows that were not run are missing."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cathodeflow.fibsem.plots import MODELS, model_title

#: Tables of the paper: titles of the rows, and the names of the models as in config/fibsem-tables.yaml.
TABLES: dict[int, dict[str, str]] = {
    1: {"UGSM": "ugsm", "MatPhase w/o HCL-USI": "matphase_without_usi", "MatPhase": "matphase"},
    2: {
        "Only-Image": "only_image",
        "Image+UGSM-Y": "image_ugsm_y",
        "Image+UGSM-Emb": "image_ugsm_emb",
        "MatPhase": "matphase",
    },
    3: {
        "DeepLabV3": "deeplabv3",
        "MANet": "manet",
        "FCN": "fcn",
        "SegNet": "segnet",
        "U-Net": "unet",
        "U-Net++": "unetplusplus",
        "MCD U-Net": "mcd_unet",
        "Local U-Net": "local_unet",
        "ResNet-18": "resnet18",
        "Adapted-LCGAR": "adapted_lcgar",
        "MatPhase": "matphase",
    },
    5: {"LCGAR-h17": "lcgar_h17", "LCGAR-h25": "lcgar_h25", "LCGAR-h11": "matphase"},
}
CAPTIONS = {
    1: "Effect of the curricula.",
    2: "Inputs of LCGAR.",
    3: "MatPhase and other methods. Rows below MatPhase are not in the paper.",
    5: "Side of the window of LCGAR.",
}
#: Columns that describe a model rather than its segmentations.
COSTS = ("parameters", "training_s", "training_cpu_s", "inference_s")


def missing_rows(number: int, models: Sequence[str]) -> list[str]:
    """Titles of the rows of a table whose models are not among those of a run."""
    return [title for title, name in TABLES[number].items() if name not in models]


def paper_table(number: int, metrics: pd.DataFrame, costs: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Arrange figures of merit in the columns of the paper: means over the seeds.

    Parameters
    ----------
    number : {1, 2, 3, 5}
    metrics : DataFrame
        Rows of `evaluation.evaluate` (`overall`) for models, seeds and splits.
    costs : mapping
        `COSTS` by model; NaN where unknown.

    Returns
    -------
    DataFrame
        `split`, `model` (title of the row), `name`, `f1_<class>`, `accuracy_best<n>` and `accuracy_worst<n>` with
        `_deviation` over these n images, `miu`, `fiu`, each with `_seed_deviation`, the standard deviation over the
        seeds (NaN for one), `seeds`, and `COSTS`. Table 3 also has the models that are in none of the tables.
    """
    rows = dict(TABLES[number])
    if number == 3:
        known = {name for table in TABLES.values() for name in table.values()}
        # The controls of the baselines would double the table.
        further = [name for name in metrics["model"].unique() if name in MODELS or not name.endswith("_prior")]
        rows |= {model_title(name): name for name in further if name not in known}
    kept = [
        column
        for column in map(str, metrics.columns)
        if column.startswith(("f1_", "accuracy_best", "accuracy_worst")) and not column.endswith(("_low", "_high"))
    ]
    found = []
    for split in metrics["split"].unique():
        for title, name in rows.items():
            part = metrics[(metrics["split"] == split) & (metrics["model"] == name)]
            if not len(part):
                continue
            row: dict[str, Any] = {"split": split, "model": title, "name": name, **part[kept].mean()}
            for figure in ("miu", "fiu"):
                row |= {figure: part[figure].mean(), f"{figure}_seed_deviation": part[figure].std(ddof=1)}
            own = costs.get(name, {})
            row |= {"seeds": part["seed"].nunique(), **{key: own.get(key, float("nan")) for key in COSTS}}
            found.append(row)
    names = ["split", "model", "name", *kept, "miu", "miu_seed_deviation", "fiu", "fiu_seed_deviation", "seeds", *COSTS]
    return pd.DataFrame(found, columns=names)


def as_markdown(number: int, table: pd.DataFrame, missing: Sequence[str], notes: Sequence[str]) -> str:
    """Write a table in Markdown, in the columns of the paper; the best value of each figure of merit is bold.

    Parameters
    ----------
    number, table
        Of `paper_table`.
    missing : sequence of str
        Titles of the rows that were not run.
    notes : sequence of str
        Lines below the table.
    """
    f1 = [column for column in table.columns if column.startswith("f1_")]
    best, worst = (
        next(c for c in table.columns if c.startswith(f"accuracy_{end}") and not c.endswith("_deviation"))
        for end in ("best", "worst")
    )
    with_split = table["split"].nunique() > 1
    count = best.removeprefix("accuracy_best")
    head = ["Split"] * with_split + ["Model", *(f"F1 {column.removeprefix('f1_')}" for column in f1)]
    head += [f"ACC best {count} [%]", f"ACC lowest {count} [%]", "mIoU", "fIoU", "Seeds", "Parameters"]
    head += ["Training [s]", "Training, CPU [s]", "Inference [s per slice]"]
    lines = [f"Table {number}. {CAPTIONS[number]}", "", _line(head), _line(["---"] * len(head))]
    for index, row in table.iterrows():
        own = table[table["split"] == row["split"]]

        def shown(column: str, text: str, own: pd.DataFrame = own, index: Any = index) -> str:
            return f"**{text}**" if len(own) > 1 and own.loc[index, column] == own[column].max() else text

        cells = [row["split"]] * with_split + [row["model"], *(shown(c, f"{row[c]:.3f}") for c in f1)]
        cells += [shown(c, f"{100 * row[c]:.1f} ± {100 * row[f'{c}_deviation']:.1f}") for c in (best, worst)]
        cells += [shown(c, _with_spread(row[c], row[f"{c}_seed_deviation"])) for c in ("miu", "fiu")]
        cells += [str(row["seeds"]), _number(row["parameters"], ",.0f")]
        cells += [_number(row[name], ".0f") for name in ("training_s", "training_cpu_s")]
        lines.append(_line([*cells, _number(row["inference_s"], ".3f")]))
    if missing:
        lines += ["", f"Not run: {', '.join(missing)}."]
    return "\n".join([*lines, "", *notes, ""])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float, form: str) -> str:
    return "" if value != value else format(value, form)


def _with_spread(value: float, spread: float) -> str:
    return f"{value:.3f}" if spread != spread else f"{value:.3f} ± {spread:.3f}"
