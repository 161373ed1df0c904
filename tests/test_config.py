import dataclasses
import re
from dataclasses import field
from pathlib import Path

import pytest

from generation.config import config, load_config, to_yaml
from generation.errors import ConfigError, MissingFileError, TerrascapeError


@config
class Loop:
    lr: float = 1e-4
    num_steps: int = 100
    resume: bool = False


@config
class Run:
    """A small run."""

    name: str
    loop: Loop = field(default_factory=Loop)
    widths: tuple[int, ...] = (32, 64)
    out: Path = Path("runs")
    note: str | None = None
    warmup: Loop | None = None

    def __post_init__(self):
        if self.loop.num_steps == 13:
            raise ConfigError("num_steps=13 is unlucky (take 12)")


def write(folder, text):
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def mistakes_of(folder, text, overrides=()):
    with pytest.raises(ConfigError) as caught:
        load_config(Run, write(folder, text), overrides)
    return str(caught.value)


def test_defaults_stay_where_the_file_is_silent(tmp_path):
    cfg = load_config(Run, write(tmp_path, "name: nano\nloop:\n  lr: 2e-3\n"))
    assert cfg == Run(name="nano", loop=Loop(lr=2e-3))


def test_a_scientific_number_without_a_point_is_a_number(tmp_path):
    for text in ("3e-4", "3E-4", "3.e-4", "+3e-04", "3.0e-4"):
        assert load_config(Run, write(tmp_path, f"name: x\nloop: {{lr: {text}}}")).loop.lr == 3e-4


@pytest.mark.parametrize("word", ["no", "NO", "yes", "on", "off", "n", "y"])
def test_only_true_and_false_are_switches(tmp_path, word):
    assert load_config(Run, write(tmp_path, f"name: {word}")).name == word
    assert load_config(Run, write(tmp_path, "name: x"), [f"note={word}"]).note == word


def test_lists_become_tuples_and_text_becomes_paths(tmp_path):
    cfg = load_config(Run, write(tmp_path, "name: x\nwidths: [1, 2]\nout: a/b"))
    assert cfg.widths == (1, 2)
    assert cfg.out == Path("a/b")


def test_json_is_read_too(tmp_path):
    assert load_config(Run, write(tmp_path, '{"name": "j", "loop": {"lr": 1e-5}}')).loop.lr == 1e-5


def test_overrides_win_in_order(tmp_path):
    path = write(tmp_path, "name: x\nloop: {lr: 1.0}")
    cfg = load_config(Run, path, ["loop.lr=3e-4", "loop.lr=5e-4", "widths=[7]", "note=a=b"])
    assert (cfg.loop.lr, cfg.widths, cfg.note) == (5e-4, (7,), "a=b")


def test_what_is_written_is_read_back_equal(tmp_path):
    cfg = Run(name="été", loop=Loop(lr=3e-7, resume=True), out=Path("x/y"), note="no", widths=())
    assert load_config(Run, write(tmp_path, to_yaml(cfg))) == cfg


def test_all_mistakes_are_told_at_once(tmp_path):
    text = (
        "name: 3\nloop:\n  lr: fast\n  num_step: 5\nwidths: [1, two]\nname2: x\nnote: a\nnote: b\n"
    )
    message = mistakes_of(tmp_path, text, ["loop.lr.deep=1", "nonsense", "colour=red"])
    for part in (
        "9 mistakes",
        "name: 3 was given",
        "loop.lr: 'fast' was given",
        "loop.num_step: unknown key (did you mean 'num_steps'?",
        "widths.1: 'two' was given",
        "name2: unknown key (did you mean 'name'?",
        "note: given twice",
        "loop.lr is a value and not a section",
        "override 'nonsense': not key=value",
        "colour: unknown key",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name: x\nloop: {num_steps: true}", "loop.num_steps: True"),
        ("name: x\nloop: {num_steps: 1.5}", "loop.num_steps: 1.5"),
        ("name: x\nloop: {num_steps: '5'}", "loop.num_steps: '5'"),
        ("name: x\nloop: {resume: 1}", "loop.resume: 1"),
        ("name: x\nloop: {lr: .nan}", "loop.lr: nan was given .*finite"),
        ("name: x\nloop: {lr: .inf}", "loop.lr: inf was given .*finite"),
        ("name: FALSE", "name: False was given"),
        ("loop: {lr: 1.0}", "name: not given"),
        ("", "name: not given"),
        ("name: x\nloop: {num_steps: 13}", "unlucky"),
        ("name: x\nwarmup: {lrr: 1.0}", "warmup.lrr: unknown key .*'lr'"),
    ],
)
def test_a_value_is_never_converted_in_silence(tmp_path, text, reason):
    with pytest.raises(ConfigError, match=reason):
        load_config(Run, write(tmp_path, text))


@pytest.mark.parametrize("text", ["- a\n- b", "just words", "a: [1", "\x00"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        load_config(Run, write(tmp_path, text))


def test_yaml_cannot_build_objects(tmp_path):
    with pytest.raises(ConfigError, match="not YAML"):
        load_config(Run, write(tmp_path, "name: !!python/object/apply:os.getcwd []"))


LAUGHS = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[a, b]: 1", r"not YAML: a sequence is used as a key.*line 1.*mend the line"),
        ("name: x\n? {a: 1}\n: 2", r"not YAML: a mapping is used as a key.*line 2.*mend the line"),
        ("name: x\n2024-01-01: 3", r"2024-01-01: unknown key \(known here: name, loop"),
        ("name: x\nNO: 3", r"NO: unknown key \(known here"),
        ("name: &a [*a]", r"name leads to more than 20 levels.*take out the anchor"),
        ("name: x\nloop: &l {lr: *l}", r"loop leads to more than 20 levels.*take out the anchor"),
        (f"name: x\na0: &a0 [x]\n{LAUGHS}", r"a9 leads to more than .* 10000 values \(shorten it"),
        (f"name: {'[' * 25}{']' * 25}", r"name leads to more than 20 levels.*shorten it"),
        (f"name: {'[' * 3000}", r"not YAML: more than 20 brackets.*mend"),
        (f"name: {'9' * 5000}", r"'999.*…\(5002 characters\) cannot be read as int.*line 1.*mend"),
        (f"name: 0x{'f' * 5000}", r"name: a number without end was given \(.* 2\^63"),
        ("name: 2024-13-45", r"'2024-13-45' cannot be read as timestamp.*mend the line"),
        ("name: !!bool perhaps", r"'perhaps' cannot be read as bool.*mend the line"),
        ("name: !!set {a, b}", r"name: {.*} was given \(write text, a number or a list"),
        ('name: "a\\0b"', r"name: 'a\\x00b' was given .*take it out"),
        ('name: x\n"\\ud800": 3', r"'\\ud800' was given .*take it out"),
        (f"name: x\n{'y' * 99}: 3", r"'y{39}…\(101 characters\): unknown key"),
    ],
)
def test_yaml_that_leads_nowhere_is_refused_with_a_cure(tmp_path, text, reason):
    told = mistakes_of(tmp_path, text)
    assert re.search(reason, told, re.DOTALL), told
    assert len(told) < 400


@pytest.mark.parametrize("number", [10**400, 2**63, -(10**400)])
@pytest.mark.parametrize("field", ["num_steps", "lr"])
def test_a_whole_number_beyond_64_bits_is_refused(tmp_path, field, number):
    allowed = "was given (a whole number lies between -2^63 and 2^63)"
    assert allowed in mistakes_of(tmp_path, f"name: x\nloop: {{{field}: {number}}}")
    assert allowed in mistakes_of(tmp_path, "name: x", [f"loop.{field}={number}"])


def test_the_largest_whole_number_is_taken(tmp_path):
    text = f"name: x\nloop: {{num_steps: {2**63 - 1}}}"
    assert load_config(Run, write(tmp_path, text)).loop.num_steps == 2**63 - 1


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        (f"name={'9' * 5000}", r"override 'name=9+…\(5007 characters\): .* is not YAML \(quote"),
        (f"name={'[' * 3000}", r"override 'name=\[+….* is not YAML \(quote the value"),
        ("loop.lr=&a [*a]", r"loop leads to more than 20 levels"),
        (f"{'a.' * 3000}b=1", r"a leads to more than 20 levels"),
        ("[a]=1", r"\[a\]: unknown key"),
    ],
)
def test_an_override_that_leads_nowhere_is_refused(tmp_path, override, reason):
    told = mistakes_of(tmp_path, "name: x", [override])
    assert re.search(reason, told), told
    assert len(told) < 400


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match="absent"):
        load_config(Run, tmp_path / "absent.yaml")
    with pytest.raises(MissingFileError, match=r"name too long \(check its name"):
        load_config(Run, tmp_path / ("x" * 5000))


def test_a_configuration_cannot_be_changed_and_takes_names_only():
    cfg = Run(name="x")
    with pytest.raises(dataclasses.FrozenInstanceError):
        cfg.name = "y"
    with pytest.raises(TypeError):
        Run("x")


def test_only_configurations_are_written():
    with pytest.raises(TerrascapeError, match="no configuration"):
        to_yaml({"a": 1})
