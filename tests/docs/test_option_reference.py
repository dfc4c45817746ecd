"""The reference page and the editors' schema are those of the code, complete, and agree with `basicsr check`."""

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Optional

import jsonschema
import pytest

from basicsr_ext.options.basicsr_keys import SECTIONS
from basicsr_ext.options.file import load_yaml
from docs.make import page
from docs.make.describe import Key, describe_arguments, describe_dataclass, describe_opt, introduction, yaml_text
from docs.make.json_schema import json_object, json_value
from docs.make.meanings import MEANINGS, SECTION_INTROS
from tests.support.toolkit import apart

ROOT = Path(__file__).parents[2]
FILES = sorted(path for path in (ROOT / "options").glob("*.yml") if not path.stem.startswith("benchmark"))
SCHEMA = json.loads((ROOT / "docs" / "options.schema.json").read_text())
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)


def plain(file):
    return json.loads(json.dumps(load_yaml(file)))


def test_the_committed_page_and_schema_are_up_to_date(tmp_path):
    done = apart(page.main, [str(tmp_path)])  # in a process without what other tests have registered
    assert done.returncode == 0, done.stderr
    for name in ("options.md", "options.schema.json"):
        assert (tmp_path / name).read_text() == (ROOT / "docs" / name).read_text(), (
            f"docs/{name} is out of date: run `python -m docs.make.page docs`"
        )


def test_every_option_of_ours_has_a_meaning():
    heading, bare = "", []
    for line in (ROOT / "docs" / "options.md").read_text().splitlines():
        heading = line if line.startswith("### ") else heading
        if line.startswith("|") and line.replace(" ", "").endswith("||") and "(BasicSR)" not in heading:
            bare.append(f"{heading} {line}")
    assert bare == []


def test_every_option_of_basicsr_is_explained():
    assert {name: set(table) for name, table in SECTIONS.items()} == {name: set(t) for name, t in MEANINGS.items()}
    assert SECTION_INTROS.keys() == SECTIONS.keys()


def test_the_schema_is_one():
    jsonschema.Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_schema_accepts(file):
    assert [error.message for error in VALIDATOR.iter_errors(plain(file))] == []


CHANGES = {
    "unknown option of the bridge": ("bridge.beta_mx", 0.3),
    "text for a number": ("bridge.beta_max", "0.3"),
    "unknown schedule of the bridge": ("bridge.schedule", "one_clok"),
    "unknown network": ("network_g.type", "ADMUnet"),
    "unknown option of a network": ("network_g.prset", "tiny"),
    "unknown data set": ("datasets.train.type", "Paired"),
    "unknown option of a data set": ("datasets.train.gt_sze", 64),
    "unknown degradation": ("datasets.train.degradation.type", "sr4x_bicubik"),
    "unknown option of a degradation": ("datasets.train.degradation.scal", 4),
    "unknown sampler": ("val.sampler.type", "ancestor"),
    "unknown option of the sampler": ("val.sampler.nf", 4),
    "unknown metric": ("val.metrics.mine", {"type": "calculate_psnrr", "crop_border": 4}),
    "negative number of iterations": ("logger.print_freq", -1),
    "unknown option of train": ("train.ema", 0.9),
    "optimiser without a type": ("train.optim_g", {"lr": 1e-4}),
    "unknown model": ("model_type", "I2SB"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_the_schema_refuses(case):
    path, value = CHANGES[case]
    opt = copy.deepcopy(plain(ROOT / "options" / "i2sb_sr4x.yml"))
    *parents, key = path.split(".")
    block = opt
    for parent in parents:
        block = block[parent]
    block[key] = value
    assert not VALIDATOR.is_valid(opt)


# ---- reading classes


@dataclass(frozen=True)
class Inner:
    """A block of its own."""

    mode: Literal["fast", "slow"] = "fast"


@dataclass(frozen=True)
class Options:
    """Says what it is, with ``told`` explained here. A second sentence.

    Attributes:
        documented: of this section, which
            goes on: here.
        one, two: share a meaning.

    Raises:
        ValueError: never.

    """

    documented: int
    one: float = 0.5
    two: Optional[str] = None  # noqa: UP045
    commented: tuple[int, int] = (1, 2)  # beside the field
    told: bool = False
    bare: dict = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)

    def method(self) -> None:
        unrelated: int = 0  # not a field
        assert unrelated == 0


def test_meanings_come_from_sections_comments_and_sentences():
    found = {key.name: (key.default, key.meaning) for key in describe_dataclass(Options)}
    assert found == {
        "documented": ("required", "of this section, which goes on: here."),
        "one": ("0.5", "share a meaning."),
        "two": ("~", "share a meaning."),
        "commented": ("[1, 2]", "beside the field"),
        "told": ("false", "Says what it is, with `told` explained here."),
        "bare": ("{}", ""),
        "inner": ("Inner", ""),
    }


def test_an_introduction_ends_where_sections_begin():
    assert introduction(Options) == "Says what it is, with `told` explained here. A second sentence."


def test_arguments_are_described_by_docstring_and_signature():
    def network(num_feat, scale: int = 2, act="relu", *, norm=None, **rest):
        """Make a network.

        Args:
            num_feat (int): Channels.
            act (str): Name. Default: relu.
        """

    keys = {key.name: key for key in describe_arguments(network, ("norm",))}
    assert list(keys) == ["num_feat", "scale", "act"]
    assert (keys["num_feat"].default, keys["num_feat"].meaning) == ("required", "Channels.")
    assert (keys["scale"].kind, keys["scale"].default) == (int, "2")
    assert keys["act"].meaning == "Name. Default: relu."


def test_keys_of_a_data_set_are_read_from_its_docstring():
    class Photographs:
        """Photographs.

        Args:
            opt (dict): Config. It contains the following keys:
                dataroot_gt (str): Where they are,
                    and more.
                gt_size (int): Crop.
                scale (bool): Scale.
        """

    keys = describe_opt(Photographs)
    assert [(key.name, key.kind, key.meaning) for key in keys] == [
        ("dataroot_gt", str, "Where they are, and more."),
        ("gt_size", int, "Crop."),
    ]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (int, {"type": "integer"}),
        (str | None, {"type": ["string", "null"]}),
        (Literal["auto"] | int, {"anyOf": [{"enum": ["auto"]}, {"type": "integer"}]}),
        (list[float], {"type": "array", "items": {"type": "number"}}),
        (tuple[int, int], {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (dict, {"type": "object"}),
        (Inner, {"type": "object"}),
        (Any, {}),
        (Any | None, {}),
    ],
)
def test_annotations_become_schemas(kind, expected):
    assert json_value(kind) == expected


def test_a_strict_block_requires_and_refuses():
    schema = json_object([Key("a", int, "required", "An A.", 1), Key("b", str, "x")], True)
    valid = jsonschema.Draft7Validator(schema).is_valid
    assert valid({"a": 1})
    assert valid({"a": 5e3, "b": "y"})
    assert not any(valid(block) for block in ({}, {"a": 0}, {"a": "1"}, {"a": 1, "c": 2}, {"a": True}))


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "~"), (True, "true"), (0.3, "0.3"), ((1, 2.5), "[1, 2.5]"), ({"type": "disk"}, "{type: disk}"), ("", "''")],
)
def test_defaults_are_written_as_yaml(value, text):
    assert yaml_text(value) == text
