"""`l2i.config`: layers, mistakes, signatures, and back to TOML."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from l2i.config import STAGES, Config, preset_names, resolve
from l2i.data import DATASETS
from l2i.errors import ConfigError

seeded = settings(derandomize=True, deadline=None, max_examples=80, database=None)


def _file(text: str, name: str = "mine.toml") -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _problems(**how: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        resolve(**how)
    return caught.value.problems


# --- the published values ---------------------------------------------------------------------


def test_defaults_are_the_published_esc50_configuration() -> None:
    """Transform, dictionary, interpreter and thresholds as published for ESC-50."""
    c = resolve(dataset="esc50")
    assert (c.spectrogram.n_fft, c.spectrogram.hop_length, c.spectrogram.n_mels) == (1024, 512, 128)
    assert (c.dictionary.components, c.dictionary.sparsity) == (100, 0.8)
    i = c.interpreter
    assert (i.learning_rate, i.batch_size, i.epochs) == (2e-4, 32, 35)
    assert (i.lambda_reconstruction, i.lambda_fidelity, i.lambda_sparsity) == (5, 0.5, 0.4)
    assert (i.lambda_fidelity_late, i.late_epoch) == (1.0, 20)
    assert (i.maps, i.pooling, i.attention_width) == (["512", "256", "128"], "attention", 256)
    assert (c.classifier.head, c.classifier.dropout) == (256, 0.2)
    e = c.explanation
    assert (e.threshold, e.max_components, e.faithfulness_threshold) == (0.2, 5, 0.3)


def test_the_preset_of_sonyc_ust_is_the_published_one() -> None:
    """Class-wise dictionary, learning rate, epochs, weights of the positives and thresholds."""
    c = resolve(dataset="sust")
    d = c.dictionary
    assert (d.method, d.components, d.noise_components, d.sparsity) == ("class-wise", 80, 10, 0.8)
    assert (c.interpreter.learning_rate, c.interpreter.epochs) == (5e-4, 21)
    assert (c.classifier.head, c.classifier.dropout) == (512, 0.15)
    assert c.classifier.pos_weight == [1, 3, 3, 3, 3, 5, 1.5, 10]
    assert (c.explanation.threshold, c.explanation.faithfulness_threshold) == (0.3, 0.1)


def test_every_data_set_has_a_preset_that_is_valid() -> None:
    """One preset per data set, named after it, and no other."""
    assert preset_names() == sorted(DATASETS)
    for name in preset_names():
        assert resolve(dataset=name).dataset.name == name


# --- layers -----------------------------------------------------------------------------------


def test_later_layers_win() -> None:
    """Defaults, preset, file, -o, options: each wins over those before it, key by key."""
    path = _file('[dataset]\nname = "sust"\n[interpreter]\nbatch_size = 8\nepochs = 2\n')
    c = resolve(
        path,
        overrides=["interpreter.epochs=3", "run.seed=4"],
        options={"run.seed": 5, "run.name": None},
    )
    assert c.interpreter.lambda_reconstruction == 5.0  # the default
    assert c.interpreter.learning_rate == 5e-4  # the preset's
    assert c.interpreter.batch_size == 8  # the file's
    assert c.interpreter.epochs == 3  # -o, over the file
    assert c.run.seed == 5  # the option, over -o
    assert c.run.name == ""  # an option that was not given


def test_the_data_set_named_last_brings_its_preset() -> None:
    """The command line's data set wins over the file's, and so does its preset."""
    path = _file('[dataset]\nname = "sust"\n')
    assert resolve(path).dictionary.method == "class-wise"
    c = resolve(path, dataset="esc10")
    assert (c.dataset.name, c.dictionary.method) == ("esc10", "joint")
    assert resolve(overrides=["dataset.name=sust"]).dictionary.method == "class-wise"


def test_the_last_of_two_overrides_of_one_key_wins() -> None:
    """In the order of the command line."""
    assert resolve(overrides=["run.seed=1", "run.seed=2"]).run.seed == 2


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("run.name=first try", "run.name", "first try"),
        ("run.name='7'", "run.name", "7"),
        ("run.name=", "run.name", ""),
        ("run.name=a=b", "run.name", "a=b"),
        (" run.seed = 3 ", "run.seed", 3),
        ("classifier.train_trunk=false", "classifier.train_trunk", False),
        ("interpreter.learning_rate=1e-3", "interpreter.learning_rate", 1e-3),
        ('interpreter.maps=["512", "128"]', "interpreter.maps", ["512", "128"]),
        ("classifier.steps=[[10, 1e-3], [4, 1e-4]]", "classifier.steps", [[10, 1e-3], [4, 1e-4]]),
        ("classifier.augmentation.mixup=0", "classifier.augmentation.mixup", 0.0),
        ("dataset.data_dir=/sounds/ESC-10", "dataset.data_dir", "/sounds/ESC-10"),
    ],
)
def test_overrides_take_toml_and_bare_words(word: str, key: str, value: object) -> None:
    """Numbers, truth values, lists and quoted strings as in TOML; anything else is a string."""
    assert resolve(overrides=[word]).flat()[key] == value


def test_a_file_may_extend_another() -> None:
    """The other file is found beside it, is laid below it, and may itself extend one, or a
    built-in preset by its bare name."""
    _file('extends = "sust"\n[run]\nseed = 1\n[interpreter]\nepochs = 2\n', "below/base.toml")
    path = _file('extends = "below/base.toml"\n[run]\nseed = 3\n')
    c = resolve(path)
    assert (c.run.seed, c.interpreter.epochs) == (3, 2)
    assert (c.dataset.name, c.interpreter.learning_rate) == ("sust", 5e-4)


def test_parts_are_of_the_method_that_they_stand_beside() -> None:
    """Another method leaves those of what it builds on: of a preset, of a file, of a file below the
    command's words. Parts beside no method are anybody's."""
    gates = "[parts.gates]\nepochs = 3\n"
    other = '[method]\nname = "saliency"\n'
    _file('extends = "esc10"\n' + gates, "base.toml")
    assert resolve("base.toml").parts["gates"] == {"warm_epochs": 14, "epochs": 3}
    _file('extends = "base.toml"\n' + other, "other.toml")
    for config in (
        resolve(_file('extends = "esc10"\n' + other)),
        resolve("other.toml"),
        resolve("base.toml", overrides=["method.name=saliency"]),
    ):
        assert (config.method.name, config.parts) == ("saliency", {})
    own = _file('extends = "esc10"\n' + other + "[parts.mine]\nwidth = 2\n")
    assert resolve(own).parts == {"mine": {"width": 2}}
    free = _file("[parts.mine]\nwidth = 2\n")
    assert resolve(free, overrides=["method.name=saliency"]).parts == {"mine": {"width": 2}}


def test_files_that_extend_in_a_circle_are_refused() -> None:
    """With the files on the way, instead of for ever."""
    _file('extends = "two.toml"\n', "one.toml")
    _file('extends = "one.toml"\n', "two.toml")
    (problem,) = _problems(file="one.toml")
    assert "extends itself" in problem and "two.toml" in problem


# --- mistakes ---------------------------------------------------------------------------------


def test_all_mistakes_are_named_at_once() -> None:
    """From the file and the command line alike, each with its key, its value or what is meant."""
    path = _file(
        '[interpreter]\nepoch = 3\npooling = "mean"\n[run]\nseed = -1\n[spectogram]\nn_fft = 5\n'
    )
    problems = _problems(file=path, overrides=["dictionary.components=0", "nonsense"])
    assert len(problems) == 6
    text = "\n".join(problems)
    assert "-o 'nonsense' must be key=value" in text
    assert "There is no setting 'interpreter.epoch'; did you mean 'interpreter.epochs'?" in text
    assert "There is no setting 'spectogram'; did you mean 'spectrogram'?" in text
    assert "interpreter.pooling = 'mean': input should be 'attention' or 'max'." in text
    assert "run.seed = -1: " in text
    assert "dictionary.components = 0: " in text


def test_a_mistake_names_the_file_where_it_is_to_be_mended() -> None:
    """And no file where a word of the command line is to blame, or wins over the file."""
    path = _file("[interpreter]\nepoch = 3\n[run]\nseed = -1\n[classifier]\nsteps = [[0, 1e-3]]\n")
    problems = _problems(file=path, overrides=["run.seed=-2", "dictionary.components=0"])
    assert [problem.removeprefix(f"{path}: ").split(" ")[0] for problem in problems] == [
        "classifier.steps[0][0]",
        "dictionary.components",
        "There",
        "run.seed",
    ]
    assert [problem.startswith(f"{path}: ") for problem in problems] == [True, False, True, False]


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("run.sed=1", "did you mean 'run.seed'?"),
        ("epochs=1", "did you mean 'classifier.epochs'?"),
        ("zzz.yyy=1", "'l2i config show' lists them."),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest(word: str, hint: str) -> None:
    """Where there is one; else with where to look."""
    (problem,) = _problems(overrides=[word])
    assert problem.startswith("There is no setting ") and problem.endswith(hint)


@pytest.mark.parametrize(
    "word",
    [
        "spectrogram.hop_length=600",
        "spectrogram.n_fft=1001",
        "spectrogram.n_mels=200",
        "dataset.validation_share=0",
        "interpreter.maps=['64']",
        "run.device=tpu",
        "run=3",
        "run.seed.more=3",
        "interpreter.lambda_sparsity=inf",
        "interpreter.lambda_sparsity=nan",
        "interpreter.learning_rate=0",
        "classifier.steps=[[0, 1e-3]]",
        "classifier.steps=[[4, -1.0]]",
        "classifier.thresholds=[1.5]",
        "classifier.pos_weight=[-1.0]",
    ],
)
def test_values_that_cannot_be_are_refused(word: str) -> None:
    """One sentence that begins with the setting."""
    (problem,) = _problems(overrides=[word])
    section, _, leaf = word.partition("=")[0].partition(".")
    assert problem.startswith(section)
    assert leaf.removesuffix(".more") in problem
    assert problem.endswith(".")


def test_noise_nearer_than_its_loudest_is_refused() -> None:
    """The loudest lies 10 dB below a clip."""
    (problem,) = _problems(overrides=["classifier.augmentation.noise_db=5"])
    assert problem == "classifier.augmentation: noise_db 5 must be 0, or at least 10."
    assert resolve(overrides=["classifier.augmentation.noise_db=10"])


@pytest.mark.parametrize(
    "shares", ["[0.0]", "[0.5,0.25]", "[0.2,1.5]", "[-0.1,0.2]"], ids=lambda word: word
)
def test_shares_that_no_block_can_end_at_are_refused(shares: str) -> None:
    """Each ends within the training, and none before the one below it."""
    (problem,) = _problems(overrides=[f"classifier.freeze_after={shares}"])
    assert problem.startswith("classifier: freeze_after [")
    assert "learns no longer than those above it" in problem


def test_more_blocks_than_there_are_cannot_be_frozen() -> None:
    """There are six."""
    assert resolve(overrides=["classifier.freeze_after=[0.1,0.2,0.2,0.3,0.5,1.0]"])
    (problem,) = _problems(overrides=[f"classifier.freeze_after={[0.5] * 7}"])
    assert problem.startswith("classifier.freeze_after")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "There is no config file"),
        ("a = = 3", "is not TOML"),
        ("extends = 3", "must be the name of one file"),
        ('extends = "absent.toml"', "extends 'absent.toml', which is neither a file ("),
        ("dataset = 3", "dataset = 3: "),
    ],
)
def test_files_that_cannot_be_read_are_refused(text: str | None, words: str) -> None:
    """Absent, not TOML, or of another shape: one sentence, no traceback."""
    if text is not None:
        _file(text)
    (problem,) = _problems(file="mine.toml")
    assert words in problem


def test_a_file_that_is_not_text_is_refused() -> None:
    """Bytes that are not UTF-8, or a folder."""
    Path("mine.toml").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in _problems(file="mine.toml")[0]
    Path("folder.toml").mkdir()
    assert "cannot be read" in _problems(file="folder.toml")[0]


def test_a_config_cannot_be_changed() -> None:
    """Once resolved, it stays what its signature says."""
    c = resolve()
    with pytest.raises(ValidationError):
        c.run.seed = 3


# --- back to TOML -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", preset_names())
def test_toml_reads_back_to_an_equal_tree(name: str) -> None:
    """Every preset, with lists and unset values: the same tree and the same signature."""
    c = resolve(
        dataset=name,
        overrides=["classifier.steps=[[2, 1e-5]]", "classifier.thresholds=[0.6, 0.5]"],
    )
    back = resolve(_file(c.to_toml()))
    assert back == c
    assert back.signature() == c.signature()


@seeded
@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.floats(0, 1e6, allow_subnormal=False),
    st.floats(1e-12, 1.0),
)
@example('\x7f \\ " \n \u2028 é 🎧', 1e6, 1e-12)
def test_any_name_and_number_reads_back(name: str, penalty: float, rate: float) -> None:
    """Quotes, backslashes, control characters and other scripts in a name; any finite number."""
    c = Config.model_validate(
        {
            "run": {"name": name},
            "interpreter": {"lambda_sparsity": penalty, "learning_rate": rate},
        }
    )
    assert Config.model_validate(tomllib.loads(c.to_toml())) == c


# --- signatures -------------------------------------------------------------------------------

_OTHER: dict[str, Any] = {
    "explanation.warn.chance": 2.0,
    "dataset.name": "esc10",
    "dataset.data_dir": "elsewhere",
    "dataset.sample_rate": 16000,
    "dataset.duration_s": 2.0,
    "dataset.clips_per_class": 7,
    "dataset.limit": 9,
    "classifier.weights": "w.safetensors",
    "classifier.audioset_weights": "a.pkl",
    "classifier.augmentation.noise_db": 60.0,
    "classifier.precision": "bfloat16",
    "classifier.width": 0.5,
    "classifier.freeze_after": [0.5],
    "classifier.optimizer": "adam",
    "classifier.schedule": "steps",
    "classifier.steps": [(1, 1e-3)],
    "classifier.pos_weight": [2.0],
    "classifier.thresholds": [0.25],
    "dictionary.weights": "d.safetensors",
    "dictionary.method": "class-wise",
    "explanation.thresholds": [0.5],
    "interpreter.head_learning_rate": 2e-3,
    "interpreter.maps": ["512"],
    "interpreter.network": "general",
    "interpreter.layers": ["conv1"],
    "classifier.spec": "mine.py:load",
    "method.name": "saliency",
    "explanation.metrics": ["mine.py:Metric"],
    "explanation.rule": "published",
    "interpreter.pooling": "max",
    "spectrogram.n_fft": 2048,
    "spectrogram.n_mels": 256,
    "run.device": "cuda",
    "run.precision": "bfloat16",
    "run.experiment": "other",
    "run.name": "other",
}
_NOT_SCIENCE = {
    "dataset.data_dir",
    # Its content is, see `l2i.recipes.training.train`.
    "classifier.spec",
    # It says which method, where that has two rules.
    "explanation.rule",
    *(key for key in Config().flat() if key.startswith("explanation.warn.")),
    "output.clips",
    "run.device",
    "run.threads",
    "run.checkpoint_minutes",
    "run.experiment",
    "run.name",
}


def _changed(key: str) -> Config:
    """The default tree with another value of one key."""
    value = resolve().flat()[key]
    if key in _OTHER:
        other = _OTHER[key]
    elif isinstance(value, bool):
        other = not value
    else:
        other = value + 1 if isinstance(value, int) else value / 2 + 0.01
    tree = Config().model_dump()
    node = tree
    *parents, leaf = key.split(".")
    for part in parents:
        node = node[part]
    assert node[leaf] != other
    node[leaf] = other
    return Config.model_validate(tree)


@pytest.mark.parametrize("key", list(Config().flat()))
def test_the_signature_is_of_the_science_and_nothing_else(key: str) -> None:
    """Another value of a setting is another experiment, except where it only says where and how;
    a stage's signature changes only with what the stage reads."""
    base, other = Config(), _changed(key)
    assert (base.signature() == other.signature()) == (key in _NOT_SCIENCE)
    for stage, sections in STAGES.items():
        reads = key.split(".")[0] in sections and key not in _NOT_SCIENCE
        assert (base.signature(stage) != other.signature(stage)) == reads, stage


def test_settings_that_came_later_leave_the_signatures_of_earlier_runs() -> None:
    """Unset, they are no part of it: a run of before is found again."""
    assert Config().signature() == "08c9eca32cb6"


def test_signatures_are_short_and_the_same_everywhere() -> None:
    """Twelve hexadecimal digits that depend on values alone: not on the order in which they were
    given, nor on this process."""
    a = resolve(overrides=["run.seed=1", "dictionary.components=8"])
    b = resolve(_file("[dictionary]\ncomponents = 8\n[run]\nseed = 1\n"))
    assert a.signature() == b.signature()
    assert len(a.signature()) == 12 and int(a.signature(), 16) >= 0
    assert len({a.signature(), *(a.signature(stage) for stage in STAGES)}) == 4


def test_the_published_rule_is_the_published_method() -> None:
    """A preset's gates are left out, and the run is that of method l2i; a method of one's own has
    no gates either."""
    usual, rule = resolve(dataset="demo"), resolve(overrides=["explanation.rule=published"])
    named = resolve(dataset="demo", overrides=["method.name=l2i"])
    assert usual.method.name == "gated-l2i" and set(usual.parts) == {"gates"}
    assert rule.method.name == named.method.name == "l2i" and not rule.parts and not named.parts
    assert rule.signature() == named.signature() != usual.signature()
    for stage in STAGES:  # What is learnt before the gates is learnt once.
        assert usual.signature(stage) == rule.signature(stage)


@pytest.mark.parametrize("key", ["run.seed", "classifier.batch_size", "run.threads"])
def test_numbers_that_torch_does_not_take_are_refused(key: str) -> None:
    """It has 64 bits for most."""
    (problem,) = _problems(overrides=[f"{key}={2**63}"])
    assert problem.startswith(key)
